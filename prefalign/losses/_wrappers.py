"""Losses that correct another loss for flipped labels, by looking at each pair and at its swap."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from .._errors import LossError
from ._loss import Loss, check_number
from ._pairs import PairLogps
from ._registry import register_loss

_HALF = "At 0.5 labels say nothing and above it they say the opposite: swap the data's labels instead."


@dataclass(frozen=True)
class SwapWrapper(Loss):
    """A loss made of another loss on the pair, L(w, l), and on the swapped pair, L(l, w).

    Args:
        loss: Any loss that can be evaluated on a swapped pair.
        flip_rate: Probability that a label is flipped, in [0, 0.5).

    Raises:
        LossError: `flip_rate` is out of range, or `loss` cannot be evaluated on a swapped pair.
    """

    loss: Loss
    flip_rate: float

    def __post_init__(self) -> None:
        word = type(self).__name__.lower()
        if not isinstance(self.loss, Loss):
            raise LossError(f"`loss` must be a loss, as in `{word}(dpo(beta=0.1), flip_rate=0.2)` (got {self.loss!r}).")
        if self.loss.swap_obstacle is not None:
            raise LossError(f"`{word}` cannot wrap {self.loss.title}: {self.loss.swap_obstacle}.")
        check_number(self, "flip_rate", 0.0, 0.5, closed=True, hint=_HALF)

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
        rate = self.flip_rate
        return f"({1 - rate:g}*L(w, l) - {rate:g}*L(l, w))/{1 - 2 * rate:g}"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        clean = (1 - self.flip_rate) * self.loss(pair_logps)
        flipped = self.flip_rate * self.loss(pair_logps.swapped())
        return (clean - flipped) / (1 - 2 * self.flip_rate)


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
        return f"{1 - self.flip_rate:g}*L(w, l) + {self.flip_rate:g}*L(l, w)"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        clean = (1 - self.flip_rate) * self.loss(pair_logps)
        return clean + self.flip_rate * self.loss(pair_logps.swapped())
