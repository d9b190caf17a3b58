"""The logic of preference losses, on SymPy and integers: formulas, structures, derivation, order, counting."""

# First, so that `import logic` through the signpost at the top of the repository fails at once ("attempted relative
# import beyond top-level package") instead of making second copies of the classes.
from .._errors import PrefalignError as _PrefalignError  # noqa: F401  (a guard, not a public name)
from ._arguments import as_rules as as_rules
from ._behaviour import Behaviour as Behaviour
from ._behaviour import behaviour as behaviour
from ._catalogue import Catalogue as Catalogue
from ._catalogue import Entry as Entry
from ._catalogue import catalogue as catalogue
from ._compare import Comparison as Comparison
from ._compare import compare as compare
from ._compare import describe as describe
from ._count import count as count
from ._derive import coprime as coprime
from ._derive import derive as derive
from ._dominates import Dominance as Dominance
from ._dominates import dominates as dominates
from ._explain import Explanation as Explanation
from ._explain import explain as explain
from ._formula import Formula as Formula
from ._generate import generate as generate
from ._generate import nearest as nearest
from ._generate import sample as sample
from ._grammar import parse_formula as parse_formula
from ._known import Known as Known
from ._known import known_losses as known_losses
from ._kwise import at_least as at_least
from ._kwise import at_most as at_most
from ._kwise import best_of as best_of
from ._kwise import exactly_one as exactly_one
from ._kwise import only as only
from ._kwise import plackett_luce as plackett_luce
from ._kwise import ranking as ranking
from ._lattice import Lattice as Lattice
from ._minimise import shortest as shortest
from ._order import between as between
from ._order import entails as entails
from ._order import equivalent as equivalent
from ._order import join as join
from ._order import meet as meet
from ._order import same_ratio as same_ratio
from ._polynomial import show as show
from ._rank import Candidate as Candidate
from ._rank import rank as rank
from ._rules import LINKS as LINKS
from ._rules import Link as Link
from ._rules import Rule as Rule
from ._rules import RuleSet as RuleSet
from ._spec import Spec as Spec
from ._spec import Specification as Specification
from ._spec_text import parse_spec as parse_spec
from ._spec_yaml import read_spec as read_spec
from ._structure import PreferenceStructure as PreferenceStructure
