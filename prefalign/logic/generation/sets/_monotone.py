"""Monotone truth tables, listed and counted: Dedekind's numbers and their intervals."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from ...tables import full_mask, split
from ._regions import Region, exchange, symmetry

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Tables = npt.NDArray[np.uint64]

# A list of tables longer than this is not made (six fully monotone propositions have 7 828 354).
MAX_TABLES = 1 << 23
# Dedekind's numbers: the tables over n = 0, 1, ..., 8 propositions that are monotone in all of them (OEIS A000372).
DEDEKIND = (2, 3, 6, 20, 168, 7581, 7828354, 2414682040998, 56130437228687557907788)
# Pairs (top, bottom) that are compared one by one at most; more goes through decision diagrams.
MAX_PAIRS = 1 << 27


def signs_of(region: Region) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The direction of every atom for top and for bottom, 0 where free; None if an atom is asked to be both."""
    found = dict.fromkeys(region.atoms, 0)
    for atom, direction in region.directions:
        if found[atom] == -direction:
            return None
        found[atom] = direction
    top = tuple(found.values())
    return top, tuple(-direction for direction in top)


@lru_cache(maxsize=256)
def monotone_tables(signs: tuple[int, ...], low: int, high: int) -> Tables | None:
    """All tables between two that are monotone as told, ascending; None if there are more than `MAX_TABLES`.

    Args:
        signs: Per atom +1 (rising), -1 (falling) or 0 (free); at most six atoms.
        low: Rows that must be true.
        high: Rows that may be true.
    """
    import numpy as np

    if low & ~high:
        return np.zeros(0, dtype=np.uint64)
    if not signs:
        return np.array([value for value in (0, 1) if low <= value <= high], dtype=np.uint64)
    if len(signs) > 6:
        return None
    (low_true, low_false), (high_true, high_false) = (split(mask, len(signs)) for mask in (low, high))
    true, false = monotone_tables(signs[1:], low_true, high_true), monotone_tables(signs[1:], low_false, high_false)
    if true is None or false is None or (not signs[0] and len(true) * len(false) > MAX_TABLES):
        return None
    half = np.uint64(1 << (len(signs) - 1))
    parts, total = [], 0
    for table in false:
        if signs[0] > 0:
            fitting = true[(table & ~true) == 0]
        elif signs[0] < 0:
            fitting = true[(true & ~table) == 0]
        else:
            fitting = true
        total += len(fitting)
        if total > MAX_TABLES:
            return None
        parts.append(fitting | (table << half))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)


def monotone_parts(region: Region) -> tuple[Tables, Tables] | None:
    """The monotone tops and bottoms within the region's bounds; None if they are too many to list."""
    import numpy as np

    signs = signs_of(region)
    if signs is None or len(region.atoms) > 6:
        return None
    parts = []
    for side, bounds in zip(signs, region.bounds, strict=True):
        tables = monotone_tables(side, *bounds)
        if tables is None:
            return None
        for kind in region.symmetric - {"swap"}:
            for exchanges, _ in symmetry(kind, region.atoms):
                tables = tables[exchange(tables, exchanges, region.atoms) == tables]
        parts.append(tables.astype(np.uint64))
    return parts[0], parts[1]


def count_monotone(region: Region) -> int | None:
    """How many structures a region with directions has; None if it takes decision diagrams to say."""
    parts = monotone_parts(region)
    if parts is None:
        return by_dedekind(region)
    tops, bottoms = parts
    if "swap" in region.symmetric:
        exchanges, _ = symmetry("swap", region.atoms)[0]
        return int(region.contains(tops, exchange(tops, exchanges, region.atoms)).sum())
    if region.is_rectangular:
        return len(tops) * len(bottoms)
    if len(tops) * len(bottoms) > MAX_PAIRS:
        return None
    rows = Region(region.atoms, region.o, region.v, region.x, region.b)
    return sum(int(rows.contains(top, bottoms).sum()) for top in tops)


def by_dedekind(region: Region) -> int | None:
    """The size of a region that is monotone in every proposition and asks for no more than a constant top or bottom.

    A direction is no matter: turning a proposition round carries rising tables to falling ones.
    """
    count, full = len(region.atoms), full_mask(len(region.atoms))
    all_directed = len(region.directions) == count and signs_of(region) is not None
    if not all_directed or region.symmetric or not region.is_rectangular or count >= len(DEDEKIND):
        return None
    total = 1
    for low, high in region.bounds:
        if low & ~high:
            return 0
        if (low, high) == (0, full):
            total *= DEDEKIND[count]
        elif high and low != full:  # some rows are fixed
            return None
    return total
