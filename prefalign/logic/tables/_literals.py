"""How long a structure's formulas are: the literals of its shortest P, P_C and P_A, for one structure or for millions.

Up to four propositions every table's least number of literals over all DNFs and CNFs is known from a table made once
(0.3 s and 43 MB at n = 4, where it is made only when millions of structures are compared).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ._masks import full_mask
from ._minimise import EXACT_ATOMS, cubes, shortest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Costs = npt.NDArray[np.uint8]

_UNKNOWN = 255


def count_literals(atoms: int, top: int, bottom: int) -> int:
    """The literals in the shortest P, P_C and P_A together; constants have none.

    Rows on both sides or on neither are free for P. An exclusive or counts as its normal form, four literals.
    """
    return sum(form.literals for form in shortest_parts(atoms, top, bottom))


@lru_cache(maxsize=1 << 16)
def shortest_parts(atoms: int, top: int, bottom: int) -> tuple[Any, Any, Any]:
    """Normal forms of the shortest P, P_C and P_A."""
    full = full_mask(atoms)
    return (
        shortest(atoms, top & ~bottom, full ^ top ^ bottom),
        shortest(atoms, top | bottom),
        shortest(atoms, top & bottom),
    )


def literal_array(atoms: int, tops: Any, bottoms: Any) -> Any:
    """`count_literals` for arrays of masks; at most four propositions are looked up, more are minimised one by one."""
    import numpy as np

    if atoms > EXACT_ATOMS or (atoms == EXACT_ATOMS and len(tops) < 2000):
        pairs = zip(tops.tolist(), bottoms.tolist(), strict=True)
        return np.array([count_literals(atoms, top, bottom) for top, bottom in pairs], dtype=np.int64)
    costs, intervals, place = function_costs(atoms), interval_costs(atoms), _ternary(atoms)
    full = np.uint64(full_mask(atoms))
    free = full ^ tops ^ bottoms
    index = place[tops & ~bottoms] + 2 * place[free]
    return costs[tops | bottoms].astype(np.int64) + costs[tops & bottoms] + intervals[index]


@lru_cache(maxsize=8)
def function_costs(atoms: int) -> Costs:
    """For every table over up to four propositions: the least number of literals of a DNF or CNF."""
    import numpy as np

    full = full_mask(atoms)
    costs = np.full(full + 1, _UNKNOWN, dtype=np.uint8)
    costs[[0, full]] = 0
    by_cost = [np.array([0], dtype=np.uint64)]
    terms = [(len(cube), np.uint64(rows)) for cube, rows in cubes(atoms) if cube]
    while (costs == _UNKNOWN).any():
        level = len(by_cost)
        reached = [by_cost[level - size] | rows for size, rows in terms if size <= level]
        found = np.unique(np.concatenate(reached))
        found = found[costs[found] == _UNKNOWN]
        costs[found] = level
        by_cost.append(found)
    return np.minimum(costs, costs[::-1])  # a CNF of f is a DNF of its complement


@lru_cache(maxsize=4)
def interval_costs(atoms: int) -> Costs:
    """For every table with don't-cares: the least cost of a table it allows; digit 2 of the index is "free"."""
    import numpy as np

    rows = 1 << atoms
    costs = function_costs(atoms).reshape((2,) * rows)
    for axis in range(rows):
        low, high = np.take(costs, [0], axis), np.take(costs, [1], axis)
        costs = np.concatenate([low, high, np.minimum(low, high)], axis)
    return costs.reshape(-1)


@lru_cache(maxsize=4)
def _ternary(atoms: int) -> npt.NDArray[np.int64]:
    """The mask's bits read as digits to base 3."""
    import numpy as np

    masks = np.arange(full_mask(atoms) + 1, dtype=np.int64)
    return sum(((masks >> row & 1) * 3**row for row in range(1 << atoms)), np.zeros_like(masks))
