"""What `derive` returns for code: the rules, and what was noticed on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

import sympy as sp

from ...logic import (
    LINKS,
    AnyRule,
    Inner,
    Link,
    PreferenceStructure,
    Rule,
    RuleSet,
    TwoRatioRule,
    catalogue,
    named_inner,
)
from ..symbols import _symbols as sy
from ._directions import is_constant
from ._log_linear import Values, is_live, linear
from ._log_ratio import Core, core_of
from ._rules import AnyPart, Constant, Part
from ._two_ratios import TwoParts

# Under the rules of a sum, in line with them.
_NEXT = "\n  "


@dataclass(frozen=True, eq=False)
class Reading(RuleSet):
    """The rules of a loss that was read from code: Σ weight · link(ρ_j), where the guard holds.

    Args:
        rules: As in `RuleSet`.
        meanings: For each rule, what each of its atoms stands for: the log-probability (nats) in the policy's summed
            log-probabilities W, L, the reference's RW, RL and the token counts n_w, n_l. `W/n_w` is a mean over tokens.
        hyperparameters: The values that the symbols of weights and links had when the code was read.
        batch: How one value per pair becomes the number that is minimised: "pairs" (the code returns one value each),
            "mean", "sum", or for each rule one of "mean", "sum", "token mean".
        notes: What else was noticed, one sentence each.
        constants: What the loss adds where no rule is: (a value, where), None for everywhere.
    """

    meanings: tuple[Mapping[str, sp.Expr], ...] = ()
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    batch: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    constants: tuple[tuple[sp.Basic, sp.Basic | None], ...] = ()

    __hash__ = RuleSet.__hash__

    def __str__(self) -> str:
        values = self.values
        if not values:
            return super().__str__()
        return f"{super().__str__()}{', ' if len(self.rules) == 1 else _NEXT}where {values}"

    __repr__ = __str__

    @property
    def values(self) -> str:
        """The hyperparameters as text: `beta = 0.1, c_2 = 0.005`; empty where there is none."""
        return ", ".join(f"{name} = {value:g}" for name, value in self.hyperparameters.items())

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the code says beyond the rules: what the atoms stand for, values, batches, and the notes."""
        atoms = {
            f"{name} is {_atom(name, meanings[name])}."
            for rule, meanings in zip(self.rules, self.meanings, strict=True)
            for name in _atoms(rule)
        }
        read_with = [f"Read with {self.values}."] if self.hyperparameters else []
        return (*sorted(atoms), *read_with, *_batch(self.batch), *self._unlearned, *self.notes)

    @property
    def _unlearned(self) -> list[str]:
        return [
            f"{'Everywhere' if guard is None else f'Where {guard},'} the loss has the constant {value}: no rule."
            for value, guard in self.constants
        ]

    def page(self) -> str:
        """Everything on one page of text: each rule's formula, structure, link and atoms, then the notes."""
        lines = [f"{self.name or 'The loss'} is {_rules(len(self.rules))}."]
        for i, (rule, meanings) in enumerate(zip(self.rules, self.meanings, strict=True), 1):
            inner = [] if isinstance(rule, Rule) else [f"  g        {_named(rule.inner)}"]
            argument = "rho" if isinstance(rule, Rule) else "rho, which is g(rho_1) - g(rho_2)"
            lines += [
                "",
                f"Rule {i}" + (f", where {rule.guard}" if rule.guard is not None else ""),
                f"  loss     {'' if rule.weight == 1 else f'{rule.weight} * '}f(rho), f(rho) = {rule.link.expression}",
                f"  f is     {rule.link.name}, {rule.link.direction} in {argument}",
                *inner,
            ]
            for place, s in enumerate(rule.structures, 1):
                rho = "rho" if isinstance(rule, Rule) else f"rho_{place}"
                lines += [
                    f"  {rho:<8} log( {s.ratio} ){_known(s)}",
                    f"  prefer   P = {s.P}",
                    f"  given    P_C = {s.P_C}",
                    f"  also     P_A = {s.P_A}",
                    f"  rows     {s.rows if len(s.rows) <= 64 else '(too many to print)'}  over {', '.join(s.atoms)}",
                ]
            lines += [f"  {name:<8} {_atom(name, meanings[name])}" for name in _atoms(rule)]
        if self.hyperparameters:
            lines += ["", f"With {self.values}"]
        lines += ["", *_batch(self.batch), *self._unlearned, *self.notes]
        return "\n".join(lines)


