"""Formulas as written: parsed, printed, shortened and shown as truth tables."""

from ._formula import FALSE as FALSE
from ._formula import TRUE as TRUE
from ._formula import And as And
from ._formula import Atom as Atom
from ._formula import Formula as Formula
from ._formula import Implies as Implies
from ._formula import Not as Not
from ._formula import Or as Or
from ._grammar import parse_formula as parse_formula
from ._readable import implication as implication
from ._readable import shortest_formula as shortest_formula
from ._table import MAX_SHOWN as MAX_SHOWN
from ._table import check_atoms as check_atoms
from ._table import html_table as html_table
from ._table import text_table as text_table
