"""Winners alone: the loser is a sample of a past policy, and an anchor decides whether it lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from .._loss import Loss, check_choice, check_number
from .._pairs import PairLogps
from .._registry import register_loss
from ._margin import NO_ZERO_BETA, difference

Flipper = Literal["sign", "indicator", "none"]

# What the gate is where the current model scores the winner lower than the past one does.
_LOST = {"sign": -1.0, "indicator": 0.0}


@register_loss("seppo")
@dataclass(frozen=True)
class SePPO(Loss):
    """Semi-policy preference optimisation: w is a given winner, l a sample that the reference generated and scores.

    -log sigmoid(beta * ((log pi(w) - log ref(w)) - g*(log pi(l) - log ref(l))))

    The gate g is 1 where the current model gives the winner at least the reference's probability: the reference's
    sample is then a loser. Elsewhere the reference is better, and "sign" learns from both (g = -1), "indicator" from
    the winner alone (g = 0). The gate is a constant for the gradient. At the first step, where policy and reference
    are equal, it is 1.

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        flipper: "sign", "indicator", or "none" for g = 1 everywhere, which is SPIN's loss and DPO's formula.

    Raises:
        LossError: `beta` is not positive, or `flipper` is not one of the three.

    Example:
        >>> pairs = PairLogps(torch.tensor([-1.0]), torch.tensor([2.0]), torch.zeros(1), torch.zeros(1))
        >>> SePPO(beta=1.0)(pairs), SePPO(beta=1.0, flipper="none")(pairs)  # -log sigmoid(1), -log sigmoid(-3)
        (tensor([0.3133]), tensor([3.0486]))

    Source: Zhang et al. 2024, arXiv:2410.05255, for diffusion models. Departure: their per-step denoising errors become
    log-probabilities of whole completions, and g at equality is 1 where the sign function gives 0. SPIN: Chen et al.
    2024, arXiv:2401.01335.
    """

    beta: float
    flipper: Flipper = "sign"

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_choice(self, "flipper", get_args(Flipper))

    @property
    def swap_obstacle(self) -> str | None:
        """There is no label."""
        return "in `seppo` the loser is a sample of the reference, and there is no label that could have been flipped"

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        if self.flipper == "none":
            return f"-log sigmoid({self.beta:g}*({difference(False)}))"
        gate = f"g = 1 where log pi(w) >= log ref(w), else {_LOST[self.flipper]:g}"
        return f"-log sigmoid({self.beta:g}*((log pi(w) - log ref(w)) - g*(log pi(l) - log ref(l)))) with {gate}"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        if self.flipper != "none":
            anchor = chosen.detach()
            rejected = torch.where(anchor >= 0, rejected, _LOST[self.flipper] * rejected)
        return -functional.logsigmoid(self.beta * (chosen - rejected))
