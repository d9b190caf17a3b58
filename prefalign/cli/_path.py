"""`prefalign path`: loss and reward between checkpoints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "checkpoints", nargs="+", metavar="MODEL", help="two or three checkpoints, LoRA folders or Hub ids"
    )
    parser.add_argument("--data", required=True, help="held-out pairs: a file, a folder or a Hub data set")
    parser.add_argument("--split", default="train", help="split of --data (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="use the first LIMIT rows of --data")
    parser.add_argument("--points", type=int, help="averages along an edge (default: 11 for two models, 6 for three)")
    parser.add_argument("--reward", choices=["vader"], help="gold reward of greedy completions of the prompts")
    parser.add_argument("--new-tokens", type=int, default=32, help="their length in tokens (default: %(default)s)")
    parser.add_argument("--base", help="model under the adapters, where it is not the one that they name")
    parser.add_argument("-o", "--out", help="plot: a .png, .svg or .pdf file")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure, print, draw."""
    from ..references import path
    from ._soup import held_out_rows

    if args.out is not None:
        from ..references import check_plot

        check_plot(args.out)
    landscape = path(
        args.checkpoints,
        held_out_rows(args.data, args.split, args.limit),
        points=args.points or (11 if len(args.checkpoints) == 2 else 6),
        reward=None if args.reward is None else _vader,
        new_tokens=args.new_tokens,
        base=args.base,
    )
    if args.out is not None:
        from ..references import draw_path

        draw_path(landscape, args.out)
    if args.json:
        print(json.dumps(asdict(landscape) | {"barrier": landscape.barrier, "connected": landscape.connected}))
    else:
        print(landscape)
    return 0


def _vader(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    from ..diagnose import gold_rewards

    return gold_rewards(completions)
