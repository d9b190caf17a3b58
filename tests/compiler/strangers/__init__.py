"""Losses of the literature in the spellings of strangers, each with what must become of it."""

from tests.compiler.strangers import branching, operations, referenced, spelt, two_ratios, unreadable, unreferenced  # noqa: F401
from tests.compiler.strangers._corpus import STRANGERS as STRANGERS
from tests.compiler.strangers._corpus import Stranger as Stranger