def _named(inner: Inner) -> str:
    return f"{inner}: {inner.name}, {inner.direction} in rho"


def _atoms(rule: AnyRule) -> list[str]:
    """The atoms that a rule asks for; the others may be any."""
    return list(dict.fromkeys(atom for structure in rule.structures for atom in structure.reduced.atoms))


def _known(structure: PreferenceStructure) -> str:
    name = catalogue.name_of(structure)
    return f"  (the structure of {name})" if name else ""


def _batch(ways: tuple[str, ...]) -> list[str]:
    if ways == ("pairs",):
        return ["The code returns one value per pair."]
    if len(set(ways)) == 1:
        return [f"Over a batch the code takes the {ways[0]} of this."]
    return [f"Over a batch the code takes, rule by rule, the {', the '.join(ways)}."] if ways else []


def _rules(count: int) -> str:
    return "one rule" if count == 1 else f"a sum of {count} rules"


def _by_length(logp: sp.Expr) -> sp.Expr:
    """What a log-probability is multiplied by on account of lengths."""
    power = sp.cancel(logp / next(iter(logp.free_symbols - {sy.N_W, sy.N_L})))
    return power.as_independent(sy.N_W, sy.N_L, as_Add=False)[1]


def _count(name: str) -> sp.Expr:
    return sy.N_W if "w" in name else sy.N_L


def _atom(name: str, logp: sp.Expr) -> str:
    if name.startswith("y"):
        return f"the policy's probability of answer {name[1:]}, as the code is given it"
    who = "the reference's" if name.startswith("r") else "the policy's"
    factor = _by_length(logp)
    what = {1: "sums over tokens", 1 / _count(name): "means over tokens"}.get(factor)
    (symbol,) = logp.free_symbols & {sy.W, sy.L, sy.RW, sy.RL}
    power = sp.cancel(logp / symbol)
    extra = "" if power == factor else f", a copy raised to {plain(power)}"
    what = what or f"sums over tokens times {plain(factor)}"
    return f"{who} probability of the {'chosen' if 'w' in name else 'rejected'} answer, {what}{extra}"


def plain(expr: sp.Basic) -> sp.Basic:
    """An expression in plain symbols and SymPy's own functions."""
    steps = {
        sy.LogSigmoid: lambda x: -sp.log(1 + sp.exp(-x)),
        sy.Sigmoid: lambda x: 1 / (1 + sp.exp(-x)),
        sy.Select: _select,
    }
    for function, replacement in steps.items():
        expr = expr.replace(function, replacement)
    expr = expr.xreplace({r: sp.Float(r, 15) for r in expr.atoms(sp.Rational) if r.q > 10**9})
    return expr.xreplace({s: sp.Symbol(s.name) for s in expr.free_symbols})


def _select(distance: sp.Expr, yes: sp.Expr, no: sp.Expr) -> sp.Expr:
    if no == 0 and sp.expand(yes - distance) == 0:
        return sp.Max(0, yes)
    return sp.Piecewise((yes, distance > 0), (no, True))


def reading(
    found: list[AnyPart],
    values: Values,
    name: str,
    hyperparameters: Mapping[str, float],
    batch: tuple[str, ...] = (),
) -> Reading:
    """The Reading of what `read` found."""
    parts = [part for part in found if not isinstance(part, Constant)]
    still = [part for part in found if isinstance(part, Constant)]
    rules = tuple(_rule(part, values) for part in parts)
    used = {s.name for part in parts for e in (*part.functions, part.weight) for s in e.free_symbols}
    used |= {s.name for part in parts for e in part.meanings.values() for s in e.free_symbols}
    used |= {s.name for part in found for d, _ in part.guards for s in d.free_symbols}
    used |= {s.name for part in still for s in part.value.free_symbols}
    return Reading(
        rules,
        name,
        tuple(
            {name: _written(part.meanings[name]) for name in _atoms(rule)}
            for part, rule in zip(parts, rules, strict=True)
        ),
        {k: v for k, v in hyperparameters.items() if k in used},
        notes=tuple(_notes(parts)),
        constants=tuple((plain(part.value), _guard(part.guards, values)) for part in still),
    )


