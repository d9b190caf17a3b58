"""Losses on the sorted margins of a batch."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .._loss import Loss, check_number
from .._pairs import PairLogps
from .._registry import register_loss
from ._margin import NO_ZERO_BETA


@dataclass(frozen=True)
class _Sorted(Loss):
    beta: float
    label_smoothing: float = 0.0

    couples_pairs = True

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_number(self, "label_smoothing", 0.0, 0.5, closed=True)

    @property
    def swap_obstacle(self) -> str | None:
        """It sorts the batch."""
        return (
            "it sorts the batch and compares rank by rank, so that a single pair has no swapped value; "
            "it has a `label_smoothing` of its own"
        )

    @property
    @abstractmethod
    def _compared(self) -> str:
        """What x is."""

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        smoothing = self.label_smoothing
        smooth = f"-{1 - smoothing:g}*log sigmoid(x) - {smoothing:g}*log sigmoid(-x)"
        return f"{smooth if smoothing else '-log sigmoid(x)'} with x = {self.beta:g}*({self._compared})"

    def _compare(self, upper: Tensor, lower: Tensor) -> Tensor:
        delta = torch.sort(upper, dim=0).values - torch.sort(lower, dim=0).values
        kept = -functional.logsigmoid(self.beta * delta) * (1 - self.label_smoothing)
        return kept - functional.logsigmoid(-self.beta * delta) * self.label_smoothing


@register_loss("aot", trl="aot")
@dataclass(frozen=True)
class AOT(_Sorted):
    """Distributional preference: the policy's margins dominate the reference's, rank by rank in the batch.

    -log sigmoid(beta * (sorted(log pi(w) - log pi(l)) - sorted(log ref(w) - log ref(l)))), smoothed by label_smoothing

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        label_smoothing: Weight of the opposite label, in [0, 0.5).

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> pairs = PairLogps(*torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        >>> AOT(beta=0.1)(pairs)
        tensor([0.6931, 0.6931])

    Source: Melnyk et al. 2024, arXiv:2406.05882, Sec. 3 (paired). The values come in the order of the ranks.
    """

    @property
    def _compared(self) -> str:
        return "sorted(log pi(w) - log pi(l)) - sorted(log ref(w) - log ref(l))"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every rank in the batch, shape (pairs,)."""
        ref_chosen, ref_rejected = pair_logps.reference()
        return self._compare(pair_logps.chosen - pair_logps.rejected, ref_chosen - ref_rejected)


@register_loss("aot_unpaired", trl="aot_unpaired")
@dataclass(frozen=True)
class AOTUnpaired(_Sorted):
    """Distributional preference: the chosen log-ratios dominate the rejected ones, rank by rank in the batch.

    -log sigmoid(beta * (sorted(log pi(w) - log ref(w)) - sorted(log pi(l) - log ref(l)))), smoothed by label_smoothing

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        label_smoothing: Weight of the opposite label, in [0, 0.5).

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> pairs = PairLogps(*torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
        >>> AOTUnpaired(beta=0.1)(pairs)
        tensor([0.6931, 0.6931])

    Source: Melnyk et al. 2024, arXiv:2406.05882, Sec. 3 (unpaired). The values come in the order of the ranks.
    """

    @property
    def _compared(self) -> str:
        return "sorted(log pi(w) - log ref(w)) - sorted(log pi(l) - log ref(l))"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every rank in the batch, shape (pairs,)."""
        return self._compare(*pair_logps.ratios())
