"""`prefalign compare LOSS LOSS ...`: how losses relate by preference entailment."""

from __future__ import annotations

import argparse
import json


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("losses", metavar="LOSS", nargs="+", help="a name such as dpo, an equation, or a column: ovxo")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    from ..logic import compare

    found = compare(*args.losses)
    print(json.dumps(found.as_dict(), ensure_ascii=False, indent=2) if args.json else found)
    return 0
