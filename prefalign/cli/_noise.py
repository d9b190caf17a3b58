"""`prefalign noise DATA --model M`: how many labels are flipped, and which pairs look it."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

    from ..diagnose import Noise

_SUFFIXES = (".jsonl", ".parquet")
_TARGETS = ("out", "drop", "downweight")
# In the text of a pair the quotes would be escaped.
_DECIDED = re.compile(rb'"decision"\s*:\s*"\s*[^"\s]')


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("data", metavar="DATA", help=".jsonl, .json, .csv or .parquet file, saved folder, or Hub name")
    parser.add_argument(
        "--model", required=True, metavar="M", help="whose hidden states describe the texts: a folder, or a Hub name"
    )
    parser.add_argument("--out", metavar="FILE", help="write the suspicious pairs here, for review (JSON Lines)")
    parser.add_argument("--count", type=int, default=50, metavar="N", help="how many suspicious pairs (default: 50)")
    parser.add_argument("--reviewed", metavar="FILE", help="an earlier --out with decisions: keep, drop or swap")
    parser.add_argument("--drop", metavar="FILE", help="write the data without the pairs that are probably flipped")
    parser.add_argument(
        "--downweight",
        "--down-weight",
        metavar="FILE",
        help="write the data with a column `weight`, the probability that the label is right, which training reads",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, metavar="P", help="suspicion from which --drop drops (default: 0.5)"
    )
    parser.add_argument("--layer", type=int, metavar="L", help="layer whose output is read (default: the middle one)")
    parser.add_argument("--max-length", type=int, default=1024, metavar="N", help="tokens read (default: 1024)")
    parser.add_argument("--split", default="train", help="which split, where there are several (default: train)")
    parser.add_argument("--subset", help="which configuration of a data set on the Hub")
    parser.add_argument("--cache", default="runs/noise", metavar="DIR", help="keeps features (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the folds, where there are any (default: 0)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Estimate, rank, write what was asked for, and return 0; 1 where the pairs cannot tell."""
    _check(args)
    import numpy as np

    from ..data import check_pairs, load_pairs
    from ..diagnose import check_review, list_suspects, measure_noise, read_review, write_suspects

    review = read_review(args.reviewed) if args.reviewed else {}
    pairs = load_pairs(args.data, split=args.split, subset=args.subset)
    report = check_pairs(pairs, winners_only=False, progress=not args.json)
    report.raise_if_unusable()
    rows = np.setdiff1d(np.arange(len(pairs)), report.bad_rows)
    kept = pairs.select(rows) if report.dropped else pairs
    check_review(review, kept, rows.tolist())
    decisions = {row: suspect["decision"] for row, suspect in review.items()}
    noise = measure_noise(
        kept, args.model, layer=args.layer, max_length=args.max_length, cache=args.cache, seed=args.seed
    )
    # Repeated labels tell the rate, but which pairs are flipped only the margins do.
    if not noise.margins.can_tell and (args.drop or args.downweight) and not decisions:
        raise DataError(f"{noise}\nSo no pair is dropped or weighed down: that would be guesswork.")
    suspects = list_suspects(kept, noise, args.count, rows.tolist())
    if args.out:
        write_suspects(args.out, suspects)
    written = {}
    for kind in ("drop", "downweight"):
        target = getattr(args, kind)
        if target:
            changed = _changed(kept, noise, rows.tolist(), decisions, kind, args)
            _write(changed, Path(target))
            written[kind] = {"file": target, "pairs": len(changed)}
    if args.json:
        shown = {"pairs": len(kept), "unusable": report.dropped, **noise.to_json(), "written": written}
        print(json.dumps({**shown, "suspects": suspects}, indent=2, ensure_ascii=False))
    else:
        _print(noise, suspects, args, written, len(pairs) - len(kept))
    return 0 if noise.taken is not None else 1


def _check(args: argparse.Namespace) -> None:
    if args.count < 1:
        raise DataError(f"`--count` must be at least 1 (got {args.count}).")
    if not 0 < args.threshold < 1:
        raise DataError(f"`--threshold` must lie between 0 and 1 (got {args.threshold:g}).")
    if args.seed < 0:
        raise DataError(f"`--seed` must be >= 0 (got {args.seed}).")
    if args.reviewed and not (args.drop or args.downweight):
        raise DataError("`--reviewed` would have no effect: add `--drop FILE` or `--downweight FILE`.")
    for name in ("drop", "downweight"):
        target = getattr(args, name)
        if target and Path(target).suffix.lower() not in _SUFFIXES:
            raise DataError(f"`--{name}` must end in {' or '.join(_SUFFIXES)} (got {target!r}).")
    _check_targets(args)


