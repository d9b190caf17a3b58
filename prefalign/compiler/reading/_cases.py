"""Case distinctions of a traced loss, brought into a form that rules can be read from."""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp
import torch

from ..symbols import _symbols as sy
from ..symbols import evaluate
from ._log_linear import Form, Values, is_live, is_unit, monomials

# How far log-probabilities reach at the points of a comparison: a clamp at 20 nats is none within 3.
_NATS = torch.tensor([3.0] * 16 + [40.0] * 8 + [300.0] * 8, dtype=torch.float64)


def collapse(expr: sp.Expr, values: Values) -> sp.Expr:
    """`expr` without the cases whose two sides are the same function, as in a numerically careful log(1 - p)."""
    for node in sorted(expr.atoms(sy.Select), key=simplest):
        yes, no = (_same_form(side) for side in node.args[1:])
        if yes == no or _equal_numbers(yes, no, values):
            return collapse(expr.xreplace({node: node.args[2]}), values)
    # The cases may also agree only in the whole: m + log(exp(a - m) + exp(b - m)) with m = max(a, b).
    for distance in sorted({node.args[0] for node in expr.atoms(sy.Select)}, key=simplest):
        yes, no = sy.assume(expr, distance, True), sy.assume(expr, distance, False)
        if _equal_numbers(yes, no, values):
            return collapse(no, values)
    return expr


def simplest(expr: sp.Expr) -> tuple[int, str]:
    """A key to sort by: the simplest first, and always in the same order."""
    return int(sp.count_ops(expr)), str(expr)


def _same_form(expr: sp.Expr) -> sp.Expr:
    return sp.expand(sp.expand_log(expr, force=True))


def _equal_numbers(a: sp.Expr, b: sp.Expr, values: Values) -> bool:
    symbols = a.free_symbols | b.free_symbols
    generator = torch.Generator().manual_seed(7)
    points: dict[str, torch.Tensor] = {}
    for symbol in sorted(symbols, key=lambda s: s.name):
        base = sy.thaw(symbol) if sy.is_frozen(symbol) else symbol
        drawn = -_NATS * torch.rand(len(_NATS), generator=generator, dtype=torch.float64) - 0.01
        if base in (sy.N_W, sy.N_L):  # lengths in either order, and equal ones
            points[base.name] = torch.randint(1, 4, drawn.shape, generator=generator).double()
        else:
            points[base.name] = drawn if is_live(base) else torch.full_like(drawn, float(values.get(symbol, 3)))
    try:
        x, y = evaluate(a, points), evaluate(b, points)
    except AssertionError:
        return False
    return bool(torch.allclose(x, y, rtol=1e-9, atol=1e-12))


def soften(expr: sp.Expr) -> sp.Expr:
    """Sums of two exponentials with powers that no proposition has, as logistic functions."""
    return _rewrite(expr, lambda first, second: not (is_unit(first) and is_unit(second)))


def split_pairs(expr: sp.Expr) -> sp.Expr:
    """Every sum of two exponentials as a logistic function: log(w + l) is log w + softplus(log l - log w)."""
    return _rewrite(expr, lambda first, second: True)


def _rewrite(expr: sp.Expr, wanted: Callable[[Form, Form], bool]) -> sp.Expr:
    def pair(x: sp.Expr, always: bool) -> tuple[sp.Expr, sp.Expr] | None:
        if not x.is_Add or not is_live(x):
            return None
        terms = monomials(x)
        if terms is None or len(terms) != 2 or not all(_number_or_symbol_positive(c) for c, _ in terms):
            return None
        (c1, f1), (c2, f2) = terms
        if not (always or wanted(f1, f2)):
            return None
        first, second = (
            sp.log(c) + sp.Add(*(k * a for a, k in f.coefficients.items())) for c, f in ((c1, f1), (c2, f2))
        )
        return first, second

    def go(e: sp.Expr) -> sp.Expr:
        if e.is_Atom or not is_live(e):
            return e
        if isinstance(e, sp.log):
            found = pair(e.args[0], False)
            if found:
                return found[0] - sy.LogSigmoid(go(found[0] - found[1]))
            if e.args[0].is_Mul:  # the logarithm of a softmax, exp(a) / (exp(a) + exp(b))
                factors = [factor.as_base_exp() for factor in e.args[0].args]
                if all(
                    base is sp.E or pair(base, False) or (not is_live(base) and base.is_positive) for base, _ in factors
                ):
                    return sp.Add(*(power * go(sp.log(base)) for base, power in factors))
            return e
        if e.is_Pow and not isinstance(e, sp.exp) and e.args[1] == -1:
            found = pair(e.args[0], True)
            if found:
                return sp.exp(-found[0]) * sy.Sigmoid(go(found[0] - found[1]))
        return e.func(*map(go, e.args))

    return go(expr)


def _number_or_symbol_positive(c: sp.Expr) -> bool:
    return bool(c.is_positive)
