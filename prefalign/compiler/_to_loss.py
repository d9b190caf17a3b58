"""From logic to a loss: structures, formulas, equations and names, compiled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, overload

import sympy as sp
from sympy.logic.boolalg import Boolean

from .._errors import LossError, ParseError, PrefalignError
from ..logic import AnyRule, Formula, Link, PreferenceStructure, Rule, RuleSet, catalogue, from_boolean, original
from ..logic import derive as derive_equation
from ..losses import Loss, WeightedSum
from ._rule_loss import Reduction, RuleLoss, link_of
from .lowering import GroupLoss, LogicLoss, summed_behaviour
from .reading import Reading


@overload
def to_loss(
    structure: RuleSet,
    link: Literal["logistic"] = "logistic",
    beta: float | None = None,
    reference: bool | None = None,
    mean: bool | None = None,
    values: Mapping[str, float] | None = None,
) -> Loss: ...
@overload
def to_loss(
    structure: PreferenceStructure | Formula | Boolean | str,
    link: str = "logistic",
    beta: float | None = None,
    reference: bool | None = None,
    mean: bool | None = None,
    values: Mapping[str, float] | None = None,
) -> LogicLoss | GroupLoss: ...
@overload
def to_loss(
    structure: PreferenceStructure | Formula | Boolean | str,
    link: Link | sp.Expr,
    beta: float | None = None,
    reference: bool | None = None,
    mean: bool | None = None,
    values: Mapping[str, float] | None = None,
) -> RuleLoss: ...
def to_loss(
    structure: PreferenceStructure | RuleSet | Formula | Boolean | str,
    link: str | Link | sp.Expr = "logistic",
    beta: float | None = None,
    reference: bool | None = None,
    mean: bool | None = None,
    values: Mapping[str, float] | None = None,
) -> Loss | GroupLoss:
    """Compile a preference structure into a loss that the trainer takes like any other.

    link(rho),  rho = log WMC(P_f) - log WMC(N_f)  [+ log ref(l) - log ref(w)]

    The two counts are one decision diagram, evaluated in log space by straight-line code: differentiable, batched,
    picklable, and finite for every log-probability in [-10⁴, 0].

    Args:
        structure: A PreferenceStructure; the name of a catalogue entry; a column, such as "ovxo"; a formula P, such as
            "M(l) -> M(w)" (P_C true, P_A false; for others use `logic`); or an equation, such as "w/l". Over y1 … yK it
            compiles for groups of answers. Text that is both a formula and an equation is taken as the formula: "w" is
            the demand that M(w) holds, the ratio w/(1-w) (CE); the equation w, which `derive("w")` reads, is the ratio
            w/1 and is written "w/1" here. Or a SymPy Boolean of atoms w and l. Or rules: a RuleSet, or what `derive`
            read from code, with its weights, guards, links, detached factors and hyperparameters.
        link: "logistic" -log sigmoid(beta*rho), "hinge" max(0, beta - rho), "scaled_hinge" max(0, 1 - beta*rho),
            "perceptron" max(0, -rho), "square" (rho - 1/(2*beta))², "sigmoid" or "exponential"; or a `Link` or a SymPy
            expression in `rho`, `beta` and names of `values`. Rules bring their own.
        beta: The link's parameter, > 0. Default 0.1 (none for "perceptron").
        reference: Add the reference's log ratio to rho. Default: True, but False for a structure that has R(w) or R(l)
            itself, and for groups.
        mean: Means over tokens instead of sums. Default: True where the row in which the policy deems neither answer
            valid is on top or bottom (sums would make the loss dead or saturated), else False; for rules what a
            `Reading` says, else False.
        values: Numbers for the names in links, weights and guards of rules, and in a link of your own. What a `Reading`
            was read with is kept where nothing else is given; `beta` is 0.1.

    Returns:
        A `LogicLoss`, or a `GroupLoss` over y1 … yK; for a link of your own and for rules a `RuleLoss`, or the sum of
        several.

    Raises:
        LossError: An argument is out of range, top or bottom is unsatisfiable, or a name has no number.
        ParseError: The text is neither a formula, nor an equation, nor a name.

    Warns:
        UserWarning: `mean=False` makes the loss dead or saturated.

    Example:
        >>> to_loss("CPO") == to_loss(PreferenceStructure.from_rows("bvxo"))
        True
        >>> to_loss("w").structure.rows, to_loss("w/1", mean=True).structure.rows
        ('vvxx', 'bbxx')
        >>> print(to_loss("w*(1-l)/(l*(1-w))", beta=1.0, reference=False, mean=True).formula)
        -log sigmoid(1*log[w*(1 - l)/(l*(1 - w))])
        >>> import sympy
        >>> from prefalign.losses import PairLogps
        >>> bounded = to_loss("w/l", sympy.tanh(-sympy.Symbol("rho") / 10).rewrite(sympy.exp))
        >>> bounded(PairLogps(torch.tensor([-900.0]), torch.tensor([-100.0]), torch.zeros(1), torch.zeros(1)))
        tensor([1.])

    Source: Richardson, Srikumar, Sabharwal 2025, arXiv:2412.17696.
    """
    if isinstance(structure, RuleSet):
        if link != "logistic":
            raise LossError(f"`link` must be left out for rules, which bring their own (got {link!r}).")
        return _of_rules(structure, reference, mean, _numbers(values, beta))
    made = _structure(structure)
    if not isinstance(link, str):
        numbers = _numbers(values, beta)
        own = link if isinstance(link, Link) else link_of(link, {"beta": 0.1, **numbers})
        if reference is None:
            reference = not made.reduced.needs_reference
        of_sums = summed_behaviour(made.reduced) != "contrast" if mean is None else mean
        return _of_rule(Rule(made, own), reference, of_sums, {}, {"beta": 0.1, **numbers})
    if values is not None:
        raise LossError("`values` is for rules and for a link of your own: the named links have `beta` alone.")
    small = made.reduced
    if small.atoms and all(atom.startswith("y") for atom in small.atoms):
        for name, value in (("reference", reference), ("mean", mean)):
            if value is not None and value is not False:
                raise LossError(f"`{name}` is for pairs (got {value!r}); a loss over groups takes its tensor as it is.")
        return GroupLoss(made, link, beta)
    if reference is None:
        reference = not small.needs_reference
    if mean is None:
        mean = summed_behaviour(small) != "contrast"
    return LogicLoss(made, link, beta, reference, mean)


def _numbers(values: Mapping[str, float] | None, beta: float | None) -> dict[str, float]:
    return {**(values or {}), **({} if beta is None else {"beta": beta})}


_WAYS: Mapping[str, Reduction] = {"pairs": "mean", "mean": "mean", "sum": "sum", "token mean": "token mean"}


def _of_rules(rules: RuleSet, reference: bool | None, mean: bool | None, numbers: Mapping[str, float]) -> Loss:
    if isinstance(rules, Reading) and (reference is not None or mean is not None):
        raise LossError("`reference` and `mean` must be left out for what `derive` read: its atoms say what they are.")
    values = {"beta": 0.1, **(rules.hyperparameters if isinstance(rules, Reading) else {}), **numbers}
    used = {s.name for rule in rules for part in _formulas(rule) for s in getattr(part, "free_symbols", ())}
    meanings = rules.meanings if isinstance(rules, Reading) else tuple({} for _ in rules.rules)
    used |= {s.name for meaning in meanings for part in meaning.values() for s in part.free_symbols}
    unknown = sorted(set(numbers) - used)
    if unknown:
        raise LossError(f"`values` has a number for `{unknown[0]}`, which no link, weight or guard has.")
    batch = rules.batch if isinstance(rules, Reading) else ()
    ways = batch * len(rules) if len(batch) == 1 else batch or ("mean",) * len(rules)
    parts = []
    for i, (rule, meaning) in enumerate(zip(rules, meanings, strict=True)):
        loss = _of_rule(rule, bool(reference), bool(mean), meaning, values, _WAYS[ways[i]])
        if i == 0 and isinstance(rules, Reading) and rules.constants:
            loss = replace(loss, constants=rules.constants, values=tuple(values.items()))
        parts.append((1.0, loss))
    return parts[0][1] if len(parts) == 1 else WeightedSum(tuple(parts))


def _formulas(rule: AnyRule) -> list[object]:
    inner = [] if isinstance(rule, Rule) else [rule.inner.expression]
    return [rule.link.expression, rule.weight, rule.guard, *inner]


def _of_rule(
    rule: AnyRule,
    reference: bool,
    mean: bool,
    meanings: Mapping[str, sp.Expr],
    values: Mapping[str, float],
    reduction: Reduction = "mean",
) -> RuleLoss:
    if reference:
        rule = (
            replace(rule, structure=rule.structure.with_reference())
            if isinstance(rule, Rule)
            else replace(rule, first=rule.first.with_reference(), second=rule.second.with_reference())
        )
    if mean:
        atoms = [atom for structure in rule.structures for atom in structure.reduced.atoms]
        meanings = {atom: _mean_of(original(atom)) for atom in atoms}
    return RuleLoss(rule, tuple(meanings.items()), tuple(values.items()), reduction=reduction)


def _mean_of(atom: str) -> sp.Expr:
    return sp.Symbol(atom.upper()) / sp.Symbol(f"n_{atom[-1]}")


def logic(
    P: str,
    given: str = "true",
    also: str = "false",
    link: str = "logistic",
    beta: float | None = None,
    reference: bool | None = None,
    mean: bool | None = None,
) -> LogicLoss:
    """The loss of three formulas; `logic('M(l) >> M(w)', given='M(w) | M(l)', beta=0.1)` in loss expressions.

    Args:
        P: What the loss prefers.
        given: P_C, the condition under which anything counts.
        also: P_A, what counts on both sides.
        link: As in `to_loss`, like `beta`, `reference` and `mean`.

    Raises:
        ParseError: A formula is not in the grammar.
        LossError: As in `to_loss`.

    Example:
        >>> logic("M(l) >> M(w)", given="M(w) | M(l)", also="M(w) & M(l)") == to_loss("CPO")
        True
    """
    made = to_loss(PreferenceStructure.from_formulas(P, given, also), link, beta, reference, mean)
    if isinstance(made, GroupLoss):
        raise LossError("`logic` must be over w and l in a loss expression (got y1, y2, …). For groups use `to_loss`.")
    return made


def _structure(given: PreferenceStructure | Formula | Boolean | str) -> PreferenceStructure:
    if isinstance(given, PreferenceStructure):
        return given
    if isinstance(given, Formula):
        return PreferenceStructure.from_formulas(given)
    if isinstance(given, Boolean):
        return PreferenceStructure.from_formulas(from_boolean(given))
    if not isinstance(given, str):
        raise LossError(f"`structure` must be a PreferenceStructure or text (got {type(given).__name__}).")
    return _from_text(given)


def _from_text(text: str) -> PreferenceStructure:
    if text in catalogue:
        return catalogue[text].structure
    if re.fullmatch("[vxbo]{4,}", text):
        return PreferenceStructure.from_rows(text)
    try:
        return PreferenceStructure.from_formulas(text)
    except ParseError as error:
        try:
            found = derive_equation(text)
        except PrefalignError:
            raise error from None
    if not isinstance(found, PreferenceStructure):
        raise LossError(f"`structure` must be one structure; {text!r} is a sum of rules or has a margin.")
    return found
