"""Means with bootstrap intervals, also of paired measurements that come in groups."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from .._errors import DataError

_DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds between which it lies with the stated confidence."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def interval(
    values: Sequence[float] | np.ndarray,
    seed: int = 0,
    *,
    level: float = 0.95,
    groups: Sequence[Hashable] | None = None,
) -> Interval:
    """Mean of `values` with its percentile-bootstrap interval (10 000 resamples).

    Args:
        values: Measurements, shape (n,), finite.
        seed: Seed of the resampling.
        level: Confidence, in (0, 1).
        groups: For each value the group it belongs to, such as its prompt. Values of one group are not independent:
            groups are resampled as wholes, and each counts with the mean of its values.

    Returns:
        Mean and bounds. One value (or group) has itself as bounds: there is nothing to resample.

    Raises:
        DataError: There are no values, one is not finite, or an argument is out of range.

    Example:
        >>> interval([0.0, 1.0] * 50, seed=0)
        Interval(mean=0.5, low=0.4, high=0.6)
    """
    units = _units(values, groups)
    if not 0 < level < 1:
        raise DataError(f"`level` must lie in (0, 1) (got {level!r}).")
    random = np.random.default_rng(seed)
    # Drawn in portions: 10 000 resamples of many values at once would not fit the memory.
    portion = max(1, 2_000_000 // len(units))
    means = np.concatenate(
        [
            units[random.integers(len(units), size=(min(portion, _DRAWS - done), len(units)))].mean(axis=1)
            for done in range(0, _DRAWS, portion)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(units.mean()), float(low), float(high))


def paired_interval(
    before: Sequence[float] | np.ndarray,
    after: Sequence[float] | np.ndarray,
    seed: int = 0,
    *,
    level: float = 0.95,
    groups: Sequence[Hashable] | None = None,
) -> Interval:
    """Mean change of paired measurements with its bootstrap interval: pairs are resampled, not their sides.

    Args:
        before: Measurements, shape (n,).
        after: Measurements of the same things in the same order, shape (n,).
        seed: Seed of the resampling.
        level: Confidence, in (0, 1).
        groups: As in `interval`.

    Raises:
        DataError: The two differ in length, or as in `interval`.

    Example:
        >>> paired_interval([1.0, 5.0, 9.0], [2.0, 6.0, 10.0])
        Interval(mean=1.0, low=1.0, high=1.0)
    """
    if len(before) != len(after):
        raise DataError(f"`before` and `after` must be of one length (got {len(before)} and {len(after)}).")
    return interval(np.asarray(after, dtype=float) - np.asarray(before, dtype=float), seed, level=level, groups=groups)


def _units(values: Sequence[float] | np.ndarray, groups: Sequence[Hashable] | None) -> np.ndarray:
    """The values that are resampled: the measurements, or the means of their groups."""
    numbers = np.asarray(values, dtype=float)
    if numbers.ndim != 1 or not len(numbers):
        raise DataError(f"`values` must be a list of one number or more (got shape {numbers.shape}).")
    if not np.isfinite(numbers).all():
        raise DataError(f"`values` must be finite (value {int(np.argmin(np.isfinite(numbers)))} is not).")
    if groups is None:
        return numbers
    if len(groups) != len(numbers):
        raise DataError(f"`groups` must name one group per value (got {len(groups)} for {len(numbers)}).")
    index = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    place = np.array([index[group] for group in groups])
    sizes = np.bincount(place)
    return np.asarray(np.bincount(place, weights=numbers) / sizes)
