"""The names of atoms: what each says, and in which order they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ..._errors import SpecError

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
    return _canonical(tuple(names))


@lru_cache(maxsize=1 << 12)
def _canonical(names: tuple[str, ...]) -> tuple[str, ...]:
    atoms = tuple(sorted(set(names), key=atom_key))
    if len(atoms) > MAX_ATOMS:
        raise SpecError(f"at most {MAX_ATOMS} atoms can be handled (got {len(atoms)}).")
    return atoms


def pair_atoms(names: Iterable[str]) -> tuple[str, ...]:
    """The table's axes for a statement about a pair: w and l always, rw and rl where one of them occurs.

    A statement about y1, y2, ... is not about a pair, and keeps its own atoms.

    Example:
        >>> pair_atoms(["w"]), pair_atoms(["w", "rw"]), pair_atoms(["y2", "y1"])
        (('w', 'l'), ('w', 'l', 'rw', 'rl'), ('y1', 'y2'))
    """
    used = set(names)
    if any(name.startswith("y") for name in used):
        return canonical(used)
    reference = {"rw", "rl"} if any(name.startswith("r") for name in used) else set()
    return canonical({"w", "l"} | reference | used)


def is_reference(atom: str) -> bool:
    """Whether the atom is a proposition about the reference model, which training does not move."""
    return atom.startswith("r")


def original(atom: str) -> str:
    """The atom that a copy stands for: w for w2; y2 is no copy.

    Example:
        >>> original("rl3"), original("y12")
        ('rl', 'y12')
    """
    return atom if atom.startswith("y") else atom.rstrip("0123456789")


def chosen_of(atoms: Sequence[str]) -> str:
    """The answer that is preferred: w, or the first of y1, y2, ... that is there.

    Example:
        >>> chosen_of(("l", "rl")), chosen_of(("y2", "y3"))
        ('w', 'y2')
    """
    answers = [atom for atom in atoms if atom.startswith("y")]
    return answers[0] if answers and len(answers) == len(atoms) else "w"
