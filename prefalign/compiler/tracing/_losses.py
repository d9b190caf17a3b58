"""What torch's ready-made losses do to SymPy expressions; torch hands over all but the tensors by their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp

from ..symbols import _symbols as sy
from ._elementwise import elementwise, maximum
from ._tensor import OPS, SymFloat, SymTensor, op, wrap


def _loss(*names: str) -> Callable[[Callable[..., SymTensor]], Callable[..., SymTensor]]:
    """Enter a loss of single elements under torch's names; its `reduction` is done here."""

    def enter(function: Callable[..., SymTensor]) -> Callable[..., SymTensor]:
        def run(*args: Any, reduction: str = "mean", **kwargs: Any) -> SymTensor:
            loss = function(*args, **kwargs)
            return loss if reduction == "none" else OPS[reduction](loss)

        return op(*names)(run)

    return enter


def _weighed(loss: SymTensor, weight: Any) -> SymTensor:
    return loss if weight is None else OPS["mul"](loss, weight)


@_loss("binary_cross_entropy_with_logits")
def _bce_with_logits(x: Any, target: Any, weight: Any = None, **_: Any) -> SymTensor:
    return _weighed(elementwise(lambda e, t: -t * sy.LogSigmoid(e) - (1 - t) * sy.LogSigmoid(-e), x, target), weight)


@_loss("binary_cross_entropy")
def _bce(x: Any, target: Any, weight: Any = None, **_: Any) -> SymTensor:
    sy.leave_out("torch keeps the logarithms of a binary cross-entropy above -100")
    return _weighed(elementwise(lambda p, t: -t * sy.log(p) - (1 - t) * sy.log(1 - p), x, target), weight)


@_loss("soft_margin_loss")
def _soft_margin(x: Any, target: Any, **_: Any) -> SymTensor:
    return elementwise(lambda e, t: -sy.LogSigmoid(t * e), x, target)


@_loss("margin_ranking_loss")
def _margin_ranking(a: Any, b: Any, target: Any, margin: Any = 0.0, **_: Any) -> SymTensor:
    return elementwise(lambda x, y, t, m: maximum(-t * (x - y) + m, sp.S.Zero), a, b, target, margin)


@_loss("mse_loss")
def _mse(a: Any, b: Any, **_: Any) -> SymTensor:
    return elementwise(lambda x, y: (x - y) ** 2, a, b)


@_loss("l1_loss")
def _l1(a: Any, b: Any, **_: Any) -> SymTensor:
    return elementwise(lambda x, y: sy.Select(x - y, x - y, y - x), a, b)


@_loss("smooth_l1_loss", "huber_loss")
def _huber(a: Any, b: Any, beta: Any = 1.0, delta: Any = None, **_: Any) -> SymTensor:
    def one(x: sp.Expr, y: sp.Expr, width: sp.Expr) -> sp.Expr:
        size = sy.Select(x - y, x - y, y - x)
        near, far = (x - y) ** 2 / 2, width * (size - width / 2)
        inside = sy.Select(width - size, near, far)
        return inside if delta is not None else inside / width

    return elementwise(one, a, b, beta if delta is None else delta)


@_loss("cross_entropy")
def _cross_entropy(x: Any, target: Any, label_smoothing: Any = 0.0, **_: Any) -> SymTensor:
    logps = OPS["log_softmax"](x, 1 if x.elements.ndim > 1 else 0).elements
    smooth = label_smoothing.expr if isinstance(label_smoothing, SymFloat) else sy.number(label_smoothing)
    rows = logps.reshape(-1, logps.shape[-1])
    picked = _picked(rows, target)
    return _vector(
        [(1 - smooth) * loss - smooth * sp.Add(*row) / len(row) for loss, row in zip(picked, rows, strict=True)]
    )


@_loss("nll_loss")
def _nll(x: Any, target: Any, **_: Any) -> SymTensor:
    return _vector(_picked(x.elements.reshape(-1, x.elements.shape[-1]), target))


def _picked(rows: Any, target: Any) -> list[sp.Expr]:
    """Minus each row's entry at its target."""
    return [-row[int(t)] for row, t in zip(rows, np.asarray(target).reshape(-1), strict=True)]


def _vector(values: list[sp.Expr]) -> SymTensor:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return wrap(array)
