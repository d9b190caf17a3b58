"""From logic to a loss: structures, formulas, equations and names, compiled."""

from __future__ import annotations

import re

from ..._errors import LossError, ParseError, PrefalignError
from ...logic import Formula, PreferenceStructure, RuleSet, catalogue
from ...logic import derive as derive_equation
from ._loss import GroupLoss, LogicLoss
from ._summed import summed_behaviour


def to_loss(
    structure: PreferenceStructure | RuleSet | Formula | str,
    link: str = "logistic",
    beta: float | None = None,
    reference: bool | None = None,
    mean: bool | None = None,
) -> LogicLoss | GroupLoss:
    """Compile a preference structure into a loss that the trainer takes like any other.

    link(rho),  rho = log WMC(P_f) - log WMC(N_f)  [+ log ref(l) - log ref(w)]

    The two counts are one decision diagram, evaluated in log space by straight-line code: differentiable, batched,
    picklable, and finite for every log-probability in [-10⁴, 0].

    Args:
        structure: A PreferenceStructure; the name of a catalogue entry; a column, such as "ovxo"; a formula P, such as
            "M(l) -> M(w)" (P_C true, P_A false; for others use `logic`); or an equation, such as "w/l". Over y1 … yK it
            compiles for groups of answers. Text that is both a formula and an equation is taken as the formula: "w" is
            the demand that M(w) holds, the ratio w/(1-w) (CE); the equation w, which `derive("w")` reads, is the ratio
            w/1 and is written "w/1" here.
        link: "logistic" -log sigmoid(beta*rho), "hinge" max(0, beta - rho), "scaled_hinge" max(0, 1 - beta*rho),
            "perceptron" max(0, -rho), "square" (rho - 1/(2*beta))², "sigmoid" or "exponential".
        beta: The link's parameter, > 0. Default 0.1 (none for "perceptron").
        reference: Add the reference's log ratio to rho. Default: True, but False for a structure that has R(w) or R(l)
            itself, and for groups.
        mean: Means over tokens instead of sums. Default: True where the row in which the policy deems neither answer
            valid is on top or bottom (sums would make the loss dead or saturated), else False.

    Raises:
        LossError: An argument is out of range, or top or bottom is unsatisfiable.
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

    Source: Richardson, Srikumar, Sabharwal 2025, arXiv:2412.17696.
    """
    made = _structure(structure)
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


def _structure(given: PreferenceStructure | RuleSet | Formula | str) -> PreferenceStructure:
    if isinstance(given, PreferenceStructure):
        return given
    if isinstance(given, Formula):
        return PreferenceStructure.from_formulas(given)
    if isinstance(given, RuleSet):
        raise LossError(
            "`structure` must be one structure (got a RuleSet, whose links and weights it would drop). "
            "Use `rules.structure`, or add the losses of its rules with their weights."
        )
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
