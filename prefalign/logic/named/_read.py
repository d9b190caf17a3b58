"""What a function of this part accepts where it needs a structure: the object, a name, a column, an equation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import sympy

from ..._errors import DerivationError, SpecError
from ..equations import Arena, from_ratio, parse_equation, read_ratio, read_sympy
from ..structures import PreferenceStructure, RuleSet

if TYPE_CHECKING:
    import sympy

# A structure, a loss of one structure, a catalogue name, a column such as "ovxo", or an equation.
Readable: TypeAlias = "PreferenceStructure | RuleSet | str | sympy.Expr"


def as_structure(given: Readable, argument: str) -> PreferenceStructure:
    """The structure that an argument names.

    Raises:
        DerivationError: It is a loss of several structures, or an equation that is no ratio of counts.
        SpecError: It is nothing that could name a structure.
    """
    rules = as_rules(given, argument)
    return rules if isinstance(rules, PreferenceStructure) else rules.structure


def as_rules(given: Readable, argument: str) -> PreferenceStructure | RuleSet:
    """The structure or the rule set that an argument names."""
    if isinstance(given, PreferenceStructure | RuleSet):
        return given
    if isinstance(given, str) and is_column(given):
        return PreferenceStructure.from_rows(given.strip())

    try:
        return derive(given)
    except TypeError as error:
        raise SpecError(
            f"`{argument}` must be a structure, a loss's name, a column such as 'ovxo' or an equation (got {given!r})."
        ) from error


def is_column(text: str) -> bool:
    """Whether text is a column over two or four propositions: 4 or 16 letters out of v, x, b, o."""
    letters = text.strip()
    return len(letters) in (4, 16) and set(letters) <= set("vxbo")


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
        return from_ratio(arena, read_ratio(arena, read_sympy(loss, arena)))
    raise DerivationError(
        f"`loss` must be equation text, a SymPy expression or a catalogue name (got {type(loss).__name__}). "
        "Loss objects and Python functions are read by `prefalign.derive`."
    )


@lru_cache(maxsize=512)
def _from_text(text: str, parameters: tuple[str, ...]) -> PreferenceStructure | RuleSet:
    from ._catalogue import catalogue  # the catalogue derives its entries

    entry = catalogue.find(text)
    if entry is not None:
        return entry.structure if len(entry.rules) == 1 else entry.rules
    arena = Arena(parameters)
    return from_ratio(arena, read_ratio(arena, parse_equation(text, arena, tuple(catalogue))))
