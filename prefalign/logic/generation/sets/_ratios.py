"""Which structures have the same ratio, exactly, for millions at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ...._errors import SpecError
from ._enumerate import MAX_KEPT
from ._points import PRIMES, counts, grid, residues

if TYPE_CHECKING:
    from ._enumerate import Pairs


def distinct_ratios(chunks: Iterable[Pairs], atoms: tuple[str, ...]) -> int:
    """How many different ratios there are among structures."""
    import numpy as np

    tops, bottoms = collect(chunks)
    return int(np.count_nonzero(first_of_ratio(tops, bottoms, atoms)))


def collect(chunks: Iterable[Pairs]) -> Pairs:
    """All chunks as one.

    Raises:
        SpecError: They are more than can be kept.
    """
    import numpy as np

    parts, total = [], 0
    for chunk in chunks:
        parts.append(chunk)
        total += len(chunk[0])
        if total > MAX_KEPT:
            raise SpecError(
                f"more than {MAX_KEPT:,} structures would have to be held side by side; narrow the specification."
            )
    if not parts:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)
    return np.concatenate([top for top, _ in parts]), np.concatenate([bottom for _, bottom in parts])


def first_of_ratio(tops: Any, bottoms: Any, atoms: tuple[str, ...]) -> Any:
    """For each structure whether it is the first of those with its ratio (0/0 is a ratio too).

    Fingerprints modulo primes group the structures; within a group equality of the ratios is then proved: the
    difference top₁·bottom₂ - top₂·bottom₁ has degree at most two in every variable, so it is the zero polynomial if it
    vanishes on the grid {0, 1, 2}ⁿ.
    """
    import numpy as np

    if not len(tops):
        return np.zeros(0, dtype=bool)
    prints = np.zeros((len(tops), len(PRIMES)), dtype=np.int64)
    for column, prime in enumerate(PRIMES):
        weights = residues(atoms, prime)
        top, bottom = (counts(masks, weights) % prime for masks in (tops, bottoms))
        ratio = top * _inverse(bottom, prime) % prime
        # No bottom: the ratio is infinite, or 0/0.
        prints[:, column] = np.where(bottoms == 0, np.where(tops == 0, -2, -1), ratio)
    _, first, group = np.unique(prints, axis=0, return_index=True, return_inverse=True)
    leader = first[group.reshape(-1)]
    _verify(tops, bottoms, leader, atoms)
    return leader == np.arange(len(tops))


def _verify(tops: Any, bottoms: Any, leader: Any, atoms: tuple[str, ...]) -> None:
    import numpy as np

    weights = grid(atoms)
    others = np.flatnonzero(leader != np.arange(len(tops)))
    for start in range(0, len(others), 1 << 14):
        some = others[start : start + (1 << 14)]
        ours, theirs = (tops[some], bottoms[some]), (tops[leader[some]], bottoms[leader[some]])
        left = counts(ours[0], weights) * counts(theirs[1], weights)
        right = counts(theirs[0], weights) * counts(ours[1], weights)
        assert (left == right).all(), "two ratios share a fingerprint of 62 bits"


def _inverse(values: Any, prime: int) -> Any:
    """Fermat's: value ** (prime - 2) modulo a prime."""
    import numpy as np

    result, power, exponent = np.ones_like(values), values.copy(), prime - 2
    while exponent:
        if exponent & 1:
            result = result * power % prime
        power = power * power % prime
        exponent >>= 1
    return result
