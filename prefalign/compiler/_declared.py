"""Losses of our own say which structure they were compiled from; their code decides whether that is true.

Code shows a ratio only, and several structures may have it: w*l over w*(1 - l) computes what l over 1 - l does. Where
the ratio that was derived from the code is the declared structure's, the declared one is the representative that
`derive` returns, after the same check against the code; from foreign code the coprime one is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import replace

import sympy as sp

from ..logic import LINKS, Link, PreferenceStructure, Rule, TwoRatioRule, original, same_ratio
from ..losses import Loss, WeightedSum
from .lowering import GroupLoss, LogicLoss
from .reading import Reading
from .symbols import _symbols as sy

Compiled = LogicLoss | GroupLoss
CONSTANT = "Top and bottom are the same: ρ is 0 and the loss a constant. The structure is the one it was compiled from."


def compiled_parts(loss: object) -> Iterator[Compiled]:
    """The compiled losses in a loss: itself, a term of a sum, or what a wrapper wraps."""
    if isinstance(loss, Compiled):
        yield loss
    elif isinstance(loss, WeightedSum):
        for _, term in loss.parts:
            yield from compiled_parts(term)
    elif isinstance(loss, Loss):
        for field in dataclasses.fields(loss):
            yield from compiled_parts(getattr(loss, field.name))


def with_declared(found: Reading, loss: object) -> Reading:
    """`found` with the declared structures in the place of others of the same ratio; to be checked by the caller."""
    parts = [*compiled_parts(loss)]
    rules, meanings = list(found.rules), list(found.meanings)
    for i, rule in enumerate(rules):
        if isinstance(rule, TwoRatioRule):
            continue
        fitting = [new for part in parts if (new := _as_declared(rule, meanings[i], part)) is not None]
        if fitting and all(new[0] == fitting[0][0] for new in fitting):
            rules[i], meanings[i] = fitting[0]
    return replace(found, rules=tuple(rules), meanings=tuple(meanings))


def _as_declared(
    rule: Rule, meaning: Mapping[str, sp.Expr], part: Compiled
) -> tuple[Rule, Mapping[str, sp.Expr]] | None:
    """The rule with the part's structure, and what its atoms mean, if that has the rule's ratio, or one over it."""
    structure = declared_structure(part)
    claimed = _meanings(structure, part)
    if any(claimed.get(atom, logp) != logp for atom, logp in meaning.items()):
        return None
    if same_ratio(structure, rule.structure):
        return replace(rule, structure=structure), claimed
    if rule.link.direction == "turning" and same_ratio(structure.negated(), rule.structure):
        rho = sp.Symbol("rho")
        turned = rule.link.expression.subs(rho, -rho)
        name = next((known.name for known in LINKS.values() if sp.expand(known.expression - turned) == 0), None)
        return replace(rule, structure=structure, link=Link(turned, "turning", name or "a link of its own")), claimed
    return None


def declared_structure(loss: Compiled) -> PreferenceStructure:
    """The structure that the loss says it has, with its reference."""
    small = loss.structure.reduced
    return small.with_reference() if isinstance(loss, LogicLoss) and loss.reference else small


def _meanings(structure: PreferenceStructure, loss: Compiled) -> Mapping[str, sp.Expr]:
    if isinstance(loss, GroupLoss):
        return {atom: sp.Symbol(atom.upper(), negative=True) for atom in structure.reduced.atoms}
    logps = {atom: (sy.LOGPS[original(atom)], sy.COUNTS[original(atom)]) for atom in structure.reduced.atoms}
    return {atom: logp / count if loss.mean else logp for atom, (logp, count) in logps.items()}


def claimed_reading(loss: object, name: str) -> Reading | None:
    """What a compiled loss says it is, still unchecked; None for any other loss."""
    if not isinstance(loss, Compiled):
        return None
    structure = declared_structure(loss)
    link = LINKS.get(loss.link) or Link(_OTHER_LINKS[loss.link], "decreasing", "a link of its own")
    values = {} if loss.beta is None else {"beta": loss.beta}
    notes = (CONSTANT,) if structure.top_mask == structure.bottom_mask else ()
    return Reading((Rule(structure, link),), name, (_meanings(structure, loss),), values, notes=notes)


_RHO, _BETA = sp.symbols("rho beta")
_OTHER_LINKS = {"scaled_hinge": sp.Max(0, 1 - _BETA * _RHO), "exponential": sp.exp(-_BETA * _RHO)}
