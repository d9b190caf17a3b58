"""What happens to a structure's ratio as probabilities go to zero: only the rows with the fewest true atoms count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from ..tables import atom_mask, bits, chosen_of, full_mask, is_reference, original

if TYPE_CHECKING:
    import sympy

Summed = Literal["contrast", "chosen only", "rejected only", "misdirected", "saturated", "dead", "undefined"]

# A monomial: how often each atom's probability stands in it, copies counted with their original.
_Monomial = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Limit:
    """Where a ratio goes as the model's probabilities go to zero together, w = k·l, the reference held fixed.

    Args:
        kind: "infinity", "zero", "finite", or "undefined" for a structure without top or without bottom rows.
        expression: The limit in `k` and the reference's probabilities (over y1, y2, ...: in their proportions y1, y2,
            ...), where it is finite.
    """

    kind: Literal["infinity", "zero", "finite", "undefined"]
    expression: sympy.Expr | None = None

    def __str__(self) -> str:
        return {"infinity": "∞", "zero": "0"}.get(self.kind, str(self.expression))


@lru_cache(maxsize=64)
def levels(atoms: tuple[str, ...], moving: tuple[str, ...]) -> tuple[int, ...]:
    """For d = 0, 1, ...: the rows in which d of the `moving` atoms are true."""
    count = len(atoms)
    found = [full_mask(count)]
    for atom in moving:
        true = atom_mask(atoms.index(atom), count)
        false = full_mask(count) ^ true
        found = [
            (found[d] & false if d < len(found) else 0) | (found[d - 1] & true if d else 0)
            for d in range(len(found) + 1)
        ]
    return tuple(found)


def lowest(mask: int, by_level: Sequence[int]) -> tuple[int, int]:
    """The least number of true atoms in any row of a mask, and the rows that have it."""
    for degree, level in enumerate(by_level):
        if mask & level:
            return degree, mask & level
    return len(by_level), 0


def limit(atoms: tuple[str, ...], top: int, bottom: int) -> Limit:
    """The limit of the ratio as all of the model's probabilities go to zero in proportion."""
    import sympy

    moving = tuple(atom for atom in atoms if not is_reference(atom))
    (low_top, rows_top), (low_bottom, rows_bottom) = (lowest(mask, levels(atoms, moving)) for mask in (top, bottom))
    if not top or not bottom:
        return Limit("undefined")
    if low_top != low_bottom:
        return Limit("infinity" if low_top < low_bottom else "zero")
    values = {atom: sympy.Symbol(atom) for atom in map(original, atoms)}
    values |= {"w": sympy.Symbol("k"), "l": sympy.S.One}

    def form(rows: int) -> sympy.Expr:
        total = []
        for row in bits(rows):
            factors = []
            for place, atom in enumerate(atoms):
                if not row >> (len(atoms) - 1 - place) & 1:
                    factors.append(values[original(atom)])
                elif is_reference(atom):
                    factors.append(1 - values[original(atom)])
            total.append(sympy.Mul(*factors))
        return sympy.Add(*total)

    return Limit("finite", sympy.factor(form(rows_top) / form(rows_bottom)))


def summed(atoms: tuple[str, ...], top: int, bottom: int) -> Summed:
    """What gradient is left when every probability is that of a whole text, some e^-500.

    There a weighted count is its lowest homogeneous part. If the top's has the lower degree the ratio is astronomic and
    the loss is at its end ("saturated"); otherwise the gradient of ρ in the log-probabilities is that of the two parts:
    "contrast" if it raises the chosen answer and lowers the rejected, "chosen only" or "rejected only" if it does one
    of the two, "misdirected" if it points elsewhere, "dead" if it is zero.
    """
    by_level = levels(atoms, atoms)
    (low_top, rows_top), (low_bottom, rows_bottom) = (lowest(mask, by_level) for mask in (top, bottom))
    if not top or not bottom:
        return "undefined"
    if low_top < low_bottom:
        return "saturated"
    return _learns(atoms, rows_top, rows_bottom)


@lru_cache(maxsize=1 << 14)
def _learns(atoms: tuple[str, ...], rows_top: int, rows_bottom: int) -> Summed:
    tops, bottoms = (_monomials(atoms, rows) for rows in (rows_top, rows_bottom))
    moved = {original(atom): _move(original(atom), tops, bottoms) for atom in atoms if not is_reference(atom)}
    chosen = moved.pop(chosen_of(atoms), frozenset())
    rejected = frozenset[int]().union(*moved.values())
    if not chosen and not rejected:
        return "dead"
    if (chosen and 1 not in chosen) or any(move == {1} for move in moved.values()):
        return "misdirected"
    if chosen and rejected:
        return "contrast"
    return "chosen only" if chosen else "rejected only"


def _monomials(atoms: tuple[str, ...], rows: int) -> Counter[_Monomial]:
    found: Counter[_Monomial] = Counter()
    for row in bits(rows):
        powers = Counter(original(atom) for place, atom in enumerate(atoms) if not row >> (len(atoms) - 1 - place) & 1)
        found[tuple(sorted(powers.items()))] += 1
    return found


def _move(atom: str, tops: Counter[_Monomial], bottoms: Counter[_Monomial]) -> frozenset[int]:
    """The signs among the coefficients of ∂(log top - log bottom)/∂ log p(atom); empty if it is the zero function."""
    derivative: Counter[_Monomial] = Counter()
    for top, times_top in tops.items():
        for bottom, times_bottom in bottoms.items():
            difference = dict(top).get(atom, 0) - dict(bottom).get(atom, 0)
            if difference:
                powers = Counter(dict(top)) + Counter(dict(bottom))
                derivative[tuple(sorted(powers.items()))] += difference * times_top * times_bottom
    return frozenset(1 if factor > 0 else -1 for factor in derivative.values() if factor)
