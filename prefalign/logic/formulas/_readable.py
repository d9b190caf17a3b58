"""Truth tables back into formulas that a person would write."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from ..tables import Cube, NormalForm, atom_mask, canonical, drop, full_mask, shortest, support
from ._formula import FALSE, TRUE, And, Atom, Formula, Iff, Implies, Not, Or, Xor


def shortest_formula(mask: int, atoms: Sequence[str], free: int = 0) -> Formula:
    """A short formula that is true on `mask`, false elsewhere, and either on the rows of `free`.

    Args:
        mask: Rows that must be true.
        atoms: The atoms of the table, in the canonical order.
        free: Rows that may be either; those in `mask` stay true.
    """
    mask, free, order = _narrow(mask, free & ~mask, tuple(atoms))
    parity = _parity(mask, order) if not free else None
    return parity or _formula(shortest(len(order), mask, free), order)


def implication(bottom: int, top: int, atoms: Sequence[str]) -> Formula:
    """B → T simplified, written as an implication where that is as short: the authors' P.

    Args:
        bottom: The rows of B.
        top: The rows of T.
        atoms: The atoms of the table, in the canonical order.

    Example:
        >>> implication(0b0101, 0b0011, ("w", "l"))      # B = M(l), T = M(w)
        M(l) → M(w)
    """
    full = full_mask(len(atoms))
    mask, _, order = _narrow((full ^ bottom) | top, 0, tuple(atoms))
    parity = _parity(mask, order)
    if parity:
        return parity
    form = shortest(len(order), mask)
    if form.conjunctive and len(form.terms) == 1:  # one clause is a disjunction of literals
        form = NormalForm(False, tuple((literal,) for literal in form.terms[0]))
    negative = tuple(cube for cube in form.terms if not any(sign for _, sign in cube))
    rest = tuple(cube for cube in form.terms if cube not in negative)
    if negative and rest and not form.conjunctive:
        clauses = tuple(tuple((index, True) for index, _ in cube) for cube in negative)
        return Implies(_formula(NormalForm(True, clauses), order), _formula(NormalForm(False, rest), order))
    left, right = (shortest_formula(rows, atoms) for rows in (bottom, top))
    if (
        bottom
        and top
        and bottom != full
        and len(form.terms) > 1
        and _literals(left) + _literals(right) <= form.literals
    ):
        return Implies(left, right)
    return _formula(form, order)


def _narrow(mask: int, free: int, atoms: tuple[str, ...]) -> tuple[int, int, tuple[str, ...]]:
    """The tables over only the atoms that matter: the minimiser is exact on few."""
    onto = canonical((*support(mask, atoms), *support(free, atoms)))
    return drop(mask, atoms, onto), drop(free, atoms, onto), onto


def _parity(mask: int, atoms: tuple[str, ...]) -> Formula | None:
    """a ⊕ b ⊕ ... or a ↔ b, if the table is that of all its atoms: no normal form is short there."""
    if len(atoms) < 2:
        return None
    odd = reduce(lambda rows, place: rows ^ atom_mask(place, len(atoms)), range(len(atoms)), 0)
    parts = tuple(map(Atom, atoms))
    if mask == odd:
        return Xor(parts)
    if mask == full_mask(len(atoms)) ^ odd:
        return Iff(parts[0], parts[1]) if len(parts) == 2 else Not(Xor(parts))
    return None


def _formula(form: NormalForm, atoms: tuple[str, ...]) -> Formula:
    if form.terms in ((), ((),)):
        return FALSE if bool(form.terms) == form.conjunctive else TRUE
    inner, outer = (Or, And) if form.conjunctive else (And, Or)
    singles = all(len(cube) == 1 for cube in form.terms)
    cubes = (tuple(pair for cube in form.terms for pair in cube),) if singles else form.terms
    if singles:
        inner = outer
    # One clause of negative literals reads better from outside: ¬(a ∧ b).
    if len(cubes) == 1 and inner is Or and len(cubes[0]) > 1 and not any(sign for _, sign in cubes[0]):
        return Not(And(tuple(Atom(atoms[index]) for index, _ in sorted(cubes[0]))))
    terms = tuple(_term(cube, atoms, inner) for cube in cubes)
    return terms[0] if len(terms) == 1 else outer(terms)


def _term(cube: Cube, atoms: tuple[str, ...], join: type[And] | type[Or]) -> Formula:
    literals = tuple(Atom(atoms[index]) if sign else Not(Atom(atoms[index])) for index, sign in sorted(cube))
    return literals[0] if len(literals) == 1 else join(literals)


def _literals(formula: Formula) -> int:
    return 1 if isinstance(formula, Atom) else sum(map(_literals, formula.below))