def _check_targets(args: argparse.Namespace) -> None:
    """Nothing is written over the data, over a review, or over what the same call writes."""
    used = {"the data itself": args.data, "the file of `--reviewed`": args.reviewed}
    for name in _TARGETS:
        target = getattr(args, name)
        if not target:
            continue
        for what, other in used.items():
            if other and _same(target, other):
                raise DataError(f"`--{name}` must not be {what} ({target}). Name another file.")
        if os.path.isdir(target):
            raise DataError(f"`--{name}` must be a file (got the folder {target}).")
        if os.path.isdir(args.data) and Path(os.path.realpath(args.data)) in Path(os.path.realpath(target)).parents:
            raise DataError(f"`--{name}` must not lie in the folder of the data ({target}). Name another file.")
        decided = _decided(target)
        if decided:
            raise DataError(
                f"`--{name}` would write over {target}, which holds decisions ({decided}). Name another file."
            )
        used[f"the file of `--{name}`"] = target


def _same(one: str, other: str) -> bool:
    """Whether two paths, links followed, lead to one file, be it there yet or not."""
    try:
        return os.path.realpath(one) == os.path.realpath(other) or os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them is not there, so that its name alone tells
        return False


def _decided(path: str) -> int:
    """How many lines hold a decision, also of a list that a slip of the pen has made unreadable."""
    if not os.path.isfile(path):
        return 0
    try:
        with open(path, "rb") as lines:
            return sum(b'"row"' in line and bool(_DECIDED.search(line)) for line in lines)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Does it hold decisions?") from None


def _changed(
    pairs: Dataset, noise: Noise, rows: list[int], decisions: dict[int, str], kind: str, args: argparse.Namespace
) -> Dataset:
    """The pairs that are kept, those to be swapped the other way round; decisions go before suspicions."""
    import numpy as np

    from ..data import pair_weights

    suspicion = noise.margins.suspicion if noise.margins.can_tell else np.zeros(len(rows))
    keep = suspicion < args.threshold if kind == "drop" else np.ones(len(rows), dtype=bool)
    trust = 1.0 - suspicion
    for place, row in enumerate(rows):
        if row in decisions:
            keep[place] = decisions[row] != "drop"
            trust[place] = 1.0
    swapped = [decisions.get(rows[place]) == "swap" for place in np.flatnonzero(keep)]
    kept = pairs.select(np.flatnonzero(keep))
    if kind == "downweight":
        earlier = pair_weights(kept)
        weights = trust[keep] if earlier is None else trust[keep] * earlier
        kept = kept.remove_columns("weight") if earlier is not None else kept
        kept = kept.add_column("weight", [round(float(weight), 6) for weight in weights])
    return kept.map(_swap(swapped), with_indices=True) if any(swapped) else kept


def _swap(swapped: list[bool]) -> Any:
    def swap(row: dict[str, Any], index: int) -> dict[str, Any]:
        if not swapped[index]:
            return row
        turned = {name.replace("chosen", "rejected"): value for name, value in row.items() if "chosen" in name}
        turned |= {name.replace("rejected", "chosen"): value for name, value in row.items() if "rejected" in name}
        if isinstance(row.get("flipped"), int):  # what `flip_labels` wrote, a bool, keeps telling the truth
            turned["flipped"] = type(row["flipped"])(not row["flipped"])
        return {**row, **{name: value for name, value in turned.items() if name in row}}

    return swap


def _write(pairs: Dataset, path: Path) -> None:
    import io

    from ..diagnose import write_atomically

    stream = io.BytesIO()
    if path.suffix.lower() == ".parquet":
        pairs.to_parquet(stream)
    else:
        for row in pairs:
            stream.write((json.dumps(row, ensure_ascii=False, default=str) + "\n").encode("utf-8", "replace"))
    write_atomically(path, stream.getvalue())


def _print(
    noise: Noise, suspects: list[dict[str, Any]], args: argparse.Namespace, written: dict[str, Any], unusable: int
) -> None:
    if unusable:
        print(f"{unusable} rows cannot be trained on and were left out; `prefalign check` says why.")
    print(noise)
    if noise.taken is None:
        print("No number is taken: give one yourself, or gather labels twice for some pairs.")
    else:
        rate, low, high, source = noise.taken
        print(f"Taken: {rate:.3f} [{low:.3f}, {high:.3f}], from {source}.")
        print(f"Train on the data as they stand with: robust(dpo(beta=0.1), flip_rate={rate:.2g})")
    if args.out:
        print(f"The {len(suspects)} most suspicious pairs: {args.out}")
    else:
        told = noise.margins.can_tell
        what = (
            "The most suspicious pairs"
            if told
            else "The pairs that contradict the reward most, how surely is not known"
        )
        print(f"{what} (--out FILE writes {len(suspects)}):")
        for suspect in suspects[:5]:
            certain = f", suspicion {suspect['suspicion']:.2f}" if told else ""
            print(f"  row {suspect['row']}{certain}: {suspect['evidence']}")
            for side in ("chosen", "rejected"):
                print(f"    {side:<9}{str(suspect[side])[:90]!r}")
    for kind, one in written.items():
        print(f"Written ({kind}): {one['pairs']} pairs to {one['file']}")
