"""A loss as rules: which structure, seen through which link, with which weight, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import sympy

from ..._errors import DerivationError, SpecError
from ..polynomials import show
from ._links import LINKS, Inner, Link
from ._structure import PreferenceStructure


@dataclass(frozen=True)
class Rule:
    """One term of a loss: weight · link(ρ of the structure), where the guard holds.

    Args:
        structure: The preference structure whose ρ = log(WMC(P_f) / WMC(N_f)) the link sees, in nats.
        link: f(ρ, β).
        weight: The term's factor, a number or a SymPy expression; negative in a signed mixture (rDPO).
        guard: A SymPy condition in the atoms' probabilities, such as `w < rw`; None where the rule always holds.
    """

    structure: PreferenceStructure
    link: Link = field(default_factory=lambda: LINKS["logistic"])
    weight: sympy.Expr | float = 1
    guard: sympy.Basic | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.structure, PreferenceStructure):
            raise SpecError(f"`structure` must be a PreferenceStructure (got {self.structure!r}).")
        if not isinstance(self.link, Link):
            raise SpecError(f"`link` must be a Link (got {self.link!r}).")
        if not isinstance(self.weight, int | float | sympy.Expr):  # text is never read as a number here
            raise SpecError(f"`weight` must be a number or a SymPy expression (got {self.weight!r}).")
        if self.guard is not None and not isinstance(self.guard, sympy.Basic):
            raise SpecError(f"`guard` must be a SymPy condition or None (got {self.guard!r}).")

    @property
    def structures(self) -> tuple[PreferenceStructure, ...]:
        """The structure, as `TwoRatioRule` has two."""
        return (self.structure,)

    @property
    def orders(self) -> bool:
        """Whether entailment of the structure orders this term: the link decreases and the weight is not negative."""
        return self.link.orders and not _negative(self.weight)

    def __str__(self) -> str:
        return f"{_link(self)} with rho = log({_ratio(self.structure)}){_where(self)}"

    def __repr__(self) -> str:
        return f"<Rule {self}>"


@dataclass(frozen=True)
class TwoRatioRule:
    """One term of a loss that has two log ratios: weight · link(g(ρ₁) - g(ρ₂)), where the guard holds.

    With the logistic link and g = ρ, DPO; with another g, DPO under another divergence than the reverse KL (arXiv
    2309.16240), χPO (2407.13399), SquaredPO (2602.06788), AlphaPO (2501.03884). No single ratio is behind it, so it has
    no formula P of its own. Where `orders`, one such loss is at least as high as another with the same link and g if
    its `first` entails the other's and its `second` is entailed by the other's.

    Args:
        first: ρ₁ = log(WMC(P_f) / WMC(N_f)) of this structure, in nats: what is preferred.
        second: Likewise ρ₂: what is not.
        inner: g.
        link: f, of the difference, which stands as `rho` in it.
        weight: As in `Rule`, like `guard`.
    """

    first: PreferenceStructure
    second: PreferenceStructure
    inner: Inner
    link: Link = field(default_factory=lambda: LINKS["logistic"])
    weight: sympy.Expr | float = 1
    guard: sympy.Basic | None = None

    @property
    def structures(self) -> tuple[PreferenceStructure, ...]:
        """What ρ₁ and ρ₂ are of."""
        return (self.first, self.second)

    @property
    def orders(self) -> bool:
        """Whether the term never rises in ρ₁ and never falls in ρ₂, so that entailment orders it."""
        return self.inner.direction == "increasing" and self.link.orders and not _negative(self.weight)

    def __str__(self) -> str:
        first, second = map(_ratio, self.structures)
        return (
            f"{_link(self)} with rho = g(log({first})) - g(log({second})), "
            f"g(rho) = {show(self.inner.expression)}{_where(self)}"
        )

    def __repr__(self) -> str:
        return f"<TwoRatioRule {self}>"


AnyRule: TypeAlias = Rule | TwoRatioRule


def _negative(weight: sympy.Expr | float) -> bool:
    return bool(sympy.sympify(weight, strict=True).could_extract_minus_sign())


def _link(rule: AnyRule) -> str:
    weight = "" if rule.weight == 1 else f"({show(rule.weight)}) * "
    return f"{weight}[{show(rule.link.expression)}]"


def _ratio(structure: PreferenceStructure) -> str:
    return show(structure.ratio) if structure.bottom_mask else "infinite"


def _where(rule: AnyRule) -> str:
    return "" if rule.guard is None else f", where {rule.guard}"


@dataclass(frozen=True)
class RuleSet:
    """A loss that is a sum of rules: Σ weight · link(ρ_j).

    Args:
        rules: One Rule (or TwoRatioRule) or more; the order does not matter to `==`.
        name: For printing only.
    """

    rules: tuple[AnyRule, ...]
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))
        if not self.rules or not all(isinstance(rule, AnyRule) for rule in self.rules):
            raise SpecError(f"`rules` must be one Rule or more (got {self.rules!r}).")

    @property
    def structures(self) -> tuple[PreferenceStructure, ...]:
        """The distinct structures, in the order of the rules."""
        return tuple(dict.fromkeys(structure for rule in self.rules for structure in rule.structures))

    @property
    def structure(self) -> PreferenceStructure:
        """The structure of a loss that has only one.

        Raises:
            DerivationError: The rules have different structures: no single formula says what this loss prefers.
        """
        if len(self.structures) > 1:
            raise DerivationError(
                f"{self.name or 'this loss'} has {len(self.structures)} structures, so no single formula describes it. "
                "Read `.rules` one by one."
            )
        return self.structures[0]

    @property
    def orders(self) -> bool:
        """Whether entailment, structure by structure, orders the losses: every rule's link decreases."""
        return all(rule.orders for rule in self.rules)

    def __iter__(self) -> Iterator[AnyRule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RuleSet):
            return NotImplemented
        left, right = list(self.rules), list(other.rules)
        return len(left) == len(right) and all(left.count(rule) == right.count(rule) for rule in left)

    def __hash__(self) -> int:
        return hash(frozenset(self.rules))

    def __str__(self) -> str:
        if len(self.rules) == 1:
            return f"{self.name}: {self.rules[0]}" if self.name else str(self.rules[0])
        lines = [f"{'+' if place else ' '} {rule}" for place, rule in enumerate(self.rules)]
        return "\n".join([f"{self.name or 'loss'} =", *lines])

    def __repr__(self) -> str:
        return str(self)

    def _repr_latex_(self) -> str:
        terms = r" \\ &+ ".join(map(_latex, self.rules))
        return rf"$$\begin{{aligned}} & {terms} \end{{aligned}}$$"

    def _repr_html_(self) -> str:
        from html import escape  # its table of entities would cost milliseconds at import

        rows = []
        for rule in self.rules:
            weight = "" if rule.weight == 1 else f"({show(rule.weight)}) · "
            cells = [
                f"{weight}{show(rule.link.expression)}",
                f"{rule.link.name}, {rule.link.direction}",
                " and ".join(_ratio(structure) for structure in rule.structures),
                "; ".join(str(structure.P) for structure in rule.structures),
                "" if rule.guard is None else str(rule.guard),
            ]
            rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
        names = ("loss f(ρ)", "f is", "ρ = log of", "prefers P", "where")
        head = "".join(f"<th>{name}</th>" for name in names)
        title = f"<caption>{escape(self.name)}</caption>" if self.name else ""
        return f"<table>{title}<tr>{head}</tr>{''.join(rows)}</table>"


def _latex(rule: AnyRule) -> str:
    factor = "" if rule.weight == 1 else sympy.latex(sympy.sympify(rule.weight, strict=True)) + r" \cdot "
    ratios = [
        rf"\log {sympy.latex(structure.ratio)}" if structure.bottom_mask else r"\infty" for structure in rule.structures
    ]
    rho = ratios[0]
    if isinstance(rule, TwoRatioRule):
        inner = sympy.latex(rule.inner.expression)
        rho = rf"g({ratios[0]}) - g({ratios[1]}), \quad g(\rho) = {inner}"
    where = "" if rule.guard is None else rf", \quad \text{{where }} {sympy.latex(rule.guard)}"
    return rf"{factor}\left[{sympy.latex(rule.link.expression)}\right], \quad \rho = {rho}{where}"
