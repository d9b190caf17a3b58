"""Which structures have the same ratio, exactly, for millions at a time."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

from ...._errors import SpecError
from ._enumerate import MAX_KEPT

if TYPE_CHECKING:
    import numpy as np

    from ._enumerate import Pairs

# The largest primes below 2**31: products of two residues fit into 64 bits.
_PRIMES = (2147483647, 2147483629)


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
    prints = np.zeros((len(tops), len(_PRIMES)), dtype=np.int64)
    for column, prime in enumerate(_PRIMES):
        weights = _residues(atoms, prime)
        top, bottom = (_counts(masks, weights) % prime for masks in (tops, bottoms))
        ratio = top * _inverse(bottom, prime) % prime
        # No bottom: the ratio is infinite, or 0/0.
        prints[:, column] = np.where(bottoms == 0, np.where(tops == 0, -2, -1), ratio)
    _, first, group = np.unique(prints, axis=0, return_index=True, return_inverse=True)
    leader = first[group.reshape(-1)]
    _verify(tops, bottoms, leader, atoms)
    return leader == np.arange(len(tops))


def _verify(tops: Any, bottoms: Any, leader: Any, atoms: tuple[str, ...]) -> None:
    import numpy as np

    weights = _grid(atoms)
    others = np.flatnonzero(leader != np.arange(len(tops)))
    for start in range(0, len(others), 1 << 14):
        some = others[start : start + (1 << 14)]
        ours, theirs = (tops[some], bottoms[some]), (tops[leader[some]], bottoms[leader[some]])
        left = _counts(ours[0], weights) * _counts(theirs[1], weights)
        right = _counts(theirs[0], weights) * _counts(ours[1], weights)
        assert (left == right).all(), "two ratios share a fingerprint of 62 bits"


def _counts(masks: Any, weights: Any) -> Any:
    """Weighted counts: the bits of every mask times the rows' weights."""
    import numpy as np

    result = np.zeros((len(masks), *weights.shape[1:]), dtype=np.int64)
    for row, weight in enumerate(weights):
        bit = (masks >> np.uint64(row) & np.uint64(1)).astype(np.int64)
        result += bit.reshape(-1, *[1] * (weights.ndim - 1)) * weight
    return result


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


@lru_cache(maxsize=16)
def _residues(atoms: tuple[str, ...], prime: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The rows' weights at a fixed point modulo a prime; copies share their original's probability."""
    import random

    import numpy as np

    from ...tables import original

    source = random.Random(prime)
    point = {name: source.randrange(2, prime) for name in sorted(set(map(original, atoms)))}
    weights = []
    for row in range(1 << len(atoms)):
        weight = 1
        for place, atom in enumerate(atoms):
            p = point[original(atom)]
            weight = weight * (1 - p if row >> (len(atoms) - 1 - place) & 1 else p) % prime
        weights.append(weight)
    return np.array(weights, dtype=np.int64)


@lru_cache(maxsize=16)
def _grid(atoms: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The rows' weights at the points of a grid with 2d+1 values for an original with d copies."""
    import numpy as np

    from ...tables import original

    names = sorted(set(map(original, atoms)))
    counts = [sum(original(atom) == name for atom in atoms) for name in names]
    points = [dict(zip(names, values, strict=True)) for values in product(*(range(2 * d + 1) for d in counts))]
    weights = np.ones((1 << len(atoms), len(points)), dtype=np.int64)
    for row in range(1 << len(atoms)):
        for column, point in enumerate(points):
            for place, atom in enumerate(atoms):
                p = point[original(atom)]
                weights[row, column] *= 1 - p if row >> (len(atoms) - 1 - place) & 1 else p
    return weights
