"""`explain`: everything that the logic says of a loss, on a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..._errors import SpecError
from ..named import Entry, Readable, as_rules, catalogue, known_losses
from ..polynomials import show
from ..structures import AnyRule, PreferenceStructure, Rule, RuleSet, TwoRatioRule
from ._field import Field
from ._page import StructurePage, TwoRatioPage
from ._picture import described_field, draw_fields


@dataclass(frozen=True)
class Explanation:
    """What `explain` found: `print` it, show it in a notebook, or take `as_dict()`.

    Args:
        title: The loss's name, or what was given.
        rules: Its terms; a structure given alone has no link.
        source: The catalogue's entry, where it has one.
    """

    title: str
    rules: tuple[AnyRule | PreferenceStructure, ...]
    source: Entry | None = None

    @cached_property
    def pages(self) -> tuple[StructurePage | TwoRatioPage, ...]:
        """One page for each term."""
        return tuple(map(_page, self.rules))

    @property
    def described(self) -> str:
        """What `draw` shows, in words; empty where there is no picture."""
        try:
            said = [described_field(rule) for rule in self.rules]
        except SpecError:
            return ""
        return " ".join(said if len(said) == 1 else (f"Rule {i}: {text}" for i, text in enumerate(said, 1)))

    def draw(
        self,
        path: str | Path,
        at: Mapping[str, float] | None = None,
        start: tuple[float, float] = (0.3, 0.3),
    ) -> Path:
        """Draw the loss over the square of the two answers' probabilities, one picture for each rule.

        Shades are the loss; arrows where training, free to move the log-odds, takes the probabilities (their lengths
        say nothing); the line is its way from a start; the corners have the colours of the truth table's rows.

        Args:
            path: An .svg, .png or .pdf file in a folder that exists.
            at: Values of other probabilities, such as the reference's (default 1/2), and of hyperparameters (1).
            start: Two probabilities strictly between 0 and 1.

        Raises:
            SpecError: Matplotlib is missing, or an argument is wrong.
        """
        for name in at or {}:
            if not any(name in Field.of(rule).fixed for rule in self.rules):
                raise SpecError(f"`at` has `{name}`, which is nothing that this loss has.")
        return draw_fields(self.titled, path, at, start)

    @property
    def titled(self) -> list[tuple[str, AnyRule | PreferenceStructure]]:
        """Its terms, each with a title of its own."""
        alone = len(self.rules) == 1
        return [(self.title if alone else f"{self.title}, rule {i}", rule) for i, rule in enumerate(self.rules, 1)]

    def as_dict(self) -> dict[str, object]:
        """Everything as JSON takes it."""
        head: dict[str, object] = {"loss": self.title}
        if self.source is not None:
            head |= {"paper": self.source.paper, "note": self.source.note}
        rules = []
        for rule, page in zip(self.rules, self.pages, strict=True):
            said: dict[str, object] = dict(page.as_dict())
            if not isinstance(rule, PreferenceStructure):
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


def _page(rule: AnyRule | PreferenceStructure) -> StructurePage | TwoRatioPage:
    if isinstance(rule, TwoRatioRule):
        return TwoRatioPage(rule)
    return StructurePage(rule if isinstance(rule, PreferenceStructure) else rule.structure)


def _in_brackets(factor: object) -> str:
    return f"({factor})" if getattr(factor, "is_Add", False) else str(factor)


def _link_lines(rule: AnyRule | PreferenceStructure) -> list[str]:
    if isinstance(rule, PreferenceStructure):
        return []
    weight = "" if rule.weight == 1 else f"{_in_brackets(rule.weight)} · "
    guard = "" if rule.guard is None else f", where {rule.guard}"
    caution: list[str]
    if isinstance(rule, TwoRatioRule):
        order, caution = "of a difference of two log ratios", []
    elif rule.orders:
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


def explain(loss: Readable | AnyRule, *, title: str = "") -> Explanation:
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
    found = loss if isinstance(loss, Rule | TwoRatioRule) else as_rules(loss, "loss")
    if isinstance(found, Rule | TwoRatioRule):
        return Explanation(title or "A rule", (found,))
    if isinstance(found, RuleSet):
        return Explanation(title or found.name or str(loss), found.rules)
    given = loss if isinstance(loss, str) else known_losses(found).name or "A structure"
    return Explanation(title or given, (found,))
