"""DPO with the likelihood of completions of a baseline distribution as regulariser."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from .._loss import Composite, Loss, WeightedSum, check_choice, check_number
from .._registry import register_loss
from .._schedule import Schedule
from ._margin import DPO, NO_ZERO_BETA
from ._sft import SFT, Baseline, Reduction


@register_loss("rpo")
@dataclass(frozen=True)
class RPO(Composite):
    """Regularised preference optimisation: DPO plus the likelihood of completions of a baseline distribution.

    DPO(beta) + eta * beta * SFT(reduction, baseline)

    Neither Iterative RPO (Pang et al. 2024, arXiv:2404.19733) nor reward-aware RPO, which bear the same letters.

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        eta: Weight of the likelihood in units of beta, >= 0 (the paper: 0.005). At 0 this is DPO. Or a schedule over
            the training as text: "linear(START, END)", "cosine(START, END)" or "warmup(VALUE, SHARE)"; outside a
            training it counts with the value at the first step.
        reduction: Of the likelihood, see `SFT`. The paper's main results: "sum".
        baseline: Whose completions the likelihood is of, see `SFT`. The paper's experiments: "chosen".

    Raises:
        LossError: An argument is out of range, or `eta` is no schedule.

    Example:
        >>> ones = torch.ones(1)
        >>> RPO(beta=0.1, eta=0.5, reduction="sum")(PairLogps(-ones, -ones, -ones, -ones))  # log 2 + 0.05
        tensor([0.7431])
        >>> [weight for weight, _ in RPO(beta=0.5, eta="linear(0.2, 0)", reduction="sum").terms_at(0.5)]
        [1.0, 0.05]

    Source: Liu et al. 2024, arXiv:2405.16436, Eq. 4.8; the baseline policy of the paper's experiments is that of the
    chosen completions.
    """

    beta: float
    eta: float | str
    reduction: Reduction
    baseline: Baseline = "chosen"

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        if isinstance(self.eta, str):
            object.__setattr__(self, "eta", str(Schedule.read(self.eta, "eta")))
        else:
            check_number(self, "eta", 0.0, closed=True)
        check_choice(self, "reduction", get_args(Reduction))
        check_choice(self, "baseline", get_args(Baseline))

    @property
    def schedule(self) -> Schedule | None:
        """How eta follows the training; None for a number."""
        return Schedule.read(self.eta, "eta") if isinstance(self.eta, str) else None

    def eta_at(self, done: float) -> float:
        """Eta when the share `done` of the training, in [0, 1], is done."""
        schedule = self.schedule
        if schedule is not None:
            return schedule.at(done)
        assert not isinstance(self.eta, str)
        return self.eta

    def terms_at(self, done: float) -> tuple[tuple[float, Loss], ...]:
        """DPO, and the likelihood, unless its weight is always 0."""
        eta = self.eta_at(done)
        preference = (1.0, DPO(self.beta))
        if not eta and self.schedule is None:
            return (preference,)
        return (preference, (eta * self.beta, SFT(self.reduction, self.baseline)))

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """The terms with their weights as training starts."""
        return self.terms_at(0.0)

    def _weighed(self) -> tuple[tuple[str, Loss], ...]:
        told = super()._weighed()
        if self.schedule is None:
            return told
        return (told[0], (f"{self.beta:g}*{self.schedule}", told[1][1]))


def scheduled(loss: Loss) -> tuple[RPO, ...]:
    """The parts of a loss whose weights follow the training.

    Example:
        >>> scheduled(2.0 * RPO(beta=0.1, eta="cosine(0.1, 0)", reduction="sum"))
        (RPO(beta=0.1, eta='cosine(0.1, 0)', reduction='sum', baseline='chosen'),)
    """
    if isinstance(loss, WeightedSum):
        return tuple(found for _, part in loss.parts for found in scheduled(part))
    return (loss,) if isinstance(loss, RPO) and loss.schedule is not None else ()


def at_its_highest(loss: Loss) -> Loss:
    """The loss with a number for every schedule, the largest on its way: what a reading of the loss's form is made of.

    Example:
        >>> at_its_highest(RPO(beta=0.1, eta="linear(0, 0.2)", reduction="sum")).expression
        "rpo(beta=0.1, eta=0.2, reduction='sum')"
    """
    if isinstance(loss, WeightedSum):
        return WeightedSum(tuple((weight, at_its_highest(part)) for weight, part in loss.parts))
    if isinstance(loss, RPO) and loss.schedule is not None:
        return replace(loss, eta=loss.schedule.highest)
    return loss
