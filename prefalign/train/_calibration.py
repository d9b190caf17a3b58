"""The factor of a calibrated loss, measured on every batch: how the gradient is shared out between the two sides."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor

from .._errors import ConfigError
from ..losses import Calibrated, Loss, PairLogps, calibrated_in
from . import _trl

_LEAST = 1e-12  # of an incentive or a norm, before its logarithm is taken
_NAMES = ("dw", "dl", "sw", "sl")
_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


class Calibration:
    """Measures and keeps the running means.

    Args:
        trainer: The trainer, made.
        loss: Its loss.

    Raises:
        ConfigError: The weights are sharded.
    """

    def __init__(self, trainer: Any, loss: Loss) -> None:
        self.trainer = trainer
        self.term: Calibrated | None = calibrated_in(loss)
        self.logs: dict[str, float] = {}
        if self.term is not None and trainer.accelerator.distributed_type in _SHARDED:
            raise ConfigError("`calibrated` needs gradients of whole weights, and they are sharded. Use DDP.")

    def add(self, pairs: PairLogps) -> PairLogps:
        """The pairs with the batch's factor; as they are where nothing is calibrated, or no gradient is computed."""
        if self.term is None or not torch.is_grad_enabled() or not self.trainer.model.training:
            return pairs
        # DDP averages gradients over processes, so that all must multiply theirs by the same number.
        mine = torch.stack([*self.term.incentives(pairs), *self._norms(pairs)]).detach()
        found = self.trainer.accelerator.gather(mine[None]).mean(dim=0).clamp(min=_LEAST).log().tolist()
        decay = self.term.decay
        for name, now in zip(_NAMES, found, strict=True):
            self.logs[name] = decay * self.logs[name] + (1 - decay) * now if name in self.logs else now
        log = self.logs
        factor = math.exp(((log["sl"] - log["sw"]) - (log["dw"] - log["dl"])) / 2)
        _trl.add_metric(self.trainer, "train", "calibration", factor)
        return replace(pairs, calibration=factor)

    def _norms(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        """Norms of the gradients of the mean log pi(w) and log pi(l) by the head's weights."""
        parameters = self._parameters()

        def norm(logps: Tensor) -> Tensor:
            grads = torch.autograd.grad(logps.mean(), parameters, retain_graph=True, allow_unused=True)
            squares = [grad.detach().float().pow(2).sum() for grad in grads if grad is not None]
            return torch.stack(squares).sum().sqrt() if squares else logps.new_zeros(())

        return norm(pairs.chosen), norm(pairs.rejected)

    def _parameters(self) -> list[torch.nn.Parameter]:
        """The head's weights, or the trained ones of the last layer that has any."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        head = model.get_output_embeddings().weight
        if head.requires_grad:
            return [head]
        layers: dict[int, list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                number = re.search(r"\.(\d+)\.", name)
                layers.setdefault(int(number[1]) if number else -1, []).append(parameter)
        return layers[max(layers)]

    def state_dict(self) -> dict[str, float]:
        """The running means."""
        return dict(self.logs)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from these running means."""
        self.logs = {name: float(value) for name, value in state.items() if name in _NAMES}
