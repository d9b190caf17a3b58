"""DPO with the likelihood of the chosen completions as regulariser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ._loss import Composite, Loss, check_choice, check_number
from ._pairwise import DPO, NO_ZERO_BETA
from ._registry import register_loss
from ._sft import SFT, Reduction


@register_loss("rpo")
@dataclass(frozen=True)
class RPO(Composite):
    """Regularised preference optimisation: DPO plus the likelihood of the chosen completions.

    DPO(beta) + eta * beta * SFT(reduction)

    Neither Iterative RPO (Pang et al. 2024, arXiv:2404.19733) nor reward-aware RPO, which bear the same letters.

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        eta: Weight of the likelihood in units of beta, >= 0 (the paper: 0.005). At 0 this is DPO.
        reduction: Of the likelihood, see `SFT`. The paper's main results: "sum".

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> ones = torch.ones(1)
        >>> RPO(beta=0.1, eta=0.5, reduction="sum")(PairLogps(-ones, -ones, -ones, -ones))  # log 2 + 0.05
        tensor([0.7431])

    Source: Liu et al. 2024, arXiv:2405.16436, Eq. 4.8, with the chosen completions as baseline policy, as in the
    paper's experiments.
    """

    beta: float
    eta: float
    reduction: Reduction

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_number(self, "eta", 0.0, closed=True)
        check_choice(self, "reduction", get_args(Reduction))

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """DPO, and the likelihood unless its weight is 0."""
        preference = (1.0, DPO(self.beta))
        return (preference, (self.eta * self.beta, SFT(self.reduction))) if self.eta else (preference,)
