"""A check on the first batch: the reference "initial" is what the policy is as training starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..._errors import CheckpointError
from .. import _trl

# Nats by which rounding may change a token's log-probability between two ways to the same weights.
ROUNDING, ROUNDING_16 = 1e-3, 0.75


def rounding(trainer: Any) -> float:
    """What rounding explains of a difference between two log-probabilities of a token, in nats."""
    full = trainer.model.dtype in (torch.float32, torch.float64) and trainer.accelerator.mixed_precision == "no"
    return ROUNDING if full and not getattr(trainer.model, "is_quantized", False) else ROUNDING_16


class StartCheck:
    """Holds the first batch's log-probabilities under the policy, before any step, against the reference's.

    Args:
        trainer: The trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        # Without adapters the reference is a copy, or the same files loaded again.
        self._due = trainer.reference.is_start and hasattr(trainer.model, "peft_config")

    def __call__(self, model: Any, inputs: Mapping[str, Any], reference_tokens: Tensor | None) -> None:
        """Check once.

        Args:
            model: The wrapped policy, in training mode.
            inputs: The batch, with the reference's log-probabilities.
            reference_tokens: Those of every token, (2 pairs, length - 1); None if they are not known.

        Raises:
            CheckpointError: They are further apart than rounding explains.
        """
        if not self._due or not model.training:
            return
        self._due = False
        if self.trainer.state.global_step > 0:
            return
        mask = inputs["completion_mask"][:, 1:]
        mine = self._policy(model, inputs) * mask
        if reference_tokens is not None:
            apart = (mine - reference_tokens.to(mine.device) * mask).abs().max()
        else:
            theirs = torch.cat([inputs[key] for key in _trl.REFERENCE_KEYS])
            apart = ((mine.sum(dim=1) - theirs).abs() / mask.sum(dim=1)).max()
        worst = float(self.trainer.accelerator.gather(apart).max())
        if not worst <= rounding(self.trainer):
            method = ", ".join(str(config.peft_type.value) for config in self.trainer.model.peft_config.values())
            raise CheckpointError(
                f"`reference={self.trainer.reference.expression!r}` must be the policy as training starts, but before "
                f"the first step a token's log-probabilities differ by {worst:.2g} nats (rounding explains "
                f"{rounding(self.trainer):.2g}): the start of this adapter ({method}) cannot be kept beside the "
                'policy. Merge it into its base model and train on that, or name one: `reference="checkpoint(PATH)"`.'
            )

    @torch.no_grad()
    def _policy(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        recorder = _trl.Recorder(model, self.trainer.forward_pass, inputs.get(_trl.TOKEN_WEIGHTS))
        model.eval()  # dropout is no part of the start
        try:
            with self.trainer.statistics.left_out():
                _trl.policy_forward(recorder, inputs)
        finally:
            model.train()
        return recorder.token_logps(inputs["completion_mask"])
