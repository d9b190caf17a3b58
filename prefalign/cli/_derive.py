"""`prefalign derive LOSS`: the preference structure of an equation or of a named loss."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from ._arguments import LOSS_HELP, add_roles, read_loss, read_roles

if TYPE_CHECKING:
    from ..logic import AnyRule, PreferenceStructure

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
    from ..logic import PreferenceStructure, Rule, RuleSet, catalogue

    # A name or code brings links and weights; a bare equation says nothing of a link.
    loss, entry = read_loss(args.loss, read_roles(args.roles)), catalogue.get(args.loss)
    bare = isinstance(loss, PreferenceStructure)
    rules = (Rule(loss),) if isinstance(loss, PreferenceStructure) else loss.rules
    if args.reference:
        rules = tuple(map(_with_reference, rules))
    if args.json:
        described = [_described(rule, bare) for rule in rules]
        head = {} if entry is None else {"name": entry.name, "paper": entry.paper, "note": entry.note}
        print(json.dumps({"loss": args.loss, **head, "rules": described}, ensure_ascii=False, indent=2))
        return 0
    if args.latex:
        for structure in (structure for rule in rules for structure in rule.structures):
            for name in ("P", "P_C", "P_A"):
                print(f"{name} = {getattr(structure, name).latex}")
        return 0
    if entry is not None:
        print(f"{entry.name} ({entry.paper})\n")
    for number, rule in enumerate(rules):
        if len(rules) > 1 or not bare:
            print(f"{'rule ' + str(number + 1) + ': ' if len(rules) > 1 else ''}{RuleSet((rule,))}")
        print("\n\n".join(map(_page, rule.structures)), end="\n\n" if number + 1 < len(rules) else "\n")
    if entry is not None and entry.note:
        print(f"\nNote: {entry.note}.")
    return 0


def _with_reference(rule: AnyRule) -> AnyRule:
    from ..logic import Rule

    if isinstance(rule, Rule):
        return replace(rule, structure=rule.structure.with_reference())
    return replace(rule, first=rule.first.with_reference(), second=rule.second.with_reference())


def _described(rule: AnyRule, bare: bool) -> dict[str, object]:
    from ..logic import Rule, describe

    said: dict[str, object] = (
        describe(rule.structure)
        if isinstance(rule, Rule)
        else {"first": describe(rule.first), "second": describe(rule.second), "inner": str(rule.inner)}
    )
    link = {} if bare else {"link": str(rule.link), "weight": str(rule.weight)}
    return said | link | ({} if rule.guard is None else {"guard": str(rule.guard)})


def _page(structure: PreferenceStructure) -> str:
    from ..logic import catalogue, show

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
