"""The interface of a reference: what the policy is compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import torch

from .._errors import CheckpointError, ConfigError

# What a reference may keep in a checkpoint: tensors go to safetensors, the rest to JSON.
State = dict[str, Any]
# A collated batch, as TRL's collator makes it: `input_ids`, `attention_mask`, `completion_mask`, chosen rows first.
Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Policy:
    """What is known of the policy before its weights load.

    Attributes:
        path: Directory or hub id it is loaded from; None if it was passed as a model that has no name.
        config: Its transformers config.
        processing_class: Its tokenizer.
    """

    path: str | None
    config: Any
    processing_class: Any


class Logps(NamedTuple):
    """Log-probabilities of a batch of pairs, in nats.

    Attributes:
        chosen, rejected: Sums over tokens, each (pairs,).
        tokens: Those of every token, (2 pairs, length - 1), chosen rows first; None if they are not known.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    tokens: torch.Tensor | None = None


class Host(Protocol):
    """What a reference may use of the trainer that holds it: TRL's public names, nothing else.

    Attributes:
        model: The policy, before it is wrapped for distribution; a `PeftModel` when adapters are trained.
        ref_model: The second set of weights, frozen and prepared like the policy; None if none is held.
        accelerator: Accelerate's `Accelerator`; `unwrap_model` and `is_main_process` are of use.
        args: The training arguments.
        state: The trainer's state; `global_step` counts optimizer steps.
        processing_class: The tokenizer.
    """

    model: torch.nn.Module
    ref_model: torch.nn.Module | None
    accelerator: Any
    args: Any
    state: Any
    processing_class: Any

    def reference_logps(self, model: torch.nn.Module, inputs: Batch, *, adapter_on: bool = False) -> Logps:
        """Log-probabilities of a batch under `model`, without gradients.

        Where the policy has adapters and there is no `ref_model`, the adapter is off while `model` runs, or the one
        named "ref" is on; with `adapter_on` it stays as it is.
        """
        ...


