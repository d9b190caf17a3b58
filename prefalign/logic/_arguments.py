"""What a function of this part accepts where it needs a structure: the object, a name, a column, an equation."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from .._errors import SpecError
from ._rules import RuleSet
from ._structure import PreferenceStructure

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
    from ._derive import derive

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
