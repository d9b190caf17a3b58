"""Running code on symbols: one run per way through its `if`s, each giving the formula of one pair's loss."""

from __future__ import annotations

import copy
import inspect
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from ..._errors import DerivationError, PrefalignError
from ..symbols import _symbols as sy
from . import _elementwise, _losses, _products, _shapes  # noqa: F401  (they fill the table of operations)
from ._inputs import arguments, takes_tokens
from ._quantities import SPREAD, TOKENS, Quantities, symbolic
from ._tensor import TRACE, SymFloat, SymTensor, Trace, Tracing, autograd_functions_traced

MAX_PATHS = 16


# What formulas call the log ratio, log-probabilities, counts and answers.
_RESERVED = {"rho", "W", "L", "RW", "RL", "n_w", "n_l", "w", "l", "rw", "rl"}


def label_of(name: str) -> str:
    """The symbol of a hyperparameter: its name, unless formulas use that for something else."""
    return f"{name}_" if name in _RESERVED or re.fullmatch(r"[yY]\d+", name) else name


@dataclass
class Hypers:
    """The hyperparameters met in a run: names, values, and which of them stay numbers.

    Args:
        plain: Names that the run must treat as their numbers.
        tokens: Whether the code was given single tokens.
    """

    plain: frozenset[str] = frozenset()
    values: dict[str, float] = field(default_factory=dict)
    tokens: bool = False

    def __call__(self, name: str, value: float) -> float:
        # A hyperparameter at exactly 0 is a feature that is switched off: its terms are not there.
        # So does a weight of exactly 1.
        if value == 0 or value != value or name in self.plain or (value == 1 and "weight" in name):
            return value
        label = label_of(name)
        while label in self.values and self.values[label] != value:
            label += "_"
        self.values[label] = value
        return SymFloat(value, sy.hyper(label, value))


@dataclass(frozen=True)
class Formula:
    """The formula of one pair's loss, as traced.

    Args:
        expr: In W, L, RW, RL, token counts and hyperparameters; conditions are `Select`s.
        hypers: The value that each hyperparameter was given.
        guards: The numerical guards that were left out.
    """

    expr: sp.Expr
    hypers: Mapping[str, float]
    guards: tuple[str, ...] = ()


def trace(function: Callable[..., Any], given: Mapping[str, Any], plain: frozenset[str], groups: int = 0) -> Formula:
    """Run `function` on symbols, once for each way through its `if`s.

    Raises:
        DerivationError: A step of the code has no symbolic reading.
    """
    hypers, guards = Hypers(plain), list[str]()
    token = sy.GUARDS.set(guards)
    try:
        expr = _paths(function, given, hypers, [], groups)
    finally:
        sy.GUARDS.reset(token)
    spread = expr.free_symbols & set(SPREAD.values())
    if spread:
        raise DerivationError(
            "The loss depends on how a log-probability spreads over its tokens (a clamp or a weight on single tokens), "
            "so its argument is no log-probability of a whole answer."
        )
    if any(symbol.name.startswith("hidden_") for symbol in expr.free_symbols):
        raise DerivationError(
            "Which way the code goes depends on the spread of a batch (its standard deviation, norm or median), so no "
            "single pair has a formula."
        )
    expr = _name_logs(expr, hypers.values)
    of_tokens = hypers.tokens or takes_tokens(function)
    return Formula(_count_tokens(expr) if of_tokens else expr, dict(hypers.values), tuple(guards))


def _paths(
    function: Callable[..., Any], given: Mapping[str, Any], hypers: Hypers, decisions: list[bool], groups: int
) -> sp.Expr:
    if len(decisions) > MAX_PATHS:
        raise DerivationError(f"More than {MAX_PATHS} conditions on the data: the code's branches cannot all be read.")
    run = Trace(decisions)
    expr = _run(function, given, hypers, run, groups)
    hypers.tokens = hypers.tokens or run.tokens
    if run.numbers:
        _check_numbers(function, given, hypers, run, groups, expr)
    # Each question that this run answered by itself has another answer, to be tried from there on.
    for place in reversed(range(len(decisions), len(run.path))):
        taken = [answer for _, answer in run.path[:place]]
        other = _paths(function, given, hypers, [*taken, False], groups)
        expr = sy.Select(run.path[place][0], expr, other)
    return expr


def _check_numbers(
    function: Callable[..., Any], given: Mapping[str, Any], hypers: Hypers, run: Trace, groups: int, expr: sp.Expr
) -> None:
    """Refuse code whose loss hangs on a tensor that was turned into a Python number; for a log alone it may.

    Raises:
        DerivationError: Other numbers in its place make another loss.
    """
    answers = [answer for _, answer in run.path]
    for number in (1e6, -1e6):
        other = Trace(answers, stand_in=number)
        try:
            same = _run(function, given, hypers, other, groups) == expr and len(other.path) == len(run.path)
        except DerivationError:
            same = False
        if not same:
            raise DerivationError(_NUMBER)


_NUMBER = (
    "A log-probability is turned into a Python number (`float(...)` or `math....`), where its formula is lost; "
    "use torch's functions."
)


def _run(function: Callable[..., Any], given: Mapping[str, Any], hypers: Hypers, run: Trace, groups: int) -> sp.Expr:
    token = TRACE.set(run)
    try:
        with Tracing(), autograd_functions_traced():
            quantities = symbolic(hypers, groups=groups)
            return scalar_of(_on_copy(function)(**arguments(function, quantities, given)))
    except PrefalignError:
        raise
    except Exception as error:
        flat = isinstance(error, IndexError) and not groups
        hint = " For groups of answers, shape (groups, K), say how many: derive(function, answers=K)." if flat else ""
        raise DerivationError(f"The code does not run on symbols: {type(error).__name__}: {error}.{hint}") from error
    finally:
        TRACE.reset(token)


