"""Links, the functions of a log ratio that a loss may be, and the inner functions of losses of two log ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import sympy

from ..._errors import SpecError, did_you_mean

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


Course = Literal["increasing", "turning", "unknown"]


@dataclass(frozen=True)
class Inner:
    """The function g of a loss f(g(ρ₁) - g(ρ₂)): in a divergence D(π‖ref), the derivative of its generator at e^ρ.

    Args:
        expression: A SymPy expression in `rho` (nats), up to a constant and a positive factor, which is the link's.
        direction: "increasing", "turning" (it falls somewhere), or "unknown".
        name: How the literature calls it.

    Raises:
        SpecError: The expression does not contain `rho`, or the direction is unknown.
    """

    expression: sympy.Expr
    direction: Course
    name: str = field(default="a function of its own", compare=False)

    def __post_init__(self) -> None:
        if RHO not in getattr(self.expression, "free_symbols", ()):
            raise SpecError(f"`expression` must be a SymPy expression in the symbol rho (got {self.expression!r}).")
        if self.direction not in ("increasing", "turning", "unknown"):
            raise SpecError(f"`direction` must be 'increasing', 'turning' or 'unknown' (got {self.direction!r}).")

    def __str__(self) -> str:
        return str(self.expression)


def named_inner(expression: sympy.Expr, direction: Course) -> Inner:
    """The inner function, by its name in the literature where it has one."""
    rate = sympy.Wild("rate", exclude=[RHO])
    for name, known in (
        ("forward KL", -sympy.exp(-RHO)),
        ("Jensen-Shannon", -sympy.log(1 + sympy.exp(-RHO))),
        ("chi-squared and KL, of χPO", sympy.exp(RHO) + RHO),
        ("the squared log ratio, of SquaredPO", RHO * sympy.exp(-RHO)),
        ("alpha divergence", -sympy.exp(-rate * RHO)),
    ):
        if expression.match(known) is not None:
            return Inner(expression, direction, name)
        if expression.replace(sympy.Piecewise, _uncapped).match(known) is not None:
            return Inner(expression, direction, f"{name}, capped")
    return Inner(expression, direction)


def _uncapped(*cases: sympy.Basic) -> sympy.Basic:
    """What lies between the bounds of a clamp."""
    return next((value for value, _ in cases if RHO in value.free_symbols), sympy.Piecewise(*cases))
