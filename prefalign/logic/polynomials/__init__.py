"""Weighted model counts as polynomials, and their signs on the unit cube."""

from typing import TYPE_CHECKING

from ._counts import polynomial as polynomial
from ._counts import quotient as quotient
from ._counts import show as show
from ._cube import MAX_VARIABLES as MAX_VARIABLES
from ._cube import Point as Point
from ._cube import count_at as count_at
from ._cube import count_polynomial as count_polynomial
from ._cube import derivative as derivative
from ._cube import merge_axes as merge_axes
from ._cube import multiply as multiply
from ._cube import times_variable as times_variable
from ._cube import to_expression as to_expression
from ._cube import value as value
from ._signs import negative_point as negative_point
from ._signs import sign as sign

if TYPE_CHECKING:
    from ._cube import Coefficients as Coefficients
