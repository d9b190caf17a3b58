"""Truth tables as integers: bit i of a mask is row i, in the order TT, TF, FT, FF (the first atom varies slowest).

A table over 20 atoms is one Python int of a million bits; `&`, `|` and `^` on it cost microseconds, which is what makes
entailment cheap where a satisfiability search is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

from ._atoms import canonical


@cache
def full_mask(count: int) -> int:
    """All rows of a table over `count` atoms."""
    return (1 << (1 << count)) - 1


@lru_cache(maxsize=512)
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
