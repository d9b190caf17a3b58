"""The verdict's remedies that are losses: the run's own loss with one change."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass, replace

from .._errors import PrefalignError
from ..losses import (
    CPO,
    DPO,
    ORPO,
    RPO,
    SFT,
    DrDPO,
    HolderDPO,
    Loss,
    Robust,
    SLiCHF,
    Smoothed,
    WeightedSum,
    at_its_highest,
    parse_loss,
)

Parts = tuple[tuple[float, Loss], ...]

_ADDED = 0.005  # weight of a supervised term that is added, and the paper's eta
_WEAK = 0.05  # a weight below it is raised tenfold, others twofold
_AWARE = (Robust, Smoothed, DrDPO, HolderDPO)
_AWARE_NAMES = re.compile(r"\b(robust|smoothed|dr_dpo|holder_dpo|cdpo|rdpo)\s*\(")
_BETA = re.compile(r"^\s*\w+\((?:.*\bbeta\s*=)?\s*(\d+(?:\.\d*)?(?:e-?\d+)?)\s*[,)]")
# Losses with the likelihood of the chosen completions inside -> the argument that is its weight.
_WEIGHTS: dict[type[Loss], str] = {CPO: "alpha", SLiCHF: "regulariser"}


@dataclass(frozen=True)
class Change:
    """A loss to try instead.

    Args:
        words: What was changed, in whole sentences; empty where the code says it all.
        code: The option with an expression that parses, or an empty string where there is nothing to write.
    """

    words: str
    code: str


def knows_flips(expression: str) -> bool:
    """Whether the loss takes flipped labels into account.

    Example:
        >>> knows_flips("0.5*rdpo(0.1, 0.2) + sft(reduction='sum')"), knows_flips("dpo(beta=0.1)")
        (True, False)
    """
    loss = _read(expression)
    if loss is None:
        return bool(_AWARE_NAMES.search(expression))
    return any(isinstance(part, _AWARE) for _, part in _parts(loss))


def hold_chosen(expression: str, beta: float | None = None) -> Change:
    """The loss with more weight on the likelihood of the chosen completions; with such a term where it has none.

    Args:
        expression: The run's loss. One that cannot be read is replaced by DPO, and the words say so.
        beta: Of that DPO, where the run's record has it.

    Example:
        >>> hold_chosen("rpo(beta=0.5, eta=0.005, reduction='sum')").code
        "loss: rpo(beta=0.5, eta=0.05, reduction='sum')"
    """
    loss = _read(expression)
    added = "Add a supervised term on the chosen completions (RPO)."
    if loss is None:
        stand_in, why = _stand_in(expression, beta)
        return Change(f"{added}{why}", _code(*_parts(stand_in + _ADDED * SFT("sum"))))
    parts = _parts(loss)
    if all(isinstance(part, SFT) for _, part in parts):
        return Change("Lower the learning rate: the loss is a likelihood already.", "")
    for index, (weight, part) in enumerate(parts):
        raised = _raised(weight, part) if weight > 0 else None
        if raised is not None:
            words, changed = raised
            return Change(words, _code(*parts[:index], changed, *parts[index + 1 :]))
    return Change(added, _code(*parts, (_ADDED, SFT("sum"))))


def allow_for_flips(expression: str, rate: float, beta: float | None = None) -> Change:
    """The loss with `robust` around what it can wrap: the pairwise part.

    Args:
        expression: The run's loss. One that cannot be read is replaced by DPO, and the words say so.
        rate: The flip rate, in [0, 0.5).
        beta: Of that DPO, where the run's record has it.

    Example:
        >>> allow_for_flips("dpo(0.5) + 0.01*sft(reduction='sum')", 0.2).code
        "loss: robust(dpo(beta=0.5), flip_rate=0.2) + 0.01*sft(reduction='sum')"
    """
    loss = _read(expression)
    if loss is None:
        stand_in, why = _stand_in(expression, beta)
        return Change(why.strip(), _code((1.0, Robust(stand_in, rate))))
    if loss.swap_obstacle is None:
        return Change("", _code((1.0, Robust(loss, rate))))
    words: list[str] = []
    made: list[tuple[float, Loss]] = []
    for weight, part in _parts(loss):
        numbers = at_its_highest(part)
        if numbers != part:
            words.append("The schedule is replaced by its highest value: a term outside `rpo` has a fixed weight.")
        terms = ((1.0, part),) if part.swap_obstacle is None else numbers.terms
        made += [(_short(weight * inner), _robust(term, rate, words)) for inner, term in terms]
    if any(isinstance(part, SFT) for _, part in made):
        words.insert(0, "`robust` goes around the pairwise part; the supervised term stays beside it.")
    if not any(isinstance(part, Robust) for _, part in made):
        words[:1] = ["The loss has no pairwise part that `robust` could wrap; the nearest is one beside it."]
        made.insert(0, (1.0, Robust(DPO(beta or 0.1), rate)))
    return Change(" ".join(words), _code(*made))


def _robust(term: Loss, rate: float, words: list[str]) -> Loss:
    """The term that is robust, as near as can be; `words` gets what is to be said about it."""
    if term.swap_obstacle is None:
        return Robust(term, rate)
    if isinstance(term, SFT):
        return term
    words.append(
        f"`robust` cannot wrap {term.title}: {term.swap_obstacle}. The nearest that it takes is DPO with the same beta."
    )
    return Robust(DPO(float(getattr(term, "beta", 0.1))), rate)


def _raised(weight: float, part: Loss) -> tuple[str, tuple[float, Loss]] | None:
    """What was changed, and the part with more likelihood of the chosen completions; None if it has none."""
    if isinstance(part, RPO) and part.baseline == "chosen":
        old, new = part.eta, _raised_eta(part)
        old_text, new_text = (eta if isinstance(eta, str) else f"{eta:g}" for eta in (old, new))
        words = f"Raise `eta`, the weight of the supervised term, from {old_text} to {new_text}."
        return words, (weight, replace(part, eta=new))
    if isinstance(part, SFT) and part.baseline == "chosen":
        more = _more(weight)
        return f"Raise the weight of the supervised term from {weight:g} to {more:g}.", (more, part)
    if isinstance(part, ORPO):
        less = _short(part.beta / 2)
        words = f"Lower `beta`, the weight of the odds beside the likelihood, from {part.beta:g} to {less:g}."
        return words, (weight, replace(part, beta=less))
    name = _WEIGHTS.get(type(part))
    value = float(getattr(part, name)) if name else 0.0
    if name is None or not value:
        return None
    words = f"Raise `{name}`, the weight of the supervised term, from {value:g} to {_more(value):g}."
    return words, (weight, type(part)(**{**vars(part), name: _more(value)}))


def _raised_eta(loss: RPO) -> float | str:
    schedule = loss.schedule
    if schedule is None:
        return _more(loss.eta_at(0.0)) or _ADDED
    if not schedule.highest:
        return _ADDED
    factor = _more(schedule.highest) / schedule.highest
    end = schedule.second if schedule.shape == "warmup" else _short(factor * schedule.second)  # there it is a share
    return str(replace(schedule, first=_short(factor * schedule.first), second=end))


def _more(weight: float) -> float:
    return _short(weight * (10 if weight < _WEAK else 2))


def _short(number: float) -> float:
    """Without the last digits, which are rounding: 0.1*0.3 is 0.03."""
    return float(f"{number:.10g}")


def _read(expression: str) -> Loss | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what there is to warn of was said when it was trained
        try:
            return parse_loss(expression) if expression else None
        except PrefalignError:
            return None


def _stand_in(expression: str, beta: float | None) -> tuple[DPO, str]:
    """DPO with the beta of a loss that cannot be read, and what to say of it."""
    found = _BETA.search(expression)
    number = beta if beta is not None else float(found[1]) if found else 0.1
    return DPO(
        number if 0 < number < math.inf else 0.1
    ), " The run's loss cannot be read here: DPO stands in its place."


def _parts(loss: Loss) -> Parts:
    return loss.parts if isinstance(loss, WeightedSum) else ((1.0, loss),)


def _code(*parts: tuple[float, Loss]) -> str:
    return f"loss: {WeightedSum(parts).expression}"
