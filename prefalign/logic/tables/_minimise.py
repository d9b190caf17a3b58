"""Short formulas for a truth table with don't-cares: an exact search on few propositions, Minato–Morreale beyond.

A truth table over n propositions is an integer whose bit i is row i. Row 0 is "all true" and the first proposition
varies slowest, so bit n-1-j of a row's number says whether proposition j is false there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from ._masks import atom_mask

# A conjunction (in a DNF) or a clause (in a CNF): pairs (index of the proposition, is it positive).
Cube = tuple[tuple[int, bool], ...]

# Up to here the minimum over all DNFs and CNFs is found; beyond, an irredundant one.
EXACT_ATOMS = 4
# Sub-problems this small repeat so often that their covers are kept for the life of the process.
_SHARED_ATOMS = 3


@dataclass(frozen=True, slots=True)
class NormalForm:
    """A formula in normal form: a disjunction of conjunctions, or a conjunction of clauses.

    Args:
        conjunctive: True for a conjunction of clauses (CNF), False for a disjunction of conjunctions (DNF).
        terms: Its conjunctions or clauses. The constant false is the DNF without terms; true is the DNF of one
            empty conjunction.
    """

    conjunctive: bool
    terms: tuple[Cube, ...]

    @property
    def literals(self) -> int:
        """How many literals stand in it; 0 for a constant."""
        return sum(map(len, self.terms))

    def mask(self, atoms: int) -> int:
        """The rows in which it is true, as a bit mask over 2**atoms rows."""
        full = (1 << (1 << atoms)) - 1
        if not self.conjunctive:
            rows = 0
            for cube in self.terms:
                rows |= _cube_mask(cube, atoms)
            return rows
        rows = full
        for clause in self.terms:
            rows &= full ^ _cube_mask(tuple((index, not positive) for index, positive in clause), atoms)
        return rows


def shortest(atoms: int, on: int, dontcare: int = 0) -> NormalForm:
    """The shorter of a short DNF and a short CNF that is true on `on`, false elsewhere, and free on `dontcare`.

    Shortness is the number of literals, then the number of terms (a lone clause is shorter than its literals as
    conjunctions); between equals the DNF is taken. Up to four
    propositions no DNF or CNF is shorter; beyond, every term and every literal is needed (none can be dropped), but a
    shorter form may exist.

    Args:
        atoms: Number of propositions.
        on: Rows that must be true, a bit mask.
        dontcare: Rows that may be either; rows also in `on` are true.

    Example:
        >>> shortest(2, on=0b1001, dontcare=0b0010)               # TT and FF true, TF free: M(l) -> M(w)
        NormalForm(conjunctive=True, terms=(((0, True), (1, False)),))

    Source: Minato 1992, "Fast generation of irredundant sum-of-products forms from binary decision diagrams".
    """
    full = (1 << (1 << atoms)) - 1
    upper = (on | dontcare) & full
    on &= full
    cover = _exact_cover if atoms <= EXACT_ATOMS else _irredundant_cover
    positive = cover(on, upper, atoms)
    negative = cover(full ^ upper, full ^ on, atoms)
    if _size(negative) < _size(positive) and negative:
        return NormalForm(True, tuple(tuple((index, not sign) for index, sign in cube) for cube in negative))
    return NormalForm(False, positive)


def _size(cubes: tuple[Cube, ...]) -> tuple[int, int]:
    return sum(map(len, cubes)), len(cubes)


def _cube_mask(cube: Cube, atoms: int) -> int:
    full = (1 << (1 << atoms)) - 1
    rows = full
    for index, positive in cube:
        true = atom_mask(index, atoms)
        rows &= true if positive else full ^ true
    return rows


# ---------------------------------------------------------------------------------------- exact, few propositions


@lru_cache(maxsize=8)
def cubes(atoms: int) -> tuple[tuple[Cube, int], ...]:
    """All 3**atoms conjunctions of literals with their rows, fewest literals first."""
    found: list[Cube] = []
    for signs in product((True, False, None), repeat=atoms):
        found.append(tuple((index, sign) for index, sign in enumerate(signs) if sign is not None))
    found.sort(key=len)
    return tuple((cube, _cube_mask(cube, atoms)) for cube in found)


@lru_cache(maxsize=1 << 16)
def _exact_cover(lower: int, upper: int, atoms: int) -> tuple[Cube, ...]:
    """Conjunctions with the fewest literals, then the fewest terms, whose union lies between `lower` and `upper`."""
    if not lower:
        return ()
    primes: list[tuple[Cube, int]] = []
    for cube, rows in cubes(atoms):  # fewest literals first, so an implicant within an earlier one is not prime
        if rows & ~upper == 0 and rows & lower and not any(rows & ~other == 0 for _, other in primes):
            primes.append((cube, rows))
    best: tuple[tuple[int, int], tuple[Cube, ...]] | None = None

    def search(left: int, chosen: tuple[Cube, ...], size: tuple[int, int]) -> None:
        nonlocal best
        if best is not None and size >= best[0]:
            return
        if not left:
            best = size, chosen
            return
        row = min(_bits(left), key=lambda bit: sum(rows >> bit & 1 for _, rows in primes))
        for cube, rows in primes:
            if rows >> row & 1:
                search(left & ~rows, (*chosen, cube), (size[0] + len(cube), size[1] + 1))

    search(lower, (), (0, 0))
    assert best is not None
    return tuple(sorted(best[1], key=_reading_order))


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _reading_order(cube: Cube) -> tuple[object, ...]:
    return len(cube), tuple((index, not sign) for index, sign in cube)


# ------------------------------------------------------------------------------------------------ Minato–Morreale

_Cover = tuple[tuple[Cube, ...], int]
_shared: dict[tuple[int, int, int], _Cover] = {}


def _irredundant_cover(lower: int, upper: int, atoms: int) -> tuple[Cube, ...]:
    memo: dict[tuple[int, int, int], _Cover] = {}

    def cover(low: int, up: int, left: int) -> _Cover:
        """Cubes over the last `left` propositions, counted from 0, and their union."""
        if not low:
            return (), 0
        if up == (1 << (1 << left)) - 1:
            return ((),), up
        table = _shared if left <= _SHARED_ATOMS else memo
        known = table.get((low, up, left))
        if known is None:
            known = table[low, up, left] = split(low, up, left)
        return known

    def split(low: int, up: int, left: int) -> _Cover:
        half = 1 << (left - 1)
        ones = (1 << half) - 1
        low_true, low_false, up_true, up_false = low & ones, low >> half, up & ones, up >> half
        if low_true == low_false and up_true == up_false:
            free, rows = cover(low_true, up_true, left - 1)
            return tuple(_deeper(free)), rows | rows << half
        true, true_rows = cover(low_true & ~up_false, up_true, left - 1)
        false, false_rows = cover(low_false & ~up_true, up_false, left - 1)
        rest = (low_true & ~true_rows) | (low_false & ~false_rows)
        free, free_rows = cover(rest, up_true & up_false, left - 1)
        found = (
            *(((0, True), *cube) for cube in _deeper(true)),
            *(((0, False), *cube) for cube in _deeper(false)),
            *_deeper(free),
        )
        return found, (true_rows | free_rows) | (false_rows | free_rows) << half

    found, _ = cover(lower, upper, atoms)
    return tuple(sorted(found, key=_reading_order))


def _deeper(found: tuple[Cube, ...]) -> Iterator[Cube]:
    """The same cubes, one proposition further down the order."""
    return (tuple((index + 1, sign) for index, sign in cube) for cube in found)
