"""Losses that are compiled from one rule: structures, a link of any kind, a weight, and a guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import sympy as sp
import torch
from torch import Tensor

from .._errors import LossError
from ..logic import LINKS, AnyRule, Direction, Link, PreferenceStructure, Rule, TwoRatioRule, named_inner, original
from ..losses import Loss, PairLogps, WeightedSum
from .lowering import Tape, check_parts, compile_structure, number, returned, run
from .reading import Reading, course_by_name, direction_by_name
from .symbols import COUNTS, LOGPS, evaluate, formula_of, holds, hyper, in_logs

Reduction = Literal["mean", "sum", "token mean"]
_COUNTS = {"w": "n_w", "l": "n_l", "rw": "n_w", "rl": "n_l"}
_LOGPS = {atom: symbol.name for atom, symbol in LOGPS.items()}
_REFERENCE = {"RW", "RL", "rw", "rl"}
_LENGTHS = {"n_w", "n_l"}


@dataclass(frozen=True)
class RuleLoss(Loss):
    """The loss of one rule, weight * link(rho) where the guard holds and 0 elsewhere.

    rho = log WMC(top) - log WMC(bottom), or, of a `TwoRatioRule`, g(rho_1) - g(rho_2). Usually made by `to_loss`.

    Args:
        rule: Over w, l, rw, rl, and copies of them. Its link, weight, guard and inner function are in `rho`, in names
            that `values` has a number for, in the log-probabilities W, L, RW, RL (nats, summed over tokens), in
            W° and L°, which are detached, in the token counts n_w and n_l, and, a guard, in the probabilities w, l, rw,
            rl.
        meanings: What each atom's log-probability is, in W, L, RW, RL, n_w, n_l and names of `values`; by default the
            sum over tokens.
        values: Hyperparameters by name.
        constants: (value, guard or None): what is added to the loss's value.
        reduction: What training minimises of a batch: the mean of the pairs' values, their sum, or the mean over the
            chosen answers' tokens.

    Raises:
        LossError: A name has no number, an atom no meaning, or a structure's top or bottom is unsatisfiable.
    """

    rule: AnyRule
    meanings: tuple[tuple[str, sp.Expr], ...] = ()
    values: tuple[tuple[str, float], ...] = ()
    constants: tuple[tuple[sp.Basic, sp.Basic | None], ...] = ()
    reduction: Reduction = "mean"
    _tapes: tuple[Tape, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.reduction not in ("mean", "sum", "token mean"):
            raise LossError(f"`reduction` must be 'mean', 'sum' or 'token mean' (got {self.reduction!r}).")
        for name, value in self.values:
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
                raise LossError(f"`values` must give a finite number for `{name}` (got {value!r}).")
        atoms = dict.fromkeys(atom for s in self.rule.structures for atom in s.reduced.atoms)
        strange = [atom for atom in atoms if original(atom) not in _LOGPS]
        if strange:
            raise LossError(f"a rule must be over w, l, rw, rl (got `{strange[0]}`); groups have `GroupLoss`.")
        meanings = dict(self.meanings)
        found = {atom: meanings.get(atom, sp.Symbol(_LOGPS[original(atom)])) for atom in atoms}
        object.__setattr__(self, "rule", _plain_rule(self.rule))
        object.__setattr__(self, "meanings", tuple((atom, _plain(meaning)) for atom, meaning in found.items()))
        object.__setattr__(self, "values", tuple(sorted(v for v in self.values if v[0] in self._used)))
        object.__setattr__(
            self, "constants", tuple((_plain(v), None if g is None else _plain(g)) for v, g in self.constants)
        )
        known = {*dict(self.values), *_LOGPS.values(), *_LOGPS, *_LENGTHS, "rho"}
        missing = sorted(name for name in self._used if name.removesuffix("°") not in known)
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            raise LossError(f"`values` must give a number for {names}: values={{{missing[0]!r}: 0.5}}.")
        for structure in self.rule.structures:
            check_parts(structure)
        made = (number(compile_structure(s.reduced), s.reduced.atoms[0], copies=False) for s in self.rule.structures)
        object.__setattr__(self, "_tapes", tuple(made))

    @cached_property
    def _used(self) -> frozenset[str]:
        rule = self.rule
        parts: list[sp.Basic] = [rule.link.expression, sp.sympify(rule.weight, strict=True)]
        parts += [] if rule.guard is None else [rule.guard]
        parts += [rule.inner.expression] if isinstance(rule, TwoRatioRule) else []
        parts += [meaning for _, meaning in self.meanings]
        parts += [part for constant in self.constants for part in constant if part is not None]
        return frozenset(symbol.name for part in parts for symbol in part.free_symbols)

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.logps(False)
        sums = {"W": chosen, "L": rejected}
        if self.needs_reference:
            sums["RW"], sums["RL"] = pair_logps.reference()
        if self.needs_lengths:
            sums["n_w"], sums["n_l"] = pair_logps.tokens()
        values = {name: value.double() for name, value in sums.items()}
        values |= {name: torch.as_tensor(value, dtype=torch.float64) for name, value in self.values}
        value = self._at(values)
        if self.reduction == "sum":
            value = value * value.shape[0]
        elif self.reduction == "token mean":
            value = value * values["n_w"] / values["n_w"].mean()
        return returned(value.expand(chosen.shape), chosen.dtype)

    def _at(self, values: dict[str, Tensor]) -> Tensor:
        rule, logps = self.rule, {atom: evaluate(meaning, values) for atom, meaning in self.meanings}
        rhos = [run(tape, [logps[atom] for atom in tape.atoms]) for tape in self._tapes]
        if isinstance(rule, TwoRatioRule):
            first, second = (evaluate(rule.inner.expression, {**values, "rho": rho}) for rho in rhos)
            rhos = [first - second]
        inside = {**values, "rho": rhos[0]}
        value = evaluate(sp.sympify(rule.weight, strict=True), inside) * evaluate(rule.link.expression, inside)
        if rule.guard is not None:
            value = torch.where(holds(in_logs(rule.guard), values), value, torch.zeros_like(value))
        for constant, guard in self.constants:
            added = evaluate(constant, values)
            value = value + (added if guard is None else torch.where(holds(in_logs(guard), values), added, 0.0))
        return value

    @property
    def needs_reference(self) -> bool:
        """Whether any part reads the reference's log-probabilities."""
        return bool(self._used & _REFERENCE) or any(original(atom) in _REFERENCE for atom, _ in self.meanings)

    @property
    def needs_lengths(self) -> bool:
        """Whether any part reads token counts."""
        return bool(self._used & _LENGTHS) or self.reduction == "token mean"

    @property
    def couples_pairs(self) -> bool:
        """Whether the reduction is another than the mean over pairs."""
        return self.reduction != "mean"

    @property
    def formula(self) -> str:
        """The rule with its numbers."""
        shown = ", ".join(f"{name} = {value:g}" for name, value in self.values)
        return f"{self.rule}{f', {shown}' if shown else ''}"

    @property
    def title(self) -> str:
        """The rule."""
        return f"Rule({self.formula})"

    @property
    def expression(self) -> str:
        """Text that `parse_loss` reads back to an equal loss."""
        rule, words = self.rule, []
        for name, structure in zip(("", "second_"), rule.structures, strict=False):
            words += [f"{name}{'P' if name else ''}='{structure.P.ascii}'" if name else f"'{structure.P.ascii}'"]
            words += [f"{name}given='{structure.P_C.ascii}'", f"{name}also='{structure.P_A.ascii}'"]
        words += [f"link='{rule.link.expression}'"]
        words += [f"inner='{rule.inner.expression}'"] if isinstance(rule, TwoRatioRule) else []
        words += [] if rule.weight == 1 else [f"weight='{rule.weight}'"]
        words += [] if rule.guard is None else [f"where='{rule.guard}'"]
        other = [(a, m) for a, m in self.meanings if m != sp.Symbol(_LOGPS[original(a)])]
        words += [f"meanings='{'; '.join(f'{a} = {m}' for a, m in other)}'"] if other else []
        values = "; ".join(f"{name} = {value!r}" for name, value in self.values)
        words += [f"values='{values}'"] if values else []
        said = "; ".join(f"{value}" + ("" if guard is None else f" where {guard}") for value, guard in self.constants)
        words += [f"constants='{said}'"] if said else []
        words += [] if self.reduction == "mean" else [f"reduction='{self.reduction}'"]
        found = link_of(rule.link.expression, dict(self.values)).direction
        words += [] if rule.link.direction == found else [f"direction='{rule.link.direction}'"]
        return f"rule({', '.join(words)})"


