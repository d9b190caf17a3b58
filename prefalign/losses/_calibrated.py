"""A loss whose gradient is shared out anew between the chosen and the rejected completion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._errors import LossError
from ._loss import Loss, check_number
from ._pairs import PairLogps
from ._registry import register_loss


@register_loss("calibrated")
@dataclass(frozen=True)
class Calibrated(Loss):
    """Reward calibration: the wrapped loss, whose chosen gradient is multiplied by a and the rejected one by 1/a.

    L(w, l), with dL/dlog pi(w) times a and dL/dlog pi(l) times 1/a

    The value is the wrapped loss's. `PrefTrainer` measures a for every batch: a**2 = r*/q, with the target r* =
    |grad log pi(l)|/|grad log pi(w)| and the incentive ratio q = |dL/dlog pi(w)|/|dL/dlog pi(l)|. The gradients are
    of the batch's mean log-probabilities by the head's weights, or by the last layer's adapter where the head is not
    trained; all four are running means of logarithms. Both completions then pull alike on those weights: the middle of
    the band in which a loss can lower the rejected completion without the chosen one. Outside a training a is 1.

    Args:
        loss: A loss on the log-probabilities of both completions.
        decay: Of the running means, in [0, 1); at 0 each batch stands for itself.

    Raises:
        LossError: `decay` is out of range, or `loss` sums single tokens itself.

    Example:
        >>> zero = torch.zeros(1)
        >>> Calibrated(DPO(beta=0.1))(PairLogps(zero, zero, zero, zero))
        tensor([0.6931])

    Source: Chen et al. 2026, arXiv:2604.18239, and the authors' code. Departures: incentives come from the loss itself
    by automatic differentiation, where the code has a formula for each of its losses; log-probabilities are sums, where
    the code takes means over tokens; the norms are not clipped, which leaves their ratio as it is.
    """

    loss: Loss
    decay: float = 0.98

    def __post_init__(self) -> None:
        loss: object = self.loss
        if not isinstance(loss, Loss):
            raise LossError(f"`loss` must be a loss, as in `calibrated(dpo(beta=0.1))` (got {loss!r}).")
        if self.loss.reads_tokens & {"logps", "kl"} or calibrated_in(self.loss) is not None:
            why = "it sums tokens by itself" if self.loss.reads_tokens else "it is calibrated already"
            raise LossError(f"`calibrated` cannot wrap {self.loss.title}: {why}.")
        check_number(self, "decay", 0.0, 1.0, closed=True)

    @property
    def needs_reference(self) -> bool:
        """As the wrapped loss."""
        return self.loss.needs_reference

    @property
    def needs_lengths(self) -> bool:
        """As the wrapped loss."""
        return self.loss.needs_lengths

    @property
    def couples_pairs(self) -> bool:
        """Its factor is the batch's."""
        return True

    @property
    def swap_obstacle(self) -> str | None:
        """Its factor is that of the labels as they stand."""
        return "it couples the pairs of a batch: the factors of its gradient are those of the whole batch"

    @property
    def aggregation(self) -> str:
        """As the wrapped loss."""
        return self.loss.aggregation

    @property
    def formula(self) -> str:
        """The wrapped formula, and what becomes of its gradient."""
        return f"{self.loss.formula}, gradients by log pi(w) times a and by log pi(l) times 1/a"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        factor = pair_logps.calibration
        if factor is None:
            return self.loss(pair_logps)
        tokens = pair_logps.chosen_token_logps
        return self.loss(
            replace(
                pair_logps,
                chosen=_scaled(pair_logps.chosen, factor),
                rejected=_scaled(pair_logps.rejected, 1 / factor),
                chosen_token_logps=None if tokens is None else _scaled(tokens, factor),
            )
        )

    def incentives(self, pair_logps: PairLogps) -> tuple[Tensor, Tensor]:
        """Mean |dL/dlog pi(w)| and |dL/dlog pi(l)| of the wrapped loss, L of each pair, over a batch."""
        with torch.enable_grad():
            leaves = [each.detach().requires_grad_() for each in (pair_logps.chosen, pair_logps.rejected)]
            alone = replace(pair_logps, chosen=leaves[0], rejected=leaves[1], chosen_token_logps=None, calibration=None)
            found = torch.autograd.grad(self.loss(alone).sum(), leaves, allow_unused=True, materialize_grads=True)
        return found[0].abs().mean(), found[1].abs().mean()


class _Scale(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] * ctx.factor, None


def _scaled(value: Tensor, factor: float) -> Tensor:
    scaled: Tensor = _Scale.apply(value, factor)  # type: ignore[no-untyped-call]
    return scaled


def calibrated_in(loss: Loss) -> Calibrated | None:
    """The calibrated term of a loss; None if there is none.

    Raises:
        LossError: There are several, which would share one factor.
    """
    found = [term for _, term in loss.terms if isinstance(term, Calibrated)]
    if len(found) > 1:
        raise LossError(f"a loss can have one calibrated term (got {len(found)}); write `calibrated(a + b)`.")
    return found[0] if found else None
