"""References that follow the policy: the moving average of TR-DPO, and its bias-corrected relative BEMA."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..._errors import CheckpointError
from ..._numbers import check_number
from .._base import Batch, Host, Logps, Reference, State
from .._parse import register_reference
from .._sharding import copy_full, full, sharded_like
from ._weights import AdapterSlots, ModelSlots, Slots


class _Following(Reference):
    """A reference whose weights follow the policy's, and are saved with every checkpoint."""

    fixed: ClassVar[bool] = False
    _slots: Slots | None = None

    @property
    def slots(self) -> Slots:
        """The weights, after `setup`."""
        assert self._slots is not None, "setup(trainer) comes first"
        return self._slots

    def setup(self, host: Host) -> None:
        super().setup(host)
        policy = host.accelerator.unwrap_model(host.model)
        if host.ref_model is not None:
            self._slots = ModelSlots(policy, host.accelerator.unwrap_model(host.ref_model))
        else:
            self._slots = AdapterSlots(policy)

    def logps(self, inputs: Batch) -> Logps | None:
        with self.slots.active():
            return super().logps(inputs)

    @contextmanager
    def serving(self) -> Iterator[torch.nn.Module]:
        with self.slots.active(), super().serving() as model:
            yield model

    @torch.no_grad()
    def on_step_end(self, step: int) -> None:
        changed = [name for name in self.slots.names if self._follow(step, name)]
        self.slots.publish(changed)

    @abstractmethod
    def _follow(self, step: int, name: str) -> bool:
        """Change one weight after a step; whether it changed."""

    def _kept(self) -> dict[str, torch.Tensor]:
        """Every tensor of the state, as it is kept (perhaps sharded)."""
        return {f"reference/{name}": self.slots.reference(name) for name in self.slots.names}

    @torch.no_grad()
    def state_dict(self) -> State:
        main = self.host.accelerator.is_main_process
        state: State = {}
        for key, tensor in self._kept().items():
            whole = full(tensor)  # every process takes part; only the one that writes keeps it
            if main:
                state[key] = whole.detach().cpu().clone()
        return state

    @torch.no_grad()
    def load_state_dict(self, state: State) -> None:
        kept = self._kept()
        for key, target in kept.items():
            value = state.get(key)
            if not torch.is_tensor(value) or value.shape != target.shape or value.dtype != target.dtype:
                raise CheckpointError(
                    f"The saved reference must hold `{key}` as {target.dtype} {list(target.shape)}, but does not. "
                    "Resume with the model, adapter and precision that the run began with."
                )
            copy_full(target, value)
        self.slots.publish(self.slots.names)


@register_reference("moving_average")
@dataclass
class MovingAverage(_Following):
    """The reference takes a step towards the policy, now and then (TR-DPO).

    ref <- (1 - alpha) * ref + alpha * policy, after every `every`-th optimizer step

    What TRL calls `sync_ref_model`, with two differences: the reference is saved with every checkpoint, so that a
    resumed run continues with it, and it works with LoRA, where it averages the products B·A.

    Args:
        alpha: Share of the policy, dimensionless, above 0 and at most 1 (then the reference is replaced).
        every: Optimizer steps between updates, 1 or more.

    Raises:
        CheckpointError: An argument is out of range; later: the policy is of a kind that cannot be followed.

    Example:
        >>> MovingAverage(alpha=0.6, every=512).expression
        'moving_average(alpha=0.6, every=512)'

    Source: Gorbatovski et al. 2024, arXiv:2404.09656 (soft update; their defaults).
    """

    alpha: float = 0.6
    every: int = 512

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, CheckpointError, 0, 1, ends="(]")
        check_number("every", self.every, CheckpointError, 1, whole=True)

    @property
    def identity(self) -> str:
        return f"moving average: {self.alpha:g} of the policy, every {self.every} steps, from its start"

    def _follow(self, step: int, name: str) -> bool:
        if step % self.every:
            return False
        # The order of operations is TRL's, so that the two agree to the last bit.
        self.slots.reference(name).mul_(1.0 - self.alpha).add_(self.slots.policy(name), alpha=self.alpha)
        return True


@register_reference("bema")
@dataclass
class BEMA(_Following):
    """A bias-corrected moving average of the policy: it lags less behind than a plain one.

    ref <- ema + (lag + t)^-bias_power * (policy - start), with
    ema <- (1 - b) * ema + b * policy, b = (lag + t)^-ema_power

    Args:
        every: Optimizer steps between updates, 1 or more.
        ema_power: How fast the average's steps shrink, 0 or more; 0: no average, only the policy.
        bias_power: How fast the correction shrinks, 0 or more.
        lag: Virtual age at the start, in steps, 1 or more.
        after: Steps before the average starts; the start is what the policy is then.

    Raises:
        CheckpointError: An argument is out of range; later: the policy is of a kind that cannot be followed.

    Example:
        >>> BEMA(every=100).expression
        'bema(every=100, ema_power=0.5, bias_power=0.2, lag=10, after=0)'

    Source: Block and Zhang 2025, arXiv:2508.00180, Algorithm 1.
    """

    every: int = 400
    ema_power: float = 0.5
    bias_power: float = 0.2
    lag: int = 10
    after: int = 0

    def __post_init__(self) -> None:
        check_number("every", self.every, CheckpointError, 1, whole=True)
        check_number("ema_power", self.ema_power, CheckpointError, 0)
        check_number("bias_power", self.bias_power, CheckpointError, 0)
        check_number("lag", self.lag, CheckpointError, 1, whole=True)
        check_number("after", self.after, CheckpointError, 0, whole=True)

    @property
    def identity(self) -> str:
        powers = f"powers {self.ema_power:g} (average) and {self.bias_power:g} (correction)"
        return f"bema: every {self.every} steps after {self.after}, {powers}, lag {self.lag}"

    @torch.no_grad()
    def setup(self, host: Host) -> None:
        super().setup(host)
        self._start = {name: self.slots.policy(name).clone() for name in self.slots.names}
        self._ema = {name: start.clone() for name, start in self._start.items()}

    def _follow(self, step: int, name: str) -> bool:
        if step != self.after and (step < self.after or (step - self.after) % self.every):
            return False
        policy = self.slots.policy(name)
        # FSDP2 shards the policy after `setup`, where these were taken of the whole one.
        start = self._start[name] = sharded_like(self._start[name], policy)
        ema = self._ema[name] = sharded_like(self._ema[name], policy)
        if step == self.after:
            start.copy_(policy)
            ema.copy_(policy)
            return False
        share, correction = ((self.lag + step) ** -power for power in (self.ema_power, self.bias_power))
        ema.mul_(1 - share).add_(policy, alpha=share)
        self.slots.reference(name).copy_(ema + correction * (policy - start))
        return True

    def _kept(self) -> dict[str, torch.Tensor]:
        starts = {f"start/{name}": tensor for name, tensor in self._start.items()}
        averages = {f"ema/{name}": tensor for name, tensor in self._ema.items()}
        return super()._kept() | starts | averages
