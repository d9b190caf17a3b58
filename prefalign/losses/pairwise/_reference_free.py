"""Losses without a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional

from .._loss import Composite, Loss, check_choice, check_flag, check_number
from .._numerics import log_odds
from .._pairs import PairLogps
from .._registry import register_loss
from ._sft import SFT, Reduction


def _logp(side: str, mean: bool) -> str:
    return f"log pi({side}){f'/|{side}|' if mean else ''}"


@register_loss("simpo")
@dataclass(frozen=True)
class SimPO(Loss):
    """Logistic loss on the difference of the mean log-probabilities, with a target margin.

    -log sigmoid(beta * (log pi(w)/|w| - log pi(l)/|l|) - gamma)

    Args:
        beta: Scale of the rewards, dimensionless, > 0 (the paper: 2 to 10).
        gamma: Target margin of the rewards, >= 0 (the paper: gamma/beta from 0.3 to 1.6).
        mean: Means over tokens, as the paper; False: sums over tokens, which with gamma=0 is CPO's preference term.

    Raises:
        LossError: `beta` is not positive, or `gamma` is negative.

    Example:
        >>> ones = torch.ones(1)
        >>> SimPO(beta=2.0, gamma=0.5)(PairLogps(-ones, -ones, chosen_tokens=ones, rejected_tokens=2 * ones))
        tensor([1.7014])

    Source: Meng, Xia, Chen 2024, arXiv:2405.14734, Eq. 6.
    """

    beta: float
    gamma: float
    mean: bool = True

    needs_reference = False

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)
        check_number(self, "gamma", 0.0, closed=True)
        check_flag(self, "mean")

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        margin = f" - {self.gamma:g}" if self.gamma else ""
        return f"-log sigmoid({self.beta:g}*({_logp('w', self.mean)} - {_logp('l', self.mean)}){margin})"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.logps(self.mean)
        # TRL's order of operations: the margin is subtracted before the scaling.
        return -functional.logsigmoid(self.beta * (chosen - rejected - self.gamma / self.beta))


@register_loss("sim_per")
@dataclass(frozen=True)
class SimPER(Loss):
    """Difference of the inverse perplexities, without a hyperparameter.

    exp(log pi(l)/|l|) - exp(log pi(w)/|w|)

    Raises:
        LossError: When called, the pairs carry no token counts.

    Example:
        >>> ones = torch.ones(1)
        >>> SimPER()(PairLogps(torch.tensor([0.5]).log(), torch.tensor([0.25]).log(), None, None, ones, 2 * ones))
        tensor([0.])

    Source: Xiao et al. 2025, arXiv:2502.00883, Eq. 7.
    """

    needs_reference = False

    @property
    def needs_lengths(self) -> bool:
        """Always: for the means."""
        return True

    @property
    def formula(self) -> str:
        """The formula."""
        return "exp(log pi(l)/|l|) - exp(log pi(w)/|w|)"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.logps(mean=True)
        return torch.exp(rejected) - torch.exp(chosen)


@register_loss("odds_ratio")
@dataclass(frozen=True)
class OddsRatio(Loss):
    """ORPO's preference term alone: logistic loss on the log-ratio of odds p/(1 - p).

    -log sigmoid(beta * (log odds(w) - log odds(l))), with odds(y) = p/(1 - p) and log p = log pi(y)/|y|

    Computed in float64. At log p = 0, where the odds are infinite, 1 - p is taken as 2**-53, the smallest that float64
    can tell from 0 (see `log1mexp`).

    Args:
        beta: Scale of the log-odds, > 0. ORPO's own beta is a weight outside the logarithm: `beta * OddsRatio()`.
        mean: Means over tokens, as the paper. With sums, 1 - p is 1 in every float format for all but the shortest
            completions, and the loss is `SimPO(beta, gamma=0, mean=False)`.

    Raises:
        LossError: `beta` is not positive.

    Example:
        >>> half, ones = torch.tensor([0.5]).log(), torch.ones(1)
        >>> OddsRatio()(PairLogps(half, half, chosen_tokens=ones, rejected_tokens=ones))
        tensor([0.6931])

    Source: Hong, Lee, Thorne 2024, arXiv:2403.07691, Eq. 7.
    """

    beta: float = 1.0
    mean: bool = True

    needs_reference = False

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)
        check_flag(self, "mean")

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        ratio = "log odds(w) - log odds(l)" if self.beta == 1.0 else f"{self.beta:g}*(log odds(w) - log odds(l))"
        return f"-log sigmoid({ratio}) with log odds(y) = log p - log(1 - p), log p = {_logp('y', self.mean)}"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.logps(self.mean)
        logits = self.beta * (log_odds(chosen) - log_odds(rejected))
        return -functional.logsigmoid(logits).to(chosen.dtype)


@register_loss("orpo")
@dataclass(frozen=True)
class ORPO(Composite):
    """Negative log-likelihood of the chosen completion plus the odds-ratio term.

    SFT(reduction) + beta * OddsRatio(mean=mean)

    Args:
        beta: The paper's lambda, the weight of the odds-ratio term, > 0.
        reduction: Of the likelihood term, see `SFT`.
        mean: Of the odds-ratio term, see `OddsRatio`.

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> half, ones = torch.tensor([0.5]).log(), torch.ones(1)
        >>> ORPO(beta=1.0)(PairLogps(half, half, chosen_tokens=ones, rejected_tokens=ones))  # 2 log 2
        tensor([1.3863])

    Source: Hong, Lee, Thorne 2024, arXiv:2403.07691, Eq. 6. Departure: TRL's ORPOTrainer takes the likelihood of the
    prompt too; here it is the completion's alone, which is all that a loss on pairs can see.
    """

    beta: float
    reduction: Reduction = "token_mean"
    mean: bool = True

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint="For the likelihood alone use `SFT`.")
        check_choice(self, "reduction", get_args(Reduction))
        check_flag(self, "mean")

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """The likelihood, and the odds-ratio term."""
        return ((1.0, SFT(self.reduction)), (self.beta, OddsRatio(mean=self.mean)))


@register_loss("cpo")
@dataclass(frozen=True)
class CPO(Composite):
    """Logistic loss on the difference of log-probabilities plus the likelihood of the chosen completion.

    SimPO(beta, gamma=0, mean=mean) + alpha * SFT(reduction)

    Args:
        beta: Scale of the rewards, dimensionless, > 0.
        alpha: Weight of the likelihood term, >= 0; at 0 the term is left out, and the preference term stands alone.
        reduction: Of the likelihood term, see `SFT`.
        mean: Means over tokens in the preference term instead of sums.

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> ones = torch.ones(1)
        >>> CPO(beta=0.1)(PairLogps(-ones, -ones, chosen_tokens=ones, rejected_tokens=ones))  # log 2 + 1
        tensor([1.6931])

    Source: Xu et al. 2024, arXiv:2401.08417. Departure: the paper's likelihood is the sum over tokens
    (`reduction="sum"`); the default is the token mean, as in the authors' code and in TRL, whose mean takes in the
    prompt too.
    """

    beta: float
    alpha: float = 1.0
    reduction: Reduction = "token_mean"
    mean: bool = False

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)
        check_number(self, "alpha", 0.0, closed=True)
        check_choice(self, "reduction", get_args(Reduction))
        check_flag(self, "mean")

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """The preference term, and the likelihood unless its weight is 0."""
        preference = (1.0, SimPO(self.beta, gamma=0.0, mean=self.mean))
        return (preference, (self.alpha, SFT(self.reduction))) if self.alpha else (preference,)
