"""`prefalign derive LOSS`: the preference structure of an equation or of a named loss."""

from __future__ import annotations

import argparse
import json

from ._arguments import LOSS_HELP, add_roles, read_loss, read_roles

# Truth tables over more atoms than this are no help on a terminal.
_TABLE_ATOMS = 4


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("loss", metavar="LOSS", help=LOSS_HELP)
    add_roles(parser)
    parser.add_argument("--reference", action="store_true", help="the reference form: top ∧ R(l), bottom ∧ R(w)")
    parser.add_argument("--latex", action="store_true", help="print P, P_C and P_A in LaTeX only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Derive and print."""
    from ..logic import PreferenceStructure, Rule, RuleSet, catalogue, describe

    # A name or code brings links and weights; a bare equation says nothing of a link.
    loss, entry = read_loss(args.loss, read_roles(args.roles)), catalogue.get(args.loss)
    bare = isinstance(loss, PreferenceStructure)
    rules = (Rule(loss),) if isinstance(loss, PreferenceStructure) else loss.rules
    if args.reference:
        rules = tuple(Rule(rule.structure.with_reference(), rule.link, rule.weight, rule.guard) for rule in rules)
    if args.json:
        described = [
            describe(rule.structure)
            | ({} if bare else {"link": str(rule.link), "weight": str(rule.weight)})
            | ({} if rule.guard is None else {"guard": str(rule.guard)})
            for rule in rules
        ]
        head = {} if entry is None else {"name": entry.name, "paper": entry.paper, "note": entry.note}
        print(json.dumps({"loss": args.loss, **head, "rules": described}, ensure_ascii=False, indent=2))
        return 0
    if args.latex:
        for rule in rules:
            for name in ("P", "P_C", "P_A"):
                print(f"{name} = {getattr(rule.structure, name).latex}")
        return 0
    if entry is not None:
        print(f"{entry.name} ({entry.paper})\n")
    for number, rule in enumerate(rules):
        if len(rules) > 1 or not bare:
            print(f"{'rule ' + str(number + 1) + ': ' if len(rules) > 1 else ''}{RuleSet((rule,))}")
        print(_page(rule.structure), end="\n\n" if number + 1 < len(rules) else "\n")
    if entry is not None and entry.note:
        print(f"\nNote: {entry.note}.")
    return 0


def _page(structure: object) -> str:
    from ..logic import PreferenceStructure, catalogue, show

    assert isinstance(structure, PreferenceStructure)
    name = catalogue.name_of(structure)
    facts = {
        "P": structure.P,
        "P_C": structure.P_C,
        "P_A": structure.P_A,
        "shortest P": structure.shortest_P,
        "ratio": show(structure.ratio) if structure.bottom_mask else "infinite or undefined",
        "rows": structure.rows if len(structure.atoms) <= _TABLE_ATOMS else f"{1 << len(structure.atoms)} of them",
        **({"known as": name} if name else {}),
    }
    lines = [f"{key:10}  {value}" for key, value in facts.items()]
    if len(structure.atoms) <= _TABLE_ATOMS:
        lines += ["", structure.table()]
    return "\n".join(lines)
