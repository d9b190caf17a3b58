"""Losses that see single tokens: their weights, a sample of them, the distributions they were drawn from."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ... import _numbers
from ..._errors import LossError
from .._calibrated import calibrated_in
from .._loss import Loss, check_flag, check_number
from .._pairs import PairLogps
from .._registry import register_loss
from .._tokens import TokenLogps, TokenReading
from ._margin import NO_ZERO_BETA, difference


@dataclass(frozen=True)
class _OfTokens(Loss):
    """A wrapper that looks at single tokens."""

    loss: Loss

    def __post_init__(self) -> None:
        loss: object = self.loss
        if not isinstance(loss, Loss):
            word = type(self).__name__.lower()
            raise LossError(f"`loss` must be a loss, as in `{word}(dpo(beta=0.1), ...)` (got {loss!r}).")

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
        """As the wrapped loss."""
        return self.loss.couples_pairs

    @property
    def swap_obstacle(self) -> str | None:
        """As the wrapped loss."""
        return self.loss.swap_obstacle

    @property
    def aggregation(self) -> str:
        """As the wrapped loss."""
        return self.loss.aggregation


@dataclass(frozen=True)
class _Resummed(_OfTokens):
    """The wrapped loss on log-probabilities that are summed anew, of policy and reference alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss.reads_tokens & {"logps", "kl"}:
            raise LossError(
                f"`{type(self).__name__.lower()}` cannot wrap {self.loss.title}, which sums tokens by itself."
            )
        if calibrated_in(self.loss) is not None:
            raise LossError(f"`{type(self).__name__.lower()}` cannot wrap {self.loss.title}: calibrate outside.")

    @property
    def reads_tokens(self) -> frozenset[TokenReading]:
        """Log-probabilities of single tokens, and what the wrapped loss reads."""
        return self.loss.reads_tokens | {"logps"}

    @abstractmethod
    def _weights(self, tokens: TokenLogps) -> tuple[Tensor, Tensor, float]:
        """(first, second, c): each token counts first + c*second times."""

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        tokens = pair_logps.single_tokens()
        kept, rest, factor = self._weights(tokens)

        def summed(logps: Tensor) -> tuple[Tensor, Tensor]:
            total = (logps * kept).sum(dim=1)
            if factor:
                total = total + factor * (logps * rest).sum(dim=1)
            chosen, rejected = total.chunk(2)
            return chosen, rejected

        chosen, rejected = summed(tokens.policy)
        made: dict[str, Any] = {"chosen": chosen, "rejected": rejected, "chosen_token_logps": None}
        if self.needs_reference:
            if tokens.reference is None:
                raise LossError(
                    f"`{type(self).__name__.lower()}` needs the reference's log-probability of every token: give "
                    "`reference` in `TokenLogps`, or return `tokens` in the `Logps` of a reference of your own."
                )
            made["ref_chosen"], made["ref_rejected"] = summed(tokens.reference)
        return self.loss(replace(pair_logps, **made))


@register_loss("ld")
@dataclass(frozen=True)
class LD(_Resummed):
    """Length-desensitised: of the longer completion, tokens beyond the shorter one's length count alpha times.

    In log pi and in log ref. At alpha = 1 it is the wrapped loss; at 0 the longer completion is cut to the shorter one.

    Args:
        loss: Any loss on summed log-probabilities. Means over tokens still divide by all tokens, as in TRL.
        alpha: In [0, 1].

    Raises:
        LossError: `alpha` is out of range, or `loss` sums single tokens itself.

    Example:
        >>> single = TokenLogps(torch.tensor([[-1.0, -2.0], [-3.0, 0.0]]), torch.tensor([[1, 1], [1, 0]]))
        >>> pairs = PairLogps(torch.tensor([-3.0]), torch.tensor([-3.0]), single=single)
        >>> LD(SFT(reduction="sum"), alpha=0.25)(pairs)  # 1 + 2/4
        tensor([1.5000])

    Source: Liu et al. 2024, arXiv:2409.06411, Eq. 10; TRL's `ld_alpha`, which takes the reference's tokens likewise.
    """

    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "alpha", 0.0, math.nextafter(1.0, 2.0), closed=True)

    @property
    def formula(self) -> str:
        """The wrapped formula, and what counts."""
        return f"{self.loss.formula}, tokens beyond min(|w|, |l|) counting {self.alpha:g} times"

    def _weights(self, tokens: TokenLogps) -> tuple[Tensor, Tensor, float]:
        position = tokens.mask.cumsum(dim=1)
        shared = torch.minimum(*tokens.lengths().chunk(2))
        shared = torch.cat([shared, shared])[:, None]
        return (position > 0) & (position <= shared), position > shared, self.alpha


