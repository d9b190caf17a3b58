"""Truth tables as integers: bit i of a mask is row i, in the order TT, TF, FT, FF (the first atom varies slowest).

A table over 20 atoms is one Python int of a million bits; `&`, `|` and `^` on it cost microseconds, which is what makes
entailment cheap where a satisfiability search is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache

from .._errors import SpecError

MAX_ATOMS = 20

_ATOM = re.compile(r"(?P<base>rw|rl|w|l)(?P<copy>[1-9][0-9]?)?|y(?P<place>[1-9][0-9]?)")
_BASES = {"w": 0, "l": 1, "rw": 2, "rl": 3}


def atom_key(name: str) -> tuple[int, int]:
    """The place of an atom in the canonical order: w, l, rw, rl, their copies w2, l2, ..., then y1, y2, ...

    Raises:
        SpecError: `name` is no atom.
    """
    match = _ATOM.fullmatch(name)
    if match is None or match["copy"] == "1":
        raise SpecError(
            f"`{name}` is no atom; atoms are w, l, rw, rl, their copies w2, l2, rw2, rl2, ..., and y1, y2, ..."
        )
    if match["place"]:
        return (1000, int(match["place"]))
    return (int(match["copy"] or 1), _BASES[match["base"]])


def is_atom(name: str) -> bool:
    """Whether `name` is w, l, rw, rl, a copy such as w2, or y1, y2, ..."""
    match = _ATOM.fullmatch(name)
    return match is not None and match["copy"] != "1"


def canonical(names: Iterable[str]) -> tuple[str, ...]:
    """The atoms `names` without repetition, in the canonical order.

    Raises:
        SpecError: A name is no atom, or there are more than 20.

    Example:
        >>> canonical(["rl", "l", "w2", "w", "l"])
        ('w', 'l', 'rl', 'w2')
    """
    atoms = tuple(sorted(set(names), key=atom_key))
    if len(atoms) > MAX_ATOMS:
        raise SpecError(f"at most {MAX_ATOMS} atoms can be handled (got {len(atoms)}).")
    return atoms


def pair_atoms(names: Iterable[str]) -> tuple[str, ...]:
    """The table's axes for a statement about a pair: w and l always, rw and rl where one of them occurs.

    A statement about y1, y2, ... is none about a pair, and keeps its own atoms.

    Example:
        >>> pair_atoms(["w"]), pair_atoms(["w", "rw"]), pair_atoms(["y2", "y1"])
        (('w', 'l'), ('w', 'l', 'rw', 'rl'), ('y1', 'y2'))
    """
    used = set(names)
    if any(name.startswith("y") for name in used):
        return canonical(used)
    reference = {"rw", "rl"} if any(name.startswith("r") for name in used) else set()
    return canonical({"w", "l"} | reference | used)


@cache
def full_mask(count: int) -> int:
    """All rows of a table over `count` atoms."""
    return (1 << (1 << count)) - 1


@lru_cache(maxsize=256)
def atom_mask(place: int, count: int) -> int:
    """The rows where atom number `place` (from 0) of `count` is true."""
    block = 1 << (count - 1 - place)
    mask, width = (1 << block) - 1, 2 * block
    while width < 1 << count:  # by doubling: a division would be quadratic in the million bits
        mask |= mask << width
        width *= 2
    return mask


def depends(mask: int, place: int, count: int) -> bool:
    """Whether the table changes when atom number `place` flips."""
    return bool((mask ^ (mask >> (1 << (count - 1 - place)))) & atom_mask(place, count))


def support(mask: int, atoms: Sequence[str]) -> tuple[str, ...]:
    """The atoms on which the table depends, in their order."""
    return tuple(atom for place, atom in enumerate(atoms) if depends(mask, place, len(atoms)))


def split(mask: int, count: int) -> tuple[int, int]:
    """The two halves of a table: where its first atom is true, and where it is false."""
    half = 1 << (count - 1)
    return mask & ((1 << half) - 1), mask >> half


def lift(mask: int, atoms: tuple[str, ...], onto: tuple[str, ...]) -> int:
    """The same table over more atoms; both tuples in the canonical order, `atoms` within `onto`."""
    if atoms == onto:
        return mask
    memo: dict[tuple[int, int, int], int] = {}

    def go(rows: int, i: int, j: int) -> int:
        count = len(onto) - j
        if not rows:
            return 0
        if rows == full_mask(len(atoms) - i):
            return full_mask(count)
        key = (rows, i, j)
        if key not in memo:
            half = 1 << (count - 1)
            if i < len(atoms) and atoms[i] == onto[j]:
                true, false = split(rows, len(atoms) - i)
                memo[key] = go(true, i + 1, j + 1) | go(false, i + 1, j + 1) << half
            else:
                same = go(rows, i, j + 1)
                memo[key] = same | same << half
        return memo[key]

    return go(mask, 0, 0)


def drop(mask: int, atoms: tuple[str, ...], onto: tuple[str, ...]) -> int:
    """The same table over the atoms `onto`, where it depends on no other (the others are set to true)."""
    if atoms == onto:
        return mask
    memo: dict[tuple[int, int], int] = {}

    def go(rows: int, i: int) -> int:
        if i == len(atoms):
            return rows
        key = (rows, i)
        if key not in memo:
            true, false = split(rows, len(atoms) - i)
            if atoms[i] in onto:
                below = sum(atom in onto for atom in atoms[i + 1 :])
                memo[key] = go(true, i + 1) | go(false, i + 1) << (1 << below)
            else:
                memo[key] = go(true, i + 1)
        return memo[key]

    return go(mask, 0)


def rename(mask: int, atoms: tuple[str, ...], names: dict[str, str]) -> tuple[tuple[str, ...], int]:
    """The table with its atoms renamed one to one, over the new names in their canonical order."""
    renamed = tuple(names.get(atom, atom) for atom in atoms)
    onto = canonical(renamed)
    if renamed == onto:
        return onto, mask
    count = len(atoms)
    result = 0
    places = [renamed.index(atom) for atom in onto]
    for row in bits(mask):
        moved = 0
        for place in places:
            moved = moved << 1 | (row >> (count - 1 - place) & 1)
        result |= 1 << moved
    return onto, result


def bits(mask: int) -> Iterator[int]:
    """The rows in a mask, ascending.

    Example:
        >>> list(bits(0b1010))
        [1, 3]
    """
    for start, byte in enumerate(mask.to_bytes((mask.bit_length() + 7) // 8, "little")):
        while byte:
            low = byte & -byte
            yield 8 * start + low.bit_length() - 1
            byte ^= low
