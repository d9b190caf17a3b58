"""Signs of polynomials on the open unit cube, decided in exact arithmetic.

The weighted model count of a table is multilinear, so its coefficients in the Bernstein basis are the table itself, and
products of counts are convolutions: no expansion. A polynomial whose Bernstein coefficients are all >= 0 is >= 0 on the
cube. Where they are of both signs the cube is halved; where halving does not settle it (the polynomial touches zero)
one rational point is taken in every open cell of a cylindrical decomposition, which always does.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import pairwise, product
from math import comb
from typing import TYPE_CHECKING, Any, Literal

from ._cube import Point, to_poly, value

if TYPE_CHECKING:
    import sympy

    from ._cube import Coefficients


# Boxes looked at before the cell decomposition takes over; halving settles most questions within ten.
_BOXES = 300


def negative_point(polynomial: Coefficients) -> Point | None:
    """A rational point of the open unit cube where the polynomial is < 0, or None if there is none.

    Zeros do not count: a polynomial that touches zero inside the cube or on its faces is not negative there.
    """
    if not polynomial.any():
        return None
    reduced = _without_face_factors(polynomial)
    found = _by_halving(reduced)
    return _by_cells(reduced) if isinstance(found, str) else found


def sign(
    polynomial: Coefficients,
) -> tuple[Literal["zero", "positive", "negative", "both"], Point | None, Point | None]:
    """The sign on the open cube: "zero", "positive", "negative" or "both", with a point below and a point above zero.

    "positive" allows isolated zeros (the polynomial is >= 0 and not identically 0); so does "negative".
    """
    if not polynomial.any():
        return "zero", None, None
    below, above = negative_point(polynomial), negative_point(-polynomial)
    if below is not None and above is not None:
        return "both", below, above
    return ("positive", None, above) if below is None else ("negative", below, None)


# ------------------------------------------------------------------------------------------------------- internals


def _without_face_factors(polynomial: Coefficients) -> Coefficients:
    """The polynomial without factors x and 1-x, which are positive inside the cube; zeros on faces go with them."""
    import numpy as np

    for axis in range(polynomial.ndim):
        for _ in range(2):
            low = 0
            while not np.take(polynomial, [low], axis).any():
                low += 1
            high = polynomial.shape[axis]
            while not np.take(polynomial, [high - 1], axis).any():
                high -= 1
            polynomial = _flip(np.take(polynomial, range(low, high), axis), axis)
    return polynomial


def _along(polynomial: Coefficients, axis: int, matrix: list[list[int]]) -> Coefficients:
    """Every line of coefficients along an axis, multiplied by a matrix of integers."""
    import numpy as np

    square = np.array(matrix, dtype=object)
    moved: Coefficients = np.moveaxis(np.tensordot(square, polynomial, axes=(1, axis)), 0, axis)
    return moved


def _flip(polynomial: Coefficients, axis: int) -> Coefficients:
    """Substitute x -> 1 - x."""
    degree = polynomial.shape[axis] - 1
    matrix = [[comb(j, i) * (-1) ** i if j >= i else 0 for j in range(degree + 1)] for i in range(degree + 1)]
    return _along(polynomial, axis, matrix)


def _halves(polynomial: Coefficients, axis: int) -> tuple[Coefficients, Coefficients]:
    """The polynomial on the lower and on the upper half of one variable, each stretched to [0, 1] (times 2**degree)."""
    degree = polynomial.shape[axis] - 1
    lower = [[2 ** (degree - i) if i == j else 0 for j in range(degree + 1)] for i in range(degree + 1)]
    upper = [[comb(j, i) * 2 ** (degree - j) if j >= i else 0 for j in range(degree + 1)] for i in range(degree + 1)]
    return _along(polynomial, axis, lower), _along(polynomial, axis, upper)


def _bernstein(polynomial: Coefficients) -> Coefficients:
    """Bernstein coefficients times binomials, which have the same signs and are integers."""
    for axis, order in enumerate(polynomial.shape):
        degree = order - 1
        matrix = [[comb(degree - i, k - i) if i <= k else 0 for i in range(order)] for k in range(order)]
        polynomial = _along(polynomial, axis, matrix)
    return polynomial


def _by_halving(polynomial: Coefficients) -> Point | Literal["undecided"] | None:
    """A negative point, None, or "undecided" after `_BOXES` boxes."""
    dimensions = polynomial.ndim
    boxes = [(polynomial, (Fraction(0),) * dimensions, (Fraction(1),) * dimensions)]
    for _ in range(_BOXES):
        if not boxes:
            return None
        part, low, size = boxes.pop(0)
        coefficients = _bernstein(part)
        if (coefficients >= 0).all():
            continue
        for corner in product((0, 1), repeat=dimensions):
            if coefficients[tuple(-bit for bit in corner)] < 0:  # the value at that corner of the box
                vertex = tuple(a + bit * width for a, bit, width in zip(low, corner, size, strict=True))
                return _inside(polynomial, vertex)
        # Halve where the polynomial has the highest degree, turning through the axes.
        axes = [axis for axis in range(dimensions) if part.shape[axis] > 1]
        axis = max(axes, key=lambda a: (size[a], part.shape[a]))
        half = tuple(width / 2 if a == axis else width for a, width in enumerate(size))
        middle = tuple(a + (half[k] if k == axis else 0) for k, a in enumerate(low))
        lower, upper = _halves(part, axis)
        boxes += [(lower, low, half), (upper, middle, half)]
    return "undecided"


def _inside(polynomial: Coefficients, vertex: Point) -> Point:
    """A point of the open cube near `vertex` where the polynomial is still negative."""
    step = Fraction(1, 2)
    while True:
        point = tuple(x + (Fraction(1, 2) - x) * step for x in vertex) if {0, 1} & set(vertex) else vertex
        if value(polynomial, point) < 0:
            return point
        step /= 2


@lru_cache(maxsize=16)
def _symbols(count: int) -> tuple[sympy.Symbol, ...]:
    import sympy

    return tuple(sympy.symbols(f"x0:{count}"))


def _by_cells(polynomial: Coefficients) -> Point | None:
    """Decide by one sample point in every open cell: {p < 0} is open, so it holds a whole cell or nothing."""
    symbols = _symbols(polynomial.ndim)
    poly = to_poly(polynomial, symbols)
    used = [symbol for symbol in symbols if poly.degree(symbol) > 0]
    for sample in _cell_points([poly.as_expr()], used):
        point = tuple(sample.get(symbol, Fraction(1, 2)) for symbol in symbols)
        if value(polynomial, point) < 0:
            return point
    return None


def _cell_points(polynomials: list[Any], variables: list[Any]) -> list[dict[Any, Fraction]]:
    """A rational point in every open cell of (0, 1)^n on which none of the polynomials vanishes (open CAD)."""
    import sympy

    factors = _factors(polynomials, variables)
    if len(variables) == 1:
        return [{variables[0]: point} for point in _between_roots(factors, variables[0])]
    last = variables[-1]
    below: list[Any] = []
    lines = [factor for factor in factors if factor.has(last)]
    for index, factor in enumerate(lines):
        poly = sympy.Poly(factor, last)
        below += [poly.LC(), poly.eval(0), poly.eval(1)]
        if poly.degree() > 1:
            below.append(sympy.discriminant(factor, last))
        below += [sympy.resultant(factor, other, last) for other in lines[:index]]
    below += [factor for factor in factors if not factor.has(last)]
    points = []
    for base in _cell_points(below, variables[:-1]):
        exact = {symbol: sympy.Rational(x.numerator, x.denominator) for symbol, x in base.items()}
        for x in _between_roots([factor.subs(exact) for factor in lines], last):
            points.append({**base, last: x})
    return points


def _factors(polynomials: list[Any], variables: list[Any]) -> list[Any]:
    """The distinct irreducible factors: the square-free part is all that matters for where the sign can change."""
    import sympy

    found: dict[Any, None] = {}
    for polynomial in polynomials:
        if polynomial.free_symbols:
            for factor, _ in sympy.factor_list(polynomial, *variables)[1]:
                found[factor] = None
    return list(found)


def _between_roots(factors: list[Any], variable: Any) -> list[Fraction]:
    """One rational point in every gap of (0, 1) between the real roots of univariate polynomials."""
    import sympy

    whole = sympy.Poly(1, variable)
    for factor in factors:
        whole *= sympy.Poly(factor, variable)
    radical = sympy.Poly(1, variable)
    for factor, _ in whole.sqf_list()[1]:
        for face in (sympy.Poly(variable, variable), sympy.Poly(variable - 1, variable)):
            if factor.rem(face).is_zero:
                factor = factor.quo(face)  # a root on a face bounds no gap
        radical *= factor
    if radical.degree() <= 0:
        return [Fraction(1, 2)]
    eps = sympy.Rational(1, 1024)
    while True:
        # Isolating intervals, narrowed until a point fits strictly between each and the next.
        intervals = [interval for interval, _ in radical.intervals(eps=eps, inf=0, sup=1)]
        ends = [(Fraction(int(a.p), int(a.q)), Fraction(int(b.p), int(b.q))) for a, b in intervals]
        edges = [(Fraction(0), Fraction(0)), *sorted(ends), (Fraction(1), Fraction(1))]
        gaps = [(left[1], right[0]) for left, right in pairwise(edges)]
        if all(low < high for low, high in gaps):
            return [(low + high) / 2 for low, high in gaps]
        eps /= 1024
