"""Expand polynomials within a bound of work, or say why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy
from sympy.polys.rings import ring

from ..._errors import DerivationError
from ..polynomials import polynomial, show
from ._corners import Corners, corner_values
from ._grammar import Arena
from ._ratio import Ratio

_MAX_WORK = 100_000


_MAX_DEGREE = 64


_MAX_EXPANDED_ATOMS = 14


@dataclass(frozen=True)
class _Expanded:
    """One side of the ratio, expanded."""

    side: str
    terms: dict[tuple[int, ...], Fraction]
    names: tuple[str, ...]

    @property
    def corners(self) -> Corners:
        degrees = [max((exponents[i] for exponents in self.terms), default=0) for i in range(len(self.names))]
        return Corners(corner_values(self.terms, self.names), dict(zip(self.names, degrees, strict=True)))


def expanded(arena: Arena, ratio: Ratio, names: tuple[str, ...], cancel: bool) -> list[tuple[Fraction, int]]:
    """Both sides as counts, after expanding and, where that is not enough, cancelling what they have in common."""
    if len(names) > _MAX_EXPANDED_ATOMS:
        raise DerivationError(
            f"the equation has {len(names)} probabilities and is not written as disjoint products of p and 1 - p; "
            f"beyond {_MAX_EXPANDED_ATOMS} it is not expanded. Write it disjointly, or build it from formulas."
        )
    expand = _Expander(arena, names)
    above, below = expand.product(ratio.numerator), expand.product(ratio.denominator)
    for side, found in (("numerator", above), ("denominator", below)):
        if not found:
            raise DerivationError(f"the {side} is zero everywhere; no structure has an empty {side}.")
    sides: list[_Expanded] = []
    for once_more in (False, True):
        if once_more:
            above, below = above.cancel(below)
        elif cancel:
            continue
        sides = [
            _Expanded(*pair, names)
            for pair in (("numerator", _terms(above, len(names))), ("denominator", _terms(below, len(names))))
        ]
        counts = [side.corners.count for side in sides]
        if None not in counts:
            return [count for count in counts if count is not None]
    raise _refusal(sides)


def _terms(element: Any, count: int) -> dict[tuple[int, ...], Fraction]:
    # An equation without probabilities is expanded in a ring of one that does not occur.
    return {
        tuple(exponents)[:count]: Fraction(int(c.numerator), int(c.denominator)) for exponents, c in element.terms()
    }


class _Expander:
    """Expressions of an arena as polynomials of SymPy's sparse rings."""

    def __init__(self, arena: Arena, names: tuple[str, ...]) -> None:
        self.arena = arena
        made = ring(names or ("w",), sympy.QQ)
        self.ring: Any = made[0]
        self.generators = dict(zip(names, made[1:], strict=False))
        self._memo: dict[int, Any] = {}
        self._work = 0

    def product(self, factors: Sequence[int]) -> Any:
        result = self.ring.one
        for factor in factors:
            result = self._times(result, self.read(factor))
        return result

    def read(self, index: int) -> Any:
        if index not in self._memo:
            self._memo[index] = self._read(index)
        return self._memo[index]

    def _read(self, index: int) -> Any:
        node, parts = self.arena.nodes[index], self.arena.parts(index)
        if node[0] == "number":
            assert isinstance(node[1], Fraction)
            return self.ring.one * sympy.QQ(node[1].numerator, node[1].denominator)
        if node[0] == "atom":
            return self.generators[str(node[1])]
        if node[0] == "sum":
            return sum((self.read(part) for part in parts), self.ring.zero)
        return self.product(parts if node[0] == "product" else parts * int(str(node[2])))

    def _times(self, a: Any, b: Any) -> Any:
        degree = max((sum(pair) for pair in zip(a.degrees(), b.degrees(), strict=True)), default=0) if a and b else 0
        self._work += len(a) * len(b)
        if degree > _MAX_DEGREE or self._work > _MAX_WORK:
            raise DerivationError(
                "the equation is too large to expand. Write it as disjoint products of p and 1 - p, or build the "
                "structure from formulas."
            )
        return a * b


def _refusal(sides: Sequence[_Expanded]) -> DerivationError:
    """Why the coprime ratio is no ratio of counts, and what would be one."""
    for side in sides:
        corners = side.corners
        for name, degree in corners.degrees.items():
            if degree > 1:
                copies = "*".join([name, *(f"{name}{i}" for i in range(2, min(degree, 3) + 1))])
                return DerivationError(
                    f"the {side.side} holds {name} to the power {degree}, and a model count holds each probability "
                    f"once: the count of M({name}) ∧ M({name}) is {name}, not its square. If the loss asks twice, use "
                    f"a copied variable: {copies}. If the whole ratio stands under the power, it is the beta of the "
                    "link: leave it out."
                )
    side = next(side for side in sides if side.corners.count is None)
    values = side.corners.values
    shown = ", ".join(str(value) for value in sorted(values)[:5]) + (", ..." if len(values) > 5 else "")
    value, mask = max(values.items(), key=lambda pair: abs(pair[0]))
    row = (mask & -mask).bit_length() - 1
    count = len(side.names)
    corner = ", ".join(f"{name}={1 - (row >> (count - 1 - i) & 1)}" for i, name in enumerate(side.names))
    some = sum(rows for value, rows in values.items() if value)
    return DerivationError(
        f"the {side.side} is no model count: at the corners, where every probability is 0 or 1, a count is 0 or 1 "
        f"(times one constant), and this takes the values {shown} ({value} at {corner}). If a disjunction is meant, "
        f"write it in disjoint products: {show(polynomial(some, side.names))}. If a sum of "
        "losses is meant, derive its terms one by one."
    )
