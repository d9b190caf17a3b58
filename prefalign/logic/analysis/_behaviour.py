"""How a loss behaves, read off its structure: gradients and their signs, limits, displacement, bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ..._errors import SpecError
from ..named import Readable, as_structure
from ..polynomials import (
    MAX_VARIABLES,
    Point,
    count_polynomial,
    derivative,
    merge_axes,
    multiply,
    sign,
    times_variable,
    to_expression,
    value,
)
from ..structures import PreferenceStructure
from ..tables import canonical, chosen_of, is_reference, original
from ._bounds import gradient_is_bounded
from ._limits import Limit, Summed, limit, summed

if TYPE_CHECKING:
    import sympy

    from ..polynomials import Coefficients


@dataclass(frozen=True)
class SignOnCube:
    """The sign of a quantity on the open unit cube, decided exactly.

    Args:
        kind: "zero"; "positive" (>= 0, and not 0 throughout); "negative" (likewise); or "both".
        below: A point where it is negative, if there is one.
        above: A point where it is positive, if there is one.
    """

    kind: Literal["zero", "positive", "negative", "both"]
    below: Mapping[str, Fraction] | None = None
    above: Mapping[str, Fraction] | None = None


@dataclass(frozen=True)
class Displacement:
    """Two points between which the chosen probability falls and the ratio rises: the loss falls too.

    Args:
        before: A probability for every proposition.
        after: Likewise; the reference's are unchanged, the chosen one is lower.
        ratios: top/bottom before and after, exactly.
    """

    before: Mapping[str, Fraction]
    after: Mapping[str, Fraction]
    ratios: tuple[Fraction, Fraction]


class Behaviour:
    """What follows from a structure alone, for every link that decreases in ρ; made by `behaviour`.

    Everything is derived when it is asked for, in exact arithmetic.
    """

    def __init__(self, structure: PreferenceStructure) -> None:
        chosen = chosen_of(structure.atoms)
        # A loss that looks at the rejected answer only is still one about a pair.
        atoms = structure.atoms if chosen in structure.atoms else canonical((chosen, *structure.atoms))
        self.structure = structure.over(atoms)
        #: The model's own probabilities, which training moves: w and l, or y1, y2, ... (copies are their originals).
        self.moving = tuple(dict.fromkeys(original(atom) for atom in atoms if not is_reference(atom)))
        #: All probabilities, copies counted with their originals.
        self.variables = tuple(dict.fromkeys(map(original, atoms)))
        #: The chosen answer's probability.
        self.chosen = chosen

    @cached_property
    def gradient(self) -> Mapping[str, sympy.Expr]:
        """∂ρ/∂p for each of the model's probabilities p (not log-probabilities), as a SymPy expression.

        Raises:
            SpecError: More than eight propositions, or no rows on the top or on the bottom.
        """
        import sympy

        symbols = [sympy.Symbol(name) for name in self.variables]
        top, bottom = self._polynomials
        denominator = to_expression(top, symbols) * to_expression(bottom, symbols)
        return {
            name: sympy.factor(sympy.cancel(to_expression(self._numerators[name], symbols) / denominator))
            for name in self.moving
        }

    @cached_property
    def signs(self) -> Mapping[str, SignOnCube]:
        """The sign of ∂ρ/∂p on the open cube, for each of the model's probabilities p."""
        return {name: self._sign(self._numerators[name]) for name in self.moving}

    @cached_property
    def joint(self) -> SignOnCube:
        """The sign of the change of ρ when all of the model's probabilities rise by the same factor.

        Where it is negative, chosen and rejected can sink together while the loss falls.
        """
        total = None
        for name in self.moving:
            term = times_variable(self._numerators[name], self.variables.index(name))
            total = term if total is None else _sum(total, term)
        return SignOnCube("zero") if total is None else self._sign(total)

    @cached_property
    def limit(self) -> Limit:
        """The ratio as w and l go to zero with w = k·l, the reference held fixed."""
        return limit(self.structure.atoms, self.structure.top_mask, self.structure.bottom_mask)

    @cached_property
    def summed(self) -> Summed:
        """What gradient summed log-probabilities (near -500 nats) leave: see `survives_sum`."""
        return summed(self.structure.atoms, self.structure.top_mask, self.structure.bottom_mask)

    @property
    def survives_sum(self) -> bool:
        """Whether a gradient is left at summed log-probabilities."""
        return self.summed in ("contrast", "chosen only", "rejected only", "misdirected")

    @property
    def rewards_collapse(self) -> bool:
        """Whether the loss goes to its end as both probabilities go to zero: an SFT term is needed."""
        return self.limit.kind == "infinity"

    @property
    def loss_is_bounded(self) -> bool:
        """Whether ρ is bounded below, so that no pair's loss exceeds a constant: no row is on the bottom alone."""
        return not self.structure.bottom_mask & ~self.structure.top_mask

    @cached_property
    def gradient_is_bounded(self) -> bool:
        """Whether ∂ρ/∂log p is bounded for each of the model's probabilities p: no pair can dominate a step.

        Raises:
            SpecError: More than four propositions, or copies; or no rows on the top or on the bottom.
        """
        structure = self.structure.reduced
        if structure.is_degenerate:
            raise SpecError("a gradient needs a row on top and a row on the bottom; one of the two is unsatisfiable.")
        return gradient_is_bounded(structure.atoms, structure.top_mask, structure.bottom_mask)

    @property
    def reward_is_bounded(self) -> bool:
        """Whether ρ is bounded above, so that the loss stays above a constant: no row is on top alone."""
        return not self.structure.top_mask & ~self.structure.bottom_mask

    @cached_property
    def displacement(self) -> Displacement | None:
        """Two points between which the chosen probability falls while the loss falls; None if that is impossible.

        It is impossible exactly when ρ depends on no other probability of the model and nowhere falls in the chosen
        one. (With shared parameters a step can go in any direction, so a mere dependence makes it possible.)
        """
        for name in (self.chosen, *self.moving):
            if name not in self._numerators:
                continue
            found = self.signs[name]
            start = found.below if name == self.chosen else found.above or found.below
            if start is None:
                continue
            return self._witness(name, start)
        return None

    # ------------------------------------------------------------------------------------------------- internals

    @cached_property
    def _polynomials(self) -> tuple[Coefficients, Coefficients]:
        structure = self.structure
        if structure.is_degenerate:
            raise SpecError("a gradient needs a row on top and a row on the bottom; one of the two is unsatisfiable.")
        if len(structure.atoms) > MAX_VARIABLES:
            raise SpecError(f"gradients are derived up to {MAX_VARIABLES} propositions (got {len(structure.atoms)}).")
        places = [self.variables.index(original(atom)) for atom in structure.atoms]
        top, bottom = (
            merge_axes(count_polynomial(mask, len(places)), places)
            for mask in (structure.top_mask, structure.bottom_mask)
        )
        return top, bottom

    @cached_property
    def _numerators(self) -> Mapping[str, Coefficients]:
        """∂ρ/∂p · top · bottom, a polynomial: top and bottom are positive inside the cube."""
        top, bottom = self._polynomials
        found = {}
        for name in self.moving:
            axis = self.variables.index(name)
            rise, fall = (derivative(part, axis) for part in (top, bottom))
            found[name] = _sum(multiply(rise, bottom), -multiply(top, fall))
        return found

    def _point(self, point: Point | None) -> Mapping[str, Fraction] | None:
        return None if point is None else dict(zip(self.variables, point, strict=True))

    def _sign(self, polynomial: Coefficients) -> SignOnCube:
        kind, below, above = sign(polynomial)
        return SignOnCube(kind, self._point(below), self._point(above))

    def _ratio(self, point: Mapping[str, Fraction]) -> Fraction:
        top, bottom = (value(part, [point[name] for name in self.variables]) for part in self._polynomials)
        return top / bottom

    def _witness(self, mover: str, start: Mapping[str, Fraction]) -> Displacement:
        half = {name: Fraction(1, 2) for name in self.variables}
        plain = [{mover: Fraction(1, 10)}, {mover: Fraction(9, 10)}] if mover != self.chosen else [{}]
        for change in plain:  # round numbers first
            after = {**half, self.chosen: Fraction(2, 5), **change}
            ratios = self._ratio(half), self._ratio(after)
            if ratios[1] > ratios[0]:
                return Displacement(half, after, ratios)
        before = dict(start)
        rises = value(self._numerators[mover], [before[name] for name in self.variables]) > 0
        step = Fraction(1, 2)
        while True:
            target = 1 - (1 - before[mover]) * (1 - step) if rises else before[mover] * (1 - step)
            # A much smaller step down in the chosen probability cannot undo what the mover gains.
            after = {**before, self.chosen: before[self.chosen] * (1 - step**3), mover: target}
            ratios = self._ratio(before), self._ratio(after)
            if ratios[1] > ratios[0]:
                return Displacement(before, after, ratios)
            step /= 2


def behaviour(given: Readable) -> Behaviour:
    """How the loss of one structure behaves.

    Args:
        given: A structure, or what `derive` reads (a name, an equation).

    Raises:
        DerivationError: The loss has several structures; look at its rules one by one.

    Example:
        >>> facts = behaviour(PreferenceStructure.from_rows("bvxo"))          # CPO, w/l
        >>> facts.gradient["w"], str(facts.limit), facts.summed
        (1/w, 'k', 'contrast')
        >>> facts.displacement.after["w"] < facts.displacement.before["w"]
        True
    """
    return Behaviour(as_structure(given, "given"))


def _sum(left: Coefficients, right: Coefficients) -> Coefficients:
    """The sum of polynomials of different degrees."""
    import numpy as np

    shape = tuple(max(a, b) for a, b in zip(left.shape, right.shape, strict=True))
    total = np.full(shape, 0, dtype=object)
    for part in (left, right):
        total[tuple(slice(0, width) for width in part.shape)] += part
    return total
