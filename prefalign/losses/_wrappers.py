"""Losses that correct another loss for flipped labels, by looking at each pair and at its swap."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from torch import Tensor

from .._errors import LossError
from ._loss import Loss, WeightedSum, check_number
from ._pairs import PairLogps
from ._registry import register_loss

ESTIMATE = "estimate"
_HALF = "At 0.5 labels say nothing and above it they say the opposite: swap the data's labels instead."


@dataclass(frozen=True)
class SwapWrapper(Loss):
    """A loss made of another loss on the pair, L(w, l), and on the swapped pair, L(l, w).

    Args:
        loss: Any loss that can be evaluated on a swapped pair.
        flip_rate: Probability that a label is flipped, in [0, 0.5); or "estimate", for which the trainer puts what it
            measures on the training pairs before it starts (`with_flip_rate`).

    Raises:
        LossError: `flip_rate` is out of range, or `loss` cannot be evaluated on a swapped pair.
    """

    loss: Loss
    flip_rate: float | Literal["estimate"]

    def __post_init__(self) -> None:
        word = type(self).__name__.lower()
        if not isinstance(self.loss, Loss):
            raise LossError(f"`loss` must be a loss, as in `{word}(dpo(beta=0.1), flip_rate=0.2)` (got {self.loss!r}).")
        if self.loss.swap_obstacle is not None:
            raise LossError(f"`{word}` cannot wrap {self.loss.title}: {self.loss.swap_obstacle}.")
        if self.flip_rate != ESTIMATE:
            check_number(self, "flip_rate", 0.0, 0.5, closed=True, hint=_HALF)

    @property
    def rate(self) -> float:
        """The flip rate as a number.

        Raises:
            LossError: It is still to be estimated.
        """
        if isinstance(self.flip_rate, str):
            raise LossError(
                '`flip_rate="estimate"` must be replaced by a number before the loss is computed; `prefalign train` '
                "does so. Elsewhere use `prefalign noise` and give the number that it prints."
            )
        return self.flip_rate

    @property
    def couples_pairs(self) -> bool:
        """Whether the wrapped loss does."""
        return self.loss.couples_pairs

    @property
    def needs_reference(self) -> bool:
        """As the wrapped loss."""
        return self.loss.needs_reference

    @property
    def needs_lengths(self) -> bool:
        """As the wrapped loss."""
        return self.loss.needs_lengths

    @property
    def aggregation(self) -> str:
        """As the wrapped loss."""
        return self.loss.aggregation

    @property
    @abstractmethod
    def mixture(self) -> str:
        """The formula in L(w, l) and L(l, w)."""

    @property
    def formula(self) -> str:
        """The mixture, and the wrapped formula."""
        if self.flip_rate == ESTIMATE:
            return f"{type(self).__name__} of L, its flip rate to be estimated, with L(w, l) = {self.loss.formula}"
        return f"{self.mixture} with L(w, l) = {self.loss.formula}"


@register_loss("robust")
@dataclass(frozen=True)
class Robust(SwapWrapper):
    """The unbiased estimate of a loss under flipped labels: its mean over the flips is the loss on clean labels.

    ((1 - flip_rate)*L(w, l) - flip_rate*L(l, w)) / (1 - 2*flip_rate)

    With DPO inside this is rDPO, TRL's `robust`. It is unbounded below where the inner loss grows on the swapped pair:
    a memorised pair never stops pushing, and a falling, negative loss is no error.

    Args:
        loss: Any loss that can be evaluated on a swapped pair.
        flip_rate: Probability that a label is flipped, in [0, 0.5).

    Raises:
        LossError: `flip_rate` is out of range, or `loss` cannot be evaluated on a swapped pair.

    Example:
        >>> zeros = torch.zeros(1)
        >>> Robust(DPO(beta=0.1), flip_rate=0.2)(PairLogps(zeros, zeros, zeros, zeros))
        tensor([0.6931])

    Source: Chowdhury, Kini, Natarajan 2024, arXiv:2403.00409, Sec. 3.
    """

    @property
    def mixture(self) -> str:
        """The formula in L(w, l) and L(l, w)."""
        rate = self.rate
        return f"({1 - rate:g}*L(w, l) - {rate:g}*L(l, w))/{1 - 2 * rate:g}"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        clean = (1 - self.rate) * self.loss(pair_logps)
        flipped = self.rate * self.loss(pair_logps.swapped())
        return (clean - flipped) / (1 - 2 * self.rate)


@register_loss("smoothed")
@dataclass(frozen=True)
class Smoothed(SwapWrapper):
    """Label smoothing: the loss that is expected if labels were flipped once more. With DPO inside, cDPO.

    (1 - flip_rate)*L(w, l) + flip_rate*L(l, w)

    Args:
        loss: Any loss that can be evaluated on a swapped pair.
        flip_rate: Probability that a label is flipped, in [0, 0.5).

    Raises:
        LossError: `flip_rate` is out of range, or `loss` cannot be evaluated on a swapped pair.

    Example:
        >>> zeros = torch.zeros(1)
        >>> Smoothed(DPO(beta=0.1), flip_rate=0.2)(PairLogps(zeros, zeros, zeros, zeros))
        tensor([0.6931])

    Source: Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO".
    """

    @property
    def mixture(self) -> str:
        """The formula in L(w, l) and L(l, w)."""
        return f"{1 - self.rate:g}*L(w, l) + {self.rate:g}*L(l, w)"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        clean = (1 - self.rate) * self.loss(pair_logps)
        return clean + self.rate * self.loss(pair_logps.swapped())


def with_flip_rate(loss: Loss, rate: float) -> Loss:
    """The loss with `rate` wherever a flip rate was to be estimated; the loss itself if nowhere.

    Args:
        loss: Any loss.
        rate: In [0, 0.5).

    Raises:
        LossError: `rate` is out of range, and there is a place for it.

    Example:
        >>> with_flip_rate(parse_loss("robust(dpo(beta=0.1), flip_rate=estimate)"), 0.2)
        Robust(loss=DPO(beta=0.1, mean=False), flip_rate=0.2)
    """
    if isinstance(loss, WeightedSum):
        parts = tuple((weight, with_flip_rate(part, rate)) for weight, part in loss.parts)
        return loss if parts == loss.parts else WeightedSum(parts)
    changes: dict[str, Any] = {}
    for field in fields(loss):
        value = getattr(loss, field.name)
        if isinstance(value, Loss):
            inner = with_flip_rate(value, rate)
            if inner is not value:
                changes[field.name] = inner
    if isinstance(loss, SwapWrapper) and loss.flip_rate == ESTIMATE:
        changes["flip_rate"] = rate
    return replace(loss, **changes) if changes else loss


def waits_for_flip_rate(loss: Loss) -> bool:
    """Whether some flip rate in the loss is still to be estimated."""
    return with_flip_rate(loss, 0.0) is not loss
