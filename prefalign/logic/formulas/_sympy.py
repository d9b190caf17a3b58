"""SymPy Booleans as formulas; `Formula.to_sympy` goes the other way."""

from __future__ import annotations

import sympy
from sympy.logic import boolalg

from ..._errors import SpecError
from ._formula import FALSE, TRUE, And, Atom, Formula, Iff, Implies, Not, Or, Xor


def from_boolean(expression: sympy.Basic) -> Formula:
    """A SymPy Boolean as a formula.

    Raises:
        SpecError: It holds something other than atoms and connectives.
    """
    if expression in (sympy.true, sympy.false):
        return TRUE if expression == sympy.true else FALSE
    if isinstance(expression, sympy.Symbol):
        return Atom(expression.name)
    parts = tuple(from_boolean(part) for part in sorted(expression.args, key=sympy.default_sort_key))
    if isinstance(expression, boolalg.Not):
        return Not(parts[0])
    if isinstance(expression, boolalg.Implies):
        return Implies(from_boolean(expression.args[0]), from_boolean(expression.args[1]))
    if isinstance(expression, boolalg.Equivalent) and len(parts) == 2:
        return Iff(parts[0], parts[1])
    for kind, ours in ((boolalg.And, And), (boolalg.Or, Or), (boolalg.Xor, Xor)):
        if isinstance(expression, kind):
            return ours(parts)
    raise SpecError(f"a formula consists of atoms and connectives (got {expression!r}).")
