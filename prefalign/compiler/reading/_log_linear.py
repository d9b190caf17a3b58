"""Log-linear forms: which combinations of log-probabilities a link is applied to, and the polynomials behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from itertools import chain

import sympy as sp

from ..symbols import _symbols as sy
from ..symbols import evaluate

Values = Mapping[sp.Symbol, float]
_NAMES = {symbol: name for name, symbol in sy.LOGPS.items()}


@lru_cache(maxsize=8192)
def is_live(expr: sp.Expr) -> bool:
    """Whether an expression depends on a log-probability, other than through a `detach`.

    The reference's count, unless they stand beside detached ones: then the whole is a detached factor or margin.
    """
    names = [atom_name(s) for s in expr.free_symbols]
    if any(name is not None and name[0] != "r" for name in names):
        return True
    return any(names) and not any(sy.is_frozen(s) for s in expr.free_symbols)


def is_reference(symbol: sp.Symbol) -> bool:
    """Whether a symbol is one of the reference's log-probabilities."""
    return symbol in (sy.RW, sy.RL)


def number_at(c: sp.Expr, values: Mapping[sp.Symbol, float]) -> float:
    """A factor's number: at the hyperparameters' values, answers of one token, and log-probabilities of -1."""
    if c.is_Rational:
        return float(c)
    ready = c.subs({s: values.get(s, -1 if sy.is_frozen(s) or s in sy.LOGPS.values() else 1) for s in c.free_symbols})
    return float(evaluate(ready, {}))


def atom_name(symbol: sp.Symbol) -> str | None:
    """The proposition that a log-probability belongs to: w, l, rw, rl, y1, y2, …"""
    if symbol in _NAMES:
        return _NAMES[symbol]
    name = symbol.name
    return name.lower() if name[0] == "Y" and name[1:].isdigit() else None


@dataclass(frozen=True)
class Form:
    """Σ coefficient · atom + constant; an atom is a log-probability, or the log of a sum of products of them."""

    coefficients: Mapping[sp.Expr, sp.Expr] = field(default_factory=dict)
    constant: sp.Expr = sp.S.Zero

    def __add__(self, other: Form) -> Form:
        total = dict(self.coefficients)
        for atom, c in other.coefficients.items():
            if atom in total:
                c = total[atom] + c
                c = c if c.is_Rational else sp.together(c)
            total[atom] = c
            if c == 0 or (not c.is_Rational and sp.simplify(c) == 0):
                del total[atom]
        return Form(total, self.constant + other.constant)

    def scaled(self, factor: sp.Expr) -> Form:
        """Every coefficient, and the constant, times `factor`."""
        return Form({a: c * factor for a, c in self.coefficients.items()}, self.constant * factor)

    def ratio_to(self, other: Form) -> sp.Expr | None:
        """k where this form is k times the other (constants apart); None if there is none."""
        if self.coefficients.keys() != other.coefficients.keys():
            return None
        ratios = [sp.cancel(self.coefficients[a] / other.coefficients[a]) for a in self.coefficients]
        return ratios[0] if all(r == ratios[0] or sp.simplify(r - ratios[0]) == 0 for r in ratios[1:]) else None


def linear(expr: sp.Expr) -> Form | None:
    """`expr` as a Form, or None if it is not log-linear."""
    if not is_live(expr):
        return Form(constant=expr)
    if atom_name(expr) if expr.is_Symbol else False:
        return Form({expr: sp.S.One})
    if expr.is_Add:
        total = Form()
        for part in expr.args:
            form = linear(part)
            if form is None:
                return None
            total = total + form
        return total
    if expr.is_Mul:
        live = [factor for factor in expr.args if is_live(factor)]
        form = linear(live[0]) if len(live) == 1 else None
        return None if form is None else form.scaled(sp.Mul(*(factor for factor in expr.args if factor is not live[0])))
    return _log(expr.args[0]) if isinstance(expr, sp.log) else None


