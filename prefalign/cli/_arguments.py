"""A loss on the command line: a name, an equation, a column, a loss expression, or a function in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._errors import ParseError, PrefalignError

if TYPE_CHECKING:
    from ..logic import PreferenceStructure, RuleSet

LOSS_HELP = (
    "a name (cpo), an equation (w*(1-l)/l), a column (ovxo), a loss expression (dpo(beta=0.1)), or a function in a "
    "file (loss.py:my_loss), which is run to be read"
)


def read_loss(text: str) -> PreferenceStructure | RuleSet:
    """The loss as logic; torch is loaded only for what is code.

    Raises:
        ParseError: The text is in no language; the message of the reader that got further is given.
        DerivationError: The loss has no reading.
    """
    if ":" in text:  # no equation and no loss expression has a colon
        from ..compiler import derive_target

        return derive_target(text)
    from ..logic import RuleSet, as_rules, catalogue

    entry = catalogue.get(text)
    if entry is not None:
        return RuleSet(entry.rules.rules, entry.name)
    try:
        return as_rules(text, "loss")
    except ParseError as error:
        if "(" not in text:
            raise
        from ..compiler import derive
        from ..losses import parse_loss

        try:
            loss = parse_loss(text)
        except PrefalignError as other:
            # No equation has these; else the message of the reader that got further is the one that helps.
            further = any(sign in text for sign in "='\"") or getattr(other, "position", 0) > error.position
            raise (other if further else error) from None
        return derive(loss)
