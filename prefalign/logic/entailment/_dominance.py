"""Pointwise dominance: is one loss at least the other at every pair of probabilities? Decided exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import inf

from ..._errors import SpecError
from ..named import Readable, as_structure
from ..polynomials import MAX_VARIABLES, count_at, count_polynomial, multiply, negative_point
from ..structures import AnyRule, PreferenceStructure, Rule, RuleSet, TwoRatioRule
from ..tables import bits, canonical, support
from ._order import as_rule_set, rules_fit


@dataclass(frozen=True)
class Dominance:
    """The answer of `dominates`: true or false as a condition, with a point that shows why not.

    Args:
        holds: Whether the first loss is at least the second everywhere.
        witness: Where it is not: a probability, strictly between 0 and 1, for every proposition; None if it holds.
        ratios: top/bottom of the first and of the second structure at the witness, exactly (infinity where
            nothing is on the bottom); None if it holds.
    """

    holds: bool
    witness: Mapping[str, Fraction] | None = None
    ratios: tuple[Fraction | float, Fraction | float] | None = None

    def __bool__(self) -> bool:
        return self.holds

    def __str__(self) -> str:
        if self.holds:
            return "yes: at every point of the open cube the first loss is at least the second (decreasing links)"
        assert self.witness is not None
        assert self.ratios is not None
        point = ", ".join(f"{atom} = {probability}" for atom, probability in self.witness.items())
        return f"no: at {point} the ratios are {self.ratios[0]} > {self.ratios[1]}, so the first loss is the smaller"


def dominates(first: Readable, second: Readable) -> Dominance:
    """Whether the loss of `first` is at least that of `second` at every point of the open unit cube.

    ratio_first(p) <= ratio_second(p) for all p in (0, 1)^n

    This is what `entails(first, second)` is sufficient for, and not necessary: the inequality is decided as one between
    polynomials, in exact arithmetic. It orders the losses under every link that decreases in ρ, at the same β (not
    under the square link, which turns). A tie counts as dominance, so two losses may dominate each other: then their
    ratios are the same function. What happens on the faces of the cube (a probability of 0 or 1) does not count.

    Of rule sets, it is asked rule by rule: a loss dominates where each of its rules dominates one of the other's own,
    with the same decreasing link, weight and guard. (That is enough; sums may dominate without it, and are not asked.)

    Args:
        first: A structure, or what `derive` reads (a name, an equation); or a RuleSet.
        second: Likewise; propositions that only one of the two has are free.

    Returns:
        A `Dominance`, true or false as a condition, with `.witness` where it fails.

    Raises:
        SpecError: A structure has neither top nor bottom rows (its ratio is 0/0), or they have more than eight
            propositions and neither entailment nor the corners of the cube settle the question.

    Example:
        >>> CE, CPO = PreferenceStructure.from_rows("vvxx"), PreferenceStructure.from_rows("bvxo")
        >>> bool(dominates(CPO, CE))
        False
        >>> print(dominates(CPO, CE))                     # w/l against w/(1-w)
        no: at w = 1/4, l = 1/4 the ratios are 1 > 1/3, so the first loss is the smaller
    """
    if isinstance(first, RuleSet) or isinstance(second, RuleSet):
        return _of_rules(*(as_rule_set(each) for each in (first, second)))
    a, b = as_structure(first, "first"), as_structure(second, "second")
    for name, structure in (("first", a), ("second", b)):
        if not structure.top_mask and not structure.bottom_mask:
            raise SpecError(f"`{name}` must have a row on top or on the bottom: its ratio is 0/0.")
    atoms = canonical((*a.atoms, *b.atoms))
    a, b = a.over(atoms), b.over(atoms)
    # The sign of p = top_b * bottom_a - top_a * bottom_b decides; at a corner, where counts are 0 or 1, masks say it.
    corners = a.top_mask & b.bottom_mask & ~(b.top_mask & a.bottom_mask)
    if not (a.top_mask & ~b.top_mask or b.bottom_mask & ~a.bottom_mask):
        return Dominance(True)  # entailment is enough
    used = tuple(atom for atom in atoms if any(atom in support(m, atoms) for s in (a, b) for m in _masks(s)))
    point: Mapping[str, Fraction] | None
    if corners:
        point = _near_corner(a, b, next(bits(corners)))
    elif len(used) > MAX_VARIABLES:
        point = _at_a_plain_point(a, b)
    else:
        a, b = a.reduced.over(used), b.reduced.over(used)
        (top_a, bottom_a), (top_b, bottom_b) = (
            [count_polynomial(mask, len(used)) for mask in _masks(structure)] for structure in (a, b)
        )
        found = negative_point(multiply(top_b, bottom_a) - multiply(top_a, bottom_b))
        point = None if found is None else dict(zip(used, found, strict=True))
    if point is None:
        return Dominance(True)
    witness = {atom: point.get(atom, Fraction(1, 2)) for atom in atoms}
    return Dominance(False, witness, (_ratio(a, witness), _ratio(b, witness)))


def _masks(structure: PreferenceStructure) -> tuple[int, int]:
    return structure.top_mask, structure.bottom_mask


def _ratio(structure: PreferenceStructure, point: Mapping[str, Fraction]) -> Fraction | float:
    """top/bottom at a point; infinity where no row is on the bottom."""
    top, bottom = (count_at(mask, [point[atom] for atom in structure.atoms]) for mask in _masks(structure))
    return top / bottom if bottom else inf


def _at_a_plain_point(a: PreferenceStructure, b: PreferenceStructure) -> Mapping[str, Fraction]:
    """A witness with equal probabilities, for structures too wide to decide; an error if there is none."""
    for denominator in (2, 4, 8, 16):
        for numerator in range(1, denominator, 2):
            point = dict.fromkeys(a.atoms, Fraction(numerator, denominator))
            if _ratio(a, point) > _ratio(b, point):
                return point
    raise SpecError(
        f"whether one loss dominates the other is decided up to {MAX_VARIABLES} propositions; here are "
        f"{len(a.atoms)}, and neither entailment nor a sample of points tells. Entailment has no such limit."
    )


def _of_rules(first: RuleSet, second: RuleSet) -> Dominance:
    """Rule by rule; the witness is of the first rule that dominates none.

    Raises:
        SpecError: The rules cannot be paired, or a term need not fall in its ratio.
    """
    failed: list[Dominance] = []

    def fits(x: AnyRule, y: AnyRule) -> bool:
        if isinstance(x, Rule) and isinstance(y, Rule):
            found = dominates(x.structure, y.structure)
            failed.extend([] if found else [found])
            return bool(found)
        if isinstance(x, TwoRatioRule) and isinstance(y, TwoRatioRule):
            return x.inner == y.inner and bool(dominates(x.first, y.first)) and bool(dominates(y.second, x.second))
        return False

    if not (first.orders and second.orders):
        raise SpecError(
            "dominance is decided under decreasing links, and one of the two has a term that need not fall in ρ."
        )
    if rules_fit(first, second, fits):
        return Dominance(True)
    if not failed:
        raise SpecError("their rules cannot be paired: no pairing has the same links, weights and guards.")
    return failed[0]


def _near_corner(a: PreferenceStructure, b: PreferenceStructure, row: int) -> Mapping[str, Fraction]:
    """A point inside the cube, so close to a corner where the ratios compare the wrong way that they still do."""
    count = len(a.atoms)
    step = Fraction(1, 2)
    while True:
        point = {
            atom: step / 2 if row >> (count - 1 - place) & 1 else 1 - step / 2 for place, atom in enumerate(a.atoms)
        }
        if _ratio(a, point) > _ratio(b, point):
            return point
        step /= 2
