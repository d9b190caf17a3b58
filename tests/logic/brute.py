"""Every structure over a few atoms as a string of labels, and what is said of them, straight from the definitions."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import prod

GOOD = {"w", "rl", "y1"}


def valuations(atoms):
    """The rows as dicts of truth values, in the order TT, TF, FT, FF."""
    return [dict(zip(atoms, values, strict=True)) for values in product((True, False), repeat=len(atoms))]


def columns(atoms):
    """Every labelling of the rows with v, x, b, o."""
    return ("".join(labels) for labels in product("vxbo", repeat=2 ** len(atoms)))


def is_top(label):
    return label in "vb"


def is_bottom(label):
    return label in "xb"


def weighted_count(rows, side, atoms, point):
    """The sum over the rows on one side of the product of p or 1 - p."""
    return sum(
        prod((point[atom] if true else 1 - point[atom] for atom, true in values.items()), start=Fraction(1))
        for label, values in zip(rows, valuations(atoms), strict=True)
        if side(label)
    )


def entails(low, high):
    """Row by row: x < {o, b} < v."""
    order = {"x": 0, "o": 1, "b": 1, "v": 2}
    return all(a == b or order[a] < order[b] for a, b in zip(low, high, strict=True))


def monotone(rows, directions, atoms):
    """Top rises with +1 atoms and falls with -1 atoms; bottom the other way."""
    where = {tuple(values.values()): label for label, values in zip(rows, valuations(atoms), strict=True)}
    for values, label in where.items():
        for place, atom in enumerate(atoms):
            if atom in directions and not values[place]:
                raised = where[(*values[:place], True, *values[place + 1 :])]
                less, more = (label, raised) if directions[atom] > 0 else (raised, label)
                if is_top(less) > is_top(more) or is_bottom(less) < is_bottom(more):
                    return False
    return True


def swap_symmetric(rows, atoms):
    """Exchanging w with l (and rw with rl) exchanges top and bottom."""
    partner = {"w": "l", "l": "w", "rw": "rl", "rl": "rw", "y1": "y2", "y2": "y1"}
    flip = {"v": "x", "x": "v", "b": "b", "o": "o"}
    where = {tuple(values.values()): label for label, values in zip(rows, valuations(atoms), strict=True)}
    for values in valuations(atoms):
        swapped = tuple(values[partner[atom]] for atom in atoms)
        if where[swapped] != flip[where[tuple(values.values())]]:
            return False
    return True


def satisfiable(rows):
    return any(map(is_top, rows)) and any(map(is_bottom, rows))


def nonconstant(rows):
    tops, bottoms = {is_top(label) for label in rows}, {is_bottom(label) for label in rows}
    return len(tops) == 2 and len(bottoms) == 2


def ratio_key(rows, atoms):
    """The ratio at enough points to identify it: degree two per variable after cross-multiplying, three values each."""
    tops, bottoms = [], []
    for values in product((Fraction(1, 5), Fraction(1, 2), Fraction(3, 4)), repeat=len(atoms)):
        point = dict(zip(atoms, values, strict=True))
        tops.append(weighted_count(rows, is_top, atoms, point))
        bottoms.append(weighted_count(rows, is_bottom, atoms, point))
    if not any(bottoms):
        return "0/0" if not any(tops) else "infinite"
    return tuple(top / bottom for top, bottom in zip(tops, bottoms, strict=True))
