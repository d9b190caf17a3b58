"""`prefalign generate SPEC`: the losses that a specification allows, counted or listed, the simplest first."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .._errors import SpecError

if TYPE_CHECKING:
    from ..logic import Candidate, Specification

_HEAD = ("rows", "shortest P", "P_C", "P_A", "ratio", "literals", "summed log-probs", "known as")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "spec",
        metavar="SPEC",
        help='text such as "between cpo and unCPO; monotone; max literals 6", or a .yaml, .yml or .json file',
    )
    parser.add_argument("--count", action="store_true", help="print only how many there are")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="how many to print (default: 20)")
    parser.add_argument(
        "--by",
        default="literals",
        metavar="KEYS",
        help="what to rank by, comma-separated: literals, "
        "distance, survives_sum, no_collapse, no_displacement, bounded, new",
    )
    parser.add_argument("--near", metavar="LOSS", help="measure distances from this loss")
    parser.add_argument("--sample", action="store_true", help="draw N uniformly instead of the simplest")
    parser.add_argument("--seed", type=int, default=0, help="seed of --sample (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Generate and print."""
    from ..logic import count, parse_spec, rank, read_spec, sample

    if args.top < 0:
        raise SpecError(f"`--top` must be >= 0 (got {args.top}).")
    spec = read_spec(args.spec) if Path(args.spec).suffix in (".yaml", ".yml", ".json") else parse_spec(args.spec)
    if args.count:
        number = count(spec)
        print(json.dumps({"spec": str(spec), "count": number}) if args.json else number)
        return 0
    keys = tuple(key.strip() for key in args.by.split(","))
    source = sample(spec, args.top, args.seed) if args.sample else spec
    found = rank(source, by=keys, near=args.near, top=args.top)
    total = _total(spec)
    if args.json:
        document = {"spec": str(spec), "count": total, "structures": [candidate.as_dict() for candidate in found]}
        print(json.dumps(document, ensure_ascii=False, indent=2))
        return 0
    print(_table(found))
    shown = "an unknown number" if total is None else f"{total:,}"
    print(f"\n{len(found)} of {shown} that satisfy: {spec}")
    return 0


def _total(spec: Specification) -> int | None:
    """The count, or None where it would take what is not installed or too long."""
    from ..logic import count

    try:
        return count(spec)
    except SpecError:
        return None


def _table(candidates: list[Candidate]) -> str:
    head = _HEAD if all(candidate.distance is None for candidate in candidates) else (*_HEAD, "distance")
    lines = [head, *(_cells(candidate)[: len(head)] for candidate in candidates)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([shown[0], "  ".join("─" * width for width in widths), *shown[1:]])


def _cells(candidate: Candidate) -> tuple[str, ...]:
    said = candidate.as_dict()
    structure = candidate.structure
    return (
        structure.rows if len(structure.atoms) <= 4 else f"{len(structure.atoms)} atoms",
        str(structure.shortest_P),
        str(structure.P_C),
        str(structure.P_A),
        str(said["ratio"] or "infinite"),
        str(candidate.literals),
        str(said["summed"]),
        ", ".join((*candidate.known.structure, *(f"{name} (by ratio)" for name in candidate.known.ratio))) or "-",
        str(candidate.distance),
    )