def rule(
    P: str,
    given: str = "true",
    also: str = "false",
    second_P: str = "",
    second_given: str = "true",
    second_also: str = "false",
    link: str = "log(1 + exp(-beta*rho))",
    inner: str = "",
    weight: str = "1",
    where: str = "",
    meanings: str = "",
    values: str = "",
    constants: str = "",
    reduction: str = "mean",
    direction: Direction | Literal[""] = "",
) -> RuleLoss:
    """The loss of one rule as text: `rule('M(w) -> M(l)', link='exp(-beta*rho)', where='w < rw', values='beta = 0.1')`.

    Args:
        P: What is preferred; like `given` and `also` as in `logic`. Over M(w), M(l), R(w), R(l).
        second_P: With `second_given` and `second_also`, the structure of rho_2 of a rule with two log ratios.
        link: f, a formula in rho; a name of `LINKS` too.
        inner: g of a rule with two log ratios.
        weight: As `where`, `meanings` and `values` in `RuleLoss`; several are parted by semicolons.
        constants: "value where condition", likewise.
        reduction: "mean", "sum" or "token mean".
        direction: "unknown" where the weight's sign is not known; by default what the link does is found out.

    Raises:
        ParseError: A text is no formula.
        LossError: As in `RuleLoss`.

    Example:
        >>> loss = rule("M(l) -> M(w)", "M(w) | M(l)", "M(w) & M(l)", link="exp(-beta*rho)", values="beta = 0.5")
        >>> loss(PairLogps(torch.tensor([-1.0]), torch.tensor([-3.0])))  # exp(-0.5 * (-1 + 3))
        tensor([0.3679])
    """
    numbers = {name: _float(name, value) for name, value in _pairs(values)}
    structure = PreferenceStructure.from_formulas(P, given, also)
    made: AnyRule
    said = LINKS[link].expression if link in LINKS else formula_of(link)
    factor = formula_of(weight)
    condition = formula_of(where) if where else None
    function = link_of(said, numbers)
    if direction not in ("", "unknown", function.direction):
        raise LossError(f"`direction` must be 'unknown' or left out: this link is {function.direction}.")
    function = replace(function, direction=direction or function.direction)
    if bool(second_P) != bool(inner):
        raise LossError("`inner` and `second_P` belong together: a rule has one log ratio, or two and a function g.")
    if second_P:
        second = PreferenceStructure.from_formulas(second_P, second_given, second_also)
        grown = formula_of(inner)
        made = TwoRatioRule(
            structure, second, named_inner(grown, course_by_name(grown, numbers)), function, factor, condition
        )
    else:
        made = Rule(structure, function, factor, condition)
    parts = [part.partition(" where ") for part in constants.split("; ") if part.strip()]
    return RuleLoss(
        made,
        tuple((name, formula_of(value)) for name, value in _pairs(meanings)),
        tuple(numbers.items()),
        tuple((formula_of(value), formula_of(guard) if guard else None) for value, _, guard in parts),
        reduction,  # type: ignore[arg-type]
    )


