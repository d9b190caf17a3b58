"""A loss on the command line: a name, an equation, a column, a loss expression, or a function in a file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .._errors import ConfigError, ParseError, PrefalignError, SpecError

if TYPE_CHECKING:
    from ..logic import Explanation, PreferenceStructure, RuleSet

LOSS_HELP = (
    "a name (cpo), an equation (w*(1-l)/l), a column (ovxo), a loss expression (dpo(beta=0.1)), or a function in a "
    "file (loss.py:my_loss), which is run to be read"
)


def add_roles(parser: argparse.ArgumentParser) -> None:
    """Declare `--roles`."""
    parser.add_argument(
        "--roles",
        nargs="+",
        default=[],
        metavar="NAME=ROLE",
        help="what names in a function mean that do not say it, as in rej_logps=l: w, l, rw, rl (log-probabilities, r: "
        "the reference's), mean_w, prob_w, ratio_w, n_w and the like",
    )


def read_roles(words: Sequence[str]) -> dict[str, str]:
    """What `--roles` gave.

    Raises:
        ConfigError: A word is not NAME=ROLE.
    """
    found = {}
    for word in words:
        name, equals, role = word.partition("=")
        if not (name and equals and role):
            raise ConfigError(f"`--roles` takes NAME=ROLE, as in rej_logps=l (got {word!a:.60}).")
        found[name] = role
    return found


def read_loss(text: str, roles: Mapping[str, str] | None = None) -> PreferenceStructure | RuleSet:
    """The loss as logic; torch is loaded only for what is code.

    Args:
        text: As `LOSS_HELP` says.
        roles: What names in a function mean.

    Raises:
        ParseError: The text is in no language; the message of the reader that got further is given.
        DerivationError: The loss has no reading.
    """
    if ":" in text:  # no equation and no loss expression has a colon
        from ..compiler import derive_target

        return derive_target(text, roles)
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


def add_output(parser: argparse.ArgumentParser) -> None:
    """Declare `-o` and `--at`, for pictures and pages of losses."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="draw the loss over the two probabilities: .svg, .png, .pdf, or an .html page",
    )
    parser.add_argument(
        "--at",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="in pictures, another probability (rw=0.3; default 0.5) or a hyperparameter (beta=0.1; default 1)",
    )


def write_pictures(shown: Sequence[Explanation], output: str, at: Sequence[str], notes: Sequence[str] = ()) -> None:
    """Draw losses side by side into a picture or a page, and say where.

    Raises:
        SpecError: The file's ending, its folder or a value is wrong.
    """
    from ..logic import draw_fields

    values = dict(_value(each) for each in at)
    path = Path(output)
    if path.suffix.lower() in (".html", ".htm"):
        from ..explore import explanation_page

        if not path.parent.is_dir():
            raise SpecError(f"`--output` must lie in a folder that exists (got {output!r}).")
        path.write_text(explanation_page(shown, at=values, notes=notes), "utf-8")
    else:
        draw_fields([pair for each in shown for pair in each.titled], path, values)
    print(f"wrote {path}")


def _value(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name.strip(), float(number)
    except ValueError:
        raise SpecError(f"`--at` must be NAME=VALUE, as in --at rw=0.3 (got {text!r}).") from None
