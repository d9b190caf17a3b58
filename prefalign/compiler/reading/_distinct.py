"""The distinct log ratios of a loss: each is found once, and the loss is written in symbols for them."""

from __future__ import annotations

import sympy as sp

from ..._errors import DerivationError
from ..symbols import _symbols as sy
from ._log_linear import Form, atom_name, is_live, is_reference, linear


def show(form: Form) -> str:
    """A form as an error prints it."""
    return str(written(form))


def written(form: Form) -> sp.Expr:
    """A form as an expression, without its constant."""
    return sp.Add(*(c * a for a, c in form.coefficients.items()))


def of_policy(form: Form) -> bool:
    """Whether a form has one of the policy's log-probabilities."""
    return any(not is_reference(s) for a in form.coefficients for s in a.free_symbols if atom_name(s))


class LogRatios:
    """The distinct log ratios met so far; proportional ones are one."""

    def __init__(self) -> None:
        self.forms: list[Form] = []
        self.symbols: list[sp.Symbol] = []

    def abstract(self, expr: sp.Expr) -> sp.Expr:
        """`expr` with each maximal log-linear part replaced by a multiple of its core's symbol, plus a constant."""
        if not is_live(expr):
            return expr
        form = linear(expr)
        if form is not None:
            return self._core(form)
        if isinstance(expr, sy.Select) and not is_live(expr.args[0]):
            raise DerivationError("A case distinction on detached quantities.")
        if expr.is_Add:
            forms = [(part, linear(part)) for part in expr.args]
            total = Form()
            for _, found in forms:
                total = total + found if found else total
            rest = sp.Add(*(self.abstract(part) for part, found in forms if not found))
            return (self._core(total) if total.coefficients else total.constant) + rest
        if expr.is_Atom:
            raise DerivationError(f"`{expr}` has no reading.")
        return expr.func(*map(self.abstract, expr.args))

    def cores_of(self, term: sp.Expr) -> tuple[sp.Expr, list[int]]:
        """The log ratios in a term; those of the reference alone, beside one of the policy, are put back as values."""
        used = [i for i, symbol in enumerate(self.symbols) if symbol in term.free_symbols]
        policy = [i for i in used if of_policy(self.forms[i])]
        asked = {symbol for node in term.atoms(sy.Select) for symbol in node.args[0].free_symbols}
        if len(policy) != 1 or any(self.symbols[i] in asked for i in used if i not in policy):
            return term, used  # a condition on the reference is a guard
        back = {self.symbols[i]: written(self.forms[i]) for i in used if i not in policy}
        return term.xreplace(back), policy

    def _core(self, form: Form) -> sp.Expr:
        if not form.coefficients:
            return form.constant
        for known, symbol in zip(self.forms, self.symbols, strict=True):
            k = form.ratio_to(known)
            if k is not None:
                return k * symbol + form.constant
        self.forms.append(Form(form.coefficients))
        self.symbols.append(sp.Dummy(f"rho{len(self.forms)}", real=True))
        return self.symbols[-1] + form.constant


def spanned(straight: Form, forms: dict[int, Form]) -> dict[int, sp.Expr]:
    """How many times each log ratio that has a term of its own stands in the straight part; empty if that is not all.

    So the `- d` of a penalty exp(d) - 1 - d belongs to the rule of exp(d).
    """
    if not straight.coefficients or not forms:
        return {}
    unknown = {i: sp.Dummy() for i in forms}
    atoms = {atom for form in (straight, *forms.values()) for atom in form.coefficients}
    equations = [
        sp.Add(*(unknown[i] * form.coefficients.get(atom, 0) for i, form in forms.items()))
        - straight.coefficients.get(atom, 0)
        for atom in sorted(atoms, key=str)
    ]
    (solution,) = sp.linsolve(equations, *unknown.values()) or ((),)
    if not solution or any(value.free_symbols & set(unknown.values()) for value in solution):
        return {}
    return {i: value for i, value in zip(unknown, solution, strict=True) if value != 0}
