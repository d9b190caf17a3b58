"""`prefalign compare LOSS LOSS ...`: how losses relate by preference entailment."""

from __future__ import annotations

import argparse
import json

from ._arguments import LOSS_HELP, read_loss


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("losses", metavar="LOSS", nargs="+", help=LOSS_HELP)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    from ..logic import compare

    found = compare(*map(read_loss, args.losses), names=tuple(map(_title, args.losses)))
    print(json.dumps(found.as_dict(), ensure_ascii=False, indent=2) if args.json else found)
    return 0


def _title(text: str) -> str:
    from ..logic import catalogue

    entry = catalogue.get(text)
    return text.strip() if entry is None else str(entry.name)
