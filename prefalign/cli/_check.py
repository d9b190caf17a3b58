"""`prefalign check DATA`: what training would trip over, before any weights load."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from .._errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("data", metavar="DATA", help=".jsonl, .json, .csv or .parquet file, saved folder, or Hub name")
    parser.add_argument("--tokenizer", metavar="NAME_OR_PATH", help="the model's tokenizer; without it, texts only")
    parser.add_argument("--max-length", type=int, metavar="N", help="longest sequence that training keeps, in tokens")
    parser.add_argument("--truncation-mode", choices=["keep_start", "keep_end"], default="keep_start")
    parser.add_argument("--split", default="train", help="which split, where there are several (default: train)")
    parser.add_argument("--subset", help="which configuration of a data set on the Hub")
    parser.add_argument("--limit", type=int, metavar="N", help="check only the first N rows")
    parser.add_argument("--rows", type=int, default=5, metavar="N", help="row numbers to show per finding (default: 5)")
    parser.add_argument(
        "--on-bad-pairs",
        choices=["drop", "error"],
        default="drop",
        help="error: exit with code 2 where any row cannot be trained on (default: drop)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Check, print, and return 0, or 2 where the data cannot be trained on."""
    from ..data import check_pairs, load_pairs

    if args.max_length is not None and args.tokenizer is None:
        raise DataError(
            f"`--max-length` counts tokens, so it would have no effect (got {args.max_length} without a tokenizer). "
            "Add `--tokenizer NAME_OR_PATH`."
        )
    pairs = load_pairs(args.data, split=args.split, subset=args.subset)
    report = check_pairs(
        pairs,
        _tokenizer(args.tokenizer) if args.tokenizer is not None else None,
        max_length=args.max_length,
        truncation_mode=args.truncation_mode,
        limit=args.limit,
        keep_rows=args.rows,
    )
    print(json.dumps(report.to_json(), indent=2, ensure_ascii=False) if args.json else report)
    refused = report.unusable or (args.on_bad_pairs == "error" and report.dropped > 0)
    return 2 if refused else 0


def _tokenizer(name: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except Exception as error:  # a dozen kinds, by what is missing or damaged
        first = (str(error).strip().splitlines() or [""])[0]
        raise DataError(
            f"`--tokenizer` must name a folder with a tokenizer, or a model on the Hub (got {name!a}): "
            f"{type(error).__name__}: {first}"
        ) from None
