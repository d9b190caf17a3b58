"""Whether a loss's gradient is bounded, decided exactly from the truth table."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from ..._errors import SpecError
from ..tables import bits, is_reference, original

MOST_ATOMS = 4
_Monomial = tuple[int, ...]


def gradient_is_bounded(atoms: tuple[str, ...], top: int, bottom: int) -> bool:
    """Whether ∂ρ/∂log p is bounded on the open cube, for each of the model's probabilities p.

    It is the gradient that training sees, up to the link's slope, in each log-probability. With T1, T0 the top's count
    where p is true and false, and B1, B0 the bottom's, it is p·(T1·B0 - T0·B1) / (T·B). Near a corner of the cube, in
    the distances u from it, T and B are within constant factors of the sums of their rows' monomials; so the fraction
    is bounded there exactly if every monomial of its numerator lies in the sum of their Newton polyhedra. The normals
    of these have entries of at most 4 for four propositions: they are all tried.

    Args:
        atoms: At most four, none a copy of another.
        top: As in `PreferenceStructure`, satisfiable like `bottom`.

    Raises:
        SpecError: There are more, or copies.
    """
    if len(atoms) > MOST_ATOMS or len({original(atom) for atom in atoms}) < len(atoms):
        raise SpecError(
            f"whether a gradient is bounded is decided for at most {MOST_ATOMS} propositions without copies (got "
            f"{', '.join(atoms)})."
        )
    rows = [_values(row, len(atoms)) for row in range(1 << len(atoms))]
    tops, bottoms = [rows[row] for row in bits(top)], [rows[row] for row in bits(bottom)]
    moving = [place for place, atom in enumerate(atoms) if not is_reference(atom)]
    normals = [*product(range(5), repeat=len(atoms))]
    for corner in rows:
        near_top, near_bottom = (
            [tuple(a ^ b for a, b in zip(row, corner, strict=True)) for row in side] for side in (tops, bottoms)
        )
        least = [_least(normal, near_top) + _least(normal, near_bottom) for normal in normals]
        for place in moving:
            for monomial in _numerator(tops, bottoms, corner, place):
                heights = (sum(a * m for a, m in zip(normal, monomial, strict=True)) for normal in normals)
                if any(height < low for height, low in zip(heights, least, strict=True)):
                    return False
    return True


def _values(row: int, count: int) -> _Monomial:
    """The truth values of a row, 1 for true."""
    return tuple(1 - (row >> (count - 1 - place) & 1) for place in range(count))


def _least(normal: _Monomial, monomials: list[_Monomial]) -> int:
    return min(sum(a * m for a, m in zip(normal, monomial, strict=True)) for monomial in monomials)


def _numerator(tops: list[_Monomial], bottoms: list[_Monomial], corner: _Monomial, place: int) -> Iterator[_Monomial]:
    """The monomials of p·(T1·B0 - T0·B1) in the distances from a corner, those that cancel left out."""
    total: dict[_Monomial, int] = {}
    for sign, true, false in ((1, tops, bottoms), (-1, bottoms, tops)):
        left = _expanded([row for row in true if row[place]], corner, place)
        right = _expanded([row for row in false if not row[place]], corner, place)
        for one, a in left.items():
            for two, b in right.items():
                key = tuple(x + y for x, y in zip(one, two, strict=True))
                total[key] = total.get(key, 0) + sign * a * b
    # p itself is u near its 0, and 1 - u near its 1, which is no small factor.
    own = 0 if corner[place] else 1
    for monomial, coefficient in total.items():
        if coefficient:
            yield (*monomial[:place], own, *monomial[place + 1 :])


def _expanded(rows: list[_Monomial], corner: _Monomial, place: int) -> dict[_Monomial, int]:
    """Σ over rows of Π over the other atoms of u or 1 - u, multiplied out."""
    total: dict[_Monomial, int] = {}
    for row in rows:
        factors = []
        for other, (value, at) in enumerate(zip(row, corner, strict=True)):
            factors.append([(0, 1)] if other == place else [(1, 1)] if value != at else [(0, 1), (1, -1)])
        for chosen in product(*factors):
            key, coefficient = tuple(power for power, _ in chosen), 1
            for _, factor in chosen:
                coefficient *= factor
            total[key] = total.get(key, 0) + coefficient
    return total