def _log(x: sp.Expr) -> Form | None:
    total = Form()
    for factor in sp.Mul.make_args(sp.together(x)):
        base, power = factor.as_base_exp() if not isinstance(factor, sp.exp) else (factor, sp.S.One)
        if not is_live(factor):
            total = total + Form(constant=sp.log(factor))
            continue
        part = linear(base.args[0]) if isinstance(base, sp.exp) else _log_of_sum(base)
        if part is None or is_live(power):
            return None
        total = total + part.scaled(power)
    return total


@lru_cache(maxsize=1024)  # each sum is asked for several times on the way from a formula to its polynomials
def monomials(x: sp.Expr) -> tuple[tuple[sp.Expr, Form], ...] | None:
    """A sum of coefficient · exp(form), or None."""
    plain = _multiplied(x)
    if plain is not None:
        return plain
    found = []
    for term in sp.Add.make_args(sp.expand(x)):
        coefficient, exponent = sp.S.One, Form()
        for factor in sp.Mul.make_args(term):
            if not is_live(factor):
                coefficient *= factor
                continue
            base, power = (factor, sp.S.One) if isinstance(factor, sp.exp) else factor.as_base_exp()
            form = linear(base.args[0]) if isinstance(base, sp.exp) else None
            if form is None or is_live(power):
                return None
            exponent = exponent + form.scaled(power)
        found.append((coefficient * sp.exp(exponent.constant), Form(exponent.coefficients)))
    return tuple(found)


_Products = tuple[tuple[sp.Expr, Form], ...]


def _multiplied(x: sp.Expr) -> _Products | None:
    """A polynomial in exp(form) with numbers as coefficients, multiplied out; None for anything else.

    Nearly every sum is one, and SymPy's `expand` takes several times as long for it.
    """
    if x.is_Rational:
        return ((x, Form()),)
    if isinstance(x, sp.exp):
        form = linear(x.args[0])
        return None if form is None or form.constant != 0 else ((sp.S.One, form),)
    if x.is_Pow and x.exp.is_Integer and 0 < x.exp <= 8:
        parts = [_multiplied(x.base)] * int(x.exp)
    elif x.is_Add or x.is_Mul:
        parts = [_multiplied(part) for part in x.args]
    else:
        return None
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return _collected(chain.from_iterable(known)) if x.is_Add else reduce(_times, known)


def _times(a: _Products, b: _Products) -> _Products:
    return _collected((c * d, one + other) for c, one in a for d, other in b)


def _collected(terms: Iterable[tuple[sp.Expr, Form]]) -> _Products:
    total: dict[frozenset[tuple[sp.Expr, sp.Expr]], tuple[sp.Expr, Form]] = {}
    for c, form in terms:
        key = frozenset(form.coefficients.items())
        total[key] = (total[key][0] + c if key in total else c, form)
    return tuple((c, form) for c, form in total.values() if c != 0)


def _log_of_sum(x: sp.Expr) -> Form | None:
    terms = monomials(x)
    if terms is None or any(not is_unit(form) for _, form in terms):
        return None
    # The least exponent of each log-probability is a common factor: log(1 + l/w) = log(w + l) - log w.
    atoms = {atom for _, form in terms for atom in form.coefficients}
    least = {}
    for atom in atoms:
        exponents = [form.coefficients.get(atom, sp.S.Zero) for _, form in terms]
        least[atom] = min(exponents, key=at_one)
    common = Form({a: e for a, e in least.items() if e != 0})
    inverse = common.scaled(-sp.S.One)
    total = sp.Add(*(c * sp.exp(_written(form + inverse)) for c, form in terms))
    if not is_live(total):
        return Form(constant=sp.log(total)) + common
    return Form({sy.plain_log(total): sp.S.One}) + common


def at_one(exponent: sp.Expr) -> sp.Expr:
    """An exponent for answers of one token."""
    return exponent if exponent.is_Rational else exponent.subs({sy.N_W: 1, sy.N_L: 1})


def is_unit(form: Form) -> bool:
    """Whether every exponent is a whole number, or one over a token count."""
    return all(at_one(c).is_Integer for c in form.coefficients.values()) and all(a.is_Symbol for a in form.coefficients)


def _written(form: Form) -> sp.Expr:
    return sp.Add(form.constant, *(c * a for a, c in form.coefficients.items()))
