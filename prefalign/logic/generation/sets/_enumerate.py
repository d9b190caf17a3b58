"""Listing the structures of a condition: millions a second, as pairs of arrays of masks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from ...._errors import SpecError
from ...tables import EXACT_ATOMS, full_mask, function_costs, literal_array
from ._conditions import Condition, MaxLiterals, conjuncts, skeleton
from ._monotone import count_monotone, monotone_parts
from ._regions import Region, exchange, symmetry

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Masks = npt.NDArray[np.uint64]
    Pairs = tuple[Masks, Masks]

# Structures listed and tested at most; some seconds. Listed and kept at most, for sorting and drawing.
MAX_LISTED = 1 << 27
MAX_KEPT = 1 << 22
_CHUNK = 1 << 16


def region_size(region: Region) -> int | None:
    """How many structures a region has; None if only decision diagrams can tell."""
    if region.clashing_row is not None:
        return 0
    if region.directions:
        return count_monotone(region)
    if region.symmetric:
        return prod(len(options) for options in region.digits)
    return region.row_product()


def listable(condition: Condition, atoms: tuple[str, ...], most: int = MAX_LISTED) -> bool:
    """Whether everything that could satisfy the condition is few enough to be looked at."""
    if len(atoms) > 6:
        return False
    size = region_size(skeleton(condition, atoms))
    return size is not None and size <= most


def list_region(region: Region) -> Iterator[Pairs]:
    """All structures of a region in chunks of arrays, over at most six propositions."""
    if region.clashing_row is not None:
        return
    if region.directions:
        yield from _list_monotone(region)
        return
    import numpy as np

    inner_top = inner_bottom = np.zeros(1, dtype=np.uint64)
    digits = list(region.digits)
    while digits and len(inner_top) * len(digits[0]) <= _CHUNK:
        options = np.array(digits.pop(0), dtype=np.uint64).reshape(-1, 2)
        inner_top = (options[:, :1] | inner_top).reshape(-1)
        inner_bottom = (options[:, 1:] | inner_bottom).reshape(-1)
    for outer in product(*digits):
        top = sum(pair[0] for pair in outer)
        bottom = sum(pair[1] for pair in outer)
        yield inner_top | np.uint64(top), inner_bottom | np.uint64(bottom)


def _list_monotone(region: Region) -> Iterator[Pairs]:
    import numpy as np

    parts = monotone_parts(region)
    assert parts is not None, "only what can be counted without diagrams is listed"
    tops, bottoms = parts
    if "swap" in region.symmetric:
        mirrored = exchange(tops, symmetry("swap", region.atoms)[0][0], region.atoms)
        inside = region.contains(tops, mirrored)
        yield tops[inside], mirrored[inside]
        return
    width = max(1, _CHUNK // max(1, len(bottoms)))
    for start in range(0, len(tops), width):
        some = tops[start : start + width]
        left, right = np.repeat(some, len(bottoms)), np.tile(bottoms, len(some))
        inside = region.contains(left, right)
        yield left[inside], right[inside]


def members(condition: Condition, atoms: tuple[str, ...]) -> Iterator[Pairs]:
    """All structures that satisfy a condition, in chunks; a progress bar after two seconds.

    Raises:
        SpecError: There are too many candidates to look at.
    """
    from tqdm import tqdm

    region = skeleton(condition, atoms)
    size = region_size(region)
    if size is None or size > MAX_LISTED or len(atoms) > 6:
        shown = "" if size is None else f" ({size:,} candidates)"
        raise SpecError(
            f"this specification cannot be listed{shown}: {condition.said()}. Narrow it (`between`, `rows`, "
            f"`monotone`, `max_literals` on at most {EXACT_ATOMS} atoms), or draw from it with `sample`."
        )
    with tqdm(total=size, unit=" structures", delay=2, leave=False, desc="listing") as bar:
        for tops, bottoms in list_region(region):
            inside = condition.contains(tops, bottoms)
            bar.update(len(tops))
            if inside.any():
                yield tops[inside], bottoms[inside]


def stream(condition: Condition, atoms: tuple[str, ...]) -> Iterator[Pairs]:
    """All structures that satisfy a condition, in chunks, however many they are.

    Raises:
        SpecError: Only decision diagrams could tell them, or there are more than six propositions.
    """
    region = skeleton(condition, atoms)
    if len(atoms) > 6 or region_size(region) is None:
        raise SpecError(f"this specification cannot be listed: {condition.said()}. Draw from it with `sample`.")
    for tops, bottoms in list_region(region):
        inside = condition.contains(tops, bottoms)
        if inside.all():
            yield tops, bottoms
        elif inside.any():
            yield tops[inside], bottoms[inside]


def by_literals(condition: Condition, atoms: tuple[str, ...]) -> Iterator[tuple[int, Pairs]]:
    """The structures that satisfy a condition, level by level of literals, without listing the others first.

    Every structure is a triple (P, P_C, P_A); triples are formed from tables of known cost. At most four propositions.
    """
    import numpy as np

    region, count = skeleton(condition, atoms), len(atoms)
    full = np.uint64(full_mask(count))
    costs = function_costs(count)
    caps = [part.most for part in conjuncts(condition) if isinstance(part, MaxLiterals)]
    worst = min([3 * int(costs.max()), *caps])
    # The rows where some label is allowed or forced narrow the three tables before they are combined.
    counts_may, counts_must = region.v | region.x | region.b, int(full) & ~region.o
    both_may, both_must = region.b, int(full) & ~(region.o | region.v | region.x)

    def tables(may: int, must: int) -> list[Masks]:
        everything = np.arange(int(full) + 1, dtype=np.uint64)
        fit = everything[((everything & np.uint64(int(full) & ~may)) == 0) & ((everything & np.uint64(must)) == must)]
        return [fit[costs[fit] == level] for level in range(int(costs.max()) + 1)]

    conditions, boths = tables(counts_may, counts_must), tables(both_may, both_must)
    cores = tables(int(full), 0)
    for level in range(worst + 1):
        found: list[Masks] = []
        for c_cost, a_cost in product(range(min(level, len(conditions) - 1) + 1), range(len(boths))):
            p_cost = level - c_cost - a_cost
            if not 0 <= p_cost < len(cores):
                continue
            for counting in conditions[c_cost]:
                shared = boths[a_cost][(boths[a_cost] & ~counting) == 0]
                both, core = np.repeat(shared, len(cores[p_cost])), np.tile(cores[p_cost], len(shared))
                tops = (core & counting) | both
                bottoms = (counting & ~core) | both
                inside = region.contains(tops, bottoms)
                found.append(tops[inside] << np.uint64(1 << count) | bottoms[inside])
                if sum(map(len, found)) > MAX_LISTED:
                    raise SpecError(
                        f"more than {MAX_LISTED:,} structures have {level} literals; narrow the specification."
                    )
        codes = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.uint64)
        tops, bottoms = codes >> np.uint64(1 << count), codes & full
        exact = literal_array(count, tops, bottoms) == level  # a shorter P may fit the same rows
        tops, bottoms = tops[exact], bottoms[exact]
        inside = condition.contains(tops, bottoms)
        yield level, (tops[inside], bottoms[inside])
