"""Preference structures, rules with links, and preferences over K answers."""

from ._links import BETA as BETA
from ._links import LINKS as LINKS
from ._links import RHO as RHO
from ._links import Course as Course
from ._links import Inner as Inner
from ._links import Link as Link
from ._links import named_inner as named_inner
from ._rules import AnyRule as AnyRule
from ._rules import Rule as Rule
from ._rules import RuleSet as RuleSet
from ._rules import TwoRatioRule as TwoRatioRule
from ._structure import PreferenceStructure as PreferenceStructure
from ._structure import aligned as aligned
