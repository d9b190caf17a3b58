"""What torch's element-by-element functions do to SymPy expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy as sp
import torch

from ..._errors import DerivationError
from ..symbols import _symbols as sy
from ._tensor import TRACE, SymTensor, apply, dtype_of, elements_of, freeze, op, wrap

_SMALL = sp.Rational(1, 10**6)


def _arith(x: Any) -> Any:
    """A truth value in arithmetic is 0 or 1."""
    if x is sp.true or x is sp.false:
        return sp.Integer(bool(x))
    return _indicator(x) if _is_condition(x) else x


def _is_condition(x: Any) -> bool:
    return isinstance(x, sp.logic.boolalg.Boolean) and not isinstance(x, sp.Symbol)


def distance(condition: Any) -> tuple[sp.Expr, bool]:
    """A comparison as (d, positive): it holds where d > 0, or, if not positive, where d > 0 fails."""
    if isinstance(condition, sp.Gt | sp.Lt):
        return (condition.gts - condition.lts, True)
    if isinstance(condition, sp.Ge | sp.Le):
        return (condition.lts - condition.gts, False)
    raise DerivationError(f"The comparison `{condition}` is neither > nor <; only those have a reading.")


def choose(condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where the condition holds and `no` elsewhere."""
    if condition in (sp.true, sp.false):
        return yes if condition is sp.true else no
    if isinstance(condition, sp.And):
        first, rest = condition.args[0], sp.And(*condition.args[1:])
        return choose(first, choose(rest, yes, no), no)
    if isinstance(condition, sp.Or):
        first, rest = condition.args[0], sp.Or(*condition.args[1:])
        return choose(first, yes, choose(rest, yes, no))
    if isinstance(condition, sp.Not):
        return choose(condition.args[0], no, yes)
    if isinstance(condition, sp.Eq | sp.Ne):  # of measure zero
        return no if isinstance(condition, sp.Eq) else yes
    d, positive = distance(condition)
    return sy.Select(d, _arith(yes), _arith(no)) if positive else sy.Select(d, _arith(no), _arith(yes))


def _indicator(condition: Any) -> sp.Expr:
    return choose(condition, sp.S.One, sp.S.Zero)


def elementwise(function: Callable[..., Any], *values: Any, dtype: torch.dtype | None = None) -> SymTensor:
    """`function` on every element, with broadcasting."""
    arrays = [elements_of(value) for value in values]
    return wrap(apply(lambda *xs: function(*map(_arith, xs)), *arrays), dtype or dtype_of(*values))


def _unary(function: Callable[[sp.Expr], sp.Expr], *names: str) -> None:
    def run(x: Any, *_: Any, **__: Any) -> SymTensor:
        return elementwise(function, x)

    op(*names)(run)


def _binary(function: Callable[[sp.Expr, sp.Expr], sp.Expr], *names: str) -> None:
    def run(a: Any, b: Any, *_: Any, alpha: Any = 1, rounding_mode: Any = None, **__: Any) -> SymTensor:
        if rounding_mode is not None:
            raise DerivationError("Division that rounds is no function of a log ratio.")
        result = elementwise(function, a, b if isinstance(alpha, int) and alpha == 1 else elementwise(_mul, b, alpha))
        return result if result.dtype.is_floating_point else wrap(result.elements, torch.float32)

    op(*names)(run)


def _mul(a: sp.Expr, b: sp.Expr) -> sp.Expr:
    return a * b


def maximum(a: sp.Expr, b: sp.Expr) -> sp.Expr:
    """The larger of two expressions."""
    return sy.Select(a - b, a, b)


def minimum(a: sp.Expr, b: sp.Expr) -> sp.Expr:
    """The smaller of two expressions."""
    return sy.Select(a - b, b, a)


def _softplus(x: Any, beta: Any = 1, threshold: float = 20) -> SymTensor:
    return elementwise(lambda x, b: -sy.LogSigmoid(-b * x) / b, x, beta)


_unary(lambda x: -x, "neg", "negative", "__neg__")
_unary(
    lambda x: x, "clone", "contiguous", "nan_to_num", "__pos__", "positive", "requires_grad", "alias", "view_as_real"
)
_unary(sy.exp, "exp")
_unary(lambda x: sy.exp(x) - 1, "expm1")
_unary(lambda x: sy.exp(x * sp.log(2)), "exp2")
_unary(sy.log, "log")
_unary(lambda x: sy.log(1 + x), "log1p")
_unary(lambda x: sy.log(x) / sp.log(2), "log2")
_unary(lambda x: sy.log(x) / sp.log(10), "log10")
_unary(sy.Sigmoid, "sigmoid", "expit")
_unary(sy.LogSigmoid, "log_sigmoid", "logsigmoid")
_unary(lambda x: 2 * sy.Sigmoid(2 * x) - 1, "tanh")
_unary(lambda x: x * sy.Sigmoid(x), "silu")
_unary(lambda x: maximum(x, sp.S.Zero), "relu")
_unary(lambda x: sy.Select(x, x, -x), "abs", "absolute", "__abs__")
_unary(lambda x: sy.Select(x, sp.S.One, -sp.S.One), "sign", "sgn")
for _function in (sp.sin, sp.cos, sp.atan, sp.erf):
    _unary(_function, _function.__name__)
