"""The symbols that a traced loss is written in, and the small functions that SymPy lacks.

`W, L` are the policy's log-probabilities of the chosen and the rejected answer, `RW, RL` the reference's (nats, summed
over tokens, <= 0); `n_w, n_l` are their token counts. `W°` is `W` behind a `detach`: the same, without a gradient.
"""

from __future__ import annotations

import math
from contextvars import ContextVar

import sympy as sp

W, L, RW, RL = (sp.Symbol(name, negative=True) for name in ("W", "L", "RW", "RL"))
N_W, N_L = (sp.Symbol(name, integer=True, positive=True) for name in ("n_w", "n_l"))
LOGPS = {"w": W, "l": L, "rw": RW, "rl": RL}
COUNTS = {"w": N_W, "l": N_L, "rw": N_W, "rl": N_L}

_LOG2 = {math.log(2): sp.log(2), -math.log(2): -sp.log(2)}
_FROZEN = "°"
# Collects the numerical guards (clamps within 1e-6 of a probability's ends) that a run left out.
GUARDS: ContextVar[list[str] | None] = ContextVar("GUARDS", default=None)
_GUARD = sp.Rational(1, 10**6)


class LogSigmoid(sp.Function):  # type: ignore[misc]
    """log(1 / (1 + exp(-x)))."""


class Sigmoid(sp.Function):  # type: ignore[misc]
    """1 / (1 + exp(-x))."""


class Select(sp.Function):  # type: ignore[misc]
    """`Select(d, a, b)` is `a` where d > 0 and `b` elsewhere: every comparison is brought into this form."""

    @classmethod
    def eval(cls, distance: sp.Expr, yes: sp.Expr, no: sp.Expr) -> sp.Expr | None:
        if yes == no or distance.is_nonpositive:
            return no
        inner = next(iter(sorted(distance.atoms(cls), key=sp.default_sort_key)), None)
        if inner is not None:  # a case distinction inside a condition comes first
            sides = (assume(distance, inner.args[0], side) for side in (True, False))
            return cls(inner.args[0], *(cls(side, yes, no) for side in sides))
        if distance.is_positive:
            return yes
        inner_yes, inner_no = assume(yes, distance, True), assume(no, distance, False)
        if inner_yes == inner_no or near(distance):
            return inner_no
        return None if (inner_yes, inner_no) == (yes, no) else cls(distance, inner_yes, inner_no)


def assume(expr: sp.Expr, distance: sp.Expr, holds: bool) -> sp.Expr:
    """`expr` where `distance > 0` is known to hold, or not to.

    On the boundary itself either answer is as good, unless it is one of token counts, which often are equal.
    """
    if not expr.has(Select):
        return expr
    found = {}
    for node in expr.atoms(Select):
        if node.args[0] == distance:
            found[node] = node.args[1 if holds else 2]
        elif node.args[0] == -distance and (holds or not distance.is_integer):
            found[node] = node.args[2 if holds else 1]
    return assume(expr.xreplace(found), distance, holds) if found else expr


def near(distance: sp.Expr) -> bool:
    """Whether `distance > 0` holds only for probabilities that are 0 or 1 to within 1e-6: a numerical guard."""
    found = _near(distance)
    if found:
        leave_out(f"{distance} > 0")
    return found


def leave_out(guard: str) -> None:
    """Note that a guard was left out."""
    guards = GUARDS.get()
    if guards is not None:
        guards.append(guard)


def _near(distance: sp.Expr) -> bool:
    constant, rest = distance.as_coeff_Add()
    if rest == 0:
        return False
    scale, base = rest.as_coeff_Mul()
    if (base.is_negative and scale > 0) or (
        base.is_positive and scale < 0
    ):  # eps + log p, and eps - p or eps - (1 - p)
        return bool(0 <= constant / abs(scale) <= sp.Rational(1, 10**6))
    if isinstance(base, sp.exp) and base.args[0].is_negative and scale > 0:  # p - (1 - eps)
        return bool(-1 <= constant / scale <= -1 + sp.Rational(1, 10**6))
    return False


def number(value: float, digits: int = 17) -> sp.Expr:
    """The exact rational that a Python number was written as (0.1 is 1/10)."""
    if value in _LOG2:
        return _LOG2[value]
    if isinstance(value, bool | int) or (math.isfinite(value) and float(value).is_integer() and abs(value) < 1e15):
        return sp.Integer(int(value))
    if math.isnan(value):
        return sp.nan
    if math.isinf(value):
        return sp.oo if value > 0 else -sp.oo
    return sp.Rational(f"{value:.{digits}g}" if digits < 17 else repr(float(value)))


def hyper(name: str, value: float) -> sp.Symbol:
    """The symbol of a hyperparameter; its sign is taken from the value it was given."""
    return sp.Symbol(name, positive=True) if value > 0 else sp.Symbol(name, real=True)


def frozen(symbol: sp.Symbol) -> sp.Symbol:
    """The detached twin of a log-probability of the policy."""
    return sp.Symbol(symbol.name + _FROZEN, negative=True)


def is_frozen(symbol: sp.Symbol) -> bool:
    """Whether a symbol stands behind a `detach`."""
    return bool(symbol.name.endswith(_FROZEN))


def thaw(symbol: sp.Symbol) -> sp.Symbol:
    """The symbol that `frozen` made this one from."""
    return sp.Symbol(symbol.name[: -len(_FROZEN)], negative=True)


def log(x: sp.Expr) -> sp.Expr:
    """log, knowing the logistic function and its complement."""
    if isinstance(x, Sigmoid):
        return LogSigmoid(x.args[0])
    one, rest = x.as_coeff_Add()
    if rest != 0 and 0 < abs(one - round(one)) <= _GUARD:  # log(p + 1e-8): a numerical guard
        leave_out(f"log({x})")
        one, x = sp.Integer(round(one)), round(one) + rest
    if one == 1 and isinstance(-rest, Sigmoid):
        return LogSigmoid(-(-rest).args[0])
    if x.is_Mul and x.has(Sigmoid):
        factors = [log(factor) for factor in x.args]
        if sum(isinstance(factor, LogSigmoid) for factor in factors) and x.args[0].is_positive is not False:
            return sp.Add(*factors)
    return plain_log(x)


def plain_log(x: sp.Expr) -> sp.Expr:
    """log; of a sum with symbols without SymPy's search for a closed form, which there is not, and which takes long."""
    return sp.log(x, evaluate=not (x.is_Add and x.free_symbols))


def exp(x: sp.Expr) -> sp.Expr:
    """exp, knowing the logistic function."""
    for part in sp.Add.make_args(x):
        if isinstance(part, LogSigmoid):
            return Sigmoid(part.args[0]) * exp(x - part)
    return sp.exp(x)
