"""The policy's own past as the reference: snapshots of it, one of which generates and scores (SePPO, SPIN)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch

from .._errors import CheckpointError
from ._base import Batch, Host, Reference, State
from ._snapshots import Snapshots, is_sharded, local, trained_weights

Choose = Literal["random", "latest", "initial"]
Redraw = Literal["round", "batch"]
PAST_FOLDER = "prefalign_past"


@dataclass
class PastCheckpoints(Reference):
    """One of the policy's own snapshots, which both scores the pairs and, where data hold winners alone, generates.

    A snapshot is taken before the first optimizer step and then every `every` steps: snapshots 0 ... k-1 after
    (k-1)*every steps. They hold what is trained (with LoRA the adapter alone), lie in `prefalign_past` in the output
    folder, and belong to every checkpoint. In memory there is one extra model, with LoRA one extra adapter, which the
    drawn snapshot is loaded into.

    Args:
        keep: How many of the latest snapshots `choose="random"` draws from, 1 or more; older ones are deleted.
        every: Optimizer steps from one snapshot to the next, 1 or more.
        choose: "random": each of the last `keep` snapshots with the same probability (SePPO); "latest" (SPIN);
            "initial": always the first.
        redraw: With "random", draw once for each "round", when a snapshot was taken, or before each optimizer step
            ("batch"), which loads a snapshot and generates for every single step.
        seed: Of the draws, 0 or more.

    Raises:
        CheckpointError: An argument is out of range or would have no effect; later: a snapshot cannot be written, or
            is damaged.

    Example:
        >>> PastCheckpoints(keep=7, every=30).expression
        "past(keep=7, every=30, choose='random', redraw='round', seed=0)"

    Source: Zhang et al. 2024, arXiv:2410.05255 (7 snapshots, one per 30 updates). Departure: there the number of
    snapshots is the length of the training; here training goes on, and older ones are forgotten.
    """

    keep: int = 7
    every: int = 30
    choose: Choose = "random"
    redraw: Redraw = "round"
    seed: int = 0

    fixed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._drawn: int | None = None
        self._adapter: dict[str, torch.Tensor] | None = None
        for name, least in (("keep", 1), ("every", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise CheckpointError(f"`{name}` must be a whole number, {least} or more (got {value!r}).")
        for name, words in (("choose", get_args(Choose)), ("redraw", get_args(Redraw))):
            if getattr(self, name) not in words:
                known = ", ".join(map(repr, words))
                raise CheckpointError(f"`{name}` must be one of {known} (got {getattr(self, name)!r}).")
        if self.redraw == "batch" and self.choose != "random":
            raise CheckpointError(
                f"`redraw='batch'` would have no effect with `choose={self.choose!r}`, which never draws. Leave it out."
            )

    @property
    def identity(self) -> str:
        if self.choose == "initial":
            return "past: the policy's first snapshot, taken before the first step"
        often = f"taken every {self.every} steps"
        if self.choose == "latest":
            return f"past: the policy's latest snapshot, {often}"
        when = "each round of these" if self.redraw == "round" else "each step"
        return f"past: one of the policy's last {self.keep} snapshots, {often}, drawn for {when} (seed {self.seed})"

    @property
    def expression(self) -> str:
        return (
            f"past(keep={self.keep!r}, every={self.every!r}, choose={self.choose!r}, redraw={self.redraw!r}, "
            f"seed={self.seed!r})"
        )

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
        if step == 0 or (step % self.every == 0 and self.choose != "initial"):
            weights = self._weights(self._policy)
            self._alone(lambda store: store.write(step, weights))
            self._alone(lambda store: store.keep(store.steps[-self._kept :]))
        self._load(self._draw(step))

    def next_change(self, step: int) -> int | None:
        if self.choose == "initial":
            return None
        return step + 1 if self.redraw == "batch" else (step // self.every + 1) * self.every

    def metrics(self) -> dict[str, float]:
        return {"reference/staleness": float(self.host.state.global_step - self.version)}

    @contextmanager
    def serving(self) -> Iterator[torch.nn.Module]:
        if self.host.ref_model is not None:
            with super().serving() as model:
                yield model
        else:
            with self._in_place():
                yield self._policy

    def logps(self, inputs: Batch) -> tuple[torch.Tensor, torch.Tensor] | None:
        host = self.host
        if host.ref_model is not None:
            return super().logps(inputs)
        with self._in_place():
            # With a second model TRL leaves the adapter on; here that model is the policy with the past adapter.
            host.ref_model = host.model
            try:
                return host.compute_ref_log_probs(host.model, inputs)
            finally:
                host.ref_model = None

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
    def _kept(self) -> int:
        return self.keep if self.choose == "random" else 1

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

    def _draw(self, step: int) -> int:
        """The snapshot of a step; the same on every process, and after a resume."""
        steps = self._store.steps
        if self.choose != "random":
            return steps[-1]
        # Each draw has a generator of its own, so that no state has to be kept.
        number = step if self.redraw == "batch" else step // self.every
        return steps[int(np.random.default_rng([self.seed, number]).integers(len(steps)))]

    @torch.no_grad()
    def _load(self, step: int) -> None:
        if step == self._drawn:
            return
        trained = self._weights(self._policy)
        if self.host.ref_model is not None:
            second = self.host.accelerator.unwrap_model(self.host.ref_model)
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
