"""Losses of two log ratios, f(g(ρ1) - g(ρ2)): the divergences other than the reverse KL, and their kin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy as sp
import torch

from ..._errors import PrefalignError
from ...logic import Course, Direction, PreferenceStructure
from ..symbols import _symbols as sy
from ..symbols import evaluate
from ._directions import RHO, direction_of, sign_unknown, weight_of
from ._distinct import LogRatios, of_policy, spanned
from ._log_linear import Form, Values, atom_name, number_at
from ._log_ratio import Core, core_of

_ONE, _TWO = sp.symbols("rho1 rho2", real=True)


@dataclass(frozen=True)
class TwoParts:
    """weight · link(inner(ρ1) - inner(ρ2)) where the guards hold, in the traced symbols.

    Args:
        cores: ρ1, which has the chosen answer's probability on top, and ρ2, likewise the rejected one's; or the other
            way round, where the loss falls in the latter.
        inner: g, in `RHO`.
        course: Whether g rises in ρ everywhere, falls somewhere, or that is not known.
        link: f, in `RHO`, which stands for the difference here.
        direction: Whether f, weight and all, falls in the difference everywhere, rises somewhere, or that is not known.
        weight: Positive at the hyperparameters' values where its sign is known.
        guards: As in `Part`.
    """

    cores: tuple[Core, Core]
    inner: sp.Expr
    course: Course
    link: sp.Expr
    direction: Direction
    weight: sp.Expr = sp.S.One
    guards: tuple[tuple[sp.Expr, bool], ...] = ()

    @cached_property
    def structures(self) -> tuple[PreferenceStructure, ...]:
        """What ρ1 and ρ2 are of."""
        return tuple(core.structure() for core in self.cores)

    @property
    def functions(self) -> tuple[sp.Expr, ...]:
        """The inner function and the link."""
        return (self.inner, self.link)

    @cached_property
    def meanings(self) -> Mapping[str, sp.Expr]:
        """What the atoms stand for, in the traced symbols."""
        return {**self.cores[0].meanings, **self.cores[1].meanings}


def read_two(expr: sp.Expr, values: Values) -> TwoParts | None:
    """The form f(g(ρ1) - g(ρ2)) of a term; None if it has not that form.

    Args:
        expr: One term, its cases collapsed.
        values: A number for every hyperparameter.
    """
    for way in (_by_forms, _by_shifts):
        try:
            found = way(expr, values)
        except PrefalignError:
            continue
        if found is not None:
            return found
    return None


def _by_forms(expr: sp.Expr, values: Values) -> TwoParts | None:
    """With the log ratios as they stand in the term."""
    bag = LogRatios()
    abstract = bag.abstract(expr)
    sides = _sides(bag)
    if sides is None:
        return None
    cores = (core_of(_upward(sides[0], values), values), core_of(_upward(sides[1], values), values))
    turned = [-1 if _upward(side, values) is not side else 1 for side in sides]
    rhos = [sign * core.scale * rho for sign, core, rho in zip(turned, cores, (_ONE, _TWO), strict=True)]
    back: dict[sp.Symbol, sp.Expr] = {}
    for form, symbol in zip(bag.forms, bag.symbols, strict=True):
        times = spanned(form, dict(enumerate(sides)))
        if not times:
            return None
        back[symbol] = sp.Add(*(k * rhos[i] for i, k in times.items()))
    return _of_difference(abstract.xreplace(back), cores, values)


def _by_shifts(expr: sp.Expr, values: Values) -> TwoParts | None:
    """With w/rw and l/rl inside sums: `expr` does not change if W and RW, or L and RL, grow by the same."""
    if not {sy.W, sy.L, sy.RW, sy.RL} <= expr.free_symbols or any(map(sy.is_frozen, expr.free_symbols)):
        return None
    moved = expr.xreplace({sy.W: _ONE + sy.RW, sy.L: _TWO + sy.RL})
    still = moved.xreplace({sy.RW: sp.S.Zero, sy.RL: sp.S.Zero})
    drawn = torch.tensor([[-3.1, 0.7, 2.2], [1.3, -0.4, -2.9], [-7.0, -0.1, -1.9], [-0.6, -8.0, -2.4]]).double()
    names = (_ONE.name, _TWO.name, sy.RW.name, sy.RL.name)
    points = {s.name: torch.full_like(drawn[0], values.get(s, 1.0)) for s in moved.free_symbols}
    points |= dict(zip(names, drawn, strict=True))
    if not torch.allclose(evaluate(moved, points), evaluate(still, points), rtol=1e-9):
        return None
    forms = (Form({sy.W: sp.S.One, sy.RW: -sp.S.One}), Form({sy.L: sp.S.One, sy.RL: -sp.S.One}))
    return _of_difference(still, (core_of(forms[0], values), core_of(forms[1], values)), values)


def _of_difference(loss: sp.Expr, cores: tuple[Core, Core], values: Values) -> TwoParts | None:
    difference = next(_differences(loss), None)
    if difference is None:
        return None
    link = _in_difference(loss, difference)
    inner = None if link is None else _inner(difference, values)
    return None if link is None or inner is None else _ordered(cores, inner, link, values)


def _sides(bag: LogRatios) -> tuple[Form, Form] | None:
    """The log ratios of the chosen answer alone and of the rejected one alone, if there is one of each."""
    found: list[Form] = []
    for policy in (sy.W, sy.L):
        alone = [form for form in bag.forms if of_policy(form) and _policy(form) == {policy}]
        if len(alone) != 1:
            return None
        found += alone
    return found[0], found[1]


def _policy(form: Form) -> set[sp.Symbol]:
    symbols = {s for atom in form.coefficients for s in atom.free_symbols if atom_name(s)}
    return symbols - {sy.RW, sy.RL}


def _upward(form: Form, values: Values) -> Form:
    """The form with its policy's probability on top."""
    policy = next((c for atom, c in form.coefficients.items() if atom in (sy.W, sy.L)), sp.S.One)
    return form.scaled(-sp.S.One) if number_at(policy, values) < 0 else form


