"""What torch's products of tensors, and its fused products and sums, do to SymPy expressions."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from ..symbols import _symbols as sy
from ._elementwise import elementwise
from ._tensor import TRACE, SymTensor, dtype_of, elements_of, op, wrap

op("addcmul")(lambda x, a, b, value=1: elementwise(lambda e, f, g, v: e + v * f * g, x, a, b, value))
op("addcdiv")(lambda x, a, b, value=1: elementwise(lambda e, f, g, v: e + v * f / g, x, a, b, value))
op("cosh")(lambda x: elementwise(lambda e: (sy.exp(e) + sy.exp(-e)) / 2, x))
op("sinh")(lambda x: elementwise(lambda e: (sy.exp(e) - sy.exp(-e)) / 2, x))
op("xlogy")(lambda x, y: elementwise(lambda a, b: a * sy.log(b) if a != 0 else sp.S.Zero, x, y))


@op("matmul", "mm", "mv", "bmm", "__matmul__", "inner", "dot", "vdot")
def _matmul(a: Any, b: Any) -> SymTensor:
    return wrap(np.matmul(elements_of(a), elements_of(b)), dtype_of(a, b))


@op("__rmatmul__")
def _rmatmul(b: Any, a: Any) -> SymTensor:
    return _matmul(a, b)


@op("outer", "ger")
def _outer(a: Any, b: Any) -> SymTensor:
    return wrap(np.multiply.outer(elements_of(a), elements_of(b)), dtype_of(a, b))


@op("einsum")
def _einsum(equation: str, *operands: Any) -> SymTensor:
    parts = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    return wrap(np.einsum(equation, *map(elements_of, parts)), dtype_of(*parts))


@op("diff")
def _diff(x: Any, n: int = 1, dim: int = -1) -> SymTensor:
    return wrap(np.diff(x.elements, n=n, axis=dim), x.dtype)


@op("empty_like")
def _empty_like(x: Any, **_: Any) -> SymTensor:
    return wrap(TRACE.get().hide(x.elements.shape, "The loss reads values of `empty_like` that were never written."))


@op("kl_div")
def _kl_div(x: Any, target: Any, reduction: str = "mean", log_target: bool = False, **_: Any) -> SymTensor:
    def one(logp: sp.Expr, t: sp.Expr) -> sp.Expr:
        if log_target:
            return sy.exp(t) * (t - logp)
        return t * (sy.log(t) - logp) if t != 0 else sp.S.Zero

    loss = elementwise(one, x, target)
    array = loss.elements
    if reduction == "none":
        return loss
    parts = {"mean": array.size, "batchmean": array.shape[0] if array.ndim else 1, "sum": 1}[reduction]
    return wrap(sp.Add(*array.reshape(-1)) / parts, loss.dtype)
