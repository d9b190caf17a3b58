"""Preference structures, rules with links, and preferences over K answers."""

from ._rules import BETA as BETA
from ._rules import LINKS as LINKS
from ._rules import RHO as RHO
from ._rules import Link as Link
from ._rules import Rule as Rule
from ._rules import RuleSet as RuleSet
from ._structure import PreferenceStructure as PreferenceStructure
from ._structure import aligned as aligned
