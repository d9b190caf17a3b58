"""Multilinear polynomials on the unit cube as arrays of coefficients: products, derivatives, values."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ..._errors import SpecError
from ..tables import full_mask, split

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import sympy

    # Exact coefficients (Python integers), one axis per variable, index = power of that variable.
    Coefficients = npt.NDArray[np.object_]

Point = tuple[Fraction, ...]


# Beyond this many variables a dense tensor of coefficients is too large.
MAX_VARIABLES = 8


def count_polynomial(mask: int, variables: int) -> Coefficients:
    """The weighted model count of a table as a polynomial: exponent 0 or 1 in every variable."""
    import numpy as np

    if variables > MAX_VARIABLES:
        raise SpecError(
            f"polynomials are exact up to {MAX_VARIABLES} propositions (got {variables}). Entailment has no such limit."
        )
    size = 1 << variables
    values = np.array([mask >> row & 1 for row in range(size)], dtype=object).reshape((2,) * variables)
    for axis in range(variables):
        true, false = np.take(values, [0], axis), np.take(values, [1], axis)  # index 0 is "true"
        values = np.concatenate([false, true - false], axis)
    return values


def count_at(mask: int, point: Sequence[Fraction]) -> Fraction:
    """The weighted model count of a table at a point, exactly: Shannon's expansion, half a table at a time."""
    memo: dict[tuple[int, int], Fraction] = {}

    def go(rows: int, index: int) -> Fraction:
        left = len(point) - index
        if not rows or rows == full_mask(left):
            return Fraction(bool(rows))
        if (rows, index) not in memo:
            true, false = split(rows, left)
            below = go(false, index + 1)
            memo[rows, index] = below + point[index] * (go(true, index + 1) - below)
        return memo[rows, index]

    return go(mask, 0)


def multiply(left: Coefficients, right: Coefficients) -> Coefficients:
    """The product of two polynomials in the same variables."""
    import numpy as np

    shape = tuple(a + b - 1 for a, b in zip(left.shape, right.shape, strict=True))
    result = np.full(shape, 0, dtype=object)
    for place in np.argwhere(left != 0):
        window = tuple(slice(start, start + width) for start, width in zip(place, right.shape, strict=True))
        result[window] += left[tuple(place)] * right
    return result


def derivative(polynomial: Coefficients, axis: int) -> Coefficients:
    """The partial derivative in the variable of one axis."""
    import numpy as np

    order = polynomial.shape[axis]
    if order == 1:
        return np.full_like(polynomial, 0)
    powers = np.arange(1, order).astype(object).reshape([-1 if a == axis else 1 for a in range(polynomial.ndim)])
    result: Coefficients = np.take(polynomial, range(1, order), axis) * powers
    return result


def merge_axes(polynomial: Coefficients, places: Sequence[int]) -> Coefficients:
    """Set variables equal: axis i becomes variable places[i], so that copies of a proposition share its probability."""
    import numpy as np

    if list(places) == list(range(polynomial.ndim)):
        return polynomial
    degrees = [0] * (max(places) + 1)
    for axis, place in enumerate(places):
        degrees[place] += polynomial.shape[axis] - 1
    result = np.full([degree + 1 for degree in degrees], 0, dtype=object)
    for powers in np.argwhere(polynomial != 0):
        merged = [0] * len(degrees)
        for axis, place in enumerate(places):
            merged[place] += int(powers[axis])
        result[tuple(merged)] += polynomial[tuple(powers)]
    return result


def times_variable(polynomial: Coefficients, axis: int) -> Coefficients:
    """The polynomial times the variable of one axis."""
    import numpy as np

    zeros = np.full_like(np.take(polynomial, [0], axis), 0)
    return np.concatenate([zeros, polynomial], axis)


def value(polynomial: Coefficients, point: Sequence[Fraction]) -> Fraction:
    """The polynomial at a point, exactly."""
    result: Any = polynomial
    for x in reversed(point):
        total = result[..., -1] + 0  # numpy unwraps the last axis in arithmetic, not in indexing
        for power in range(result.shape[-1] - 2, -1, -1):
            total = total * x + result[..., power]
        result = total
    return Fraction(result)


def to_expression(polynomial: Coefficients, symbols: Sequence[sympy.Symbol]) -> sympy.Expr:
    """The polynomial as a factored SymPy expression."""
    import sympy

    return sympy.factor(to_poly(polynomial, symbols).as_expr())


def to_poly(polynomial: Coefficients, symbols: Sequence[sympy.Symbol]) -> sympy.Poly:
    import numpy as np
    import sympy

    terms = {tuple(map(int, place)): int(polynomial[tuple(place)]) for place in np.argwhere(polynomial != 0)}
    return sympy.Poly.from_dict(terms or {(0,) * polynomial.ndim: 0}, *symbols)
