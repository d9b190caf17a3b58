"""How noisy preference labels are: the flip rate with an interval, by several estimators, and the suspicious pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from .._errors import DataError
from ..data import HIGHEST_RATE
from ._mixture import Array, copies, cross_fit, fit_jointly, holder_rate, likelihood, profile_rate, sigmoid
from ._ridge import leave_out

RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
# An interval wider than this says little about a rate that must lie in [0, 0.5).
_TOO_WIDE = 0.3
_TOO_WIDE_FOR_LINES = 0.12
# Noisy margins look like doubtful preferences, and flips like doubt: a reward that is sure of less sees no flips.
_LEAST_SURE = 0.7
_LEAST_PAIRS = 50
_MOST_COMPONENTS = 200
# A reward of fewer pairs than this for each of its features is not fitted by maximum likelihood.
_PAIRS_FOR_ONE = 40
# With this many pairs for each component, margins of the pairs that were fitted say something as well.
_PAIRS_TO_TRUST_A_FIT = 100
# Rate and scale are always fitted to the margins by maximum likelihood; what the margins are differs.
_MARGINS = {
    "given": "the margins as given",
    "ridge": "margins of a ridge regression with each pair left out",
    "joint": "margins of a reward that was fitted with a rate by maximum likelihood on the other folds",
}


@dataclass(frozen=True)
class FlipRate:
    """An estimate of the share of flipped labels.

    Attributes:
        rate: In [0, 0.5), by maximum likelihood of rate and scale, the held-out margins being given.
        low, high: 95 % likelihood-ratio interval of `rate`.
        holder: The moment estimator's rate; its 95 % interval is `holder_low` to `holder_high`, and reaches at least as
            far to each side as the likelihood's.
        accuracy: Share of held-out pairs whose margin agrees with the label; (1 - accuracy) bounds the rate from above
            for a model that errs no less than chance.
        pairs: How many pairs it rests on.
        margins: (pairs,) held-out margins, calibrated: logits of "the label is right" for a clean pair.
        suspicion: (pairs,) probability that the pair's label is flipped, given margin and rate.
        reward: Where the margins come from: "given"; a "ridge" regression with each pair left out; or "joint", a
            reward that was fitted together with a rate by maximum likelihood on the other folds.
    """

    rate: float
    low: float
    high: float
    holder: float
    holder_low: float
    holder_high: float
    accuracy: float
    pairs: int
    margins: Array = field(repr=False, compare=False)
    suspicion: Array = field(repr=False, compare=False)
    reward: Literal["given", "ridge", "joint"] = "given"

    @property
    def can_tell(self) -> bool:
        """Whether the data say something: the interval is narrow, ends below one half, and margins are sure and right.

        Chance is beaten by three standard errors: margins that agree with 55 % of 600 labels by luck look like a
        perfect reward under 45 % of flips, with a narrow interval. And clean labels are told with a probability of 0.7
        on average: margins that are nowhere sure look like doubt without any flips, with a narrow interval as well.
        """
        chance = 0.5 + 3.0 * math.sqrt(0.25 / self.pairs)
        narrow = self.high - self.low <= _TOO_WIDE and self.high < HIGHEST_RATE
        return narrow and self.accuracy > chance and self.sure >= _LEAST_SURE

    @property
    def sure(self) -> float:
        """The mean probability with which the margins tell a clean label, in [0.5, 1]."""
        return float(sigmoid(np.abs(self.margins)).mean())

    @property
    def agree(self) -> bool:
        """Whether the two estimators' intervals overlap."""
        return self.holder_low <= self.high and self.low <= self.holder_high

    def most_suspicious(self, count: int) -> list[int]:
        """Indices of the `count` pairs whose labels are most likely flipped, the most suspicious first.

        In the order of the margins, which is that of the suspicions where the rate is not 0.
        """
        return [int(i) for i in np.argsort(self.margins, kind="stable")[:count]]

    def __str__(self) -> str:
        lines = [
            f"flip rate {self.rate:.3f}, 95 % interval [{self.low:.3f}, {self.high:.3f}] (maximum likelihood of rate "
            f"and scale, from {_MARGINS[self.reward]})",
            f"flip rate {self.holder:.3f}, 95 % interval [{self.holder_low:.3f}, {self.holder_high:.3f}] (moments)"
            if math.isfinite(self.holder)
            else "no flip rate by moments: no margin tells the two labels apart",
            f"held-out margins agree with {self.accuracy:.1%} of {self.pairs} labels",
        ]
        if not self.can_tell:
            lines.append(
                "These pairs cannot tell: the margins hardly beat chance or are nowhere sure, or the interval is wider "
                f"than {_TOO_WIDE:g} or reaches one half. More pairs, a stronger model or repeated labels would."
            )
        elif not self.agree:
            lines.append("The two estimators disagree: the reward is probably not of the fitted form. Trust neither.")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The estimate without the per-pair arrays; null where the moments give no number."""
        names = ("rate", "low", "high", "holder", "holder_low", "holder_high", "accuracy", "pairs", "sure")
        values = {name: getattr(self, name) for name in names}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        return {**finite, "can_tell": self.can_tell, "agree": self.agree, "reward": self.reward}


def flip_rate(
    differences: Array,
    *,
    folds: int = 5,
    ridges: Sequence[float] = RIDGES,
    seed: int = 0,
) -> FlipRate:
    """Estimate the flip rate of preference pairs from features of their completions.

    A linear reward gives margins of pairs that it was not fitted to, and the rate is read off these margins, whose
    scale is fitted with it. Held-out margins are needed: a reward that has memorised a flipped pair sees nothing wrong
    with it. With 40 pairs or more for each feature, the reward is fitted together with a rate by maximum likelihood on
    all folds but one; with fewer, as for hidden states, it is a ridge regression with each pair left out. Either way
    the rate that is returned, and the scale, are then fitted to the held-out margins alone.

    Args:
        differences: (pairs, features), features of chosen minus features of rejected.
        folds: How many parts, 2 to pairs; unused where each pair is left out.
        ridges: Penalties of the maximum-likelihood reward to choose from by held-out likelihood, > 0; its features are
            the principal components, 200 at most, scaled to unit variance.
        seed: Seed of the folds.

    Returns:
        The estimate, with `can_tell` saying whether it means anything.

    Raises:
        DataError: Fewer than 50 pairs, features that are not finite or all the same, or an argument out of range.

    Source: the mixture likelihood is that of noisy-label DPO, (1 - eps) sigmoid(g) + eps sigmoid(-g) (Chowdhury et al.
    2024, arXiv:2403.00409, Sec. 3); fitting it together with the reward on held-out folds is ours.
    """
    differences = _checked(differences)
    pairs = len(differences)
    if not 2 <= folds <= pairs:
        raise DataError(f"`folds` must lie between 2 and the number of pairs, {pairs} (got {folds}).")
    if not ridges or any(not ridge > 0 for ridge in ridges):
        raise DataError(f"`ridges` must be positive numbers (got {list(ridges)}).")
    scaled = differences / np.maximum(np.sqrt((differences**2).mean(axis=0)), 1e-12)
    if pairs < _PAIRS_FOR_ONE * differences.shape[1]:
        return replace(from_margins(leave_out(scaled, copies(differences))), reward="ridge")
    reduced = _principal(scaled, _MOST_COMPONENTS)
    raw, ridge = cross_fit(reduced, folds, tuple(ridges), seed)
    found = replace(from_margins(raw), reward="joint")
    if pairs < _PAIRS_TO_TRUST_A_FIT * reduced.shape[1]:
        return found
    # A reward that errs a little makes held-out margins look noisier, and fitted ones cleaner, than the labels are:
    # the interval spans both.
    fitted = reduced @ fit_jointly(reduced, ridge)[0]
    _, low, high, _ = profile_rate(fitted / (float(np.abs(fitted).mean()) or 1.0))
    return _span(replace(found, low=min(low, found.low), high=max(high, found.high)))


def from_margins(margins: Array) -> FlipRate:
    """Estimate the flip rate from held-out margins of a reward or a policy.

    Args:
        margins: (pairs,) reward of chosen minus reward of rejected, on any scale, of pairs the model was not fitted to.

    Raises:
        DataError: Fewer than 50 margins, or one is not finite.
    """
    raw = np.asarray(margins, dtype=float)
    if raw.ndim != 1 or len(raw) < _LEAST_PAIRS or not np.isfinite(raw).all():
        raise DataError(f"`margins` must be at least {_LEAST_PAIRS} finite numbers (got shape {raw.shape}).")
    spread = float(np.abs(raw).mean()) or 1.0
    rate, low, high, scale = profile_rate(raw / spread)
    calibrated = raw / spread * scale
    holder, error = holder_rate(calibrated, rate)
    suspicion = rate * (1.0 - sigmoid(calibrated)) / likelihood(calibrated, rate)
    found = FlipRate(
        rate=rate,
        low=low,
        high=high,
        holder=_clip(holder),
        holder_low=_clip(holder - 1.96 * error),
        holder_high=_clip(holder + 1.96 * error),
        accuracy=float(np.mean(raw > 0) + 0.5 * np.mean(raw == 0)),
        pairs=len(raw),
        margins=calibrated,
        suspicion=suspicion,
    )
    return _span(found)


def _span(found: FlipRate) -> FlipRate:
    """The estimate with a moment interval that reaches at least as far to each side as the likelihood's does.

    The moments' error is a linear one, taken at the estimate: a draw whose rate comes out too high looks surer than it
    is, and its true rate lies below the bound. The likelihood's interval is lopsided as it must be, and no regular
    estimator is surer than the likelihood's. Where even that is wide, all of it is taken in.
    """
    if not math.isfinite(found.holder):
        return found
    low = min(found.holder_low, _clip(found.holder - (found.rate - found.low)))
    high = max(found.holder_high, _clip(found.holder + (found.high - found.rate)))
    if found.high - found.low > _TOO_WIDE_FOR_LINES or found.high >= HIGHEST_RATE:
        low, high = min(low, found.low), max(high, found.high)
    return replace(found, holder_low=low, holder_high=high)


def _clip(rate: float) -> float:
    """A share of flips lies in [0, 0.5], whatever the noise of its estimate; not-a-number stays."""
    return min(max(rate, 0.0), 0.5) if math.isfinite(rate) else rate


def _checked(differences: Array) -> Array:
    values = np.asarray(differences, dtype=float)
    if values.ndim != 2 or len(values) < _LEAST_PAIRS:
        raise DataError(
            f"`differences` must be an array (pairs, features) with at least {_LEAST_PAIRS} pairs "
            f"(got shape {values.shape})."
        )
    if not np.isfinite(values).all():
        raise DataError(f"`differences` must be finite (pair {int(np.argmin(np.isfinite(values).all(1)))} is not).")
    if not np.abs(values).max() > 0:
        raise DataError("`differences` must not all be zero: chosen and rejected have the same features.")
    return values


def _principal(scaled: Array, components: int) -> Array:
    """The leading principal components, unit variance each; differences have no mean to take off."""
    _, values, axes = np.linalg.svd(scaled, full_matrices=False)
    keep = min(components, int((values > 1e-8 * values[0]).sum()))
    projected = scaled @ axes[:keep].T
    result: Array = projected / np.sqrt((projected**2).mean(axis=0))
    return result
