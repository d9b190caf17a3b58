"""`prefalign compare LOSS LOSS ...`: how losses relate by preference entailment."""

from __future__ import annotations

import argparse
import json

from ._arguments import LOSS_HELP, add_output, read_loss, write_pictures


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("losses", metavar="LOSS", nargs="+", help=LOSS_HELP)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    from ..logic import compare, explain

    losses = [read_loss(text) for text in args.losses]
    found = compare(*losses, names=tuple(map(_title, args.losses)))
    if args.output:
        shown = [explain(loss, title=_title(text)) for loss, text in zip(losses, args.losses, strict=True)]
        write_pictures(shown, args.output, args.at, str(found).splitlines())
        return 0
    print(json.dumps(found.as_dict(), ensure_ascii=False, indent=2) if args.json else found)
    return 0


def _title(text: str) -> str:
    from ..logic import catalogue

    entry = catalogue.get(text)
    return text.strip() if entry is None else str(entry.name)
