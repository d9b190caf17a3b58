"""The front door: equations, names, losses and code, all into logic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, TypeAlias

import sympy as sp
from torch import nn

from .._deadline import time_limit as limited
from .._errors import DerivationError, PrefalignError
from ..logic import PreferenceStructure, RuleSet
from ..logic import derive as derive_equation
from ..losses import Loss, WeightedSum, at_its_highest
from ._declared import claimed_reading, with_declared
from ._rule_loss import written_reading
from .lowering import GroupLoss
from .reading import GUARDED_SCALES, SCALES, Disagreement, Reading, check, is_live, read, reading
from .symbols import _symbols as sy
from .symbols import is_frozen
from .tracing import Formula, given_roles, is_policy, masks_of, trace

Readable: TypeAlias = str | sp.Expr | PreferenceStructure | RuleSet | Loss | GroupLoss | Callable[..., Any]


def derive(
    loss: Readable,
    *,
    roles: Mapping[str, str] | None = None,
    answers: int | None = None,
    time_limit: float | None = 20.0,
    **given: Any,
) -> PreferenceStructure | RuleSet:
    """Read a loss into logic, from its equation, its name, or its code.

    Code is run, unmodified, on symbolic tensors. Parameters whose names say so (`policy_chosen_logps`, `logp_l`,
    `ref_rejected`, `chosen_len`, a `PairLogps`, a batch of such entries) become symbols; floats, in defaults, in
    `given`, and in the fields of losses, dataclasses and namespaces, become named hyperparameters (0.0 is taken as
    "switched off"). What comes back has been checked: its values and gradients are the code's on random batches.

    Code shows a ratio, and structures whose top and bottom share a factor have one ratio. Of foreign code comes the
    coprime one. A loss that `to_loss` made says which structure it has; where the ratio read from its code is that
    structure's, that structure is returned, checked likewise: so `derive(to_loss(s))` is equivalent to `s`.

    Args:
        loss: Equation text, a SymPy expression, a catalogue name; or a `Loss` or `GroupLoss`; or a Python function,
            callable object, or unbound method that returns a loss (a tensor, a tuple that begins with one, or a dict
            with `loss`).
        roles: What parameters, entries or fields mean whose names do not say it: {"rej_logps": "l"}. Known are w, l,
            rw, rl (log-probabilities, summed; r: the reference's), mean_w, … (means over tokens), prob_w, …, ratio_w,
            ratio_l, n_w, n_l (token counts), wl and rwrl (both answers joined).
        answers: How many answers a group has, where the function takes log-probabilities of groups, shape (groups, K).
        time_limit: Seconds after which a search for a reading is given up; None: never.
        given: Values for parameters of the function, by name: `self=` a stub for a method, `loss_type="ipo"`, ….

    Returns:
        For equations and names what `prefalign.logic.derive` returns. For losses and code a `Reading`: a RuleSet that
        also says what its atoms mean, which values the hyperparameters had, and what was noticed.

    Raises:
        DerivationError: The loss has no reading, and why; or the reading does not agree with the code.

    Example:
        >>> from prefalign.losses import DPO
        >>> derive(DPO(beta=0.1)).structure.ratio
        rl*w/(l*rw)
        >>> def mine(chosen_logps, rejected_logps):
        ...     return torch.nn.functional.softplus(rejected_logps - chosen_logps).mean()
        >>> derive(mine).structure.rows
        'bvxo'
    """
    if roles and isinstance(loss, str | sp.Expr | PreferenceStructure | RuleSet):
        raise DerivationError("Roles are for Python functions; an equation or a name has none.")
    if answers is not None and (isinstance(answers, bool) or not isinstance(answers, int) or not 2 <= answers <= 8):
        raise DerivationError(f"`answers` must be from 2 to 8 answers of a group (got {answers!r}).")
    if answers is not None and (isinstance(loss, str | sp.Basic | RuleSet | Loss | GroupLoss) or not callable(loss)):
        raise DerivationError("`answers` is for Python functions of groups of answers.")
    with given_roles(roles or {}), limited(time_limit, _overtime(time_limit)):
        return _derive(loss, given, answers or 0)


def _overtime(seconds: float | None) -> DerivationError:
    return DerivationError(
        f"No reading was found within {seconds or 0:g} seconds: the formula has more cases than can be sorted out in "
        "that time. Give more with `time_limit=…`, or derive the loss in parts."
    )


def _derive(loss: Readable, given: dict[str, Any], answers: int = 0) -> PreferenceStructure | RuleSet:
    if isinstance(loss, str | sp.Expr | PreferenceStructure | RuleSet):
        if given:
            raise DerivationError("Arguments are for Python functions; an equation or a name takes none.")
        return derive_equation(loss)
    if isinstance(loss, Loss) and loss.reads != "pair":
        raise DerivationError(
            f"`{loss.title}` is a loss of judged groups of any size, and rules are of so many answers. The code of a "
            "loss over K answers is read with derive(function, answers=K)."
        )
    if isinstance(loss, Loss) and (said := written_reading(loss, loss.title)) is not None:
        return check(said, type(loss).__call__, {"self": loss, **given}, said.hyperparameters)
    if isinstance(loss, Loss):
        read_as, notes = _without_baselines(at_its_highest(loss))
        found = _read_code(type(read_as).__call__, {"self": read_as, **given}, loss.title)
        return replace(found, notes=(*found.notes, *notes))
    if isinstance(loss, GroupLoss):
        return _read_code(type(loss).__call__, {"self": loss, **given}, "the loss", loss.answers)
    if isinstance(loss, type):
        raise DerivationError(f"`{loss.__name__}` is a class; derive an instance, such as {loss.__name__}(beta=0.1).")
    if not callable(loss):
        raise DerivationError(f"`loss` must be an equation, a name, a Loss or a function (got {type(loss).__name__}).")
    name = getattr(loss, "__qualname__", type(loss).__name__)
    try:
        # A module's own call takes anything; the parameters that can be recognised are those of its `forward`.
        return _read_code(loss.forward if isinstance(loss, nn.Module) else loss, given, name, answers)
    except PrefalignError:
        raise
    except Exception as error:  # of a stranger's code anything may come
        raise DerivationError(f"`{name}` cannot be read: {type(error).__name__}: {error}") from error


def _read_code(function: Callable[..., Any], given: dict[str, Any], name: str, groups: int = 0) -> Reading:
    """Read, with each meaning that the parameters' names may have beside masks.

    Raises:
        DerivationError: There is no reading, or two.
    """
    found, errors = [], list[PrefalignError]()
    for roles in masks_of(function) or [{}]:
        try:
            with given_roles(roles):
                found.append(_read_names(function, given, name, groups))
        except PrefalignError as error:
            errors.append(error)
    if len(found) == 1:
        return found[0]
    if found:
        raise DerivationError(
            f"The log-probabilities that `{name}` is given may be of tokens or of answers; it runs with either. "
            'Say which: derive(function, roles={"chosen_logps": "tokens_w", …}), or "w".'
        )
    raise errors[0]


def _read_names(function: Callable[..., Any], given: dict[str, Any], name: str, groups: int) -> Reading:
    """Read with hyperparameters as symbols; those on whose value the form of the code depends, as numbers."""
    formula = trace(function, given, frozenset(), groups)
    symbols = formula.expr.free_symbols
    # A structure that `to_loss` was given may ask nothing of the policy; a function that does not is no loss.
    foreign = not isinstance(given.get("self"), Loss)
    if foreign and is_live(formula.expr) and not any(is_policy(s) or is_frozen(s) for s in symbols):
        raise DerivationError(
            f"The loss reads the reference's log-probabilities alone, {formula.expr}: it teaches the policy nothing."
        )
    names = tuple(formula.hypers)
    first: PrefalignError | None = None
    for plain in (frozenset[str](), *(frozenset([one]) for one in names), frozenset(names)):
        try:
            formula = trace(function, given, plain, groups) if plain else formula
            found = _checked(formula, function, given, name, groups)
            if formula.hypers:
                moved = {key: value * 0.83 for key, value in formula.hypers.items()}
                check(found, function, given, moved, groups, scales=SCALES[1:2])
            return found
        except PrefalignError as error:
            first = first or error
            # Numbers instead of symbols help only where the formula was readable and did not agree.
            if not isinstance(error, Disagreement):
                break
    assert first is not None
    raise first


def _checked(formula: Formula, function: Callable[..., Any], given: dict[str, Any], name: str, groups: int) -> Reading:
    values = {s: formula.hypers[s.name] for s in formula.expr.free_symbols if s.name in formula.hypers}
    values |= {sy.N_W: 1.0, sy.N_L: 1.0}
    claimed = claimed_reading(given.get("self"), name)
    if claimed is not None and not is_live(formula.expr):
        return check(claimed, function, given, formula.hypers, groups)
    try:
        found = reading(read(formula.expr, values), values, name, formula.hypers)
    except PrefalignError:
        raise
    except Exception as error:  # whatever SymPy makes of a strange formula, the user is told about a loss
        raise DerivationError(f"No reading was found for the formula {formula.expr} ({error}).") from error
    found = with_declared(found, given.get("self"))
    if claimed is not None and (len(found) > 1 or found.structures != claimed.structures):
        # A ratio that is below 1 everywhere leaves a hinge that is never at rest: its code is no longer a hinge.
        with suppress(Disagreement):
            return check(claimed, function, given, formula.hypers, groups)
    if not formula.guards:
        return check(found, function, given, formula.hypers, groups)
    note = "A numerical guard (a clamp or an epsilon within 1e-6 of a probability's ends) is left out of the reading."
    found = replace(found, notes=(*found.notes, note))
    # Only where the guard does not act can the rules and the code agree.
    return check(found, function, given, formula.hypers, groups, scales=GUARDED_SCALES)


def _without_baselines(loss: Loss) -> tuple[Loss, tuple[str, ...]]:
    """The loss without its terms on another baseline than the chosen completions, and a note on each.

    Raises:
        DerivationError: Nothing is left.
    """
    kept = tuple((weight, term) for weight, term in loss.terms if _baseline(term) == "chosen")
    if len(kept) == len(loss.terms):
        return loss, ()
    notes = tuple(
        f"The term {weight:g}*{term.title} is about other completions, which no atom stands for: it changes nothing in "
        "how chosen and rejected compare, and is left out of the reading."
        for weight, term in loss.terms
        if _baseline(term) != "chosen"
    )
    if not kept:
        raise DerivationError(
            f"`{loss.title}` is about other completions than the chosen and the rejected one alone: there is nothing "
            "to read. With baseline='chosen' it reads as cross-entropy."
        )
    return (kept[0][1] if kept[0][0] == 1.0 and len(kept) == 1 else WeightedSum(kept)), notes


def _baseline(term: Loss) -> object:
    named = [getattr(term, field.name) for field in fields(term) if field.name == "baseline"]
    return named[0] if named else "chosen"
