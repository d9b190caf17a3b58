"""The logic of preference losses, on SymPy and integers: formulas, structures, derivation, order, counting."""

import importlib
from typing import TYPE_CHECKING

# First of ours, so that `import logic` through the signpost at the top of the repository fails at once ("attempted
# relative import beyond top-level package") instead of making second copies of the classes.
from .._errors import PrefalignError as _PrefalignError  # noqa: F401  (a guard, not a public name)
from ._arguments import as_rules as as_rules
from ._catalogue import Catalogue as Catalogue
from ._catalogue import Entry as Entry
from ._catalogue import catalogue as catalogue
from ._compare import Comparison as Comparison
from ._compare import compare as compare
from ._compare import describe as describe
from ._derive import coprime as coprime
from ._derive import derive as derive
from ._formula import Formula as Formula
from ._grammar import parse_formula as parse_formula
from ._lattice import Lattice as Lattice
from ._order import between as between
from ._order import entails as entails
from ._order import equivalent as equivalent
from ._order import join as join
from ._order import meet as meet
from ._order import same_ratio as same_ratio
from ._polynomial import show as show
from ._rules import LINKS as LINKS
from ._rules import Link as Link
from ._rules import Rule as Rule
from ._rules import RuleSet as RuleSet
from ._structure import PreferenceStructure as PreferenceStructure

if TYPE_CHECKING:
    from ._behaviour import Behaviour as Behaviour
    from ._behaviour import behaviour as behaviour
    from ._count import count as count
    from ._dominates import Dominance as Dominance
    from ._dominates import dominates as dominates
    from ._explain import Explanation as Explanation
    from ._explain import explain as explain
    from ._generate import generate as generate
    from ._generate import nearest as nearest
    from ._generate import sample as sample
    from ._known import Known as Known
    from ._known import known_losses as known_losses
    from ._kwise import at_least as at_least
    from ._kwise import at_most as at_most
    from ._kwise import best_of as best_of
    from ._kwise import exactly_one as exactly_one
    from ._kwise import only as only
    from ._kwise import plackett_luce as plackett_luce
    from ._kwise import ranking as ranking
    from ._minimise import shortest as shortest
    from ._rank import Candidate as Candidate
    from ._rank import rank as rank
    from ._spec import Spec as Spec
    from ._spec import Specification as Specification
    from ._spec_text import parse_spec as parse_spec
    from ._spec_yaml import read_spec as read_spec

# What a first look at a loss does not need is imported when it is first used: public name -> the module that holds it.
_LATER = {
    "Behaviour": "_behaviour",
    "behaviour": "_behaviour",
    "count": "_count",
    "Dominance": "_dominates",
    "dominates": "_dominates",
    "Explanation": "_explain",
    "explain": "_explain",
    "generate": "_generate",
    "nearest": "_generate",
    "sample": "_generate",
    "Known": "_known",
    "known_losses": "_known",
    "at_least": "_kwise",
    "at_most": "_kwise",
    "best_of": "_kwise",
    "exactly_one": "_kwise",
    "only": "_kwise",
    "plackett_luce": "_kwise",
    "ranking": "_kwise",
    "shortest": "_minimise",
    "Candidate": "_rank",
    "rank": "_rank",
    "Spec": "_spec",
    "Specification": "_spec",
    "parse_spec": "_spec_text",
    "read_spec": "_spec_yaml",
}

__all__ = [
    "LINKS",
    "Behaviour",
    "Candidate",
    "Catalogue",
    "Comparison",
    "Dominance",
    "Entry",
    "Explanation",
    "Formula",
    "Known",
    "Lattice",
    "Link",
    "PreferenceStructure",
    "Rule",
    "RuleSet",
    "Spec",
    "Specification",
    "as_rules",
    "at_least",
    "at_most",
    "behaviour",
    "best_of",
    "between",
    "catalogue",
    "compare",
    "coprime",
    "count",
    "derive",
    "describe",
    "dominates",
    "entails",
    "equivalent",
    "exactly_one",
    "explain",
    "generate",
    "join",
    "known_losses",
    "meet",
    "nearest",
    "only",
    "parse_formula",
    "parse_spec",
    "plackett_luce",
    "rank",
    "ranking",
    "read_spec",
    "same_ratio",
    "sample",
    "shortest",
    "show",
]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER} - {"TYPE_CHECKING", "annotations", "importlib"})
