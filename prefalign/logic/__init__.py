"""The logic of preference losses, on SymPy and integers: formulas, structures, derivation, order, counting."""

import importlib
from typing import TYPE_CHECKING

# First of ours, so that `import logic` through the signpost at the top of the repository fails at once ("attempted
# relative import beyond top-level package") instead of making second copies of the classes.
from .._errors import PrefalignError as _PrefalignError  # noqa: F401  (a guard, not a public name)
from .entailment._compare import Comparison as Comparison
from .entailment._compare import compare as compare
from .entailment._compare import describe as describe
from .entailment._lattice import Lattice as Lattice
from .entailment._order import between as between
from .entailment._order import entails as entails
from .entailment._order import equivalent as equivalent
from .entailment._order import join as join
from .entailment._order import meet as meet
from .entailment._order import same_ratio as same_ratio
from .equations._derive import coprime as coprime
from .formulas._formula import Formula as Formula
from .formulas._grammar import parse_formula as parse_formula
from .formulas._sympy import from_boolean as from_boolean
from .named._catalogue import Catalogue as Catalogue
from .named._catalogue import Entry as Entry
from .named._catalogue import catalogue as catalogue
from .named._read import as_rules as as_rules
from .named._read import derive as derive
from .polynomials._counts import show as show
from .structures._links import LINKS as LINKS
from .structures._links import Course as Course
from .structures._links import Direction as Direction
from .structures._links import Inner as Inner
from .structures._links import Link as Link
from .structures._links import named_inner as named_inner
from .structures._rules import AnyRule as AnyRule
from .structures._rules import Rule as Rule
from .structures._rules import RuleSet as RuleSet
from .structures._rules import TwoRatioRule as TwoRatioRule
from .structures._structure import PreferenceStructure as PreferenceStructure
from .tables import original as original

if TYPE_CHECKING:
    from .analysis._behaviour import Behaviour as Behaviour
    from .analysis._behaviour import behaviour as behaviour
    from .analysis._explain import Explanation as Explanation
    from .analysis._explain import explain as explain
    from .analysis._picture import described_field as described_field
    from .analysis._picture import draw_fields as draw_fields
    from .entailment._dominance import Dominance as Dominance
    from .entailment._dominance import dominates as dominates
    from .generation._count import count as count
    from .generation._generate import generate as generate
    from .generation._generate import generate_masks as generate_masks
    from .generation._generate import nearest as nearest
    from .generation._generate import sample as sample
    from .generation._rank import Candidate as Candidate
    from .generation._rank import rank as rank
    from .generation.specs._files import parse_spec as parse_spec
    from .generation.specs._files import read_spec as read_spec
    from .generation.specs._spec import Spec as Spec
    from .generation.specs._spec import Specification as Specification
    from .named._lookup import Known as Known
    from .named._lookup import known_losses as known_losses
    from .structures._kwise import at_least as at_least
    from .structures._kwise import at_most as at_most
    from .structures._kwise import best_of as best_of
    from .structures._kwise import exactly_one as exactly_one
    from .structures._kwise import only as only
    from .structures._kwise import plackett_luce as plackett_luce
    from .structures._kwise import ranking as ranking
    from .tables._minimise import shortest as shortest

# What a first look at a loss does not need is imported when it is first used: public name -> the module that holds it.
_LATER = {
    "Behaviour": "analysis._behaviour",
    "behaviour": "analysis._behaviour",
    "count": "generation._count",
    "Dominance": "entailment._dominance",
    "dominates": "entailment._dominance",
    "Explanation": "analysis._explain",
    "explain": "analysis._explain",
    "described_field": "analysis._picture",
    "draw_fields": "analysis._picture",
    "generate": "generation._generate",
    "generate_masks": "generation._generate",
    "nearest": "generation._generate",
    "sample": "generation._generate",
    "Known": "named._lookup",
    "known_losses": "named._lookup",
    "at_least": "structures._kwise",
    "at_most": "structures._kwise",
    "best_of": "structures._kwise",
    "exactly_one": "structures._kwise",
    "only": "structures._kwise",
    "plackett_luce": "structures._kwise",
    "ranking": "structures._kwise",
    "shortest": "tables._minimise",
    "Candidate": "generation._rank",
    "rank": "generation._rank",
    "Spec": "generation.specs._spec",
    "Specification": "generation.specs._spec",
    "parse_spec": "generation.specs._files",
    "read_spec": "generation.specs._files",
}

# `derive` stays out: it reads logic alone, and a star import must not hide `prefalign.derive`, which reads code too.
__all__ = [
    "LINKS",
    "AnyRule",
    "Behaviour",
    "Candidate",
    "Catalogue",
    "Comparison",
    "Course",
    "Direction",
    "Dominance",
    "Entry",
    "Explanation",
    "Formula",
    "Inner",
    "Known",
    "Lattice",
    "Link",
    "PreferenceStructure",
    "Rule",
    "RuleSet",
    "Spec",
    "Specification",
    "TwoRatioRule",
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
    "describe",
    "described_field",
    "dominates",
    "draw_fields",
    "entails",
    "equivalent",
    "exactly_one",
    "explain",
    "from_boolean",
    "generate",
    "generate_masks",
    "join",
    "known_losses",
    "meet",
    "named_inner",
    "nearest",
    "only",
    "original",
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
    return sorted([*__all__, "derive"])
