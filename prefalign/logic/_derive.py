"""Derivation: from a loss equation to the preference structure that it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from sympy.polys.rings import ring

from .._errors import DerivationError, SpecError
from ._corners import CornerReader, Corners, corner_values
from ._equation import Arena, parse_equation, read_sympy
from ._masks import canonical, pair_atoms
from ._polynomial import polynomial, show
from ._ratio import Ratio, read_ratio
from ._rules import LINKS, Rule, RuleSet
from ._structure import PreferenceStructure

_MAX_WORK = 100_000
_MAX_DEGREE = 64
_MAX_EXPANDED_ATOMS = 14


def derive(
    loss: str | sympy.Expr | PreferenceStructure | RuleSet, *, parameters: Sequence[str] = ()
) -> PreferenceStructure | RuleSet:
    """Read a loss into logic: the preference structure whose weighted model counts its core equation divides.

    ρ = log(top / bottom),  P := B → T,  P_C := T ∨ B,  P_A := T ∧ B,  where WMC(T) = top and WMC(B) = bottom

    The equation may be spelt in any way: it is evaluated at the corners of the cube, where a model count is 0 or 1.
    Numerator and denominator are taken as written where both are counts already, so that a common factor stays part
    of the structure; else what they have in common is cancelled first, and the structure is that of the coprime ratio.

    Args:
        loss: Equation text ("w*(1-l)/(l*(1-w))", "log(w) - log(l)"), the same as a SymPy expression, or a catalogue
            name ("orpo", in any case). What is derived already is returned as it is.
        parameters: Names of constants beside alpha, beta, gamma, delta, epsilon, eta, mu, tau, zeta and margin.

    Returns:
        A PreferenceStructure; a RuleSet where the catalogue has several rules, or where a constant c multiplies the
        ratio: then one rule, whose link has the margin log c, in nats.

    Raises:
        ParseError: The text is neither a catalogue name nor an equation.
        DerivationError: The equation is no ratio of model counts; the message says why, and what would be one.

    Example:
        >>> derive("w*(1-l)/(l*(1-w))")
        <PreferenceStructure ovxo: P = M(l) → M(w), P_C = M(w) ⊕ M(l), P_A = ⊥>
        >>> derive("log(w) - log(1-w) - (log(l) - log(1-l))") == derive("ORPO")
        True
        >>> print(derive("log(w/l) - gamma"))
        [log(exp(-beta*(rho - gamma)) + 1)] with rho = log(w/l)

    Source: Richardson, Srikumar, Sabharwal 2025, arXiv:2412.17696; the corner criterion is this package's.
    """
    if isinstance(loss, PreferenceStructure | RuleSet):
        return loss
    if isinstance(loss, str):
        return _from_text(loss, tuple(parameters))
    if isinstance(loss, sympy.Expr):
        arena = Arena(parameters)
        return _from_ratio(arena, read_ratio(arena, read_sympy(loss, arena)))
    raise DerivationError(
        f"`loss` must be equation text, a SymPy expression or a catalogue name (got {type(loss).__name__}). "
        "Loss objects and Python functions are read by `prefalign.derive`."
    )


def coprime(structure: PreferenceStructure) -> PreferenceStructure:
    """The structure of the same ratio with common factors cancelled: one representative of all with that loss.

    Raises:
        SpecError: P_f or N_f is unsatisfiable.

    Example:
        >>> coprime(PreferenceStructure.from_rows("vxoo"))      # w*l over w*(1 - l)
        <PreferenceStructure vxvx: P = M(l), P_C = ⊤, P_A = ⊥>
    """
    if structure.is_degenerate:
        raise SpecError(
            "`coprime` needs a structure with rows on top and on the bottom; one part is unsatisfiable here."
        )
    arena = Arena()
    pair = [read_sympy(part, arena) for part in (structure.top, structure.bottom)]
    found = _from_ratio(arena, Ratio((pair[0],), (pair[1],), sympy.S.Zero), cancel=True)
    assert isinstance(found, PreferenceStructure)
    return found


@lru_cache(maxsize=512)
def _from_text(text: str, parameters: tuple[str, ...]) -> PreferenceStructure | RuleSet:
    from ._catalogue import catalogue  # the catalogue derives its entries

    entry = catalogue.find(text)
    if entry is not None:
        return entry.structure if len(entry.rules) == 1 else entry.rules
    arena = Arena(parameters)
    return _from_ratio(arena, read_ratio(arena, parse_equation(text, arena, tuple(catalogue))))


def derive_equation(text: str) -> PreferenceStructure:
    """The structure of an equation that is no name and has no constant, as the catalogue's are."""
    arena = Arena()
    found = _from_ratio(arena, read_ratio(arena, parse_equation(text, arena)))
    assert isinstance(found, PreferenceStructure), text
    return found


def _from_ratio(arena: Arena, ratio: Ratio, *, cancel: bool = False) -> PreferenceStructure | RuleSet:
    names = canonical(name for part in (*ratio.numerator, *ratio.denominator) for name in arena.atoms(part))
    reader = CornerReader(arena, names)
    counts: list[tuple[Fraction, int] | None] = []
    if not cancel and _small_degree(arena, ratio):
        for side, factors in (("numerator", ratio.numerator), ("denominator", ratio.denominator)):
            corners = reader.product(factors)
            if set(corners.values) == {Fraction(0)} and max(corners.degrees.values(), default=0) < 2:
                raise DerivationError(f"the {side} is zero everywhere; no structure has an empty {side}.")
            counts.append(corners.count)
    if len(counts) < 2 or None in counts:
        counts = [*_expanded(arena, ratio, names, cancel)]
    (top_scale, top), (bottom_scale, bottom) = counts  # type: ignore[misc]
    if top_scale / bottom_scale < 0:
        raise DerivationError("the ratio is negative, and its logarithm undefined; check the signs.")
    small = PreferenceStructure(names, top, bottom).reduced
    structure = small.over(pair_atoms(small.atoms))
    factor = top_scale / bottom_scale
    margin = ratio.margin + sympy.log(sympy.Rational(factor.numerator, factor.denominator))
    if margin == 0:
        return structure
    return RuleSet((Rule(structure, LINKS["logistic"].with_margin(margin)),))


def _small_degree(arena: Arena, ratio: Ratio) -> bool:
    """Whether reading the products as written is worth it: a factor that occurs twice is no count (it has a square)."""
    for factors in (ratio.numerator, ratio.denominator):
        holding = [factor for factor in factors if arena.kind(factor) != "number"]
        if len(set(holding)) < len(holding):
            return False
    return True


# ------------------------------------------------------------------------------------------------- the long way


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


def _expanded(arena: Arena, ratio: Ratio, names: tuple[str, ...], cancel: bool) -> list[tuple[Fraction, int]]:
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
