"""Tensors and numbers that hold SymPy expressions, so that unmodified loss code writes down its own formula.

A `SymTensor` is a `torch.Tensor` in every outward respect (isinstance, shape, dtype, device); its elements are SymPy
expressions. Every torch call on one arrives in `__torch_function__` and is looked up by name in the table of `_ops`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import sympy as sp
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from ..._errors import DerivationError
from ..symbols import _symbols as sy

Elements = NDArray[np.object_]


@dataclass
class Trace:
    """What one symbolic run collects besides its result.

    Args:
        decisions: The answers to give to the first questions of the form `if tensor:`; later ones are answered True.
        path: The conditions met so far, each with the answer given: (distance, whether distance > 0).
        opaque: Hidden values, each with the reason why it has no formula.
        stand_in: What a tensor that is turned into a Python number comes to.
        numbers: How often that was asked for.
        tokens: Whether the code was given single tokens, whose numbers then show in its formula.
    """

    decisions: list[bool] = field(default_factory=list)
    path: list[tuple[sp.Expr, bool]] = field(default_factory=list)
    opaque: dict[sp.Symbol, str] = field(default_factory=dict)
    stand_in: float = math.nan
    numbers: int = 0
    tokens: bool = False

    def as_number(self) -> float:
        """What stands for a log-probability that the code turns into a Python number, often for a log alone."""
        self.numbers += 1
        return self.stand_in

    def hide(self, shape: tuple[int, ...], reason: str) -> Elements:
        """Values that no formula has; if the loss depends on one, it is refused for this reason."""
        symbol = sp.Symbol(f"hidden_{len(self.opaque)}", real=True)
        self.opaque[symbol] = reason
        made = np.empty(shape, dtype=object)
        made[...] = symbol
        return made

    def check_used(self, elements: Elements) -> None:
        """Refuse a result that depends on hidden values.

        Raises:
            DerivationError: It does; gives the reason why one was hidden.
        """
        for element in elements.reshape(-1):
            for symbol in getattr(element, "free_symbols", ()):
                if symbol in self.opaque:
                    raise DerivationError(self.opaque[symbol])

    def decide(self, distance: sp.Expr) -> bool:
        """Answer `if distance > 0`, the same way each time it is asked."""
        for known, answer in self.path:
            if known == distance:
                return answer
            if known == -distance:
                return not answer
        answer = self.decisions[len(self.path)] if len(self.path) < len(self.decisions) else True
        self.path.append((distance, answer))
        return answer


TRACE: ContextVar[Trace] = ContextVar("TRACE")
OPS: dict[str, Callable[..., Any]] = {}
Operation = TypeVar("Operation", bound=Callable[..., Any])


def op(*names: str) -> Callable[[Operation], Operation]:
    """Enter a function into the table under torch's names for it."""

    def enter(function: Operation) -> Operation:
        for name in names:
            OPS[name] = function
        return function

    return enter