_unary(lambda x: x**2, "square")
_unary(sp.sqrt, "sqrt")
_unary(lambda x: 1 / x, "reciprocal")
_unary(lambda x: 1 / sp.sqrt(x), "rsqrt")
_unary(lambda x: sy.log(x) - sy.log(1 - x), "logit")
_unary(lambda x: sp.S.One, "ones_like")
_unary(lambda x: sp.S.Zero, "zeros_like")
op("full_like")(lambda x, fill_value, **_: elementwise(lambda _, value: value, x, fill_value))
_binary(lambda a, b: a + b, "add", "__add__", "__radd__", "__iadd__")
_binary(lambda a, b: a - b, "sub", "subtract", "__sub__", "__isub__")
_binary(lambda a, b: b - a, "rsub", "__rsub__")
_binary(_mul, "mul", "multiply", "__mul__", "__rmul__", "__imul__")
_binary(lambda a, b: a / b, "div", "divide", "true_divide", "__truediv__", "__itruediv__")
_binary(lambda a, b: b / a, "__rtruediv__", "__rdiv__")
_binary(lambda a, b: a**b, "pow", "float_power", "__pow__")
_binary(lambda a, b: b**a, "__rpow__", "rpow")
_binary(lambda a, b: sy.log(sy.exp(a) + sy.exp(b)), "logaddexp")
_binary(maximum, "maximum", "fmax")
_binary(minimum, "minimum", "fmin")
op("softplus")(_softplus)


def _compare(function: Callable[[sp.Expr, sp.Expr], Any], *names: str) -> None:
    def run(a: Any, b: Any, **_: Any) -> SymTensor:
        return elementwise(function, a, b, dtype=torch.bool)

    op(*names)(run)


def _at_least(a: sp.Expr, b: sp.Expr) -> Any:
    return sp.Not(_above(b, a))


def _above(a: sp.Expr, b: sp.Expr) -> Any:
    d = a - b
    if d.is_positive:
        return sp.true
    if d.is_nonpositive or sy.near(d):
        return sp.false
    if sy.near(-d):
        return sp.true
    return sp.Gt(d, 0, evaluate=False)


_compare(_above, "gt", "greater", "__gt__")
_compare(lambda a, b: _above(b, a), "lt", "less", "__lt__")
_compare(_at_least, "ge", "greater_equal", "__ge__")
_compare(lambda a, b: _at_least(b, a), "le", "less_equal", "__le__")
_compare(lambda a, b: sp.Not(_unequal(a, b)), "eq", "__eq__", "isclose")
_compare(lambda a, b: _unequal(a, b), "ne", "not_equal", "__ne__")


def _unequal(a: sp.Expr, b: sp.Expr) -> Any:
    if a == b or sp.simplify(a - b) == 0:
        return sp.false
    if (a - b).free_symbols & {sy.N_W, sy.N_L} and (a - b).is_integer:  # token counts often are equal
        return sp.Or(_above(a, b), _above(b, a))
    return sp.true  # equality of two real expressions that are not the same holds on a set of measure zero


def _logic(function: Callable[..., Any], *names: str) -> None:
    def run(*values: Any, **_: Any) -> SymTensor:
        return wrap(apply(function, *map(elements_of, values)), torch.bool)

    op(*names)(run)


_logic(lambda a, b: sp.And(a, b), "logical_and", "bitwise_and", "__and__", "__rand__", "__iand__")
_logic(lambda a, b: sp.Or(a, b), "logical_or", "bitwise_or", "__or__", "__ror__", "__ior__")
_logic(lambda a: sp.Not(a), "logical_not", "bitwise_not", "__invert__")
_logic(lambda a, b: sp.Xor(a, b), "logical_xor", "bitwise_xor", "__xor__")
_logic(lambda a: sp.false, "isnan", "isinf", "isneginf", "isposinf")
_logic(lambda a: sp.true, "isfinite")


@op("where")
def _where(condition: Any, yes: Any, no: Any) -> SymTensor:
    arrays = map(elements_of, (condition, yes, no))
    return wrap(apply(lambda c, a, b: choose(c, _arith(a), _arith(b)), *arrays), dtype_of(yes, no))


