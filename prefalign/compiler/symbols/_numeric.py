"""Numbers for formulas: evaluates a traced expression on float64 tensors, with gradients."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, reduce

import sympy as sp
import torch
from torch import Tensor
from torch.nn import functional

from . import _symbols as sy

_PLAIN = {sp.sin: torch.sin, sp.cos: torch.cos, sp.atan: torch.atan, sp.erf: torch.erf}
_LARGEST = 709.0


def evaluate(expr: sp.Basic, values: Mapping[str, Tensor]) -> Tensor:
    """The expression's value.

    Args:
        expr: Of symbols (found in `values` by name), + * ^ exp log, and the functions of `_symbols`.
        values: Float64 tensors that broadcast; `W°` is `W` detached.
    """
    memo: dict[sp.Basic, Tensor] = {}

    def go(e: sp.Basic) -> Tensor:
        if e not in memo:
            memo[e] = _node(e)
        return memo[e]

    def _node(e: sp.Basic) -> Tensor:
        if e.is_Symbol:
            return values[sy.thaw(e).name].detach() if sy.is_frozen(e) else values[e.name]
        if e.is_number and not e.has(sy.LogSigmoid, sy.Sigmoid, sy.Select):
            return torch.tensor(float(e), dtype=torch.float64)
        if e.is_Add:
            return reduce(torch.add, map(go, e.args))
        if e.is_Mul:
            return reduce(torch.mul, map(go, e.args))
        if e.is_Pow and e.args[1].is_negative and _plus_exp(e.args[0]) is not None:
            # 1 / (1 + exp(z)): the logistic function, whose gradient stays finite where exp(z) does not.
            return torch.exp(go(e.args[1]) * functional.softplus(go(_plus_exp(e.args[0]))))
        if e.is_Pow and not isinstance(e, sp.exp):
            return go(e.args[0]) ** (int(e.args[1]) if e.args[1].is_Integer else go(e.args[1]))
        if isinstance(e, sp.exp):
            # Not beyond the largest number: an infinite value has no slope, not even in a branch that is not taken.
            return torch.exp(go(e.args[0]).clamp(max=_LARGEST))
        if isinstance(e, sp.log):
            return _log(e.args[0])
        if isinstance(e, sy.LogSigmoid):
            return functional.logsigmoid(go(e.args[0]))
        if isinstance(e, sy.Sigmoid):
            return torch.sigmoid(go(e.args[0]))
        if type(e) in _PLAIN:
            return _PLAIN[type(e)](go(e.args[0]))
        if isinstance(e, sp.Abs):
            return torch.abs(go(e.args[0]))
        if isinstance(e, sp.Max):
            return reduce(torch.maximum, map(go, e.args))
        if isinstance(e, sp.Piecewise):
            *cases, (otherwise, _) = e.args
            result = go(otherwise)
            for value, condition in reversed(cases):
                result = torch.where(holds(condition, values), go(value), result)
            return result
        assert isinstance(e, sy.Select), e
        d, yes, no = map(go, e.args)
        return torch.where(d > 0, yes, no)

    def _log(x: sp.Basic) -> Tensor:
        # log(1 + y) with y = -exp(z) or exp(z): log1p keeps the digits that 1 + y would lose.
        one, rest = x.as_coeff_Add()
        if one == 1 and isinstance(-rest, sp.exp):
            z = go((-rest).args[0])
            near = z > -0.6931
            return torch.where(
                near,
                torch.log(-torch.expm1(torch.where(near, z, -1.0))),
                torch.log1p(-torch.exp(torch.where(near, -1.0, z))),
            )
        if one == 1 and isinstance(rest, sp.exp):
            return functional.softplus(go(rest.args[0]))
        return torch.log(go(x))

    return go(expr)


def _plus_exp(x: sp.Basic) -> sp.Expr | None:
    """z where x is 1 + exp(z)."""
    one, rest = x.as_coeff_Add()
    return rest.args[0] if one == 1 and isinstance(rest, sp.exp) else None


def holds(condition: sp.Basic, values: Mapping[str, Tensor]) -> Tensor:
    """Where a condition (comparisons, joined by and, or and not) holds."""
    if isinstance(condition, sp.And | sp.Or):
        join = torch.logical_and if isinstance(condition, sp.And) else torch.logical_or
        return reduce(join, (holds(part, values) for part in condition.args))
    if isinstance(condition, sp.Not):
        return ~holds(condition.args[0], values)
    assert isinstance(condition, sp.core.relational.Relational), condition
    left, right = evaluate(condition.gts, values), evaluate(condition.lts, values)
    return left > right if isinstance(condition, sp.Gt | sp.Lt) else left >= right


_SUMS = {sp.Symbol(name): sp.Symbol(name.upper(), real=True) for name in ("w", "l", "rw", "rl")}


@lru_cache(maxsize=256)
def in_logs(condition: sp.Basic) -> sp.Basic:
    """A condition on probabilities as one on their logarithms, which do not underflow."""
    if isinstance(condition, sp.And | sp.Or | sp.Not):
        return condition.func(*map(in_logs, condition.args))
    if not condition.free_symbols & set(_SUMS):
        return condition
    powers = {atom: sp.exp(log) for atom, log in _SUMS.items()}
    sides = (sp.expand_log(sp.log(side.subs(powers)), force=True) for side in condition.args)
    return condition.func(*sides, evaluate=False)
