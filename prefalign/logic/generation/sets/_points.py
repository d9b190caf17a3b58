"""Weighted model counts of millions of tables at once, at a few points and modulo primes."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# The largest primes below 2**31: products of two residues fit into 64 bits.
PRIMES = (2147483647, 2147483629)


def same_at_two_points(tops: Any, bottoms: Any, atoms: tuple[str, ...], name: str) -> Any:
    """Whether the ratio is the same at two points that differ in `name` alone; where it is not, it depends on it."""
    (first, prime), (second, _) = (_point_weights(atoms, name, turn) for turn in (0, 1))
    top, bottom, other_top, other_bottom = (
        counts(masks, weights) % prime for weights in (first, second) for masks in (tops, bottoms)
    )
    return top * other_bottom % prime == other_top * bottom % prime


@lru_cache(maxsize=64)
def _point_weights(atoms: tuple[str, ...], name: str, turn: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
    return residues(atoms, PRIMES[0], (name, turn)), PRIMES[0]


def counts(masks: Any, weights: Any) -> Any:
    """Weighted counts: the bits of every mask times the rows' weights."""
    import numpy as np

    result = np.zeros((len(masks), *weights.shape[1:]), dtype=np.int64)
    for row, weight in enumerate(weights):
        bit = (masks >> np.uint64(row) & np.uint64(1)).astype(np.int64)
        result += bit.reshape(-1, *[1] * (weights.ndim - 1)) * weight
    return result


@lru_cache(maxsize=16)
def residues(
    atoms: tuple[str, ...], prime: int, moved: tuple[str, int] | None = None
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The rows' weights at a fixed point modulo a prime, or one `moved` in a name; copies share their original's."""
    import random

    import numpy as np

    from ...tables import original

    source = random.Random(prime)
    point = {name: source.randrange(2, prime) for name in sorted(set(map(original, atoms)))}
    if moved is not None:
        point[moved[0]] = (point[moved[0]] * (2 + moved[1])) % prime
    weights = []
    for row in range(1 << len(atoms)):
        weight = 1
        for place, atom in enumerate(atoms):
            p = point[original(atom)]
            weight = weight * (1 - p if row >> (len(atoms) - 1 - place) & 1 else p) % prime
        weights.append(weight)
    return np.array(weights, dtype=np.int64)


@lru_cache(maxsize=16)
def grid(atoms: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
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