def link_of(expression: object, values: Mapping[str, float]) -> Link:
    """A link from a SymPy expression in `rho`, its direction found out at the values; the known ones by their names.

    Raises:
        LossError: It is no expression in rho.
    """
    if not isinstance(expression, sp.Expr) or sp.Symbol("rho") not in {
        sp.Symbol(s.name) for s in expression.free_symbols
    }:
        raise LossError(f"`link` must be a name, a Link or a SymPy expression in rho (got {expression!r}).")
    plain = _plain(expression)
    known = next((link for link in LINKS.values() if link.expression == plain), None)
    return known or Link(plain, direction_by_name(plain, values), "a link of its own")


def _reading_of(loss: RuleLoss, name: str) -> Reading:
    """What the loss says it is, still unchecked."""
    known = {sp.Symbol(symbol.name): symbol for symbol in (*LOGPS.values(), *COUNTS.values())}
    known |= {sp.Symbol(key): hyper(key, value) for key, value in loss.values}
    meanings = {atom: meaning.xreplace(known) for atom, meaning in loss.meanings}
    return Reading((loss.rule,), name, (meanings,), dict(loss.values), constants=loss.constants)


def written_reading(loss: Loss, name: str) -> Reading | None:
    """What a loss that was compiled from rules, or a sum of such, says it is, still unchecked; None for any other."""
    if isinstance(loss, RuleLoss):
        return _reading_of(loss, name)
    if not isinstance(loss, WeightedSum) or not all(isinstance(term, RuleLoss) for _, term in loss.parts):
        return None
    readings = [(weight, _reading_of(term, name)) for weight, term in loss.parts if isinstance(term, RuleLoss)]
    values: dict[str, float] = {}
    for _, found in readings:
        if any(values.setdefault(key, value) != value for key, value in found.hyperparameters.items()):
            return None  # two values of one name
    rules = tuple(
        rule if weight == 1 else replace(rule, weight=sp.nsimplify(weight, rational=True) * rule.weight)
        for weight, found in readings
        for rule in found.rules
    )
    meanings = tuple(meaning for _, found in readings for meaning in found.meanings)
    constants = tuple((weight * v if weight != 1 else v, g) for weight, found in readings for v, g in found.constants)
    return Reading(rules, name, meanings, values, constants=constants)


def _plain_rule(rule: AnyRule) -> AnyRule:
    link = Link(_plain(rule.link.expression), rule.link.direction, rule.link.name)
    weight = rule.weight if isinstance(rule.weight, int | float) else _plain(rule.weight)
    guard = None if rule.guard is None else _plain(rule.guard)
    if isinstance(rule, Rule):
        return Rule(rule.structure, link, _number(weight), guard)
    inner = named_inner(_plain(rule.inner.expression), rule.inner.direction)
    return TwoRatioRule(rule.first, rule.second, inner, link, _number(weight), guard)


def _number(weight: sp.Basic | float) -> sp.Expr | int:
    made = formula_of(repr(weight)) if isinstance(weight, int | float) else weight
    return 1 if made == 1 else made


def _plain(expression: sp.Basic) -> sp.Expr:
    """As its own text is read, so that losses are equal where their texts are."""
    return formula_of(str(expression))


def _pairs(text: str) -> list[tuple[str, str]]:
    parts = [part.partition("=") for part in text.split(";") if part.strip()]
    if any(not equals for _, equals, _ in parts):
        raise LossError(f"pairs of names and formulas must read `name = formula; …` (got {text[:80]!r}).")
    return [(name.strip(), value.strip()) for name, _, value in parts]


def _float(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise LossError(f"`values` must give a number for `{name}` (got {text!r}).") from None
