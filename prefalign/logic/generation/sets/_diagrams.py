"""Counting with binary decision diagrams, for specifications that do not factor; needs the extra `bdd`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...._errors import SpecError
from ...tables import atom_mask, bits, full_mask
from ._conditions import AllOf, AnyOf, Condition, InRegion, Named, Not
from ._regions import Region, exchange, row_orbits, symmetry


def count_by_diagram(condition: Condition, atoms: tuple[str, ...]) -> int:
    """How many structures satisfy a condition without looked-up properties: the models of a diagram over 2·2ⁿ rows.

    Raises:
        SpecError: `dd` is not installed.
    """
    manager = _manager()
    # A row's two variables stay neighbours: most conditions tie top to bottom within a row.
    names = [f"{side}{row}" for row in _order(condition, atoms) for side in "tb"]
    manager.declare(*names)
    manager.configure(reordering=True)
    return _models(manager, _node(manager, condition, atoms), len(names))


def _order(condition: Condition, atoms: tuple[str, ...]) -> list[int]:
    """The rows, with those near each other that conditions tie: else a diagram must remember all in between."""
    regions = list(_regions(condition))
    directed = {atom for region in regions for atom, _ in region.directions}
    places = sorted(range(len(atoms)), key=lambda place: atoms[place] in directed)
    count = len(atoms)

    def key(row: int) -> int:
        """The row's number with free atoms varying slowest, directed ones fastest."""
        return sum((row >> (count - 1 - place) & 1) << (count - 1 - rank) for rank, place in enumerate(places))

    orbits = row_orbits(atoms, frozenset().union(*(region.symmetric for region in regions)))
    groups = [sorted({row for row, _ in orbit}, key=key) for orbit in orbits]
    return [row for group in sorted(groups, key=lambda group: key(group[0])) for row in group]


def _regions(condition: Condition) -> Iterator[Region]:
    if isinstance(condition, InRegion):
        yield condition.region
    elif isinstance(condition, Named):
        yield from _regions(condition.inner)
    elif isinstance(condition, Not):
        yield from _regions(condition.part)
    elif isinstance(condition, AllOf | AnyOf):
        for part in condition.parts:
            yield from _regions(part)


def _manager() -> Any:
    try:
        from dd import cudd

        return cudd.BDD()
    except ImportError:
        pass
    try:
        from dd import autoref
    except ImportError as error:
        raise SpecError(
            "this specification does not factor by row; counting it takes decision diagrams: "
            "`pip install dd`, or narrow it until it can be listed."
        ) from error
    return autoref.BDD()


def _node(manager: Any, condition: Condition, atoms: tuple[str, ...]) -> Any:
    if isinstance(condition, InRegion):
        return _region(manager, condition.region)
    if isinstance(condition, Named):
        return _node(manager, condition.inner, atoms)
    if isinstance(condition, Not):
        return ~_node(manager, condition.part, atoms)
    assert isinstance(condition, AllOf | AnyOf), "properties are listed, not encoded"
    both = isinstance(condition, AllOf)
    node = manager.true if both else manager.false
    for part in condition.parts:
        inner = _node(manager, part, atoms)
        node = node & inner if both else node | inner
    return node


def _region(manager: Any, region: Region) -> Any:
    rows = range(1 << len(region.atoms))
    tops, bottoms = ([manager.var(f"{side}{row}") for row in rows] for side in "tb")
    node = manager.true
    for row in rows:
        top, bottom = tops[row], bottoms[row]
        choices = manager.false
        for allowed, literal in (
            (region.o, ~top & ~bottom),
            (region.v, top & ~bottom),
            (region.x, ~top & bottom),
            (region.b, top & bottom),
        ):
            if allowed >> row & 1:
                choices |= literal
        node &= choices
    for kind in sorted(region.symmetric):
        for exchanges, flips in symmetry(kind, region.atoms):
            for row in rows:
                moved = exchange(1 << row, exchanges, region.atoms).bit_length() - 1
                targets = (bottoms, tops) if flips else (tops, bottoms)
                node &= manager.apply("<=>", tops[row], targets[0][moved])
                node &= manager.apply("<=>", bottoms[row], targets[1][moved])
    return node & _monotone(manager, region, tops, bottoms)


def _monotone(manager: Any, region: Region, tops: list[Any], bottoms: list[Any]) -> Any:
    """Each pair of neighbouring rows in order; built separately for top and bottom, then joined."""
    count = len(region.atoms)
    node = manager.true
    for side, turn in ((tops, 1), (bottoms, -1)):
        inner = manager.true
        for atom, direction in sorted(region.directions):
            place = region.atoms.index(atom)
            block = 1 << (count - 1 - place)
            for true_row in bits(atom_mask(place, count) & full_mask(count)):
                low, high = side[true_row + block], side[true_row]
                if direction * turn < 0:
                    low, high = high, low
                inner &= ~low | high
        node &= inner
    return node


def _models(manager: Any, root: Any, variables: int) -> int:
    """The number of models as an exact integer (CUDD's own count is a float)."""
    memo: dict[int, int] = {}

    def below(node: Any) -> tuple[int, int]:
        """The level of a node, and its models over the variables from that level on."""
        if node in (manager.true, manager.false):
            return variables, int(node == manager.true)
        level = manager.level_of_var(node.var)
        regular = ~node if node.negated else node
        key = int(regular)
        if key not in memo:
            total = 0
            for child in (regular.low, regular.high):
                child_level, models = below(child)
                total += models << (child_level - level - 1)
            memo[key] = total
        models = memo[key]
        return level, (1 << (variables - level)) - models if node.negated else models

    level, models = below(root)
    return models << level
