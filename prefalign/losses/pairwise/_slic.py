"""SLiC-HF as its paper has it: a hinge on log-probabilities without a reference, and a regulariser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from .._loss import Composite, Loss, check_choice, check_flag, check_number
from .._pairs import PairLogps
from .._registry import register_loss
from ._sft import SFT, Reduction


@register_loss("rank_hinge")
@dataclass(frozen=True)
class RankHinge(Loss):
    """Hinge loss on the difference of log-probabilities, without a reference: SLiC-HF's calibration term alone.

    max(0, delta - log pi(w) + log pi(l))

    Args:
        delta: The margin in nats, >= 0; at 0 with `mean=True` this is RRHF's ranking loss.
        mean: Means over tokens instead of sums; the margin is then nats per token.

    Raises:
        LossError: `delta` is negative.

    Example:
        >>> RankHinge(delta=1.0)(PairLogps(torch.tensor([-3.0, -3.0]), torch.tensor([-3.5, -5.0])))
        tensor([0.5000, 0.0000])

    Source: Zhao et al. 2023, arXiv:2305.10425, the first term of its loss; `mean` with delta = 0 is Yuan et al. 2023,
    arXiv:2304.05302.
    """

    delta: float
    mean: bool = False

    needs_reference = False

    def __post_init__(self) -> None:
        check_number(self, "delta", 0.0, closed=True)
        check_flag(self, "mean")

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        chosen, rejected = (f"log pi({y})/|{y}|" if self.mean else f"log pi({y})" for y in "wl")
        return f"max(0, {self.delta:g} - {chosen} + {rejected})"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.logps(self.mean)
        return torch.relu(self.delta - chosen + rejected)


@register_loss("slic_hf")
@dataclass(frozen=True)
class SLiCHF(Composite):
    """SLiC-HF whole: the hinge on log-probabilities, and the likelihood of the chosen completion.

    RankHinge(delta) + regulariser * SFT(reduction)

    Args:
        delta: The margin in nats, summed over tokens, >= 0.
        regulariser: The paper's lambda, the weight of the likelihood, >= 0; at 0 the term is left out.
        reduction: Of the likelihood term, see `SFT`; the paper writes the sum over tokens.

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> SLiCHF(delta=1.0, regulariser=0.5)(PairLogps(torch.tensor([-3.0]), torch.tensor([-3.5])))  # 0.5 + 0.5*3
        tensor([2.])

    Source: Zhao et al. 2023, arXiv:2305.10425. Departure: the paper's regulariser takes the target of the supervised
    data; a pair has none, and its chosen completion stands for it. TRL's `hinge` is `SLiC`: with a reference, and
    without a regulariser.
    """

    delta: float
    regulariser: float
    reduction: Reduction = "sum"

    def __post_init__(self) -> None:
        check_number(self, "delta", 0.0, closed=True)
        check_number(self, "regulariser", 0.0, closed=True)
        check_choice(self, "reduction", get_args(Reduction))

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """The hinge, and the likelihood unless its weight is 0."""
        hinge = (1.0, RankHinge(self.delta))
        return (hinge, (self.regulariser, SFT(self.reduction))) if self.regulariser else (hinge,)
