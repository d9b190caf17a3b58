"""Losses that compare g(log-ratio) of the two completions: other divergences than the reverse KL, and their kin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ..._errors import LossError
from .._loss import Loss, WeightedSum, check_choice, check_number
from .._numerics import exp_capped
from .._pairs import PairLogps
from .._registry import register_loss
from .._wrappers import SwapWrapper
from ._margin import DPO, EXO, IPO, NO_ZERO_BETA, DiscoPOP, SLiC

Kind = Literal["forward_kl", "js", "alpha"]

# Of SquaredPO's exponent: exp(64) times a log-ratio of 10**4 nats is finite in float32.
_SQUARED_CAP = 64.0

_SCORES: dict[Kind, str] = {"forward_kl": "1 - 1/u", "js": "log(2*u/(1 + u))", "alpha": "(1 - u**-{alpha:g})/{alpha:g}"}
# What sees its pair through the difference of the two log-ratios alone.
_ON_THE_DIFFERENCE = (DPO, IPO, SLiC, EXO, DiscoPOP)


@register_loss("f_divergence")
@dataclass(frozen=True)
class FDivergence(Loss):
    """A loss on the difference of log-ratios, with f'(pi/ref) of another f-divergence in place of each log-ratio.

    DPO's log-ratio is f'(u) = log u + 1 of the reverse KL, u = pi/ref. "forward_kl": f'(u) = 1 - 1/u. "js", the
    Jensen-Shannon divergence: f'(u) = log(2*u/(1 + u)). "alpha": f'(u) = (1 - u**-alpha)/alpha, between the two KLs.
    `f_dpo(beta, divergence, alpha)` is short for `f_divergence(dpo(beta), divergence, alpha)`.

    Args:
        loss: `dpo`, `ipo`, `slic`, `exo`, `discopop`, or `robust` or `smoothed` of them.
        divergence: "forward_kl", "js" or "alpha".
        alpha: Of "alpha" alone, not 0: near 0 the reverse KL, 1 is the forward KL. TRL's `f_alpha_divergence_coef` is
            1 - alpha.

    Raises:
        LossError: `loss` sees more than the difference, `divergence` is none of the three, or `alpha` is 0.

    Example:
        >>> pairs = PairLogps(*torch.tensor([[0.5], [0.25], [0.25], [0.25]]).log())
        >>> FDivergence(DPO(beta=1.0), "forward_kl")(pairs)  # u = 2 and 1: -log sigmoid(0.5 - 0)
        tensor([0.4741])

    Source: Wang et al. 2023, arXiv:2309.16240, Eq. 14 and Table 1; TRL's `f_divergence_type`. Departure: exponents are
    capped at 80, as in TRL for "alpha" alone. Under `ipo` the square still leaves float32 from exponents of 44 on.
    """

    loss: Loss
    divergence: Kind
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Loss):
            raise LossError(f"`loss` must be a loss, as in `f_divergence(dpo(beta=0.1), js)` (got {self.loss!r}).")
        if not _sees_the_difference(self.loss):
            raise LossError(
                f"`f_divergence` cannot wrap {self.loss.title}: it replaces the log-ratios of a loss on their "
                "difference: `dpo`, `ipo`, `slic`, `exo`, `discopop`, or `robust` or `smoothed` of them."
            )
        check_choice(self, "divergence", get_args(Kind))
        check_number(self, "alpha", -math.inf)
        if self.alpha == 0.0:
            raise LossError("`alpha` must not be 0: that is the reverse KL, the wrapped loss itself.")
        if self.divergence != "alpha" and self.alpha != 0.5:
            raise LossError(f'`alpha` has no effect with divergence="{self.divergence}" (got {self.alpha:g}).')

    @property
    def needs_lengths(self) -> bool:
        """As the wrapped loss."""
        return self.loss.needs_lengths

    @property
    def aggregation(self) -> str:
        """As the wrapped loss; the divergence is of sums over tokens."""
        return self.loss.aggregation

    @property
    def formula(self) -> str:
        """The wrapped formula, and what stands for its log-ratios."""
        score = _SCORES[self.divergence].format(alpha=self.alpha)
        return f"{self.loss.formula} with {score}, u = pi(y)/ref(y), in place of log pi(y) - log ref(y)"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = map(self._score, pair_logps.ratios())
        zero = torch.zeros_like(chosen)
        counts = pair_logps.chosen_tokens, pair_logps.rejected_tokens
        return self.loss(PairLogps(chosen, rejected, zero, zero, *counts))

    def _score(self, ratio: Tensor) -> Tensor:
        """f'(exp(ratio)), in TRL's order of operations."""
        if self.divergence == "forward_kl":
            return 1 - exp_capped(-ratio)
        if self.divergence == "js":
            return math.log(2) + functional.logsigmoid(ratio)
        return (exp_capped(-self.alpha * ratio) - 1.0) * (-1.0 / self.alpha)


def _sees_the_difference(loss: Loss) -> bool:
    if isinstance(loss, WeightedSum):
        return all(_sees_the_difference(part) for _, part in loss.parts)
    if isinstance(loss, SwapWrapper):
        return _sees_the_difference(loss.loss)
    return isinstance(loss, _ON_THE_DIFFERENCE)


@register_loss("chi_po")
@dataclass(frozen=True)
class ChiPO(Loss):
    """DPO with the chi-squared divergence added to the KL: holds the policy where the reference has probability.

    -log sigmoid(clip(beta * (phi(w) - phi(l)), -2*bound, 2*bound)), with phi(y) = u + log u and u = pi(y)/ref(y)

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        bound: The paper's R_max, the largest reward, > 0; pairs beyond the clip have no gradient.

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> pairs = PairLogps(*torch.tensor([[0.5], [0.25], [0.25], [0.25]]).log())
        >>> ChiPO(beta=1.0)(pairs)  # phi = 2 + log 2 and 1: -log sigmoid(1.6931)
        tensor([0.1689])

    Source: Huang et al. 2024, arXiv:2407.13399, Algorithm 1. Departure: exponents are capped at 80, beyond which the
    pair is clipped unless both are.
    """

    beta: float
    bound: float = 10.0

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_number(self, "bound", 0.0)

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        inside = f"{self.beta:g}*(u_w + log u_w - u_l - log u_l)"
        end = 2 * self.bound
        return f"-log sigmoid(clip({inside}, {-end:g}, {end:g})) with log u_y = log pi(y) - log ref(y)"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = (exp_capped(ratio) + ratio for ratio in pair_logps.ratios())
        inside = self.beta * (chosen - rejected)
        return -functional.logsigmoid(inside.clamp(-2 * self.bound, 2 * self.bound))


@register_loss("squared_po")
@dataclass(frozen=True)
class SquaredPO(Loss):
    """DPO with the divergence f(u) = (log u)**2/2, whose optimum does not lower the chosen completion.

    -log sigmoid(beta * (log u_w/u_w - log u_l/u_l)), with u = pi/ref

    log u/u rises up to u = e and falls beyond: a chosen completion is not pulled further than e times the reference.

    Args:
        beta: Pull towards the reference, dimensionless, > 0.

    Raises:
        LossError: `beta` is not positive.

    Example:
        >>> pairs = PairLogps(*torch.tensor([[0.5], [0.25], [0.25], [0.25]]).log())
        >>> SquaredPO(beta=1.0)(pairs)  # -log sigmoid(log(2)/2)
        tensor([0.5347])

    Source: Pipano et al. 2026, arXiv:2602.06788. Departure: exponents are capped at 64.
    """

    beta: float

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        chosen, rejected = (f"r({y})*exp(-r({y}))" for y in "wl")
        return f"-log sigmoid({self.beta:g}*({chosen} - {rejected})) with r(y) = log pi(y) - log ref(y)"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = (ratio * exp_capped(-ratio, _SQUARED_CAP) for ratio in pair_logps.ratios())
        return -functional.logsigmoid(self.beta * (chosen - rejected))


@register_loss("alpha_po")
@dataclass(frozen=True)
class AlphaPO(Loss):
    """SimPO with a reward of another shape: a power of the mean probability in place of its logarithm.

    -log sigmoid(rho_w - rho_l - gamma), with rho = beta * (1 - p**-alpha)/alpha and log p = log pi(y)/|y|

    Args:
        beta: Scale of the rewards, dimensionless, > 0.
        gamma: Target margin of the rewards, >= 0.
        alpha: Shape of the reward, not 0, where it is SimPO's log p. Above 0 unlikely completions are moved more.

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> pairs = PairLogps(*torch.tensor([[0.5], [0.25]]).log(), None, None, torch.ones(1), torch.ones(1))
        >>> AlphaPO(beta=1.0, gamma=0.0, alpha=1.0)(pairs)  # rho = 1 - 2 and 1 - 4: -log sigmoid(2)
        tensor([0.1269])

    Source: Gupta et al. 2025, arXiv:2501.03884, Eq. 7; the `alpha` of TRL's CPOTrainer. Departure: exponents are capped
    at 80.
    """

    beta: float
    gamma: float
    alpha: float

    needs_reference = False

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0)
        check_number(self, "gamma", 0.0, closed=True)
        check_number(self, "alpha", -math.inf)
        if self.alpha == 0.0:
            raise LossError("`alpha` must not be 0: the reward is then log p, and the loss `simpo(beta, gamma)`.")

    @property
    def needs_lengths(self) -> bool:
        """Always: p is a mean over tokens."""
        return True

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        margin = f" - {self.gamma:g}" if self.gamma else ""
        reward = f"{self.beta:g}*(1 - p(y)**{-self.alpha:g})/{self.alpha:g}, log p(y) = log pi(y)/|y|"
        return f"-log sigmoid(rho(w) - rho(l){margin}) with rho(y) = {reward}"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = (1 - exp_capped(-self.alpha * logp) for logp in pair_logps.logps(mean=True))
        return -functional.logsigmoid(self.beta / self.alpha * (chosen - rejected) - self.gamma)
