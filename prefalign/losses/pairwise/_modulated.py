"""DPO with a weight, a margin or a beta that follows the pair or its batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .._loss import Loss, check_number
from .._pairs import PairLogps
from .._registry import register_loss
from ._margin import NO_ZERO_BETA, difference

_SMALLEST_BETA = 1e-3


@register_loss("r_dpo")
@dataclass(frozen=True)
class RDPO(Loss):
    """DPO with a margin that follows the lengths: a longer chosen completion has less to gain.

    -log sigmoid(beta * D + alpha * (|w| - |l|)), with D the difference of log-ratios

    The reward that it fits is DPO's minus alpha for each token.

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        alpha: The price of a token, in units of the reward, >= 0; at 0 this is DPO.

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> zero = torch.zeros(1)
        >>> RDPO(beta=0.1, alpha=0.5)(PairLogps(zero, zero, zero, zero, zero + 5, zero + 1))  # -log sigmoid(2)
        tensor([0.1269])

    Source: Park et al. 2024, arXiv:2403.19159, Eq. 9. Not robust DPO, which is `rdpo`.
    """

    beta: float
    alpha: float

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_number(self, "alpha", 0.0, closed=True)

    @property
    def needs_lengths(self) -> bool:
        """Always: of the margin."""
        return True

    @property
    def aggregation(self) -> str:
        """What the formula's log-probabilities are."""
        return "sums over tokens"

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"-log sigmoid({self.beta:g}*({difference(False)}) + {self.alpha:g}*(|w| - |l|))"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        chosen_tokens, rejected_tokens = pair_logps.tokens()
        longer = chosen_tokens - rejected_tokens
        return -functional.logsigmoid(self.beta * (chosen - rejected) + self.alpha * longer)


@register_loss("focal_po")
@dataclass(frozen=True)
class FocalPO(Loss):
    """DPO with less weight on pairs that the policy ranks wrongly, the reverse of a focal loss.

    -p**gamma * log p, with p = sigmoid(beta * D) and D the difference of log-ratios

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        gamma: Strength of the weight, >= 0; at 0 this is DPO. The paper takes 0.05.

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> zeros = torch.zeros(1)
        >>> FocalPO(beta=0.1, gamma=1.0)(PairLogps(zeros, zeros, zeros, zeros))  # log(2)/2
        tensor([0.3466])

    Source: Liu et al. 2025, arXiv:2501.06645. p**gamma is part of the gradient, as there.
    """

    beta: float
    gamma: float = 0.05

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_number(self, "gamma", 0.0, closed=True)

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"-p**{self.gamma:g}*log p with p = sigmoid({self.beta:g}*({difference(False)}))"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        log_p = functional.logsigmoid(self.beta * (chosen - rejected))
        return -torch.exp(self.gamma * log_p) * log_p


@register_loss("beta_dpo")
@dataclass(frozen=True)
class BetaDPO(Loss):
    """DPO with a beta of each batch: larger where the batch's mean margin is above `center`.

    -log sigmoid(b * D), with b = max(beta * (1 + alpha * (mean_batch D - center)), 0.001), a constant for the gradient

    Args:
        beta: The beta at mean margin `center`, dimensionless, > 0.
        alpha: How strongly beta follows, per nat, >= 0; at 0 this is DPO.
        center: The paper's M_0 in nats.

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> pairs = PairLogps(torch.tensor([1.0, 3.0]), *torch.zeros(3, 2))
        >>> BetaDPO(beta=0.5, alpha=0.5)(pairs)  # mean 2: b = 1, -log sigmoid(1) and -log sigmoid(3)
        tensor([0.3133, 0.0486])

    Source: Wu et al. 2024, arXiv:2407.08639, Eq. 7. Departures: `center` is a number, where the authors' code has the
    margin's moving average (0.9 a step, from 0): a loss here has no memory; there is no filter of pairs; the batch is a
    process's micro-batch. The smallest b is that of the authors' code.
    """

    beta: float
    alpha: float
    center: float = 0.0

    couples_pairs = True

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_number(self, "alpha", 0.0, closed=True)
        check_number(self, "center", -torch.inf)

    @property
    def swap_obstacle(self) -> str | None:
        """Its beta is the batch's."""
        return "it couples the pairs of a batch: its beta is that of the whole batch's mean margin"

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        follows = f"{self.beta:g}*(1 + {self.alpha:g}*(mean_batch D - {self.center:g}))"
        return f"-log sigmoid(b*D) with D = {difference(False)}, b = max({follows}, {_SMALLEST_BETA:g}), detached"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios()
        margin = chosen - rejected
        beta = self.beta * (1 + self.alpha * (margin.detach().mean() - self.center))
        return -functional.logsigmoid(beta.clamp(min=_SMALLEST_BETA) * margin)
