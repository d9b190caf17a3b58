"""The logic of preference losses, on SymPy and integers: formulas, structures, derivation, order, counting."""

# First, so that `import logic` through the signpost at the top of the repository fails at once ("attempted relative
# import beyond top-level package") instead of making second copies of the classes.
from .._errors import PrefalignError as _PrefalignError  # noqa: F401  (a guard, not a public name)
from ._formula import Formula as Formula
from ._grammar import parse_formula as parse_formula
from ._rules import LINKS as LINKS
from ._rules import Link as Link
from ._rules import Rule as Rule
from ._rules import RuleSet as RuleSet
from ._structure import PreferenceStructure as PreferenceStructure