@register_loss("sampo")
@dataclass(frozen=True)
class SamPO(_Resummed):
    """Down-sampled: of the longer completion as many tokens count as the shorter one has, drawn at random.

    In log pi and log ref the same tokens. The draw is a function of the seed, |w| and |l|: it is the same whenever the
    pair is met, in any batch and in a resumed run.

    Args:
        loss: Any loss on sums over tokens.
        seed: Of the draw, >= 0.

    Raises:
        LossError: `seed` is no such number, or `loss` takes means over tokens or sums single tokens itself.

    Example:
        >>> single = TokenLogps(torch.tensor([[-1.0, -1.0], [-3.0, 0.0]]), torch.tensor([[1, 1], [1, 0]]))
        >>> pairs = PairLogps(torch.tensor([-2.0]), torch.tensor([-3.0]), single=single)
        >>> SamPO(SFT(reduction="sum"), seed=0)(pairs)  # one of the two tokens
        tensor([1.])

    Source: Lu et al. 2024, arXiv:2406.10957, Eq. 5. Departure: the authors' code draws anew in every step, and other
    tokens for the reference than for the policy.
    """

    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _numbers.check_number("seed", self.seed, LossError, 0, whole=True)
        if self.loss.needs_lengths:
            raise LossError(
                f"`sampo` cannot wrap {self.loss.title}: its lengths would be those of the whole completions. Use a "
                "loss on sums over tokens."
            )

    @property
    def formula(self) -> str:
        """The wrapped formula, and what counts."""
        return f"{self.loss.formula}, on min(|w|, |l|) tokens of each completion, drawn with seed {self.seed}"

    def _weights(self, tokens: TokenLogps) -> tuple[Tensor, Tensor, float]:
        lengths = [int(length) for length in tokens.lengths()]
        kept = torch.zeros(tokens.mask.shape, dtype=tokens.mask.dtype)
        places = tokens.mask.bool().cpu()
        pairs = len(lengths) // 2
        for row, length in enumerate(lengths):
            other = lengths[(row + pairs) % (2 * pairs)]
            ours = places[row].nonzero()[:, 0]
            if length > other:
                generator = torch.Generator().manual_seed(_mixed(self.seed, length, other))
                ours = ours[torch.randperm(length, generator=generator)[:other]]
            kept[row, ours] = 1
        kept = kept.to(tokens.mask.device)
        return kept, kept, 0.0


def _mixed(seed: int, length: int, other: int) -> int:
    """One seed of three numbers, by polynomial in an odd 63-bit constant."""
    return ((seed * 0x9E3779B97F4A7C15 + length) * 0x9E3779B97F4A7C15 + other) % 2**63


@register_loss("wpo")
@dataclass(frozen=True)
class WPO(_OfTokens):
    """Any loss times the policy's own probability of the pair: pairs that it would hardly write count less.

    v(w) * v(l) * L(w, l), with log v(y) = mean over y's tokens of (log pi - log(sum of pi**2)); v is a constant for the
    gradient

    Args:
        loss: Any loss with one value per pair.

    Raises:
        LossError: `loss` couples the pairs of a batch.

    Example:
        >>> half = torch.tensor([[0.5], [0.5]]).log()
        >>> single = TokenLogps(half, torch.ones(2, 1), log_sum_sq_probs=half)  # as likely as the average token
        >>> WPO(SFT(reduction="sum"))(PairLogps(half[0], half[1], single=single))
        tensor([0.6931])

    Source: Zhou et al. 2024, arXiv:2406.11827, Eq. 2 with the sampled alignment of Sec. 3.2; TRL's `use_weighting`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss.couples_pairs:
            raise LossError(f"`wpo` cannot wrap {self.loss.title}: it couples the pairs of a batch.")

    @property
    def reads_tokens(self) -> frozenset[TokenReading]:
        """The policy's distribution at each token, and what the wrapped loss reads."""
        return self.loss.reads_tokens | {"log_sum_sq_probs"}

    @property
    def formula(self) -> str:
        """The wrapped formula, weighted."""
        weight = "log v(y) = mean over y's tokens of (log pi - log sum pi**2), detached"
        return f"v(w)*v(l)*L(w, l) with {weight}, L(w, l) = {self.loss.formula}"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        tokens = pair_logps.single_tokens()
        aligned = (tokens.policy.detach() - tokens.read("log_sum_sq_probs").detach()) * tokens.mask
        weights = torch.exp(aligned.sum(dim=1) / tokens.lengths().clamp(min=1))
        chosen, rejected = weights.chunk(2)
        return self.loss(pair_logps) * (chosen * rejected)


@register_loss("tdpo")
@dataclass(frozen=True)
class TDPO(Loss):
    """DPO with the sequential KL divergences of both completions in the margin.

    -log sigmoid(beta * (D - alpha * (K(l) - K(w)))), with D the difference of log-ratios and K(y) the sum over y's
    tokens of KL(ref || pi)

    Args:
        beta: Pull towards the reference, dimensionless, > 0.
        alpha: Weight of the divergences, >= 0; at 0 this is DPO.
        detach: K(w) is a constant for the gradient: the paper's TDPO2. False with alpha = 1 is TDPO1.

    Raises:
        LossError: An argument is out of range.

    Example:
        >>> single = TokenLogps(torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(2, 1), kl=torch.tensor([[1.0], [3.0]]))
        >>> zero = torch.zeros(1)
        >>> TDPO(beta=1.0, alpha=0.5)(PairLogps(zero, zero, zero, zero, single=single))  # -log sigmoid(-(3 - 1)/2)
        tensor([1.3133])

    Source: Zeng et al. 2024, arXiv:2404.11999, Eq. 12 and 13, and the authors' code.
    """

    beta: float
    alpha: float = 0.5
    detach: bool = True

    def __post_init__(self) -> None:
        check_number(self, "beta", 0.0, hint=NO_ZERO_BETA)
        check_number(self, "alpha", 0.0, closed=True)
        check_flag(self, "detach")

    @property
    def reads_tokens(self) -> frozenset[TokenReading]:
        """Both models' distributions at each token."""
        return frozenset({"kl"})

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        constant = ", K(w) detached" if self.detach else ""
        margin = f"{difference(False)} - {self.alpha:g}*(K(l) - K(w))"
        return f"-log sigmoid({self.beta:g}*({margin})) with K(y) = sum over y's tokens of KL(ref || pi){constant}"

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        tokens = pair_logps.single_tokens()
        chosen, rejected = pair_logps.ratios()
        of_chosen, of_rejected = (tokens.read("kl") * tokens.mask).sum(dim=1).chunk(2)
        if self.detach:
            of_chosen = of_chosen.detach()
        return -functional.logsigmoid(self.beta * (chosen - rejected - self.alpha * (of_rejected - of_chosen)))
