"""Core loss equations: parsed, brought into a ratio, and read off at the corners of the cube."""

from ._derive import coprime as coprime
from ._derive import derive_equation as derive_equation
from ._derive import from_ratio as from_ratio
from ._grammar import Arena as Arena
from ._grammar import parse_equation as parse_equation
from ._grammar import read_sympy as read_sympy
from ._ratio import read_ratio as read_ratio
from ._same import equal_ratios as equal_ratios
from ._same import fingerprint as fingerprint
