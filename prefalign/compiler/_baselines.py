"""Terms on completions that are neither chosen nor rejected: no atom stands for them, so a reading leaves them out."""

from __future__ import annotations

from dataclasses import fields

from .._errors import DerivationError
from ..losses import Loss, WeightedSum


def without_baselines(loss: Loss) -> tuple[Loss, tuple[str, ...]]:
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
