"""`prefalign soup`: average checkpoints into one."""

from __future__ import annotations

import argparse
import json
import sys
import warnings


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "ingredients", nargs="+", metavar="MODEL", help="checkpoint or LoRA folder, or Hub id (id@revision)"
    )
    parser.add_argument("-o", "--out", required=True, help="new folder for the soup")
    parser.add_argument("--weights", help="numbers that sum to 1, separated by commas (default: equal)")
    parser.add_argument(
        "--way",
        default="average",
        choices=["average", "greedy", "slerp", "learned"],
        help="how the weights are chosen; greedy and learned need --data",
    )
    parser.add_argument("--data", help="held-out pairs: a file, a folder or a Hub data set; measures the soup, too")
    parser.add_argument("--split", default="train", help="split of --data (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="use the first LIMIT rows of --data")
    parser.add_argument("--base", help="model under the adapters, where it is not the one that they name")
    parser.add_argument("--merge", action="store_true", help="write a whole model even where an adapter would do")
    parser.add_argument(
        "--max-shard-size", default="5GB", help="size of one file at most, such as 500MB (default: 5GB)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Write the soup and say what it is made of."""
    from dataclasses import asdict

    from ..references import soup

    with warnings.catch_warnings():
        warnings.showwarning = _to_stderr
        report = soup(
            args.ingredients,
            out=args.out,
            weights=None if args.weights is None else numbers(args.weights),
            way=args.way,
            data=None if args.data is None else held_out_rows(args.data, args.split, args.limit),
            base=args.base,
            merge=args.merge,
            max_shard_size=_bytes(args.max_shard_size),
        )
    print(json.dumps(asdict(report) | {"out": str(report.out)}, ensure_ascii=False) if args.json else report)
    return 0


def numbers(text: str) -> list[float]:
    """Numbers between commas.

    Raises:
        ConfigError: One of them is not a number.
    """
    from .._errors import ConfigError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"`--weights` must be numbers separated by commas (got {text!r}).") from None


def held_out_rows(data: str, split: str, limit: int | None) -> list[dict[str, object]]:
    """Rows of a data set of pairs.

    Raises:
        DataError: It cannot be read.
    """
    from .._errors import ConfigError
    from ..data import load_pairs

    if limit is not None and limit < 1:
        raise ConfigError(f"`--limit` must be 1 or more (got {limit}).")
    rows = load_pairs(data, split=split)
    return [dict(row) for row in (rows if limit is None else rows.select(range(min(limit, len(rows)))))]


def _bytes(text: str) -> int:
    from .._errors import ConfigError

    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1}
    unit = next((unit for unit in units if text.upper().endswith(unit)), "")
    try:
        size = int(float(text[: len(text) - len(unit)]) * units[unit or "B"])
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise ConfigError(f"`--max-shard-size` must be a size such as 500MB or 5GB (got {text!r}).")
    return size


def _to_stderr(message: Warning | str, *_: object, **__: object) -> None:
    print(f"prefalign soup: warning: {message}", file=sys.stderr)
