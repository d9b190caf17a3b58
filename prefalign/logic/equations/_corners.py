"""What a polynomial is at the corners of the cube, and whether that makes it a weighted model count.

A polynomial in probabilities is the weighted model count of a formula exactly when it is multilinear and 0 or 1 at
every corner; the corner values are the formula's truth table. So nothing is expanded: a factor is a partition of the
corners by value, held as masks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..._errors import DerivationError
from ..tables import atom_mask, full_mask
from ._grammar import Arena

Values = Mapping[Fraction, int]
_MAX_VALUES = 4096


@dataclass(frozen=True)
class Corners:
    """A polynomial at the 2ⁿ corners.

    Args:
        values: Each value taken, with the mask of the corners that take it.
        degrees: An upper bound of the degree in each atom, 2 or more meaning "perhaps not multilinear".
    """

    values: Values
    degrees: Mapping[str, int]

    @property
    def count(self) -> tuple[Fraction, int] | None:
        """(c, mask) if the polynomial is c times a model count, c ≠ 0; None if that is not known."""
        scales = [value for value in self.values if value]
        if len(scales) != 1 or any(degree > 1 for degree in self.degrees.values()):
            return None
        return scales[0], self.values[scales[0]]


class CornerReader:
    """Evaluates division-free expressions of an arena at the corners.

    Args:
        arena: Holds the expressions.
        atoms: The axes of the cube, in the canonical order.
    """

    def __init__(self, arena: Arena, atoms: Sequence[str]) -> None:
        self.arena = arena
        self.full = full_mask(len(atoms))
        self.tables = {atom: atom_mask(place, len(atoms)) for place, atom in enumerate(atoms)}
        self._memo: dict[int, Corners] = {}

    def product(self, factors: Sequence[int]) -> Corners:
        """The product of factors.

        Raises:
            DerivationError: It takes thousands of different values.
        """
        result = Corners({Fraction(1): self.full}, {})
        for factor in factors:
            result = self._times(result, self.read(factor))
        return result

    def read(self, index: int) -> Corners:
        """One expression."""
        if index not in self._memo:
            self._memo[index] = self._read(index)
        return self._memo[index]

    def _read(self, index: int) -> Corners:
        node, parts = self.arena.nodes[index], self.arena.parts(index)
        if node[0] == "number":
            assert isinstance(node[1], Fraction)
            return Corners({node[1]: self.full}, {})
        if node[0] == "atom":
            name = str(node[1])
            return Corners({Fraction(1): self.tables[name], Fraction(0): self.full ^ self.tables[name]}, {name: 1})
        if node[0] == "product":
            return self.product(parts)
        if node[0] == "power":
            assert isinstance(node[2], int)
            return self.product(parts * node[2])
        assert node[0] == "sum", node
        values: Values = {Fraction(0): self.full}
        degrees: Counter[str] = Counter()
        for part in parts:
            corners = self.read(part)
            values = _combine(values, corners.values, plus=True)
            degrees |= Counter(corners.degrees)
        return Corners(values, degrees)

    def _times(self, a: Corners, b: Corners) -> Corners:
        degrees = Counter(a.degrees) + Counter(b.degrees)
        return Corners(_combine(a.values, b.values, plus=False), degrees)


def _combine(a: Values, b: Values, *, plus: bool) -> Values:
    result: dict[Fraction, int] = {}
    for left, rows in a.items():
        for right, others in b.items():
            both = rows & others
            if both:
                value = left + right if plus else left * right
                result[value] = result.get(value, 0) | both
    if len(result) > _MAX_VALUES:
        raise DerivationError(
            f"a part of the equation takes more than {_MAX_VALUES} different values at the corners w, l, ... = 0 or 1; "
            "write it as sums of products of probabilities p and 1 - p."
        )
    return result


def corner_values(terms: Mapping[tuple[int, ...], Fraction], atoms: Sequence[str]) -> Values:
    """The corner values of an expanded polynomial, exponents above one counting as one.

    Args:
        terms: Coefficient per monomial, which is a tuple of exponents along `atoms`.
        atoms: At most 14 axes.
    """
    count = len(atoms)
    table = [Fraction(0)] * (1 << count)
    for exponents, coefficient in terms.items():
        # Row numbers have a set bit where an atom is false; so a monomial starts at the row that falsifies the others.
        row = sum(1 << (count - 1 - place) for place, exponent in enumerate(exponents) if not exponent)
        table[row] += coefficient
    for place in range(count):
        block = 1 << place
        for row in range(1 << count):
            if not row & block:
                table[row] += table[row | block]
    values: dict[Fraction, int] = {}
    for row, value in enumerate(table):
        values[value] = values.get(value, 0) | 1 << row
    return values