@op("masked_fill")
def _masked_fill(x: Any, mask: Any, value: Any) -> SymTensor:
    return _where(mask, value, x)


def _clamped(low: Any, high: Any) -> Callable[..., SymTensor]:
    def one(x: sp.Expr, lower: sp.Expr | None, upper: sp.Expr | None) -> sp.Expr:
        # A floor of 1 under a token count, and a ceiling within 1e-6 of a probability's end, are guards, not losses.
        if lower is not None and not (x.is_integer and x.is_positive and lower <= 1) and not _below(x, lower):
            x = maximum(x, lower)
        if upper is not None and not _over(x, upper):
            x = minimum(x, upper)
        return x

    def run(x: Any) -> SymTensor:
        lower = None if low is None else elements_of(low)
        upper = None if high is None else elements_of(high)
        if lower is not None and upper is not None:
            return wrap(apply(one, elements_of(x), lower, upper), dtype_of(x))
        if lower is not None:
            return wrap(apply(lambda e, a: one(e, a, None), elements_of(x), lower), dtype_of(x))
        assert upper is not None
        return wrap(apply(lambda e, b: one(e, None, b), elements_of(x), upper), dtype_of(x))

    return run


def _below(x: sp.Expr, lower: sp.Expr) -> bool:
    """Whether x >= lower always, or but for a numerical guard."""
    return bool((x - lower).is_nonnegative or sy.near(lower - x) or (lower + sp.Integer(10) ** 12).is_negative)


def _over(x: sp.Expr, upper: sp.Expr) -> bool:
    """Whether x <= upper always, or but for a numerical guard."""
    return bool((x - upper).is_nonpositive or sy.near(x - upper) or (upper - sp.Integer(10) ** 12).is_positive)


op("clamp", "clip")(lambda x, min=None, max=None, **_: _clamped(min, max)(x))
op("clamp_min")(lambda x, min: _clamped(min, None)(x))
op("clamp_max")(lambda x, max: _clamped(None, max)(x))
op("hardtanh")(lambda x, min_val=-1.0, max_val=1.0, inplace=False: _clamped(min_val, max_val)(x))


@op("leaky_relu")
def _leaky_relu(x: Any, negative_slope: Any = 0.01, inplace: bool = False) -> SymTensor:
    return elementwise(lambda e, s: sy.Select(e, e, s * e), x, negative_slope)


@op("elu")
def _elu(x: Any, alpha: Any = 1.0, inplace: bool = False) -> SymTensor:
    return elementwise(lambda e, a: sy.Select(e, e, a * (sy.exp(e) - 1)), x, alpha)


@op("lerp")
def _lerp(a: Any, b: Any, weight: Any) -> SymTensor:
    return elementwise(lambda x, y, t: x + t * (y - x), a, b, weight)


@op("exp_capped")
def _exp_capped(x: Any, cap: float = 80.0) -> SymTensor:
    sy.leave_out(f"exponents above {cap:g} are capped")
    return elementwise(sy.exp, x)


op("log1mexp")(lambda x: elementwise(lambda e: sy.log(1 - sy.exp(e)), x))
op("detach", "stop_gradient")(lambda x: freeze(x))


@op("float", "double", "half", "bfloat16", "to", "type", "type_as", "cpu", "cuda", "long", "int", "bool")
def _cast(x: Any, *args: Any, **kwargs: Any) -> SymTensor:
    wanted = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype)), x.dtype)
    return wrap(x.elements, wanted)


for _name, _dtype in {
    "float": torch.float32,
    "double": torch.float64,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "bool": torch.bool,
    "long": torch.int64,
    "int": torch.int32,
}.items():
    op(_name)(lambda x, *_, dtype=_dtype, **__: wrap(x.elements, dtype))


@op("__bool__")
def _bool(x: SymTensor) -> bool:
    if x.elements.size != 1:
        raise DerivationError("An `if` asks about a whole batch of pairs at once; use `torch.where`, pair by pair.")
    return truth(x.elements.reshape(-1)[0])


def truth(condition: Any) -> bool:
    """The answer to `if condition:`; where the data decide, both answers are tried, one run each."""
    if condition in (sp.true, sp.false):
        return bool(condition)
    if isinstance(condition, sp.And):
        return all(truth(part) for part in condition.args)
    if isinstance(condition, sp.Or):
        return any(truth(part) for part in condition.args)
    if isinstance(condition, sp.Not):
        return not truth(condition.args[0])
    if isinstance(condition, sp.Eq | sp.Ne):
        return isinstance(condition, sp.Ne)
    if not _is_condition(condition):
        return bool(condition != 0)
    d, positive = distance(condition)
    return TRACE.get().decide(d) == positive
