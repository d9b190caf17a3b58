"""`prefalign check DATA`: what training would trip over, before any weights load."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .._errors import DataError
from .._files import new_file

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from ..data import DataReport, Estimate


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("data", metavar="DATA", help=".jsonl, .json, .csv or .parquet file, saved folder, or Hub name")
    parser.add_argument("--tokenizer", metavar="NAME_OR_PATH", help="the model's tokenizer; without it, texts only")
    parser.add_argument("--max-length", type=int, metavar="N", help="longest sequence that training keeps, in tokens")
    parser.add_argument("--truncation-mode", choices=["keep_start", "keep_end"], default="keep_start")
    parser.add_argument("--model", metavar="NAME_OR_PATH", help="adds what training it would cost; with its tokenizer")
    parser.add_argument("--batch-size", type=int, metavar="N", help="pairs of a micro-batch (default: 8)")
    parser.add_argument("--tokens-per-batch", type=int, metavar="N", help="most tokens of a micro-batch")
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
    parser.add_argument("--show", type=int, metavar="N", help="print N rows with what is scored marked in colour")
    parser.add_argument(
        "--score",
        choices=["completion", "assistant", "last_turn"],
        help="what `--show` marks, as the option of `train` (default: completion)",
    )
    parser.add_argument("--html", metavar="FILE", help="write what `--show` prints as a page")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Check, print, and return 0, or 2 where the data cannot be trained on."""
    from ..data import check_pairs, load_pairs

    name = args.tokenizer if args.tokenizer is not None else args.model
    for option, least in (("max_length", None), ("batch_size", 1), ("tokens_per_batch", 1)):
        value = getattr(args, option)
        written = f"--{option.replace('_', '-')}"
        if value is not None and name is None:
            raise DataError(
                f"`{written}` counts tokens, so it would have no effect (got {value} without a tokenizer). "
                "Add `--tokenizer NAME_OR_PATH`."
            )
        if value is not None and least is not None and value < least:
            raise DataError(f"`{written}` must be >= {least} (got {value}).")
    _check_show(args, name)
    tokenizer = None if name is None else _tokenizer(name)
    if tokenizer is not None:
        _check_embeddings(args.model or args.tokenizer, tokenizer)
    pairs = load_pairs(args.data, split=args.split, subset=args.subset)
    report = check_pairs(
        pairs,
        tokenizer,
        max_length=args.max_length,
        truncation_mode=args.truncation_mode,
        limit=args.limit,
        keep_rows=args.rows,
    )
    estimate = None if tokenizer is None else _estimate(args, pairs, tokenizer, report)
    if args.json:
        content = report.to_json() | ({} if estimate is None else {"estimate": estimate.to_json()})
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print(report if estimate is None else f"{report}\n\n{estimate}")
    if tokenizer is not None and args.show is not None:
        _show(args, pairs, tokenizer)
    refused = report.unusable or (args.on_bad_pairs == "error" and report.dropped > 0)
    return 2 if refused else 0


def _check_show(args: argparse.Namespace, name: str | None) -> None:
    if args.show is None:
        for option in ("score", "html"):
            if getattr(args, option) is not None:
                raise DataError(f"`--{option}` says how rows are shown, so it would have no effect. Add `--show 3`.")
        return
    if name is None:
        raise DataError("`--show` marks tokens, which needs a tokenizer. Add `--tokenizer NAME_OR_PATH`.")
    if args.show < 1:
        raise DataError(f"`--show` must be >= 1 (got {args.show}).")
    if args.json:
        raise DataError(
            "`--show` and `--json` cannot be combined: one prints text, the other an object. Leave one out."
        )


def _show(args: argparse.Namespace, pairs: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    """Print rows with what is scored; in colour where somebody sees it."""
    from ..data import as_html, as_text, show_pairs

    rows = show_pairs(pairs, tokenizer, args.score or "completion", args.show)
    colour = (sys.stdout.isatty() or "FORCE_COLOR" in os.environ) and "NO_COLOR" not in os.environ
    print(f"\n{as_text(rows, colour)}")
    if args.html is not None:
        with new_file(Path(args.html)) as file:
            file.write_text(as_html(rows), "utf-8")


def _estimate(
    args: argparse.Namespace, pairs: Dataset, tokenizer: PreTrainedTokenizerBase, report: DataReport
) -> Estimate | None:
    """What training would cost; None where the pairs have no two completions to train on."""
    from ..data import SAMPLE, Division, Way, estimate, pair_sizes, sample_tokens

    rows = report.rows - report.dropped
    if report.unusable or report.layout == "winners" or rows == 0 or not hasattr(pairs, "select"):
        return None
    texts = sample_tokens(pairs, tokenizer, SAMPLE)
    if not texts:
        return None
    sizes = pair_sizes(texts, args.max_length, args.truncation_mode)
    division = Division(8 if args.batch_size is None else args.batch_size, 1, args.tokens_per_batch, True)
    if args.model is not None:
        from ..train import estimate_for_model

        return estimate_for_model(args.model, rows, sizes, division)
    return estimate(rows, sizes, Way(division=division, packed=True))


def _check_embeddings(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for; a tokenizer alone has no model beside it."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except Exception:  # a dozen kinds, by what is missing; the estimate says what is wrong with a model
        return
    from ..train import check_vocabulary, embedding_rows

    check_vocabulary(tokenizer, embedding_rows(name, config))


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
