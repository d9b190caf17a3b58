"""Weighted model counts as SymPy polynomials: sums of disjoint products of p and 1 - p."""

from __future__ import annotations

from collections.abc import Sequence

import sympy

from ..tables import full_mask, split


def polynomial(mask: int, atoms: Sequence[str]) -> sympy.Expr:
    """WMC of the rows as a disjoint polynomial, by Shannon expansion: p·f₁ + (1 - p)·f₀, atom after atom.

    Of the polynomial itself and one minus its complement's, the one with fewer operations is given.

    Example:
        >>> polynomial(0b1011, ("w", "l"))
        -l*(1 - w) + 1
    """
    memo: dict[tuple[int, int], tuple[int, sympy.Expr]] = {}

    def go(rows: int, i: int) -> tuple[int, sympy.Expr]:
        """The number of symbols, and the polynomial, of a table over atoms[i:]."""
        count = len(atoms) - i
        full = full_mask(count)
        if rows in (0, full):
            return 0, sympy.S.One if rows else sympy.S.Zero
        key = (rows, i)
        if key not in memo:
            memo[key] = min(plain(rows, i), complement(full ^ rows, i), key=lambda pair: pair[0])
        return memo[key]

    def plain(rows: int, i: int) -> tuple[int, sympy.Expr]:
        true, false = split(rows, len(atoms) - i)
        if true == false:
            return go(true, i + 1)
        p = sympy.Symbol(atoms[i])
        (cost_true, if_true), (cost_false, if_false) = go(true, i + 1), go(false, i + 1)
        cost = cost_true + cost_false + bool(true) + bool(false)
        return cost, p * if_true + (1 - p) * if_false

    def complement(rows: int, i: int) -> tuple[int, sympy.Expr]:
        cost, expression = plain(rows, i)
        return cost, 1 - expression

    return go(mask, 0)[1]


def quotient(top: sympy.Expr, bottom: sympy.Expr) -> sympy.Expr:
    """top / bottom, keeping common factors, which belong to the structure (SymPy's division would cancel them)."""
    plain = top / bottom
    numerator, denominator = sympy.fraction(plain)
    if numerator == top and denominator == bottom:
        return plain
    return sympy.Mul(top, sympy.Pow(bottom, -1, evaluate=False), evaluate=False)


def show(expression: sympy.Expr | float) -> str:
    """The expression as text, low powers first: 1 - w*(1 - l) rather than -w*(1 - l) + 1."""
    return str(sympy.sstr(expression, order="rev-lex"))
