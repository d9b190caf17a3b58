"""Derivation: from a loss equation to the preference structure that it counts."""

from __future__ import annotations

from fractions import Fraction

import sympy

from ..._errors import DerivationError, SpecError
from ..structures import LINKS, PreferenceStructure, Rule, RuleSet
from ..tables import canonical, pair_atoms
from ._corners import CornerReader
from ._expand import expanded
from ._grammar import Arena, parse_equation, read_sympy
from ._ratio import Ratio, read_ratio


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
    found = from_ratio(arena, Ratio((pair[0],), (pair[1],), sympy.S.Zero), cancel=True)
    assert isinstance(found, PreferenceStructure)
    return found


def derive_equation(text: str) -> PreferenceStructure:
    """The structure of an equation that is no name and has no constant, as the catalogue's are."""
    arena = Arena()
    found = from_ratio(arena, read_ratio(arena, parse_equation(text, arena)))
    assert isinstance(found, PreferenceStructure), text
    return found


def from_ratio(arena: Arena, ratio: Ratio, *, cancel: bool = False) -> PreferenceStructure | RuleSet:
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
        counts = [*expanded(arena, ratio, names, cancel)]
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
