"""A loss as rules: which structure, seen through which link, with which weight, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import sympy

from ..._errors import DerivationError, SpecError, did_you_mean
from ..polynomials import show
from ._structure import PreferenceStructure

RHO = sympy.Symbol("rho")
BETA = sympy.Symbol("beta")

Direction = Literal["decreasing", "turning", "unknown"]


@dataclass(frozen=True)
class Link:
    """The function f of the core ratio ρ: the loss is f(ρ, β).

    Args:
        expression: A SymPy expression in `rho`, `beta`, and margins; ρ in nats.
        direction: "decreasing" (in ρ, for β > 0: entailment then orders the losses), "turning" (it rises somewhere), or
            "unknown".
        name: How the literature calls it.

    Raises:
        SpecError: The expression does not contain `rho`, or the direction is unknown.

    Example:
        >>> LINKS["square"]
        Link(square: (rho - 1/(2*beta))**2, turning)
    """

    expression: sympy.Expr
    direction: Direction
    name: str = field(default="link", compare=False)

    def __post_init__(self) -> None:
        if RHO not in getattr(self.expression, "free_symbols", ()):
            raise SpecError(f"`expression` must be a SymPy expression in the symbol rho (got {self.expression!r}).")
        if self.direction not in ("decreasing", "turning", "unknown"):
            raise SpecError(f"`direction` must be 'decreasing', 'turning' or 'unknown' (got {self.direction!r}).")

    def with_margin(self, margin: sympy.Expr | int) -> Link:
        """The link at ρ + margin; a constant factor c of the ratio is the margin log c, in nats."""
        if margin == 0:
            return self
        return Link(self.expression.subs(RHO, RHO + margin), self.direction, f"{self.name} with margin {margin}")

    def at(self, **values: sympy.Expr | float) -> Link:
        """The link with parameters replaced, as in `link.at(beta=1)`."""
        known = {symbol.name for symbol in self.expression.free_symbols} - {"rho"}
        for name in values:
            if name not in known:
                raise SpecError(f"{self.name} has no parameter `{name}`.{did_you_mean(name, known)}")
        swap = {sympy.Symbol(name): value for name, value in values.items()}
        shown = ", ".join(f"{name}={value}" for name, value in values.items())
        return Link(self.expression.subs(swap), self.direction, f"{self.name} at {shown}")

    @property
    def orders(self) -> bool:
        """Whether preference entailment orders the losses under this link."""
        return self.direction == "decreasing"

    def _repr_latex_(self) -> str:
        return f"${sympy.latex(self.expression)}$"

    def __str__(self) -> str:
        return str(self.expression)

    def __repr__(self) -> str:
        return f"Link({self.name}: {self.expression}, {self.direction})"


class _Links(Mapping[str, Link]):
    """The named links, built when the first is asked for: importing stays cheap."""

    def __getitem__(self, name: str) -> Link:
        return _table()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_table())

    def __len__(self) -> int:
        return len(_table())

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.values()))


@cache
def _table() -> dict[str, Link]:
    epsilon, scaled = sympy.Symbol("epsilon"), BETA * RHO
    up, down = 1 / (1 + sympy.exp(-scaled)), 1 / (1 + sympy.exp(scaled))
    softplus = sympy.log(1 + sympy.exp(-scaled))
    links: dict[str, tuple[sympy.Expr, Direction]] = {
        "logistic": (softplus, "decreasing"),
        "square": ((RHO - 1 / (2 * BETA)) ** 2, "turning"),
        "hinge": (sympy.Max(0, BETA - RHO), "decreasing"),
        "perceptron": (sympy.Max(0, -RHO), "decreasing"),
        "sigmoid": (down, "decreasing"),
        "smoothed": ((1 - epsilon) * softplus + epsilon * sympy.log(1 + sympy.exp(scaled)), "turning"),
        "exo": (
            up * (-softplus - sympy.log(1 - epsilon)) + down * (-softplus - scaled - sympy.log(epsilon)),
            "turning",
        ),
    }
    return {name: Link(expression, direction, name) for name, (expression, direction) in links.items()}


LINKS: Mapping[str, Link] = _Links()


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
    def orders(self) -> bool:
        """Whether entailment of the structure orders this term: the link decreases and the weight is not negative."""
        negative = sympy.sympify(self.weight, strict=True).could_extract_minus_sign()
        return self.link.orders and not negative

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f"({show(self.weight)}) * "
        guard = "" if self.guard is None else f", where {self.guard}"
        ratio = show(self.structure.ratio) if self.structure.bottom_mask else "infinite"
        return f"{weight}[{show(self.link.expression)}] with rho = log({ratio}){guard}"

    def __repr__(self) -> str:
        return f"<Rule {self}>"


@dataclass(frozen=True)
class RuleSet:
    """A loss that is a sum of rules: Σ weight · link(ρ_j).

    Args:
        rules: One Rule or more; the order does not matter to `==`.
        name: For printing only.
    """

    rules: tuple[Rule, ...]
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))
        if not self.rules or not all(isinstance(rule, Rule) for rule in self.rules):
            raise SpecError(f"`rules` must be one Rule or more (got {self.rules!r}).")

    @property
    def structures(self) -> tuple[PreferenceStructure, ...]:
        """The distinct structures, in the order of the rules."""
        return tuple(dict.fromkeys(rule.structure for rule in self.rules))

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

    def __iter__(self) -> Iterator[Rule]:
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