def _differences(loss: sp.Expr) -> Iterator[sp.Expr]:
    """The sums inside a loss whose terms have one of the two log ratios each."""
    for node in sp.preorder_traversal(loss):
        if node.is_Add or node.is_Mul:
            total = sp.expand_mul(node)
            parts = [part for part in sp.Add.make_args(total) if part.has(_ONE, _TWO)]
            if parts and total.has(_ONE) and total.has(_TWO) and not any(p.has(_ONE) and p.has(_TWO) for p in parts):
                yield total


def _halves(total: sp.Expr) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    parts = sp.Add.make_args(total)
    one, two = (sp.Add(*(part for part in parts if part.has(symbol))) for symbol in (_ONE, _TWO))
    return one, two, sp.Add(*(part for part in parts if not part.has(_ONE, _TWO)))


def _in_difference(loss: sp.Expr, difference: sp.Expr) -> sp.Expr | None:
    """The loss in `RHO`, which stands for the two log ratios' terms in `difference`; None if it has other ones."""
    first, second, _ = _halves(difference)
    swap: dict[sp.Expr, sp.Expr] = {}
    for node in sp.preorder_traversal(loss):
        if not (node.is_Add or node.is_Mul) or not (node.has(_ONE) and node.has(_TWO)):
            continue
        one, two, rest = _halves(sp.expand_mul(node))
        times = _times(one, first)
        if times is not None and sp.expand(two - times * second) == 0:
            swap[node] = times * RHO + rest
    link = loss.xreplace(swap)
    return None if link.has(_ONE, _TWO) else link


def _times(one: sp.Expr, first: sp.Expr) -> sp.Expr | None:
    """How many times `first` is `one`, both in ρ1; None if it is no multiple."""
    (a, core), (b, other) = (sp.factor_terms(x).as_independent(_ONE, as_Add=False) for x in (one, first))
    return a / b if core == other else -a / b if sp.expand(core + other) == 0 else None


def _inner(difference: sp.Expr, values: Values) -> sp.Expr | None:
    """g, up to a constant, where the difference is g(ρ1) - g(ρ2)."""
    first, second, _ = _halves(difference)
    inner = first.xreplace({_ONE: RHO})
    grid = torch.linspace(-6, 6, 97, dtype=torch.float64)
    both = inner + second.xreplace({_TWO: RHO})
    names = inner.free_symbols | both.free_symbols
    if names - {RHO} - values.keys():
        return None  # lengths, or detached quantities
    points = {s.name: torch.full_like(grid, values[s]) for s in names - {RHO}}
    sums = evaluate(both, points | {"rho": grid}) if both.has(RHO) else torch.zeros(1)
    scale = 1 + float(evaluate(inner, points | {"rho": grid}).abs().max())
    return inner if float(sums.max() - sums.min()) <= 1e-9 * scale else None


def _ordered(cores: tuple[Core, Core], inner: sp.Expr, link: sp.Expr, values: Values) -> TwoParts:
    """With a g that rises, at 0 at least, and a link that falls, where that can be had."""
    inner = sp.Add(*(part for part in sp.Add.make_args(inner) if part.has(RHO)))
    factor, inner = sp.factor_terms(inner).as_independent(RHO, as_Add=False)
    if number_at(factor, values) < 0:
        factor, inner = -factor, -inner
    rises = direction_of(inner, values)
    if rises == -1 or (rises == 0 and number_at(sp.diff(inner, RHO).subs(RHO, 0), values) < 0):
        factor, inner, rises = -factor, -inner, None if rises is None else -rises
    link = link.xreplace({RHO: factor * RHO})
    falls = direction_of(link, values)
    if falls == 1:
        cores, link, falls = (cores[1], cores[0]), link.xreplace({RHO: -RHO}), -1
    weight, link = weight_of(link, values)
    course: Course = "unknown" if rises is None else "increasing" if rises == 1 else "turning"
    unknown = falls is None or sign_unknown(weight)
    direction: Direction = "unknown" if unknown else "decreasing" if falls == -1 else "turning"
    return TwoParts(cores, _shortest(inner), course, link, direction, weight)


def _shortest(inner: sp.Expr) -> sp.Expr:
    """With log σ(-x) = log σ(x) - x, whichever way round is the shorter."""
    other = sp.expand(inner.replace(sy.LogSigmoid, lambda x: sy.LogSigmoid(-x) + x))
    return min(inner, other, key=sp.count_ops)
