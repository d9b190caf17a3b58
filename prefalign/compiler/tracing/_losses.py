"""What torch's ready-made losses do to SymPy expressions."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from ..symbols import _symbols as sy
from ._elementwise import elementwise, maximum
from ._tensor import OPS, SymFloat, SymTensor, op, wrap


def _reduce(x: SymTensor, reduction: str) -> SymTensor:
    result: SymTensor = x if reduction == "none" else OPS[reduction](x)
    return result


@op("binary_cross_entropy_with_logits")
def _bce_with_logits(
    x: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    **_: Any,
) -> SymTensor:
    loss = elementwise(lambda e, t: -t * sy.LogSigmoid(e) - (1 - t) * sy.LogSigmoid(-e), x, target)
    return _reduce(loss if weight is None else OPS["mul"](loss, weight), reduction)


@op("binary_cross_entropy")
def _bce(
    x: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> SymTensor:
    sy.leave_out("torch keeps the logarithms of a binary cross-entropy above -100")
    loss = elementwise(lambda p, t: -t * sy.log(p) - (1 - t) * sy.log(1 - p), x, target)
    return _reduce(loss if weight is None else OPS["mul"](loss, weight), reduction)


@op("soft_margin_loss")
def _soft_margin(
    x: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> SymTensor:
    return _reduce(elementwise(lambda e, t: -sy.LogSigmoid(t * e), x, target), reduction)


@op("margin_ranking_loss")
def _margin_ranking(
    a: Any,
    b: Any,
    target: Any,
    margin: Any = 0.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> SymTensor:
    loss = elementwise(lambda x, y, t, m: maximum(-t * (x - y) + m, sp.S.Zero), a, b, target, margin)
    return _reduce(loss, reduction)


@op("mse_loss")
def _mse(
    a: Any, b: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None
) -> SymTensor:
    return _reduce(elementwise(lambda x, y: (x - y) ** 2, a, b), reduction)


@op("l1_loss")
def _l1(a: Any, b: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", **_: Any) -> SymTensor:
    return _reduce(elementwise(lambda x, y: sy.Select(x - y, x - y, y - x), a, b), reduction)


@op("smooth_l1_loss", "huber_loss")
def _huber(
    a: Any,
    b: Any,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: Any = 1.0,
    delta: Any = None,
    **_: Any,
) -> SymTensor:
    def one(x: sp.Expr, y: sp.Expr, width: sp.Expr) -> sp.Expr:
        size = sy.Select(x - y, x - y, y - x)
        near, far = (x - y) ** 2 / 2, width * (size - width / 2)
        inside = sy.Select(width - size, near, far)
        return inside if delta is not None else inside / width

    return _reduce(elementwise(one, a, b, beta if delta is None else delta), reduction)


@op("cross_entropy")
def _cross_entropy(
    x: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: Any = 0.0,
) -> SymTensor:
    logps = OPS["log_softmax"](x, 1 if x.elements.ndim > 1 else 0).elements
    smooth = label_smoothing.expr if isinstance(label_smoothing, SymFloat) else sy.number(label_smoothing)
    rows = logps.reshape(-1, logps.shape[-1])
    picked = [row[int(t)] for row, t in zip(rows, np.asarray(target).reshape(-1), strict=True)]
    loss = [-(1 - smooth) * p - smooth * sp.Add(*row) / len(row) for p, row in zip(picked, rows, strict=True)]
    array = np.empty(len(loss), dtype=object)
    array[:] = loss
    return _reduce(wrap(array), reduction)


@op("nll_loss")
def _nll(
    x: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> SymTensor:
    rows = x.elements.reshape(-1, x.elements.shape[-1])
    array = np.empty(rows.shape[0], dtype=object)
    array[:] = [-row[int(t)] for row, t in zip(rows, np.asarray(target).reshape(-1), strict=True)]
    return _reduce(wrap(array), reduction)
