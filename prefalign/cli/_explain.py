"""`prefalign explain LOSS`: what a loss means and how it behaves, on a page."""

from __future__ import annotations

import argparse
import json
import re
from typing import TYPE_CHECKING

from .._errors import PrefalignError
from ._arguments import add_output, add_roles, read_roles, write_pictures

if TYPE_CHECKING:
    from ..compiler import Reading
    from ..logic import Explanation, PreferenceStructure, RuleSet


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "loss",
        metavar="LOSS",
        help="a name (cpo), an equation (w*(1-l)/l), a column (ovxo), a loss expression (dpo(beta=0.1)), or a function "
        "in a file (loss.py:my_loss), which is run to be read",
    )
    add_roles(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Explain and print; of code, also what the reading noticed."""
    found, reading = _from_file(args.loss, args.roles) if _names_a_function(args.loss) else _from_text(args.loss)
    if args.output:
        write_pictures([found], args.output, args.at, [] if reading is None else reading.remarks)
        return 0
    if args.json:
        noticed = {} if reading is None else _noticed(reading)
        print(json.dumps({**found.as_dict(), **noticed}, ensure_ascii=False, indent=2))
        return 0
    print(found._repr_markdown_() if args.markdown else found)
    if reading is not None:
        print("\n#### As code\n" if args.markdown else "\nAs code\n-------\n")
        for remark in reading.remarks:
            print(f"- {remark}")
    return 0


def _noticed(reading: Reading) -> dict[str, object]:
    """What the reading says beyond the page, as JSON takes it."""
    return {
        "remarks": list(reading.remarks),
        "hyperparameters": dict(reading.hyperparameters),
        "meanings": [{atom: str(logp) for atom, logp in meaning.items()} for meaning in reading.meanings],
        "batch": list(reading.batch),
    }


def _names_a_function(text: str) -> bool:
    """Whether it is path/to/file.py:name; no formula, equation or loss expression has a colon."""
    return ":" in text


def _from_file(target: str, roles: list[str]) -> tuple[Explanation, Reading | None]:
    from ..compiler import derive_target  # torch, only for code

    return _of_code(derive_target(target, read_roles(roles)), target)


def _of_code(found: PreferenceStructure | RuleSet, title: str) -> tuple[Explanation, Reading | None]:
    from ..compiler import Reading
    from ..logic import explain

    return explain(found, title=title), found if isinstance(found, Reading) else None


def _from_text(text: str) -> tuple[Explanation, Reading | None]:
    from ..logic import explain

    try:
        return explain(text), None
    except PrefalignError as error:
        if "(" not in text:
            raise
        from ..compiler import derive
        from ..losses import parse_loss

        try:
            loss = parse_loss(text)
        except PrefalignError as other:
            # It is in neither language. Equations call log and exp only; any other call was meant as a loss.
            called = set(re.findall(r"([A-Za-z_]\w*)\s*\(", text))
            raise (other if called - {"log", "exp", "M", "R"} else error) from None
        return _of_code(derive(loss), loss.title)
