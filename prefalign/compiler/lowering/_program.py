"""A structure's two weighted model counts as one shared decision diagram, and that as a list of steps in log space.

    WMC(f) = p * WMC(f where p is true) + (1 - p) * WMC(f where p is false)

Products become sums of logs, which cancel between top and bottom; only true sums remain, as `logaddexp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...logic import PreferenceStructure

# A term of a sum of logs: ("p", atom), ("1-p", atom), or ("+", number of a step).
Slot = tuple[str, str | int]
Sum = Mapping[Slot, int]
# A sum as it is computed, from left to right; signs are +1 and -1.
Chain = tuple[tuple[int, Slot], ...]


@dataclass(frozen=True)
class Program:
    """Straight-line code for ρ = log top - log bottom.

    Args:
        steps: Each is logaddexp of two chains, which may use literals and the steps before it.
        result: Chains with signs, one for each answer; ρ is their sum.
    """

    steps: tuple[tuple[Chain, Chain], ...]
    result: tuple[tuple[int, Chain], ...]

    @property
    def is_constant(self) -> bool:
        """Whether ρ does not depend on the policy at all."""
        slots = [slot for _, chain in self.result for _, slot in chain]
        return not self.steps and all(str(slot[1]).startswith("r") for slot in slots)


def compile_structure(structure: PreferenceStructure, reference: bool = False) -> Program:
    """The program of a structure with satisfiable top and bottom.

    Args:
        structure: Over any atoms.
        reference: Add log rl - log rw to ρ.
    """
    builder = _Builder(structure.atoms)
    total = dict(builder.count(structure.top_mask, 0))
    for slot, k in builder.count(structure.bottom_mask, 0).items():
        total[slot] = total.get(slot, 0) - k
    if reference:
        total[("p", "rl")] = total.get(("p", "rl"), 0) + 1
        total[("p", "rw")] = total.get(("p", "rw"), 0) - 1
    kept = {slot: k for slot, k in total.items() if k}
    return _pruned(builder.steps, kept)


class _Builder:
    def __init__(self, atoms: Sequence[str]) -> None:
        self.atoms = atoms
        self.steps: list[tuple[Chain, Chain]] = []
        self._memo: dict[tuple[int, int], Sum] = {}
        self._known: dict[tuple[Chain, Chain], int] = {}

    def count(self, rows: int, place: int) -> Sum:
        """log WMC of the rows, a table over atoms[place:], which must not be empty."""
        key = (rows, place)
        if key not in self._memo:
            self._memo[key] = self._expand(rows, place)
        return self._memo[key]

    def _expand(self, rows: int, place: int) -> Sum:
        count = len(self.atoms) - place
        if rows == (1 << (1 << count)) - 1:
            return {}
        half = 1 << (count - 1)
        # The first atom varies slowest, and the rows where it is true come first.
        true, false = rows & ((1 << half) - 1), rows >> half
        if true == false:
            return self.count(true, place + 1)
        atom = self.atoms[place]
        if not false:
            return _plus(self.count(true, place + 1), ("p", atom))
        if not true:
            return _plus(self.count(false, place + 1), ("1-p", atom))
        yes, no = self.count(true, place + 1), self.count(false, place + 1)
        # What both sides share stays outside the sum.
        shared = {slot: min(k, no[slot]) for slot, k in yes.items() if slot in no}
        left = _chain(_plus(_minus(yes, shared), ("p", atom)))
        right = _chain(_plus(_minus(no, shared), ("1-p", atom)))
        return _plus(shared, ("+", self._step(left, right)))

    def _step(self, left: Chain, right: Chain) -> int:
        pair = (left, right)
        if pair not in self._known:
            self._known[pair] = len(self.steps)
            self.steps.append(pair)
        return self._known[pair]


def _plus(terms: Sum, slot: Slot) -> Sum:
    return {**terms, slot: terms.get(slot, 0) + 1}


def _minus(terms: Sum, other: Sum) -> Sum:
    return {slot: k - other.get(slot, 0) for slot, k in terms.items() if k != other.get(slot, 0)}


def _chain(terms: Sum) -> Chain:
    """The sum as single additions: what is added first comes first, so that nothing need be negated."""
    ordered = sorted(terms.items(), key=lambda item: (item[1] < 0, item[0][0] != "p", str(item[0][1])))
    return tuple((1 if k > 0 else -1, slot) for slot, k in ordered for _ in range(abs(k)))


def _side(slot: Slot) -> str:
    """Whose answer a literal is about: the chosen's, the rejected's, or (a sum of several) nobody's."""
    name = str(slot[1]).rstrip("0123456789")
    return name[-1] if slot[0] != "+" and name and name[-1] in "wl" else ""


def _pruned(steps: Sequence[tuple[Chain, Chain]], total: Sum) -> Program:
    """The program without the steps that cancelled."""
    needed: list[int] = []

    def need(terms: Sequence[Slot]) -> None:
        for kind, index in terms:
            if kind == "+" and index not in needed:
                assert isinstance(index, int)
                for chain in steps[index]:
                    need([slot for _, slot in chain])
                needed.append(index)

    need(list(total))
    number = {old: new for new, old in enumerate(needed)}

    def renamed(chain: Chain) -> Chain:
        return tuple((sign, ("+", number[slot[1]]) if slot[0] == "+" else slot) for sign, slot in chain)  # type: ignore[index]

    # The chosen answer's part, then the rejected one's, each as a difference that begins with the policy: the order in
    # which losses are written by hand, so that DPO's comes out as its own, to the last bit.
    groups = []
    for side in ("w", "l", ""):
        part = {slot: k for slot, k in total.items() if _side(slot) == side}
        if part:
            first = min(part, key=lambda slot: (slot[0] != "p", str(slot[1]).startswith("r"), str(slot[1])))
            sign = 1 if part[first] > 0 else -1
            groups.append((sign, renamed(_chain({slot: sign * k for slot, k in part.items()}))))
    groups.sort(key=lambda group: group[0] < 0)
    return Program(tuple((renamed(a), renamed(b)) for a, b in (steps[i] for i in needed)), tuple(groups))
