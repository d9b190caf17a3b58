"""Why one loss does not entail another: the row that decides it."""

from __future__ import annotations

from ..named import Readable, as_structure
from ..structures import PreferenceStructure
from ..tables import bits, canonical

_SIDES = {(1, 0): "preferred", (0, 1): "dispreferred", (1, 1): "on both sides", (0, 0): "not counted"}


def why_not(a: Readable, b: Readable, names: tuple[str, str] | None = None) -> str:
    """Why `a` does not entail `b`, with the first row in which it fails; that it does, if so.

    Example:
        >>> print(why_not("cpo", "orpo"))
        CPO does not entail ORPO: where w and l are valid (row TT), CPO has it on both sides, and ORPO not counted.
    """
    first, second = as_structure(a, "a"), as_structure(b, "b")
    names = names or (_name(a, first), _name(b, second))
    atoms = canonical((*first.atoms, *second.atoms))
    first, second = first.over(atoms), second.over(atoms)
    broken = first.top_mask & ~second.top_mask | second.bottom_mask & ~first.bottom_mask
    if not broken:
        return f"{names[0]} entails {names[1]}: in every row it prefers no more and disprefers no less."
    row = next(bits(broken))
    here, there = (_SIDES[s.top_mask >> row & 1, s.bottom_mask >> row & 1] for s in (first, second))
    return (
        f"{names[0]} does not entail {names[1]}: where {_where(row, atoms)}, {names[0]} has it {here}, and {names[1]} "
        f"{there}."
    )


def _name(given: Readable, structure: PreferenceStructure) -> str:
    from ..named import catalogue

    known = catalogue.name_of(structure.reduced)
    return known or (given if isinstance(given, str) else str(structure.P))


def _where(row: int, atoms: tuple[str, ...]) -> str:
    values = [not row >> (len(atoms) - 1 - place) & 1 for place in range(len(atoms))]
    valid = [atom for atom, true in zip(atoms, values, strict=True) if true]
    letters = "".join("T" if true else "F" for true in values)
    if not valid:
        return f"no answer is valid (row {letters})"
    alone = "alone " if len(valid) < len(atoms) else ""
    return f"{' and '.join(valid)} {alone}{'is' if len(valid) == 1 else 'are'} valid (row {letters})"
