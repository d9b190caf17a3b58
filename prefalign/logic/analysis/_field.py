"""The loss of a rule over the square of two probabilities: its heights, its gradient, and where training leads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import sympy

from ..._errors import SpecError
from ..structures import LINKS, AnyRule, PreferenceStructure, Rule
from ..tables import bits, canonical, original

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_STEPS, _PACE = 400, 0.05
#: What a hyperparameter is where nothing is said.
DEFAULT = 1.0


@dataclass(frozen=True)
class Field:
    """A rule's loss as a function of the chosen and the rejected answer's probability.

    Args:
        rule: A rule; a structure has the logistic link.
        axes: The two probabilities that vary: w and l, or y1 and y2, ….
        fixed: The value of every other proposition's probability, and of every hyperparameter.
    """

    rule: AnyRule
    axes: tuple[str, str]
    fixed: Mapping[str, float]

    @classmethod
    def of(cls, given: AnyRule | PreferenceStructure, at: Mapping[str, float] | None = None) -> Field:
        """The field of a rule or a structure.

        Args:
            given: Which.
            at: Values of the other propositions' probabilities (default 1/2) and of hyperparameters (default 1).

        Raises:
            SpecError: A value is no probability, or of nothing that is there; or fewer than two probabilities vary.
        """
        rule = Rule(given, LINKS["logistic"]) if isinstance(given, PreferenceStructure) else given
        atoms = canonical(atom for structure in rule.structures for atom in structure.atoms)
        names = tuple(dict.fromkeys(map(original, atoms)))
        axes = ("w", "l") if {"w", "l"} & set(names) else names[:2]
        if len(axes) < 2:
            raise SpecError(f"a picture needs two answers (this loss has {', '.join(names) or 'none'}).")
        others = [name for name in names if name not in axes]
        parts = [rule.link.expression, sympy.sympify(rule.weight, strict=True)]
        parts += [] if isinstance(rule, Rule) else [rule.inner.expression]
        hypers = sorted({s.name for part in parts for s in part.free_symbols} - {"rho"})
        fixed = {**dict.fromkeys(others, 0.5), **dict.fromkeys(hypers, DEFAULT), **(at or {})}
        for name in at or {}:
            if name not in (*others, *hypers):
                raise SpecError(
                    f"`at` has `{name}`, which is not among {', '.join((*others, *hypers)) or 'anything here'}."
                )
        for name in others:
            if not 0 < fixed[name] < 1:
                raise SpecError(f"`{name}` must lie strictly between 0 and 1 (got {fixed[name]!r}).")
        return cls(rule, (axes[0], axes[1]), fixed)

    def loss(self, first: Array, second: Array) -> Array:
        """The loss where the two probabilities are `first` and `second`; arrays that broadcast."""
        import numpy as np

        point = {**self.fixed, self.axes[0]: first, self.axes[1]: second}
        rhos = [_rho(structure, point) for structure in self.rule.structures]
        if not isinstance(self.rule, Rule):
            one, two = (_number(self.rule.inner.expression, {**point, "rho": rho}) for rho in rhos)
            rhos = [one - two]
        inside = {**point, "rho": rhos[0]}
        value = _number(sympy.sympify(self.rule.weight, strict=True), inside) * _number(
            self.rule.link.expression, inside
        )
        return np.broadcast_to(np.asarray(value, dtype=float), np.broadcast(first, second).shape)

    def slopes(self, first: Array, second: Array) -> tuple[Array, Array]:
        """-∂loss/∂log-odds of the two probabilities: where training moves them, by central differences of 1e-4."""
        step = 1e-4
        found = []
        for place in (0, 1):
            ends = []
            for sign in (1, -1):
                moved = [first, second]
                moved[place] = _moved(moved[place], sign * step)
                ends.append(self.loss(moved[0], moved[1]))
            found.append((ends[1] - ends[0]) / (2 * step))
        return found[0], found[1]

    def path(self, start: tuple[float, float] = (0.3, 0.3)) -> list[tuple[float, float]]:
        """The way of gradient descent on the two log-odds, each free to move, from a start; steps of equal length."""
        import numpy as np

        at, way = np.array(start, dtype=float), [start]
        for _ in range(_STEPS):
            slopes = np.array(self.slopes(at[:1], at[1:])).reshape(-1)
            size = float(np.hypot(*slopes))
            if not np.isfinite(size) or size < 1e-9:
                break
            at = np.array([_moved(p, _PACE * s / size) for p, s in zip(at, slopes, strict=True)])
            if not ((at > 1e-3) & (at < 1 - 1e-3)).all():
                break
            way.append((float(at[0]), float(at[1])))
        return way


def _moved(probability: Any, by: float) -> Any:
    """The probability whose log-odds are `by` higher."""
    import numpy as np

    return 1 / (1 + (1 - probability) / probability * np.exp(-by))


def _rho(structure: PreferenceStructure, point: Mapping[str, Any]) -> Any:
    import numpy as np

    small, sides = structure.reduced, []
    count = len(small.atoms)
    for mask in (small.top_mask, small.bottom_mask):
        total: Any = 0.0
        for row in bits(mask):
            product: Any = 1.0
            for place, atom in enumerate(small.atoms):
                p = point[original(atom)]
                product = product * (1 - p if row >> (count - 1 - place) & 1 else p)
            total = total + product
        sides.append(total)
    with np.errstate(divide="ignore"):
        return np.log(sides[0]) - np.log(sides[1])


def _number(expression: sympy.Expr, values: Mapping[str, Any]) -> Any:
    names, function = _function(expression)
    return function(*(values[name] for name in names))


@lru_cache(maxsize=256)
def _function(expression: sympy.Expr) -> tuple[tuple[str, ...], Callable[..., Any]]:
    symbols = sorted(expression.free_symbols, key=str)
    return tuple(s.name for s in symbols), sympy.lambdify(symbols, expression, "numpy")
