"""Sets of structures that factor: labels allowed row by row, symmetries, and monotonicity; counted without listing.

Every structure over n atoms is a labelling of 2**n rows, so a set of allowed labels per row is a product, and its size
is one too. Symmetries tie rows into orbits, which leaves a product. Monotone tables are counted as such.
All checks are written with `& | ^ >>` only: the same code runs on two integers and on two arrays of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

from ...._errors import SpecError
from ...tables import atom_mask, full_mask

# How the four labels stand on (top, bottom).
LABELS = {"o": (0, 0), "v": (1, 0), "x": (0, 1), "b": (1, 1)}
_PARTNERS = {"w": "l", "rw": "rl"}


@dataclass(frozen=True)
class Region:
    """The structures over `atoms` whose rows carry allowed labels, with symmetries and monotone parts.

    Args:
        atoms: The propositions.
        o, v, x, b: The rows where that label is allowed, as masks.
        symmetric: Among "swap" (exchanging chosen and rejected exchanges top and bottom) and "rejected" (exchanging
            any of y2, y3, ... changes nothing).
        directions: Pairs (atom, +1 or -1): the top is monotone in it that way, and the bottom the other way.
    """

    atoms: tuple[str, ...]
    o: int
    v: int
    x: int
    b: int
    symmetric: frozenset[str] = frozenset()
    directions: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def everything(cls, atoms: tuple[str, ...]) -> Region:
        """All 4**(2**n) structures."""
        full = full_mask(len(atoms))
        return cls(atoms, full, full, full, full)

    @classmethod
    def interval(cls, atoms: tuple[str, ...], low: tuple[int, int] | None, high: tuple[int, int] | None) -> Region:
        """The structures that entail `high` and are entailed by `low`, each a pair of masks (top, bottom)."""
        full = full_mask(len(atoms))
        top_must, bottom_may = low if low is not None else (0, full)
        top_may, bottom_must = high if high is not None else (full, 0)
        top, no_top, bottom, no_bottom = top_may, full ^ top_must, bottom_may, full ^ bottom_must
        return cls(atoms, no_top & no_bottom, top & no_bottom, no_top & bottom, top & bottom)

    def __and__(self, other: Region) -> Region:
        return Region(
            self.atoms,
            self.o & other.o,
            self.v & other.v,
            self.x & other.x,
            self.b & other.b,
            self.symmetric | other.symmetric,
            self.directions | other.directions,
        )

    def hull(self, other: Region) -> Region:
        """A region that holds both: the labels that either allows."""
        return Region(self.atoms, self.o | other.o, self.v | other.v, self.x | other.x, self.b | other.b)

    def contains(self, top: Any, bottom: Any) -> Any:
        """Whether structures are in the region: masks as two ints, or two arrays of unsigned integers."""
        full = full_mask(len(self.atoms))
        wrong = (
            (top & bottom & (full ^ self.b))
            | (top & ~bottom & (full ^ self.v))
            | (~top & bottom & (full ^ self.x))
            | (~top & ~bottom & (full ^ self.o))
        )
        for kind in self.symmetric:
            for exchanges, flips in symmetry(kind, self.atoms):
                moved_top, moved_bottom = exchange(top, exchanges, self.atoms), exchange(bottom, exchanges, self.atoms)
                if flips:
                    moved_top, moved_bottom = moved_bottom, moved_top
                wrong = wrong | (moved_top ^ top) | (moved_bottom ^ bottom)
        for atom, direction in self.directions:
            wrong = wrong | _falls(top, atom, direction, self.atoms) | _falls(bottom, atom, -direction, self.atoms)
        return (wrong & full) == 0

    @cached_property
    def digits(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Per orbit of rows: the (top rows, bottom rows) that each allowed label of the orbit stands for."""
        return tuple(_orbit_options(self, orbit) for orbit in row_orbits(self.atoms, self.symmetric))

    @cached_property
    def is_rectangular(self) -> bool:
        """Whether at every row the choice on top and the choice on the bottom are independent."""
        top, no_top = self.v | self.b, self.o | self.x
        bottom, no_bottom = self.x | self.b, self.o | self.v
        return (top & bottom, top & no_bottom, no_top & bottom, no_top & no_bottom) == (self.b, self.v, self.x, self.o)

    @cached_property
    def bounds(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """For top and for bottom: the rows that must be in it, and the rows that may."""
        full = full_mask(len(self.atoms))
        top, bottom = self.v | self.b, self.x | self.b
        return (full ^ (self.o | self.x), top), (full ^ (self.o | self.v), bottom)

    @property
    def clashing_row(self) -> int | None:
        """The first row without an allowed label, or None."""
        empty = full_mask(len(self.atoms)) & ~(self.o | self.v | self.x | self.b)
        return (empty & -empty).bit_length() - 1 if empty else None

    def row_product(self) -> int:
        """How many labellings there are, symmetries and directions left aside: a product, by counting bits."""
        o, v, x, b = self.o, self.v, self.x, self.b
        if (o | v | x | b) != full_mask(len(self.atoms)):
            return 0
        odd, both, odd2, both2 = o ^ v, o & v, x ^ b, x & b  # two half adders
        four = (both & both2).bit_count()
        three = ((both & odd2) | (odd & both2)).bit_count()
        one = ((odd & ~(x | b)) | (odd2 & ~(o | v))).bit_count()
        two = (1 << len(self.atoms)) - one - three - four
        result: int = 3**three << (two + 2 * four)
        return result


# ------------------------------------------------------------------------------------------------------ symmetries


@lru_cache(maxsize=64)
def symmetry(kind: str, atoms: tuple[str, ...]) -> tuple[tuple[tuple[tuple[int, int], ...], bool], ...]:
    """The generators of a symmetry: places of atoms that are exchanged, and whether top and bottom are too.

    Raises:
        SpecError: The atoms do not have it.
    """
    if kind == "swap":
        pairs = []
        for atom in atoms:
            base, copy = atom.rstrip("0123456789"), atom.lstrip("wrl")
            partner = {"y1": "y2"}.get(atom) if atom[0] == "y" else _PARTNERS.get(base, "") + copy
            if atom in ("y1", "w", "rw") or base in _PARTNERS:
                if partner not in atoms:
                    raise SpecError(f"`symmetric='swap'` needs the partner of `{atom}` among the atoms (got {atoms}).")
                pairs.append((atoms.index(atom), atoms.index(partner)))
        if 2 * len(pairs) != len(atoms):
            raise SpecError(f"`symmetric='swap'` needs atoms that pair up, chosen with rejected (got {atoms}).")
        return ((tuple(pairs), True),)
    rejected = [place for place, atom in enumerate(atoms) if atom[0] == "y" and atom != "y1"]
    if len(rejected) < 2:
        raise SpecError(f"`symmetric='rejected'` needs atoms y2 and y3 at least (got {atoms}).")
    return tuple((((first, second),), False) for first, second in pairwise(rejected))


def exchange(mask: Any, pairs: tuple[tuple[int, int], ...], atoms: tuple[str, ...]) -> Any:
    """The table with atoms exchanged, by a delta swap per pair; an int or an array."""
    count = len(atoms)
    for first, second in pairs:
        low, high = min(first, second), max(first, second)
        shift = (1 << (count - 1 - low)) - (1 << (count - 1 - high))
        # Rows where the earlier atom is true and the later one false trade places with their mirror images.
        rows = atom_mask(low, count) & ~atom_mask(high, count)
        # The mirror of row r (true, false) lies at r + block_low - block_high.
        changed = ((mask >> shift) ^ mask) & rows
        mask = mask ^ changed ^ (changed << shift)
    return mask


def _falls(mask: Any, atom: str, direction: int, atoms: tuple[str, ...]) -> Any:
    """The rows where making `atom` true moves the table against `direction`."""
    place, count = atoms.index(atom), len(atoms)
    block = 1 << (count - 1 - place)
    rows = atom_mask(place, count)
    if_false = mask >> block
    return (if_false & ~mask if direction > 0 else mask & ~if_false) & rows


@lru_cache(maxsize=64)
def row_orbits(atoms: tuple[str, ...], symmetric: frozenset[str]) -> tuple[tuple[tuple[int, bool], ...], ...]:
    """The rows in orbits, each with whether its label is flipped (v and x exchanged) against the orbit's first row.

    A row that stands in its orbit both ways must be flipped onto itself: only o and b can stand there.
    """
    rows = 1 << len(atoms)
    moves = []
    for kind in sorted(symmetric):
        for exchanges, flips in symmetry(kind, atoms):
            moved = [exchange(1 << row, exchanges, atoms).bit_length() - 1 for row in range(rows)]
            moves.append((moved, flips))
    seen: set[int] = set()
    orbits = []
    for start in range(rows):
        if start in seen:
            continue
        reached = {(start, False)}
        stack = [(start, False)]
        while stack:
            row, flipped = stack.pop()
            for moved, flips in moves:
                step = moved[row], flipped ^ flips
                if step not in reached:
                    reached.add(step)
                    stack.append(step)
        seen |= {row for row, _ in reached}
        orbits.append(tuple(sorted(reached)))
    return tuple(orbits)


def _orbit_options(region: Region, orbit: tuple[tuple[int, bool], ...]) -> tuple[tuple[int, int], ...]:
    allowed = {"o": region.o, "v": region.v, "x": region.x, "b": region.b}
    flip = {"o": "o", "v": "x", "x": "v", "b": "b"}
    options = []
    for label in "ovxb":
        carried = {(row, flip[label] if flipped else label) for row, flipped in orbit}
        consistent = len(carried) == len({row for row, _ in orbit})
        if consistent and all(allowed[carried_label] >> row & 1 for row, carried_label in carried):
            top = sum(1 << row for row, carried_label in carried if LABELS[carried_label][0])
            bottom = sum(1 << row for row, carried_label in carried if LABELS[carried_label][1])
            options.append((top, bottom))
    return tuple(options)
