"""`prefalign lattice LOSS ...`: the entailment order of losses, as text, picture, Mermaid or JSON."""

from __future__ import annotations

import argparse
import json

from ._arguments import LOSS_HELP, read_loss


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("losses", metavar="LOSS", nargs="*", help=LOSS_HELP)
    parser.add_argument("--all", action="store_true", help="the sixteen losses of the authors' figure")
    parser.add_argument("--reference", action="store_true", help="draw the reference forms")
    parser.add_argument("-o", "--output", metavar="FILE", help="draw into a file ending in .svg, .png or .pdf")
    parser.add_argument("--title", default="", help="above the picture")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--mermaid", action="store_true", help="print the diagram in Mermaid's language")
    how.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Order, and print or draw."""
    from .._errors import SpecError
    from ..logic import Lattice, catalogue, describe

    names = [*([entry.name for entry in catalogue.table] if args.all else []), *args.losses]
    if not names:
        raise SpecError("give losses to order, or `--all` for the sixteen of the authors' figure.")
    if args.title and not args.output:
        raise SpecError("`--title` stands above a picture, so it would have no effect without `--output FILE`.")
    lattice = Lattice([read_loss(name) if set(name) & {":", "="} else name for name in names])
    if args.reference:
        lattice = Lattice(
            {f"{name}-ref": s if s.needs_reference else s.with_reference() for name, s in lattice.nodes.items()}
        )
    drawn = str(lattice.draw(args.output, title=args.title)) if args.output else None
    if args.json:
        nodes = {name: {"rank": lattice.ranks[name], **describe(s)} for name, s in lattice.nodes.items()}
        found = {"nodes": nodes, "edges": [list(edge) for edge in lattice.edges], "drawn": drawn}
        print(json.dumps(found, ensure_ascii=False, indent=2))
    elif args.mermaid:
        print(lattice.mermaid())
    elif drawn:
        print(f"{drawn}: {len(lattice)} structures, {len(lattice.edges)} edges")
    else:
        print(lattice)
    return 0