def _on_copy(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same code on a copy of the object it belongs to, so that nothing of a run is left in the caller's."""
    owner = getattr(function, "__self__", None)
    if owner is not None and inspect.ismethod(function) and not isinstance(owner, type):
        return types.MethodType(function.__func__, _copied(owner))
    plain = isinstance(function, types.FunctionType | types.BuiltinFunctionType | type)
    return function if plain or not hasattr(function, "__dict__") else _copied(function)


def _copied(owner: Any) -> Any:
    try:
        made = copy.copy(owner)
        for name, value in vars(made).items():
            if isinstance(value, dict | list | set):
                object.__setattr__(made, name, copy.copy(value))
    except Exception:  # an object that cannot be copied is used as it is
        return owner
    return made


def scalar_of(result: Any) -> sp.Expr:
    """The loss of the one pair in a result."""
    value = loss_of(result)
    if not isinstance(value, SymTensor):
        raise DerivationError(
            f"The result does not depend on the log-probabilities (got {value!r}): no argument was recognised as one, "
            "or they were turned into numbers on the way."
        )
    TRACE.get().check_used(value.elements)
    if value.elements.size == 2:  # one value per completion, as unpaired losses have
        return sp.Add(*value.elements.reshape(-1)) / 2
    if value.elements.size != 1:
        raise DerivationError(
            f"The result has the shape {tuple(value.shape)}; one value per pair, (pairs,), or one per batch is needed."
        )
    expr = value.elements.reshape(-1)[0]
    if expr.has(sp.nan) and TRACE.get().numbers:
        raise DerivationError(_NUMBER)
    if expr.has(sp.nan, sp.zoo, sp.oo):
        raise DerivationError(f"The code computes {expr} whatever the log-probabilities are.")
    return expr


def loss_of(result: Any) -> Any:
    """The loss in what a function returns: a tensor, the first of a plain tuple, `loss` in a dict or an object.

    Raises:
        DerivationError: It returns several numbers, and which of them is the loss is not certain.
    """
    if isinstance(result, Tensor | SymFloat | float | int):
        return result
    named = dict(result) if isinstance(result, Mapping) else _fields_of(result)
    if named:
        key = _loss_key([key for key in named if isinstance(key, str)])
        if key is not None:
            return loss_of(named[key])
        tensors = [key for key, value in named.items() if isinstance(value, Tensor | SymFloat)]
        if len(named) == 1 and tensors:
            return loss_of(named[tensors[0]])
        raise DerivationError(
            f"The function returns {', '.join(map(str, named))}: none is called `loss`, so which one is minimised is "
            f"not certain. Derive a function that returns it alone: lambda *a, **k: f(*a, **k)[{next(iter(named))!r}]."
        )
    if isinstance(result, tuple | list) and result:
        return loss_of(result[0])
    raise DerivationError(
        f"The function returned {type(result).__name__}; a tensor (or a tuple with it first) is needed."
    )


def _fields_of(result: Any) -> dict[str, Any]:
    """The named parts of a NamedTuple, a dataclass or another object; none of a plain tuple or list."""
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return dict(zip(result._fields, result, strict=True))
    if isinstance(result, tuple | list):
        return {}
    return {name: getattr(result, name) for name in ("loss", "losses") if hasattr(result, name)}


def _loss_key(names: list[str]) -> str | None:
    """The entry that is the loss: `loss` or `losses`, else the only one whose name ends so."""
    for name in ("loss", "losses", "total_loss"):
        if name in names:
            return name
    ending = [name for name in names if name.lower().endswith(("loss", "losses"))]
    return ending[0] if len(ending) == 1 else None


def evaluate(function: Callable[..., Any], quantities: Quantities, given: Mapping[str, Any]) -> Tensor:
    """The code's own number(s) on ordinary tensors."""
    result = loss_of(_on_copy(function)(**arguments(function, quantities, given)))
    return result if isinstance(result, Tensor) else torch.as_tensor(float(result))


def _name_logs(expr: sp.Expr, values: Mapping[str, float]) -> sp.Expr:
    """Numbers that `math.log` made of a hyperparameter, written as its logarithm; the check would see a wrong guess."""
    known = {}
    for name, value in values.items():
        if value > 0:
            known[math.log(value)] = sp.log(sy.hyper(name, value))
        if 0 < value < 1:
            known[math.log1p(-value)] = known[math.log(1 - value)] = sp.log(1 - sy.hyper(name, value))
    swap = {}
    for r in expr.atoms(sp.Rational):
        for number, written in known.items() if r.q > 10**9 else ():
            if abs(abs(float(r)) - abs(number)) < 1e-15 * max(1.0, abs(number)):
                swap[r] = written if float(r) * number > 0 else -written
    return expr.xreplace(swap) if swap else expr


def _count_tokens(expr: sp.Expr) -> sp.Expr:
    """Denominators that are the traced numbers of tokens, written as the counts."""
    numbers = {r for r in expr.atoms(sp.Rational) if any(r.q % n == 0 for n in TOKENS.values())}
    swap = {}
    for r in numbers:
        for side, count in TOKENS.items():
            if r.q % count == 0:
                swap[r] = r * count / sy.COUNTS[side]
    return expr.xreplace(swap) if swap else expr
