"""What a specification is made of: regions that can be counted, properties that must be looked up, and their logic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...analysis import Behaviour, Summed, levels, summed
from ...structures import PreferenceStructure
from ...tables import atom_mask, chosen_of, count_literals, full_mask, is_reference, literal_array, original
from ._points import same_at_two_points
from ._regions import Region


class Condition:
    """A set of structures over fixed atoms (abstract)."""

    def said(self) -> str:
        """The part of the specification that this is, as the user would say it."""
        raise AssertionError(f"{type(self).__name__} defines `said`")

    def contains(self, tops: Any, bottoms: Any) -> Any:
        """Whether structures belong to it: two ints, or two arrays of masks."""
        raise AssertionError(f"{type(self).__name__} defines `contains`")


@dataclass(frozen=True)
class _Labelled(Condition):
    """A condition with words of its own (abstract)."""

    label: str

    def said(self) -> str:
        return self.label


@dataclass(frozen=True)
class InRegion(_Labelled):
    """The structures of a region."""

    region: Region

    def contains(self, tops: Any, bottoms: Any) -> Any:
        return self.region.contains(tops, bottoms)


@dataclass(frozen=True)
class Named(_Labelled):
    """A condition under one name."""

    inner: Condition

    def contains(self, tops: Any, bottoms: Any) -> Any:
        return self.inner.contains(tops, bottoms)


@dataclass(frozen=True)
class Property(_Labelled):
    """A property that each structure has or has not (abstract)."""

    atoms: tuple[str, ...]

    def has(self, top: int, bottom: int) -> bool:
        """Whether one structure has it."""
        raise AssertionError(f"{type(self).__name__} defines `has`")

    def contains(self, tops: Any, bottoms: Any) -> Any:
        if isinstance(tops, int):
            return self.has(tops, bottoms)
        import numpy as np

        pairs = zip(tops.tolist(), bottoms.tolist(), strict=True)
        return np.fromiter((self.has(top, bottom) for top, bottom in pairs), bool, len(tops))


@lru_cache(maxsize=1 << 12)
def _facts(atoms: tuple[str, ...], top: int, bottom: int) -> Behaviour:
    return Behaviour(PreferenceStructure(atoms, top, bottom))


@dataclass(frozen=True)
class MaxLiterals(Property):
    """At most so many literals in the shortest P, P_C and P_A."""

    most: int

    def has(self, top: int, bottom: int) -> bool:
        return count_literals(len(self.atoms), top, bottom) <= self.most

    def contains(self, tops: Any, bottoms: Any) -> Any:
        if isinstance(tops, int):
            return self.has(tops, bottoms)
        return literal_array(len(self.atoms), tops, bottoms) <= self.most


@dataclass(frozen=True)
class SurvivesSum(Property):
    """A gradient of one of these kinds is left at summed log-probabilities."""

    kinds: frozenset[Summed]

    def has(self, top: int, bottom: int) -> bool:
        return summed(self.atoms, top, bottom) in self.kinds

    def contains(self, tops: Any, bottoms: Any) -> Any:
        if isinstance(tops, int):
            return self.has(tops, bottoms)
        import numpy as np

        # Only the rows with the fewest true atoms matter, and of those there are few combinations.
        by_level = levels(self.atoms, self.atoms)
        low_tops, low_bottoms = np.zeros_like(tops), np.zeros_like(bottoms)
        for level in reversed(by_level):
            low_tops = np.where(tops & level, tops & level, low_tops)
            low_bottoms = np.where(bottoms & level, bottoms & level, low_bottoms)
        pairs, back = np.unique(np.stack([low_tops, low_bottoms]), axis=1, return_inverse=True)
        return np.array([self.has(int(top), int(bottom)) for top, bottom in pairs.T], dtype=bool)[back.reshape(-1)]


@dataclass(frozen=True)
class NoDisplacement(Property):
    """The chosen probability cannot fall while the loss falls.

    Args:
        joint: Only the fall of all of the model's probabilities by a common factor is considered.
    """

    joint: bool = False

    def has(self, top: int, bottom: int) -> bool:
        if not top or not bottom:
            return False
        facts = _facts(self.atoms, top, bottom)
        if self.joint:
            return facts.joint.kind in ("zero", "positive")
        return facts.displacement is None

    def contains(self, tops: Any, bottoms: Any) -> Any:
        if isinstance(tops, int) or self.joint or not len(tops):
            return super().contains(tops, bottoms)
        import numpy as np

        # The ratio must not depend on another probability of the model. At a point modulo a prime that is quickly seen
        # of those that do; where not even the tables depend on one, and rise in the chosen answer, it is certain.
        inside = (tops != 0) & (bottoms != 0)
        chosen = chosen_of(self.atoms)
        others = {original(atom) for atom in self.atoms if not is_reference(atom)} - {chosen}
        certain = inside & _rises(self.atoms, chosen, tops, bottoms)
        for other in sorted(others):
            inside[inside] = same_at_two_points(tops[inside], bottoms[inside], self.atoms, other)
            for place, atom in enumerate(self.atoms):
                if original(atom) == other:
                    certain &= ~(_changes(place, len(self.atoms), tops) | _changes(place, len(self.atoms), bottoms))
        asked = np.flatnonzero(inside & ~certain)
        inside[asked] = super().contains(tops[asked], bottoms[asked])
        return inside


def _changes(place: int, count: int, masks: Any) -> Any:
    """Whether a table depends on the atom at `place`, for arrays of tables."""
    import numpy as np

    true, width = atom_mask(place, count), 1 << (count - 1 - place)
    return ((masks >> np.uint64(width)) ^ masks) & np.uint64(true) != 0


def _rises(atoms: tuple[str, ...], chosen: str, tops: Any, bottoms: Any) -> Any:
    """Whether the top's table rises in the chosen answer and its copies, and the bottom's falls, for arrays."""
    import numpy as np

    good = np.ones(len(tops), dtype=bool)
    for place, atom in enumerate(atoms):
        if original(atom) == chosen:
            true, width = np.uint64(atom_mask(place, len(atoms))), np.uint64(1 << (len(atoms) - 1 - place))
            good &= (tops >> width & ~tops & true == 0) & (bottoms & ~(bottoms >> width) & true == 0)
    return good


@dataclass(frozen=True)
class BoundedGradient(Property):
    """The gradient in each log-probability of the model is bounded; see `Behaviour.gradient_is_bounded`."""

    def has(self, top: int, bottom: int) -> bool:
        return bool(top and bottom) and _facts(self.atoms, top, bottom).gradient_is_bounded

    def contains(self, tops: Any, bottoms: Any) -> Any:
        if isinstance(tops, int) or not len(tops):
            return super().contains(tops, bottoms)
        import numpy as np

        # Certain where both tables rise in each of the model's propositions: p·(T1 - T0)/T is between 0 and 1 then.
        certain = (tops != 0) & (bottoms != 0)
        for atom in self.atoms:
            if not is_reference(atom):
                full = np.uint64(full_mask(len(self.atoms)))
                certain &= _rises(self.atoms, original(atom), tops, bottoms ^ full)
        certain = certain if len(set(map(original, self.atoms))) == len(self.atoms) else certain & False
        asked = np.flatnonzero((tops != 0) & (bottoms != 0) & ~certain)
        inside = certain.copy()
        inside[asked] = super().contains(tops[asked], bottoms[asked])
        return inside


@dataclass(frozen=True)
class MonotoneRatio(Property):
    """The ratio rises in the chosen answer's probability and falls in the others', and is not constant in them."""

    def has(self, top: int, bottom: int) -> bool:
        if not top or not bottom:
            return False
        facts = _facts(self.atoms, top, bottom)
        signs, chosen = facts.signs, facts.chosen
        fits = all(sign.kind in ("zero", "positive" if name == chosen else "negative") for name, sign in signs.items())
        return fits and any(sign.kind != "zero" for sign in signs.values())


@dataclass(frozen=True)
class AllOf(Condition):
    """Every part holds."""

    parts: tuple[Condition, ...]

    def said(self) -> str:
        return "; ".join(_wrapped(part) for part in self.parts) if self.parts else "anything"

    def contains(self, tops: Any, bottoms: Any) -> Any:
        if isinstance(tops, int):
            return all(part.contains(tops, bottoms) for part in self.parts)
        import numpy as np

        inside = np.ones(len(tops), dtype=bool)
        for part in sorted(self.parts, key=_effort):
            left = np.flatnonzero(inside)
            inside[left] = part.contains(tops[left], bottoms[left])
        return inside


@dataclass(frozen=True)
class AnyOf(Condition):
    """At least one part holds."""

    parts: tuple[Condition, ...]

    def said(self) -> str:
        return " or ".join(f"({part.said()})" for part in self.parts)

    def contains(self, tops: Any, bottoms: Any) -> Any:
        if isinstance(tops, int):
            return any(part.contains(tops, bottoms) for part in self.parts)
        import numpy as np

        inside = np.zeros(len(tops), dtype=bool)
        for part in sorted(self.parts, key=_effort):
            left = np.flatnonzero(~inside)
            inside[left] = part.contains(tops[left], bottoms[left])
        return inside


@dataclass(frozen=True)
class Not(Condition):
    """The part does not hold."""

    part: Condition

    def said(self) -> str:
        return f"not ({self.part.said()})"

    def contains(self, tops: Any, bottoms: Any) -> Any:
        inside = self.part.contains(tops, bottoms)
        return not inside if isinstance(inside, bool) else ~inside


def _wrapped(part: Condition) -> str:
    return f"({part.said()})" if isinstance(part, AnyOf) else part.said()


def _effort(part: Condition) -> int:
    """Cheap tests first: regions, then table lookups, then derivations."""
    if isinstance(part, AllOf | AnyOf):
        return max((_effort(inner) for inner in part.parts), default=0)
    if isinstance(part, Not | Named):
        return _effort(part.part if isinstance(part, Not) else part.inner)
    return {InRegion: 0, SurvivesSum: 1, MaxLiterals: 2}.get(type(part), 3)


def is_array_test(condition: Condition) -> bool:
    """Whether thousands of structures can be tested at once, without a derivation for each."""
    return _effort(condition) <= 2


def conjuncts(condition: Condition) -> Iterator[Condition]:
    """The parts that all must hold, nested conjunctions opened."""
    if isinstance(condition, AllOf):
        for part in condition.parts:
            yield from conjuncts(part)
    else:
        yield condition


def skeleton(condition: Condition, atoms: tuple[str, ...]) -> Region:
    """A region that holds all structures of a condition: what can be listed before the rest is tested."""
    if isinstance(condition, InRegion):
        return condition.region
    if isinstance(condition, Named):
        return skeleton(condition.inner, atoms)
    region = Region.everything(atoms)
    if isinstance(condition, AllOf):
        for part in condition.parts:
            region &= skeleton(part, atoms)
    elif isinstance(condition, AnyOf):
        inner = [skeleton(part, atoms) for part in condition.parts]
        region = inner[0]
        for other in inner[1:]:
            region = region.hull(other)
    return region


def expand(condition: Condition, atoms: tuple[str, ...], most: int = 4096) -> dict[Region, int] | None:
    """The condition's indicator as a sum of regions' indicators with integer factors; None if it has no such form.

    1[A and B] = 1[A]·1[B], 1[not A] = 1 - 1[A], 1[A or B] = 1 - (1 - 1[A])·(1 - 1[B]): inclusion and exclusion.
    """
    whole = Region.everything(atoms)
    if isinstance(condition, InRegion):
        return {condition.region: 1}
    if isinstance(condition, Named):
        return expand(condition.inner, atoms, most)
    if isinstance(condition, Not):
        inner = expand(condition.part, atoms, most)
        return None if inner is None else _plus({whole: 1}, inner, -1)
    if isinstance(condition, AllOf | AnyOf):
        total = {whole: 1}
        for part in condition.parts:
            terms = expand(part if isinstance(condition, AllOf) else Not(part), atoms, most)
            if terms is None or len(terms) * len(total) > most:
                return None
            product: dict[Region, int] = {}
            for left, times in total.items():
                for right, factor in terms.items():
                    product = _plus(product, {left & right: times * factor}, 1)
            total = product
        return total if isinstance(condition, AllOf) else _plus({whole: 1}, total, -1)
    return None


def _plus(left: dict[Region, int], right: dict[Region, int], sign: int) -> dict[Region, int]:
    total = dict(left)
    for region, factor in right.items():
        total[region] = total.get(region, 0) + sign * factor
    return {region: factor for region, factor in total.items() if factor and region.clashing_row is None}