class Reference(ABC):
    """What the policy is compared with: its start, nothing, a checkpoint, a soup, its own past, a moving average.

    The trainer never asks which kind it has. It reads the three flags, loads what `source` names, and calls the hooks
    in this order: `check` (before any weights load), `source`, `setup` (weights are there), `load_state_dict` (only
    when a run is resumed), then per optimizer step `on_step_begin`, `logps` (once per micro-batch), `on_step_end`;
    `state_dict` with each checkpoint. Every hook runs on every process, in step.

    Attributes:
        needs_model: Log-probabilities of a second set of weights are needed. False: `logps` may return None, no second
            model is loaded, and only losses without a reference can be trained.
        fixed: The log-probabilities of a pair never change, so they may be computed before training.
        is_start: The reference is the policy as training starts, so that log-ratios are changes since the start.
        builds_on_start: Its weights are the policy's as training starts, or begin there and are kept beside.
        generates_winners: With winners alone, some of them are replaced by what the reference generates.
        registered_as: The class's name in expressions, which `register_reference` gives it.
    """

    needs_model: ClassVar[bool] = True
    fixed: ClassVar[bool] = True
    is_start: ClassVar[bool] = False
    builds_on_start: ClassVar[bool] = True
    generates_winners: ClassVar[bool] = False
    registered_as: ClassVar[str] = ""

    _host: Host | None = None

    @property
    @abstractmethod
    def identity(self) -> str:
        """One line that says what the reference is, for the log, the model card and the run's record."""

    @property
    def expression(self) -> str:
        """Text that `parse_reference` reads back to an equal reference: here, the name with all fields.

        Raises:
            ConfigError: The class is not registered.
        """
        if not (self.registered_as and is_dataclass(cast("Any", self))):
            raise ConfigError(
                f"`{type(self).__name__}` has no name in expressions; make it a dataclass, decorated with "
                "`@register_reference('name')`."
            )
        values = {each.name: getattr(self, each.name) for each in fields(cast("Any", self))}
        given = ", ".join(f"{key}={list(v) if isinstance(v, tuple) else v!r}" for key, v in values.items())
        return f"{self.registered_as}({given})" if given else self.registered_as

    def check(self, policy: Policy) -> None:  # noqa: B027 - a hook: most references have nothing to check
        """Refuse what cannot work, before any weights load.

        Raises:
            CheckpointError: The reference does not fit the policy.
        """

    def source(self, policy: Policy) -> str | None:
        """Directory or hub id that the second model is loaded from; None: the policy as it starts.

        With None and adapters, no second model is loaded where the policy's own weights can serve: the adapter is
        turned off (a fresh adapter), or a frozen copy of it named "ref" is used (an adapter that is trained further).
        """
        return None

    def setup(self, host: Host) -> None:
        """Take the trainer; policy and second model are loaded and prepared, training has not begun."""
        self._host = host

    @property
    def host(self) -> Host:
        """The trainer that holds this reference."""
        assert self._host is not None, "setup(trainer) comes first"
        return self._host

    def logps(self, inputs: Batch) -> Logps | None:
        """Reference log-probabilities of a batch."""
        host = self.host
        return host.reference_logps(host.model if host.ref_model is None else host.ref_model, inputs)

    @contextmanager
    def serving(self) -> Iterator[torch.nn.Module]:
        """Within, the module that is given computes as the reference, for generating with it; unwrapped."""
        host = self.host
        policy: Any = host.accelerator.unwrap_model(host.model)
        adapters = getattr(policy, "peft_config", None)
        if host.ref_model is not None:
            yield host.accelerator.unwrap_model(host.ref_model)
        elif adapters is None:
            raise CheckpointError(
                f"The reference {self.expression!r} cannot generate: its weights are not held during training. "
                "Leave out `precompute_ref_log_probs`."
            )
        elif "ref" not in adapters:
            with policy.disable_adapter():
                yield policy
        else:
            trained = policy.active_adapter
            policy.set_adapter("ref")
            try:
                yield policy
            finally:
                policy.set_adapter(trained)

    def casts(self, rows: int, seed: int) -> Sequence[tuple[int | None, int]]:
        """Which versions of the reference make the completions of rows of winners: (winner, loser) for each.

        A winner that is None is the data's own.
        """
        return [(None, self.version)] * rows

    @contextmanager
    def at(self, version: int) -> Iterator[None]:
        """Within, the reference has the weights of one of the versions that `casts` names."""
        assert version == self.version, "this reference has one version at a time"
        yield

    def next_change(self, step: int) -> int | None:
        """The next step, after `step`, at which the reference's weights may change; None if they never do."""
        return None if self.fixed else step + 1

    @property
    def version(self) -> int:
        """A number that tells the reference's weights of different times apart; 0 if they are always the same."""
        return 0 if self.fixed else int(self.host.state.global_step)

    def metrics(self) -> dict[str, float]:
        """What is worth logging with every batch, equal on all processes."""
        return {}

    def on_step_begin(self, step: int) -> None:  # noqa: B027 - a hook: fixed references have nothing to do
        """Called before an optimizer step; `step` is the number of steps done, from 0."""

    def on_step_end(self, step: int) -> None:  # noqa: B027 - a hook: fixed references have nothing to do
        """Called after an optimizer step; `step` is the number of steps done, from 1."""

    def state_dict(self) -> State:
        """What a resumed run needs besides `expression`: full (unsharded) tensors and JSON values, by name."""
        return {}

    def load_state_dict(self, state: State) -> None:  # noqa: B027 - a hook: most references keep no state
        """Take back what `state_dict` gave; `setup` was called before.

        Raises:
            CheckpointError: The state does not belong to this reference.
        """

    def save_files(self, folder: Path) -> None:  # noqa: B027 - a hook: most references keep no files
        """Put files that a resumed run needs into a checkpoint's folder; called before `state_dict`."""

    def load_files(self, folder: Path) -> None:  # noqa: B027 - a hook: most references keep no files
        """Take back what `save_files` put there; called before `load_state_dict`.

        Raises:
            CheckpointError: Files are missing or damaged.
        """

    def __str__(self) -> str:
        return self.identity
