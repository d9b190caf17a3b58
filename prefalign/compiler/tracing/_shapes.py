"""What torch's sums, joins and views do to SymPy expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sympy as sp
import torch

from ..._errors import DerivationError
from ..symbols import _symbols as sy
from ._elementwise import elementwise, maximum, minimum
from ._tensor import TRACE, Elements, SymTensor, apply, dtype_of, elements_of, op, scalar, wrap


def _axis(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, list | tuple) else dim


def _numeric(x: Any) -> Elements:
    return elementwise(lambda e: e, x).elements


def _sum(array: Elements, axis: Any = None, keepdims: bool = False) -> Elements:
    if array.size == 0:
        return scalar(sp.S.Zero) if axis is None else np.full(array.sum(axis=axis).shape, sp.S.Zero, dtype=object)
    if axis is None and not keepdims:
        return scalar(sp.Add(*array.reshape(-1)))
    result = np.sum(array, axis=axis, keepdims=keepdims)
    return result if isinstance(result, np.ndarray) else scalar(result)


@op("sum", "nansum")
def _sum_op(x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> SymTensor:
    dtype = x.dtype if x.dtype.is_floating_point else torch.int64
    return wrap(_sum(_numeric(x), _axis(dim), keepdim), dtype)


@op("mean", "nanmean")
def _mean(x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> SymTensor:
    total = _sum(_numeric(x), _axis(dim), keepdim)
    count = elements_of(x).size // max(total.size, 1)
    if not count:
        raise DerivationError("A mean over nothing is undefined.")
    return wrap(apply(lambda e: e / count, total), x.dtype)


@op("logsumexp")
def _logsumexp(x: Any, dim: Any, keepdim: bool = False) -> SymTensor:
    return wrap(apply(sy.log, _sum(apply(sy.exp, elements_of(x)), _axis(dim), keepdim)), x.dtype)


@op("log_softmax")
def _log_softmax(x: Any, dim: int = -1, *_: Any, **__: Any) -> SymTensor:
    array = elements_of(x)
    if array.shape[dim] == 2:
        return wrap(apply(sy.LogSigmoid, array - np.flip(array, dim)), x.dtype)
    return wrap(array - _logsumexp(x, dim, True).elements, x.dtype)


@op("softmax")
def _softmax(x: Any, dim: int = -1, *_: Any, **__: Any) -> SymTensor:
    return wrap(apply(sy.exp, _log_softmax(x, dim).elements), x.dtype)


@op("cumsum")
def _cumsum(x: Any, dim: int, **_: Any) -> SymTensor:
    return wrap(np.cumsum(_numeric(x), axis=dim), x.dtype)


@op("prod")
def _prod(x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> SymTensor:
    result = np.prod(_numeric(x), axis=dim, keepdims=keepdim)
    return wrap(result, x.dtype)


def _extreme(fold: Callable[[sp.Expr, sp.Expr], sp.Expr]) -> Callable[..., Any]:
    def run(x: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
        if isinstance(dim, torch.Tensor) or other is not None:
            return elementwise(fold, x, dim if other is None else other)
        if dim is None:
            return wrap(_fold(fold, list(elements_of(x).reshape(-1))), x.dtype)
        parts: list[Elements] = [np.take(elements_of(x), i, axis=dim) for i in range(elements_of(x).shape[dim])]
        result = parts[0]
        for part in parts[1:]:
            result = apply(fold, result, part)
        return wrap(np.expand_dims(result, dim) if keepdim else result, x.dtype)

    return run


def _fold(fold: Callable[[Any, Any], Any], values: list[Any]) -> Any:
    result = values[0]
    for value in values[1:]:
        result = fold(result, value)
    return result


op("amax")(_extreme(maximum))
op("amin")(_extreme(minimum))


def _with_indices(fold: Callable[[sp.Expr, sp.Expr], sp.Expr]) -> Callable[..., Any]:
    plain = _extreme(fold)

    def run(x: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
        result = plain(x, dim, keepdim, **kwargs)
        return (result, None) if isinstance(dim, int) else result

    return run


op("max")(_with_indices(maximum))
op("min")(_with_indices(minimum))


@op("all")
def _all(x: Any, dim: Any = None, keepdim: bool = False) -> SymTensor:
    return wrap(sp.And(*elements_of(x).reshape(-1)), torch.bool)


@op("any")
def _any(x: Any, dim: Any = None, keepdim: bool = False) -> SymTensor:
    return wrap(sp.Or(*elements_of(x).reshape(-1)), torch.bool)


op("allclose", "equal")(lambda a, b, **_: False)


@op("cat", "concat", "concatenate")
def _cat(tensors: Sequence[Any], dim: int = 0, **named: Any) -> SymTensor:
    tensors = [t for t in tensors if not (t.ndim == 1 and t.shape[0] == 0)]
    return wrap(np.concatenate([elements_of(t) for t in tensors], axis=named.get("axis", dim)), dtype_of(*tensors))


@op("stack")
def _stack(tensors: Sequence[Any], dim: int = 0) -> SymTensor:
    return wrap(np.stack([elements_of(t) for t in tensors], axis=dim), dtype_of(*tensors))


op("hstack")(lambda tensors: wrap(np.hstack([elements_of(t) for t in tensors]), dtype_of(*tensors)))
op("vstack")(lambda tensors: wrap(np.vstack([elements_of(t) for t in tensors]), dtype_of(*tensors)))


@op("tensor", "as_tensor", "scalar_tensor")
def _tensor(data: Any, dtype: Any = None, **_: Any) -> SymTensor:
    return wrap(elements_of(data).copy(), dtype or torch.float32)


@op("chunk")
def _chunk(x: Any, chunks: int, dim: int = 0) -> tuple[SymTensor, ...]:
    size = -(-elements_of(x).shape[dim] // chunks)
    return _split(x, size, dim)


@op("split")
def _split(x: Any, size: Any, dim: int = 0) -> tuple[SymTensor, ...]:
    total = elements_of(x).shape[dim]
    sizes = [size] * -(-total // size) if isinstance(size, int) else list(size)
    ends = np.cumsum(sizes)[:-1]
    return tuple(wrap(part, x.dtype) for part in np.split(elements_of(x), ends, axis=dim))


@op("tensor_split")
def _tensor_split(x: Any, sections: Any, dim: int = 0) -> tuple[SymTensor, ...]:
    return tuple(wrap(part, x.dtype) for part in np.array_split(elements_of(x), sections, axis=dim))


@op("unbind")
def _unbind(x: Any, dim: int = 0) -> tuple[SymTensor, ...]:
    return tuple(wrap(np.take(elements_of(x), i, axis=dim), x.dtype) for i in range(elements_of(x).shape[dim]))


@op("logcumsumexp")
def _logcumsumexp(x: Any, dim: int) -> SymTensor:
    sums = np.cumsum(apply(sy.exp, elements_of(x)), axis=dim)
    return wrap(apply(sy.log, sums), x.dtype)


def _index(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(map(_index, key))
    if isinstance(key, SymTensor):
        if not all(e in (sp.true, sp.false) or e.is_Integer for e in key.elements.reshape(-1)):
            raise DerivationError("Pairs are picked out by a condition on their log-probabilities; use `torch.where`.")
        kind = bool if key.dtype == torch.bool else int
        return key.elements.astype(kind)
    return key.numpy() if isinstance(key, torch.Tensor) else key


@op("__getitem__")
def _getitem(x: Any, key: Any) -> SymTensor:
    result = elements_of(x)[_index(key)]
    return wrap(result, x.dtype)


@op("__setitem__")
def _setitem(x: Any, key: Any, value: Any) -> None:
    if not isinstance(x, SymTensor):
        raise DerivationError(
            "Symbolic values are written into an ordinary tensor, which cannot hold them; use `torch.where` or `stack`."
        )
    x.elements[_index(key)] = elements_of(value)


def _shaped(shape: Sequence[Any]) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple) else tuple(shape)


op("view", "reshape")(lambda x, *shape, **_: wrap(elements_of(x).reshape(_shaped(shape)), x.dtype))
op("flatten", "ravel")(lambda x, *_, **__: wrap(elements_of(x).reshape(-1), x.dtype))
op("unsqueeze")(lambda x, dim: wrap(np.expand_dims(elements_of(x), dim), x.dtype))
op("transpose", "swapaxes")(lambda x, a, b: wrap(np.swapaxes(elements_of(x), a, b), x.dtype))
op("permute")(lambda x, *dims: wrap(np.transpose(elements_of(x), _shaped(dims)), x.dtype))
op("t")(lambda x: wrap(elements_of(x).T, x.dtype))
op("flip")(lambda x, *dims: wrap(np.flip(elements_of(x), _shaped(dims)), x.dtype))
op("expand_as")(lambda x, other: wrap(np.broadcast_to(elements_of(x), tuple(other.shape)).copy(), x.dtype))
op("repeat")(lambda x, *sizes: wrap(np.tile(elements_of(x), _shaped(sizes)), x.dtype))
op("new_zeros")(lambda x, *shape, **_: _filled(shape, sp.S.Zero, x.dtype))
op("new_ones")(lambda x, *shape, **_: _filled(shape, sp.S.One, x.dtype))
op("new_full")(lambda x, shape, fill_value, **_: _filled((shape,), elements_of(fill_value)[()], x.dtype))
op("new_tensor")(lambda x, value, **_: wrap(elements_of(value), x.dtype))
op("copy")(lambda x, source, *_, **__: wrap(np.broadcast_to(elements_of(source), x.elements.shape).copy(), x.dtype))


def _filled(shape: Sequence[Any], value: Any, dtype: torch.dtype) -> SymTensor:
    made = np.empty(_shaped(shape), dtype=object)
    made[...] = value
    return wrap(made, dtype)


@op("view_as", "reshape_as")
def _view_as(x: Any, other: Any) -> SymTensor:
    return wrap(elements_of(x).reshape(tuple(other.shape)), x.dtype)


@op("squeeze")
def _squeeze(x: Any, dim: Any = None) -> SymTensor:
    if dim is not None and elements_of(x).shape[dim] != 1:
        return wrap(elements_of(x), x.dtype)
    return wrap(np.squeeze(elements_of(x), axis=dim), x.dtype)


@op("expand", "broadcast_to")
def _expand(x: Any, *shape: Any) -> SymTensor:
    wanted = list(_shaped(shape))
    offset = len(wanted) - elements_of(x).ndim
    wanted = [elements_of(x).shape[i - offset] if size == -1 else size for i, size in enumerate(wanted)]
    return wrap(np.broadcast_to(elements_of(x), wanted).copy(), x.dtype)


@op("index_select")
def _index_select(x: Any, dim: int, index: Any) -> SymTensor:
    return wrap(np.take(elements_of(x), _index(index), axis=dim), x.dtype)


@op("select")
def _select(x: Any, dim: int, index: int) -> SymTensor:
    return wrap(np.take(elements_of(x), index, axis=dim), x.dtype)


@op("narrow")
def _narrow(x: Any, dim: int, start: int, length: int) -> SymTensor:
    return wrap(np.take(elements_of(x), range(start, start + length), axis=dim), x.dtype)


@op("gather")
def _gather(x: Any, dim: int, index: Any) -> SymTensor:
    return wrap(np.take_along_axis(elements_of(x), _index(index), axis=dim), x.dtype)


@op("masked_select")
def _masked_select(x: Any, mask: Any) -> SymTensor:
    return _getitem(x, mask)


def _refuse(what: str) -> Any:
    raise DerivationError(f"No symbolic reading of {what}.")


def _plain(name: str) -> Callable[..., Any]:
    def run(x: Any, *args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return getattr(torch.Tensor, name)(x, *args, **kwargs)

    return run


for _name in ("size", "dim", "numel", "__len__", "ndimension", "element_size", "is_contiguous", "stride"):
    op(_name)(_plain(_name))
op("is_floating_point")(lambda x: x.dtype.is_floating_point)
op("is_complex", "is_sparse", "is_inference")(lambda x: False)
op("is_tensor", "is_nonzero")(lambda x: True)
op("nelement")(lambda x: elements_of(x).size)
op("__hash__")(lambda x: id(x))
op("__format__", "__str__", "__repr__")(lambda x, *_, **__: "<symbolic>")
op("requires_grad_", "retain_grad")(lambda x, *_, **__: x)
op("register_hook", "backward")(lambda *_, **__: None)
op("result_type")(lambda a, b: dtype_of(a, b))


@op("item")
def _item(x: Any) -> Any:
    """A number out of a tensor: the tensor itself, which goes on holding its expression."""
    if elements_of(x).size != 1:
        raise DerivationError("`item()` of several pairs.")
    return wrap(elements_of(x).reshape(-1)[0], x.dtype)


@op("tolist")
def _tolist(x: Any) -> Any:
    return [wrap(e, x.dtype) for e in elements_of(x).reshape(-1)]


@op("__float__", "__int__", "__index__")
def _float(x: Any) -> float:
    element = elements_of(x).reshape(-1)[0]
    return float(element) if element.is_number else TRACE.get().as_number()


@op("numpy", "__array__")
def _numpy(x: Any, *_: Any, **__: Any) -> Any:
    return np.full(elements_of(x).shape, TRACE.get().as_number())
