"""The parts of an explanation: what is said of one structure, or of a term with two."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from textwrap import fill
from typing import Any

import sympy

from ..named import known_losses
from ..polynomials import MAX_VARIABLES, show
from ..structures import RHO, PreferenceStructure, TwoRatioRule
from ._behaviour import Behaviour
from ._sentences import gradient_lines, sentences

# Larger truth tables are no help on a page.
_TABLE_ATOMS = 4


@dataclass(frozen=True)
class StructurePage:
    """The part of an explanation that is about one structure."""

    structure: PreferenceStructure

    @cached_property
    def behaviour(self) -> Behaviour:
        """The facts behind the sentences."""
        return Behaviour(self.structure)

    @cached_property
    def formulas(self) -> list[tuple[str, str]]:
        """ρ, P, P_C, P_A, and the shortest P where it differs."""
        structure = self.structure
        shown = f"log( {show(structure.ratio)} )" if structure.bottom_mask else "infinite or undefined"
        lines = [("ρ", shown), ("P", str(structure.P)), ("P_C", str(structure.P_C)), ("P_A", str(structure.P_A))]
        if structure.shortest_P != structure.P:
            lines.append(("shortest P", str(structure.shortest_P)))
        return lines

    @cached_property
    def gradients(self) -> list[tuple[str, str, str]]:
        """Derivative, expression, meaning; empty where there are too many propositions."""
        if self.structure.is_degenerate or len(self.structure.atoms) > MAX_VARIABLES:
            return []
        return gradient_lines(self.behaviour)

    @cached_property
    def names(self) -> list[str]:
        """Sentences that say which known losses this is."""
        known = known_losses(self.structure)
        said = [f"Known as {', '.join(known.structure)}."] if known.structure else []
        if known.ratio:
            said.append(f"The same ratio, from another structure: {', '.join(known.ratio)}.")
        return said or ["Not among the known losses, by structure or by ratio."]

    def lines(self) -> list[str]:
        """The page as text."""
        wide = max(len(name) for name, _ in self.formulas)
        lines = [f"{name:{wide}}  {text}" for name, text in self.formulas]
        if len(self.structure.reduced.atoms) <= _TABLE_ATOMS:
            lines += ["", *self.structure.reduced.table().splitlines()]
        if self.gradients:
            width = max(len(expression) for _, expression, _ in self.gradients)
            lines += ["", *(f"{name} = {text:{width}}   {meaning}" for name, text, meaning in self.gradients)]
        return [*lines, "", *_bullets(self.facts)]

    @property
    def facts(self) -> list[str]:
        """What follows from the structure, in plain sentences; the last say which known losses it is."""
        return [*sentences(self.behaviour), *self.names]

    def markdown(self) -> list[str]:
        """The page as Markdown."""
        lines = [f"- **{name}**: `{text}`" for name, text in self.formulas]
        if len(self.structure.reduced.atoms) <= _TABLE_ATOMS:
            lines += ["", "```", *self.structure.reduced.table().splitlines(), "```"]
        lines += ["", *(f"- `{name} = {text}`: {meaning}" for name, text, meaning in self.gradients)]
        return [*lines, *(f"- {fact}" for fact in self.facts)]

    def as_dict(self) -> dict[str, object]:
        """The page as JSON takes it."""
        structure, facts = self.structure, self.behaviour
        known = known_losses(structure)
        said: dict[str, Any] = {
            "atoms": list(structure.atoms),
            "rows": structure.rows if len(structure.atoms) <= MAX_VARIABLES else None,
            "P": structure.P.ascii,
            "P_C": structure.P_C.ascii,
            "P_A": structure.P_A.ascii,
            "shortest_P": structure.shortest_P.ascii,
            "ratio": show(structure.ratio) if structure.bottom_mask else None,
            "gradient": {name.partition("∂ρ/∂")[2]: text for name, text, _ in self.gradients},
            "limit": str(facts.limit) if facts.limit.kind == "finite" else facts.limit.kind,
            "summed": facts.summed,
            "loss_is_bounded": facts.loss_is_bounded,
            "known": list(known.structure),
            "known_ratio": list(known.ratio),
            "facts": sentences(facts),
        }
        if self.gradients:
            said["signs"] = {name: sign.kind for name, sign in facts.signs.items()}
            found = facts.displacement
            said["displacement"] = (
                None
                if found is None
                else {
                    "before": {name: str(value) for name, value in found.before.items()},
                    "after": {name: str(value) for name, value in found.after.items()},
                    "ratios": [str(ratio) for ratio in found.ratios],
                }
            )
        return said


@dataclass(frozen=True)
class TwoRatioPage:
    """The part of an explanation that is about a term with two log ratios."""

    rule: TwoRatioRule

    @property
    def formulas(self) -> list[tuple[str, str]]:
        """The difference inside the link, its two log ratios and the inner function."""
        first, second = (f"log( {show(structure.ratio)} )" for structure in self.rule.structures)
        inner = f"{show(self.rule.inner.expression)}   ({self.rule.inner.name})"
        return [("rho", "g(ρ₁) - g(ρ₂)"), ("g(rho)", inner), ("ρ₁", first), ("ρ₂", second)]

    @cached_property
    def facts(self) -> list[str]:
        """What follows from the form, in plain sentences."""
        rule = self.rule
        pull = show(sympy.diff(rule.inner.expression, RHO))
        turns = {
            "increasing": "g rises everywhere.",
            "turning": "g falls somewhere: there the loss asks for a lower ρ₁ and a higher ρ₂.",
            "unknown": "Whether g rises everywhere is not known.",
        }
        order = (
            "Entailment orders it by its two structures: the loss is at least that of another with the same link and g "
            "whose first structure this one's entails, and whose second entails this one's."
            if rule.orders
            else "It need not fall in ρ₁ and rise in ρ₂ everywhere: entailment does not order it."
        )
        return [
            "It has two log ratios, and no single ratio of model counts: no formula P says what it prefers.",
            turns[rule.inner.direction],
            f"The pull on each of them has the factor g'(rho) = {pull}, at its own log ratio.",
            order,
        ]

    def lines(self) -> list[str]:
        """The page as text."""
        wide = max(len(name) for name, _ in self.formulas)
        return [*(f"{name:{wide}}  {text}" for name, text in self.formulas), "", *_bullets(self.facts)]

    def markdown(self) -> list[str]:
        """The page as Markdown."""
        return [*(f"- **{name}**: `{text}`" for name, text in self.formulas), *(f"- {fact}" for fact in self.facts)]

    def as_dict(self) -> dict[str, object]:
        """The page as JSON takes it."""
        inner = self.rule.inner
        return {
            "ratios": [show(structure.ratio) for structure in self.rule.structures],
            "inner": {"expression": str(inner.expression), "name": inner.name, "direction": inner.direction},
            "facts": self.facts,
        }


def _bullets(facts: list[str]) -> list[str]:
    return [fill(fact, 100, initial_indent="- ", subsequent_indent="  ") for fact in facts]
