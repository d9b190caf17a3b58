"""The number of members of a set of structures, without listing them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...tables import EXACT_ATOMS
from ._conditions import Condition, MaxLiterals, conjuncts, expand, is_array_test
from ._enumerate import by_literals, listable, members, region_size
from ._regions import Region

if TYPE_CHECKING:
    from ._enumerate import Pairs


def quick_count(condition: Condition, atoms: tuple[str, ...]) -> int | None:
    """The count if it takes no diagrams and no long listing, else None."""
    terms = expand(condition, atoms)
    if terms is not None:
        return total_size(terms)
    # A few tenths of a second at most: tests of arrays are fast, derivations and large formulas are not.
    few = {1: 1 << 8, 2: 1 << 8, 3: 1 << 8}.get(len(atoms), 1 << 4)
    many = {3: 1 << 16, 4: 1 << 8}.get(len(atoms), few)
    if listable(condition, atoms, many if is_array_test(condition) else few):
        return sum(len(tops) for tops, _ in members(condition, atoms))
    return None


def all_members(condition: Condition, atoms: tuple[str, ...]) -> Iterator[Pairs]:
    """Everything that satisfies the condition, in chunks; by literals where listing would not end."""
    limited = any(isinstance(part, MaxLiterals) for part in conjuncts(condition))
    if not listable(condition, atoms) and limited and len(atoms) <= EXACT_ATOMS:
        return (pairs for _, pairs in by_literals(condition, atoms))
    return members(condition, atoms)


def total_size(terms: dict[Region, int]) -> int | None:
    total = 0
    for region, factor in terms.items():
        size = region.row_product() if not (region.symmetric or region.directions) else region_size(region)
        if size is None:
            return None
        total += factor * size
    return total
