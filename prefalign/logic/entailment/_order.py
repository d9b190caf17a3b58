"""Preference entailment: row by row the order x < {o, b} < v, on two integers per structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

from ..._errors import SpecError
from ..equations import equal_ratios
from ..named import Readable, as_rules, as_structure
from ..structures import AnyRule, PreferenceStructure, Rule, RuleSet, TwoRatioRule, aligned
from ..tables import bits


def entails(a: Readable, b: Readable) -> bool:
    """Whether a ⊑ b: P_f of a implies P_f of b, and N_f of b implies N_f of a.

    Row by row it is the order x < {o, b} < v. **Under a decreasing link** (logistic, hinge, perceptron, sigmoid) a ⊑ b
    means loss(a) ≥ loss(b) for every w, l, rw, rl: b is the weaker demand. **Under a turning link it means nothing**:
    ORPO ⊑ cCPO, and yet the square link at w = .6, l = .05, β = .5 gives 5.522 < 5.766.

    Of rule sets: whether each rule of a entails a rule of b of its own, with the same link, weight and guard; false
    where one of them turns.

    Args:
        a: A structure, an equation, a catalogue name, or a column such as "ovxo"; or a RuleSet.
        b: Likewise.

    Example:
        >>> entails("orpo", "ccpo"), entails("ccpo", "orpo")
        (True, False)
        >>> from sympy import N
        >>> point = {"w": 0.6, "l": 0.05, "beta": 0.5}
        >>> for name in ("orpo", "ccpo"):
        ...     rho = log(derive(name).ratio)
        ...     print(name, N(LINKS["square"].expression.subs("rho", rho).subs(point), 4))
        orpo 5.522
        ccpo 5.766

    Source: Richardson, Srikumar, Sabharwal 2025, arXiv:2412.17696.
    """
    if isinstance(a, RuleSet) or isinstance(b, RuleSet):
        return rules_entail(*(each if isinstance(each, RuleSet) else as_rule_set(each) for each in (a, b)))
    try:
        if a.atoms == b.atoms:  # type: ignore[union-attr]
            return not (a.top_mask & ~b.top_mask or b.bottom_mask & ~a.bottom_mask)  # type: ignore[union-attr]
    except AttributeError:  # text; asking first would double the price of the common case
        pass
    left, right = _aligned(a, b)
    return not (left.top_mask & ~right.top_mask or right.bottom_mask & ~left.bottom_mask)


def as_rule_set(given: Readable) -> RuleSet:
    """A loss as rules; a structure is one of the logistic link."""
    made = as_rules(given, "loss")
    return made if isinstance(made, RuleSet) else RuleSet((Rule(made),))


def equivalent(a: Readable, b: Readable) -> bool:
    """Whether a ⊑ b and b ⊑ a: the same P_f and the same N_f, hence the same loss **under every link**.

    The converse does not hold: structures that differ by a common factor of top and bottom are different demands with
    the same loss; `same_ratio` asks for that.

    Args:
        a: A structure, an equation, a catalogue name, or a column such as "ovxo".
        b: Likewise.

    Example:
        >>> equivalent("dpo", "(w/rw)/(l/rl)")
        True
    """
    left, right = _aligned(a, b)
    return left.top_mask == right.top_mask and left.bottom_mask == right.bottom_mask


def same_ratio(a: Readable, b: Readable) -> bool:
    """Whether both have the same ratio WMC(P_f) / WMC(N_f), hence the same loss **under every link**.

    Args:
        a: A structure with both parts satisfiable, an equation, or a catalogue name.
        b: Likewise.

    Raises:
        SpecError: P_f or N_f of one is unsatisfiable.

    Example:
        >>> a = PreferenceStructure.from_rows("vxoo")              # w*l over w*(1 - l)
        >>> b = PreferenceStructure.from_rows("vxvx")              # l over 1 - l
        >>> same_ratio(a, b), equivalent(a, b)
        (True, False)
    """
    left, right = as_structure(a, "a"), as_structure(b, "b")
    if left.is_degenerate or right.is_degenerate:
        raise SpecError("`same_ratio` needs structures with rows on top and on the bottom; one part is unsatisfiable.")
    return equal_ratios(left, right)


def meet(a: Readable, b: Readable) -> PreferenceStructure:
    """The weakest structure that entails both. **Under a decreasing link** its loss is at least both losses.

    Example:
        >>> meet("ce", "funl") == derive("ceunl")
        True
    """
    left, right = _aligned(a, b)
    return PreferenceStructure(left.atoms, left.top_mask & right.top_mask, left.bottom_mask | right.bottom_mask)


def join(a: Readable, b: Readable) -> PreferenceStructure:
    """The strongest structure that both entail. **Under a decreasing link** its loss is at most both losses.

    Example:
        >>> join("orpo", "cpo") == derive("ccpo")
        True
    """
    left, right = _aligned(a, b)
    return PreferenceStructure(left.atoms, left.top_mask | right.top_mask, left.bottom_mask & right.bottom_mask)


def between(a: Readable, b: Readable) -> Iterator[PreferenceStructure]:
    """All structures s with a ⊑ s ⊑ b, both ends included, those nearest to a first; none where a does not entail b.

    **Under a decreasing link** their losses lie between the losses of b and a. There are 2^d of them, d being the
    number of row labels (top and bottom counted apart) in which the ends differ; they come one at a time.

    Example:
        >>> [s.rows for s in between("orpo", "ccpo")]
        ['ovxo', 'vvxo']
    """
    left, right = _aligned(a, b)
    if not entails(left, right):
        return
    gains = [(1 << row, 0) for row in bits(right.top_mask & ~left.top_mask)]
    gains += [(0, 1 << row) for row in bits(left.bottom_mask & ~right.bottom_mask)]
    for size in range(len(gains) + 1):
        for chosen in combinations(gains, size):
            top, bottom = (sum(pair[side] for pair in chosen) for side in (0, 1))
            yield PreferenceStructure(left.atoms, left.top_mask | top, left.bottom_mask & ~bottom)


def _aligned(a: Readable, b: Readable) -> tuple[PreferenceStructure, PreferenceStructure]:
    return aligned(as_structure(a, "a"), as_structure(b, "b"))


def rules_entail(a: RuleSet, b: RuleSet) -> bool:
    """Whether each rule of `a` entails a rule of `b` of its own with the same decreasing link, weight and guard."""
    return a.orders and b.orders and rules_fit(a, b, _rule_entails)


def rules_fit(a: RuleSet, b: RuleSet, below: Callable[[AnyRule, AnyRule], bool]) -> bool:
    """Whether each rule of `a` is `below` a rule of `b` of its own with the same link, weight and guard."""
    if len(a) != len(b):
        return False
    fits = [
        [(x.link, x.weight, x.guard) == (y.link, y.weight, y.guard) and below(x, y) for y in b.rules] for x in a.rules
    ]
    taken: dict[int, int] = {}

    def place(i: int, tried: set[int]) -> bool:
        """Find rule `i` a partner, moving others along (augmenting paths)."""
        for j, fit in enumerate(fits[i]):
            if fit and j not in tried:
                tried.add(j)
                if j not in taken or place(taken[j], tried):
                    taken[j] = i
                    return True
        return False

    return all(place(i, set()) for i in range(len(fits)))


def _rule_entails(x: AnyRule, y: AnyRule) -> bool:
    if isinstance(x, Rule) and isinstance(y, Rule):
        return entails(x.structure, y.structure)
    if isinstance(x, TwoRatioRule) and isinstance(y, TwoRatioRule):
        return x.inner == y.inner and entails(x.first, y.first) and entails(y.second, x.second)
    return False