def _rule(part: Part | TwoParts, values: Values) -> AnyRule:
    link, weight, guard = _link(part), _factor(part.weight), _guard(part.guards, values)
    if isinstance(part, Part):
        return Rule(part.structure, link, weight, guard)
    first, second = part.structures
    return TwoRatioRule(first, second, named_inner(plain(part.inner), part.course), link, weight, guard)


def _written(logp: sp.Expr) -> sp.Expr:
    """A log-probability with case distinctions as SymPy writes them."""
    return logp.replace(sy.Select, _select)


def _factor(weight: sp.Expr) -> sp.Basic:
    """A weight as it is printed: of a negative hyperparameter, its absolute value."""
    shown = plain(weight)
    known = is_constant(weight)
    return sp.Abs(shown) if known and shown.free_symbols and shown.could_extract_minus_sign() else shown


def _link(part: Part | TwoParts) -> Link:
    expression = plain(part.link)
    for known in LINKS.values():
        for beta in (known.expression, known.expression.subs(sp.Symbol("beta"), 1)):
            if beta == expression and part.direction != "unknown":
                return Link(expression, known.direction, known.name)
    return Link(expression, part.direction, "a link of its own")


def _guard(guards: tuple[tuple[sp.Expr, bool], ...], values: Values) -> sp.Basic | None:
    conditions = [_condition(distance, side, values) for distance, side in guards]
    return sp.And(*conditions) if conditions else None


def _condition(distance: sp.Expr, side: bool, values: Values) -> sp.Basic:
    thawed = distance.xreplace({s: sy.thaw(s) for s in distance.free_symbols if sy.is_frozen(s)})
    form = linear(thawed)
    if form is None or not is_live(thawed):
        relation: sp.Basic = sp.Gt(plain(thawed), 0, evaluate=False)
        return relation if side else sp.Le(plain(thawed), 0, evaluate=False)
    core: Core = core_of(form, values)
    margin = plain(sp.exp(-core.form.constant))
    powers = {
        sp.Symbol(name): sp.Symbol(name[:-1] if name[-1].isdigit() else name)
        ** plain(reduce(lambda e, s: e.subs(s, 1), [sy.W, sy.L, sy.RW, sy.RL], meaning))
        for name, meaning in core.meanings.items()
    }
    top, bottom = core.top.subs(powers, simultaneous=True), margin * core.bottom.subs(powers, simultaneous=True)
    if all(s.name.startswith("r") for s in top.free_symbols):  # the policy's side is written first
        return sp.Lt(bottom, top, evaluate=False) if side else sp.Ge(bottom, top, evaluate=False)
    return sp.Gt(top, bottom, evaluate=False) if side else sp.Le(top, bottom, evaluate=False)


def _notes(parts: list[Part | TwoParts]) -> list[str]:
    notes = []
    means = [part.meanings for part in parts]
    if any(e.has(sy.N_W, sy.N_L) for meaning in means for e in meaning.values()):
        notes.append("Length-normalised: where the atoms say so, a probability is pi^(1/|y|), the mean over tokens.")
    if any(_by_length(e) not in (1, 1 / _count(name)) for meaning in means for name, e in meaning.items()):
        notes[-1] = "Normalised by length in its own way: a probability is the power of pi that its atom says."
    if any(sy.is_frozen(s) for part in parts for e in (part.weight, *part.functions) for s in e.free_symbols):
        notes.append("A factor or margin marked ° is detached: it changes the loss's value and weights its gradient.")
    if any(sy.is_frozen(s) for part in parts for d, _ in part.guards for s in d.free_symbols):
        notes.append("The guard is detached: no gradient flows through the choice between the rules.")
    if any(name[-1].isdigit() and name[0] != "y" for meaning in means for name in meaning):
        notes.append("A probability with a power other than 1 is written with a copy (w2): a proposition of its own.")
    if any(isinstance(part, TwoParts) for part in parts):
        notes.append("Two log ratios stand in one term: no single formula says what it prefers.")
    if len(parts) > 1 and not any(part.guards for part in parts):
        notes.append("A sum of rules has no single formula; entailment compares it rule by rule.")
    if any(part.direction == "unknown" for part in parts):
        notes.append(
            "Whether a term with a detached factor or with lengths falls in rho is not known for all their values: "
            "entailment does not order it."
        )
    if any(part.direction == "turning" for part in parts):
        notes.append("A turning link rises somewhere: entailment between structures does not order such losses.")
    return notes
