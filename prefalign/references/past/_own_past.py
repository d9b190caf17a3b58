"""What a reference on the policy's own past has in common: snapshots on disk, and one extra model to load them into."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch

from ..._errors import CheckpointError
from .._base import Batch, Host, Logps, Reference, State
from .._sharding import is_sharded, local, reshard, trained_weights
from ._snapshots import Snapshots

PAST_FOLDER = "prefalign_past"


class OwnPast(Reference):
    """A reference whose weights are one of the policy's own snapshots.

    A snapshot is taken before the first optimizer step and then wherever `_takes` says; `_kept` of them stay on disk,
    and `_draw` says which one the reference is.
    """

    fixed: ClassVar[bool] = False
    builds_on_start: ClassVar[bool] = False  # snapshots are of all that is trained, and are put in its place

    _drawn: int | None = None
    _adapter: dict[str, torch.Tensor] | None = None

    @abstractmethod
    def _takes(self, step: int) -> bool:
        """Whether a snapshot is taken before the optimizer step `step`, from 1."""

    @abstractmethod
    def _kept(self, steps: list[int]) -> list[int]:
        """Those of all snapshots, ascending, that may be needed again."""

    @abstractmethod
    def _draw(self, step: int) -> int:
        """The snapshot that scores in a step; the same on every process, and after a resume."""

    @property
    def version(self) -> int:
        """The step before which the drawn snapshot was taken."""
        return self._drawn or 0

    def setup(self, host: Host) -> None:
        super().setup(host)
        if any(hasattr(parameter, "ds_id") for parameter in host.model.parameters()):
            raise CheckpointError(
                "Snapshots cannot be taken of a policy that DeepSpeed ZeRO-3 shards. Use FSDP2, or ZeRO-2."
            )
        self._drawn, self._adapter = None, None

    def on_step_begin(self, step: int) -> None:
        if step == 0:  # a new run: what lies there is another one's
            self._drawn = None
            self._alone(lambda store: store.keep(()))
        if step == 0 or self._takes(step):
            weights = self._weights(self._policy)
            self._alone(lambda store: store.write(step, weights))
            self._alone(lambda store: store.keep(self._kept(store.steps)))
        self._load(self._draw(step))

    @contextmanager
    def at(self, version: int) -> Iterator[None]:
        drawn = self.version
        if version == drawn:  # in an evaluation before the first step there is no snapshot yet
            yield
            return
        self._load(version)
        try:
            yield
        finally:
            self._load(drawn)

    @contextmanager
    def serving(self) -> Iterator[torch.nn.Module]:
        if self.host.ref_model is not None:
            with super().serving() as model:
                yield model
        else:
            with self._in_place():
                yield self._policy

    def logps(self, inputs: Batch) -> Logps | None:
        host = self.host
        if host.ref_model is not None:
            return super().logps(inputs)
        with self._in_place():
            return host.reference_logps(host.model, inputs, adapter_on=True)

    def save_files(self, folder: Path) -> None:
        self._alone(lambda store: store.copy_to(folder / PAST_FOLDER))

    def load_files(self, folder: Path) -> None:
        part = self._part
        self._alone(lambda store: Snapshots(folder / PAST_FOLDER, part).copy_to(store.folder))

    def state_dict(self) -> State:
        store = self._store
        return {"drawn": self._drawn, "sha256": {str(step): store.sha256(step) for step in store.steps}}

    def load_state_dict(self, state: State) -> None:
        store, saved = self._store, state.get("sha256")
        missing = [step for step in saved or () if int(step) not in store.steps]
        if not isinstance(saved, dict) or not saved or missing:
            lost = f"those of step {', '.join(missing)} are not there" if missing else "it names none"
            raise CheckpointError(
                f"The checkpoint must hold the policy's snapshots in `{PAST_FOLDER}`, but {lost}. Resume from another "
                "checkpoint, and with as many processes as the run began with."
            )
        if self.host.accelerator.is_main_process:
            changed = [step for step, value in saved.items() if store.sha256(int(step)) != value]
            if changed:
                raise CheckpointError(
                    f"The snapshot of step {changed[0]} in {str(store.folder)!r} is not the one that the checkpoint "
                    "was saved with. Resume from another checkpoint."
                )
        self._load(int(state["drawn"]))

    @property
    def _policy(self) -> Any:
        return self.host.accelerator.unwrap_model(self.host.model)

    @property
    def _part(self) -> str:
        accelerator = self.host.accelerator
        sharded = is_sharded(trained_weights(self._policy))
        return f"rank-{accelerator.process_index}-of-{accelerator.num_processes}" if sharded else ""

    @property
    def _store(self) -> Snapshots:
        return Snapshots(Path(self.host.args.output_dir) / PAST_FOLDER, self._part)

    def _alone(self, act: Callable[[Snapshots], None]) -> None:
        """Change the folder: one process for all, or each its own share; then all go on."""
        if self._part or self.host.accelerator.is_main_process:
            act(self._store)
        self.host.accelerator.wait_for_everyone()

    def _weights(self, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        return {name: local(weight) for name, weight in trained_weights(model).items()}

    @torch.no_grad()
    def _load(self, step: int) -> None:
        if step == self._drawn:
            return
        trained = self._weights(self._policy)
        if self.host.ref_model is not None:
            second = self.host.accelerator.unwrap_model(self.host.ref_model)
            reshard(second)
            own = {name: local(parameter) for name, parameter in second.named_parameters()}
            targets = {name: own[name] for name in trained}
        else:
            if self._adapter is None:
                self._adapter = {name: weight.clone() for name, weight in trained.items()}
            targets = self._adapter
        self._store.read_into(step, targets)
        self._drawn = step

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Within, the policy's adapter is the past one; until there is a past, it is the policy's own."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        if self._adapter is None:
            return
        for name, weight in self._weights(self._policy).items():
            kept = self._adapter[name].clone()
            self._adapter[name].copy_(weight)
            weight.copy_(kept)
