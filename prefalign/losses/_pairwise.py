"""Losses on the difference of the two log-ratios."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from ._loss import Loss, check_flag, check_number
from ._pairs import PairLogps
from ._registry import register_loss

NO_ZERO_BETA = "At 0 the loss would be a constant. For a loss without a reference use `SimPO`."


def difference(mean: bool) -> str:
    """How the difference of log-ratios prints."""
    if mean:
        return "(log pi(w) - log ref(w))/|w| - (log pi(l) - log ref(l))/|l|"
    return "(log pi(w) - log ref(w)) - (log pi(l) - log ref(l))"


@register_loss("dpo", "sigmoid")
@dataclass(frozen=True)
class DPO(Loss):
    """Logistic loss on the difference of log-ratios.

    -log sigmoid(beta * ((log pi(w) - log ref(w)) - (log pi(l) - log ref(l))))

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        mean: Divide each log-ratio by its number of tokens (TRL's `sigmoid_norm`) instead of summing over tokens.

    Raises:
        LossError: `beta` is not positive.

    Example:
        >>> zeros = torch.zeros(2)
        >>> DPO(beta=0.1)(PairLogps(zeros, zeros, zeros, zeros))
        tensor([0.6931, 0.6931])

    Source: Rafailov et al. 2023, arXiv:2305.18290, Eq. 7. `mean=True` is not in the paper.
    """

    beta: float
    mean: bool = False

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_flag(self, "mean")

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        return f"-log sigmoid({self.beta:g}*({difference(self.mean)}))"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.ratios(self.mean)
        return -functional.logsigmoid(self.beta * (chosen - rejected))