class SymTensor(torch.Tensor):
    """A tensor of SymPy expressions."""

    elements: Elements

    @staticmethod
    def __new__(cls, elements: Elements, dtype: torch.dtype = torch.float32) -> SymTensor:
        made: SymTensor = torch.Tensor._make_wrapper_subclass(cls, elements.shape, dtype=dtype)
        made.elements = elements
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return call(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise DerivationError(f"No symbolic reading of `{func}`: it reached torch's kernels.")

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"SymTensor({self.elements.tolist()})"

    def __iter__(self) -> Any:
        return iter([self[i] for i in range(self.elements.shape[0])])

    def __reversed__(self) -> Any:
        return iter([self[i] for i in reversed(range(self.elements.shape[0]))])

    def __deepcopy__(self, memo: object) -> SymTensor:
        return SymTensor(self.elements.copy(), self.dtype)


class Tracing(TorchFunctionMode):
    """Catches the calls that no argument of ours would reach: `torch.tensor(beta)` and its kin."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in {"tensor", "as_tensor", "scalar_tensor"} and _holds_symbol(args[:1]):
            return OPS["tensor"](*args, **(kwargs or {}))
        if _holds_symbol(args) or (kwargs and _holds_symbol(tuple(kwargs.values()))):
            return call(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


class _Context:
    """What a custom autograd function is given to remember things in; nothing is asked of it here."""

    needs_input_grad = (True,) * 64

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("save_", "mark_", "set_")):
            return lambda *_, **__: None
        raise AttributeError(name)


@contextmanager
def autograd_functions_traced() -> Iterator[None]:
    """Within, the forward pass of a custom autograd function is read like any code.

    Its own backward pass is not read: the check holds the formula's gradients against those of the code.
    """
    kept = torch.autograd.Function.__dict__["apply"]

    def apply_traced(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if not _holds_symbol(args):
            return kept.__get__(None, cls)(*args, **kwargs)
        if cls.setup_context is not torch.autograd.Function.setup_context:
            return cls.forward(*args, **kwargs)
        return cls.forward(_Context(), *args, **kwargs)

    torch.autograd.Function.apply = classmethod(apply_traced)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.autograd.Function.apply = kept  # type: ignore[method-assign]


class SymFloat(float):
    """A hyperparameter: a float with a name. Arithmetic keeps the name, comparisons use the number."""

    expr: sp.Expr

    def __new__(cls, value: float, expr: sp.Expr) -> SymFloat:
        made = super().__new__(cls, value)
        made.expr = expr
        return made

    def __neg__(self) -> SymFloat:
        return SymFloat(-float(self), -self.expr)

    def __pos__(self) -> SymFloat:
        return self

    def __reduce__(self) -> tuple[type, tuple[float]]:
        return float, (float(self),)


def _arithmetic(name: str, expr_op: Callable[[sp.Expr, sp.Expr], sp.Expr]) -> Callable[[SymFloat, Any], Any]:
    plain = getattr(float, name)

    def method(self: SymFloat, other: Any) -> Any:
        if isinstance(other, torch.Tensor) or not isinstance(other, int | float):
            return NotImplemented
        value = plain(float(self), float(other))
        right = other.expr if isinstance(other, SymFloat) else sy.number(other)
        return value if value is NotImplemented else SymFloat(value, expr_op(self.expr, right))

    return method


def _flipped(expr_op: Callable[[sp.Expr, sp.Expr], sp.Expr]) -> Callable[[sp.Expr, sp.Expr], sp.Expr]:
    return lambda a, b: expr_op(b, a)


for _name, _function in {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "truediv": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
}.items():
    setattr(SymFloat, f"__{_name}__", _arithmetic(f"__{_name}__", _function))
    setattr(SymFloat, f"__r{_name}__", _arithmetic(f"__r{_name}__", _flipped(_function)))


def _holds_symbol(values: Any) -> bool:
    if isinstance(values, tuple | list):
        return any(_holds_symbol(value) for value in values)
    return isinstance(values, SymTensor | SymFloat)


def call(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """One torch call on symbolic tensors."""
    name = getattr(func, "__name__", str(func)).removeprefix("special_")
    if name in {"__get__", "__set__"}:
        return _attribute(func, name, args)
    if name not in OPS:
        short = name.rstrip("_")
        if not (name.endswith("_") and not name.startswith("_") and short in OPS):
            reason = f"No symbolic reading of `torch.{name}`. {REASONS.get(name, _UNKNOWN)}"
            if name in _SPREADS:  # often for a log alone
                return wrap(TRACE.get().hide((), reason))
            raise DerivationError(reason)
        result = OPS[short](*args, **kwargs)
        return _in_place(args[0], result, name)
    result = OPS[name](*args, **kwargs)
    return result if torch.is_grad_enabled() or name in _KEEPS else _map(result, freeze)


def _attribute(func: Any, name: str, args: Sequence[Any]) -> Any:
    attribute = func.__self__.__name__
    if attribute in {"T", "mT"}:
        return wrap(args[0].elements.T, args[0].dtype)
    if attribute == "data":
        return freeze(args[0])
    if attribute == "grad":
        return None
    if attribute == "requires_grad":
        return True
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args)


def _in_place(target: Any, result: Any, name: str) -> Any:
    if not isinstance(target, SymTensor):
        raise DerivationError(f"`{name}` writes symbolic values into an ordinary tensor, which cannot hold them.")
    if not target.elements.flags.writeable or target.elements.shape != result.elements.shape:
        raise DerivationError(f"`{name}` writes into a view whose elements are shared, which cannot be followed.")
    target.elements[...] = result.elements
    return target


def _map(value: Any, function: Callable[[SymTensor], SymTensor]) -> Any:
    if isinstance(value, SymTensor):
        return function(value)
    if type(value) in {tuple, list}:
        return type(value)(_map(part, function) for part in value)
    return value


def freeze(tensor: SymTensor) -> SymTensor:
    """A tensor without its gradient: the policy's symbols replaced by their detached twins."""

    def one(expr: Any) -> Any:
        policy = [s for s in expr.free_symbols if is_policy(s)] if isinstance(expr, sp.Basic) else []
        return expr.xreplace({s: sy.frozen(s) for s in policy}) if policy else expr

    return wrap(apply(one, tensor.elements), tensor.dtype)


def is_policy(symbol: sp.Symbol) -> bool:
    """Whether a symbol is a log-probability that the policy gives, and carries a gradient."""
    name = symbol.name
    return not sy.is_frozen(symbol) and (name in {"W", "L"} or name[:2] in {"w_", "l_"} or name[0] == "Y")


def apply(function: Callable[..., Any], *arrays: Any) -> Elements:
    """`function`, element by element, with numpy's broadcasting."""
    result = np.frompyfunc(function, len(arrays), 1)(*arrays)
    return result if isinstance(result, np.ndarray) else scalar(result)


def scalar(value: Any) -> Elements:
    """A 0-dimensional array of one object."""
    made = np.empty((), dtype=object)
    made[()] = value
    return made


def wrap(elements: Any, dtype: torch.dtype = torch.float32) -> SymTensor:
    """A SymTensor of these elements (one expression, or an object array)."""
    return SymTensor(elements if isinstance(elements, np.ndarray) else scalar(elements), dtype)


def elements_of(value: Any) -> Elements:
    """The expressions in a symbolic tensor, an ordinary tensor, a number, or nested lists of them."""
    if isinstance(value, SymTensor):
        return value.elements
    if isinstance(value, SymFloat):
        return scalar(value.expr)
    if isinstance(value, torch.Tensor):
        digits = {torch.float32: 7, torch.bfloat16: 3, torch.float16: 4}.get(value.dtype, 17)
        array = np.empty(tuple(value.shape), dtype=object)
        flat = [_element(x, digits) for x in value.detach().reshape(-1).tolist()]
        array.reshape(-1)[:] = flat
        return array if flat or value.numel() == 0 else scalar(flat[0])
    if isinstance(value, list | tuple):
        return np.stack([elements_of(part) for part in value])
    if isinstance(value, sp.Basic):
        return scalar(value)
    return scalar(_element(value, 17))


def _element(value: Any, digits: int) -> sp.Basic:
    return sp.S.true if value is True else sp.S.false if value is False else sy.number(value, digits)


def dtype_of(*values: Any) -> torch.dtype:
    """The dtype that torch would give to an arithmetic result; numbers do not widen a tensor."""
    found = [value.dtype for value in values if isinstance(value, torch.Tensor)]
    result = found[0] if found else torch.float32
    for other in found[1:]:
        result = torch.promote_types(result, other)
    if not result.is_floating_point and any(isinstance(value, float) for value in values):
        return torch.float32
    return result


_KEEPS = {"size", "dim", "numel", "__len__"}
_UNKNOWN = "Rewrite that step with arithmetic, exp, log, sigmoid, logsigmoid, where or sums."
_SPREADS = {"std", "var", "norm", "median", "quantile"}
_BATCH = "It orders or compares the pairs of a batch with one another, so no single pair has a formula."
REASONS = {
    **dict.fromkeys(["sort", "argsort", "topk", "median", "quantile", "kthvalue", "msort", "cummax", "cummin"], _BATCH),
    **dict.fromkeys(["std", "var", "std_mean", "var_mean", "norm"], "It measures the spread of a batch, not one pair."),
    **dict.fromkeys(["bernoulli", "rand_like", "randn_like", "dropout", "multinomial"], "It draws random numbers."),
}
