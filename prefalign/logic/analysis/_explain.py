"""`explain`: everything that the logic says of a loss, on a page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from textwrap import fill
from typing import Any

from ..named import Entry, Readable, as_rules, catalogue, known_losses
from ..polynomials import MAX_VARIABLES, show
from ..structures import PreferenceStructure, Rule, RuleSet
from ._behaviour import Behaviour
from ._sentences import gradient_lines, sentences

# Larger truth tables are no help on a page.
_TABLE_ATOMS = 4


@dataclass(frozen=True)
class Explanation:
    """What `explain` found: `print` it, show it in a notebook, or take `as_dict()`.

    Args:
        title: The loss's name, or what was given.
        rules: Its terms; a structure given alone has no link.
        source: The catalogue's entry, where it has one.
    """

    title: str
    rules: tuple[Rule | PreferenceStructure, ...]
    source: Entry | None = None

    @cached_property
    def pages(self) -> tuple[StructurePage, ...]:
        """One page for each term."""
        structures = (rule if isinstance(rule, PreferenceStructure) else rule.structure for rule in self.rules)
        return tuple(map(StructurePage, structures))

    def as_dict(self) -> dict[str, object]:
        """Everything as JSON takes it."""
        head: dict[str, object] = {"loss": self.title}
        if self.source is not None:
            head |= {"paper": self.source.paper, "note": self.source.note}
        rules = []
        for rule, page in zip(self.rules, self.pages, strict=True):
            said: dict[str, object] = dict(page.as_dict())
            if isinstance(rule, Rule):
                said |= {"link": str(rule.link), "direction": rule.link.direction, "weight": str(rule.weight)}
                said |= {} if rule.guard is None else {"guard": str(rule.guard)}
            rules.append(said)
        return {**head, "rules": rules}

    def __str__(self) -> str:
        lines = [self.title if self.source is None else f"{self.title}  ({self.source.paper})"]
        lines += ["=" * len(lines[0]), ""]
        if len(self.rules) > 1:
            lines += [f"A sum of {len(self.rules)} rules; no single formula says what it prefers.", ""]
        for number, (rule, page) in enumerate(zip(self.rules, self.pages, strict=True), 1):
            if len(self.rules) > 1:
                lines += [f"Rule {number}", "-" * 6, ""]
            lines += [*_link_lines(rule), *page.lines(), ""]
        if self.source is not None and self.source.note:
            lines += [f"Note: {self.source.note}.", ""]
        return "\n".join(lines).rstrip()

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        lines = [f"### {self.title}", ""]
        if self.source is not None:
            lines += [f"*{self.source.paper}*", ""]
        for number, (rule, page) in enumerate(zip(self.rules, self.pages, strict=True), 1):
            if len(self.rules) > 1:
                lines += [f"#### Rule {number}", ""]
            lines += [*_link_lines(rule), *page.markdown(), ""]
        if self.source is not None and self.source.note:
            lines += [f"Note: {self.source.note}."]
        return "\n".join(lines).rstrip()


def _in_brackets(factor: object) -> str:
    return f"({factor})" if getattr(factor, "is_Add", False) else str(factor)


def _link_lines(rule: Rule | PreferenceStructure) -> list[str]:
    if isinstance(rule, PreferenceStructure):
        return []
    weight = "" if rule.weight == 1 else f"{_in_brackets(rule.weight)} · "
    guard = "" if rule.guard is None else f", where {rule.guard}"
    if rule.orders:
        order, caution = "decreases in ρ: entailment orders the losses", []
    elif rule.link.orders:
        order = "decreases in ρ, and is subtracted: entailment does not order the losses"
        caution = [
            "The weight is negative: below, “the loss” is the rule without its weight. The term does the opposite."
        ]
    elif rule.link.direction == "unknown":
        order = "its direction is not known: entailment does not order the losses"
        caution = ["Whether the term falls in ρ is not known: below, “the loss” is one that does."]
    else:
        order = "turns: entailment does not order the losses"
        caution = ["The link turns: below, what lowers “the loss” does so only while the link falls in ρ."]
    shown = show(rule.link.expression)
    link = f"({shown})" if weight and rule.link.expression.is_Add else shown
    line = f"loss = {weight}{link}{guard}   ({rule.link.name}; {order})"
    return [line, "", *([*caution, ""] if caution else [])]


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
        facts = [fill(fact, 100, initial_indent="- ", subsequent_indent="  ") for fact in self.facts]
        return [*lines, "", *facts]

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


def explain(loss: Readable | Rule, *, title: str = "") -> Explanation:
    """Say what a loss means and how it behaves: formulas, truth table, ratio, gradient, and facts in plain sentences.

    Args:
        loss: A structure, a rule set, a catalogue name, a column such as "ovxo", or an equation.
        title: What to call it; default: its name, or as given.

    Returns:
        An `Explanation`: print it, show it in a notebook (Markdown), or take `.as_dict()`.

    Raises:
        DerivationError: The equation is no ratio of weighted model counts.

    Example:
        >>> page = explain("ccpo").pages[0]
        >>> for line in page.gradients:
        ...     print(*line, sep=" | ")
        ∂ρ/∂w | 1/(w*(1 - w)) | ≥ 0 everywhere: raising w lowers the loss
        ∂ρ/∂l | -1/l | ≤ 0 everywhere: lowering l lowers the loss
        >>> page.facts[0].partition(":")[0]
        'As w and l go to zero with w = k·l, the ratio goes to k'
    """
    entry = catalogue.find(loss) if isinstance(loss, str) else None
    if entry is not None:
        return Explanation(title or entry.name, entry.rules.rules, entry)
    found = loss if isinstance(loss, Rule) else as_rules(loss, "loss")
    if isinstance(found, Rule):
        return Explanation(title or "A rule", (found,))
    if isinstance(found, RuleSet):
        return Explanation(title or found.name or str(loss), found.rules)
    given = loss if isinstance(loss, str) else known_losses(found).name or "A structure"
    return Explanation(title or given, (found,))
