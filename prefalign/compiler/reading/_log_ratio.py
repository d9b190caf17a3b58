"""The log ratio inside a link, as a ratio of weighted model counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sympy as sp

from ..._errors import DerivationError
from ...logic import PreferenceStructure
from ...logic import derive as derive_structure
from ..symbols import _symbols as sy
from ._log_linear import Form, at_one, atom_name, monomials, number_at

MAX_COPIES = 3


@dataclass(frozen=True)
class Core:
    """A log ratio of weighted model counts, ρ = log(top / bottom).

    Args:
        form: ρ as a Form (its constant is a margin).
        scale: The form that was read is `scale` · ρ.
        top: Polynomial in the atoms' probabilities.
        bottom: Likewise.
        meanings: What each atom's log-probability is, in the traced symbols: `W`, `W/n_w`, `lambda*W`, …
    """

    form: Form
    scale: sp.Expr
    top: sp.Expr
    bottom: sp.Expr
    meanings: Mapping[str, sp.Expr]

    def structure(self) -> PreferenceStructure:
        """The preference structure.

        Raises:
            DerivationError: Top or bottom is no weighted model count.
        """
        made = derive_structure(self.top / self.bottom)
        if not isinstance(made, PreferenceStructure):
            raise DerivationError(f"{self.top / self.bottom} is a multiple of a ratio of model counts.")
        return made


def core_of(form: Form, values: Mapping[sp.Symbol, float]) -> Core:
    """The polynomials behind a form.

    Args:
        form: At least one coefficient.
        values: A number for every hyperparameter, to compare sizes with.

    Raises:
        DerivationError: A probability stands with different powers, so that it is no proposition's.
    """
    units = dict(_units(form))
    scale = _scale(form, units, values)
    top, bottom = sp.S.One, sp.S.One
    meanings: dict[str, sp.Expr] = {}
    for atom, c in form.coefficients.items():
        c = sp.cancel(c / scale)
        if atom.is_Symbol:
            factor = _power(atom, c, units.get(atom), values, meanings)
        else:
            if not c.is_Integer:
                raise DerivationError(f"The power {c} of a sum of probabilities is no whole number.")
            factor = _polynomial(atom.args[0], units, meanings) ** abs(c)
        if _sign(c, values) > 0:
            top *= factor
        else:
            bottom *= factor
    return Core(form.scaled(1 / scale), scale, top, bottom, meanings)


def _units(form: Form) -> Iterator[tuple[sp.Expr, sp.Expr]]:
    """The exponent with which each log-probability stands inside sums."""
    for atom in form.coefficients:
        for _, inner in (monomials(atom.args[0]) or ()) if not atom.is_Symbol else []:
            for symbol, exponent in inner.coefficients.items():
                yield symbol, exponent / abs(at_one(exponent))


def _scale(form: Form, units: Mapping[sp.Expr, sp.Expr], values: Mapping[sp.Symbol, float]) -> sp.Expr:
    sums = [c for atom, c in form.coefficients.items() if not atom.is_Symbol]
    if sums:
        return _positive(sums[0], values)
    policy = {a: c for a, c in form.coefficients.items() if (atom_name(a) or "r")[0] != "r"} or form.coefficients
    bare = [_by_length(c)[0] for c in policy.values()]
    return _positive(min(bare, key=lambda c: abs(number_at(c, values))), values)


def _by_length(c: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """A coefficient as a factor without token counts, and the rest, which normalises by length: 1/n_w, 1/(n_w + 1)."""
    if not c.has(sy.N_W, sy.N_L):
        return c, sp.S.One
    parts: tuple[sp.Expr, sp.Expr] = sp.factor(c).as_independent(sy.N_W, sy.N_L, as_Add=False)
    return parts


def _sign(c: sp.Expr, values: Mapping[sp.Symbol, float]) -> int:
    return 1 if number_at(c, values) > 0 else -1


def _positive(c: sp.Expr, values: Mapping[sp.Symbol, float]) -> sp.Expr:
    return c if number_at(c, values) > 0 else -c


def _power(
    symbol: sp.Expr,
    c: sp.Expr,
    unit: sp.Expr | None,
    values: Mapping[sp.Symbol, float],
    meanings: dict[str, sp.Expr],
) -> sp.Expr:
    """exp(|c| · symbol) as a product of atoms: one, or copies where the power is not 1."""
    name = atom_name(symbol)
    assert name is not None
    size = _positive(c, values)
    if unit is None:
        unit = _positive(_by_length(size)[1], values)
    power = sp.cancel(size / unit)
    _mean(meanings, name, unit * symbol)
    product = sp.Symbol(name)
    if power == 1:
        return product
    if power.is_Integer and power <= MAX_COPIES:
        for k in range(2, int(power) + 1):
            _mean(meanings, f"{name}{k}", unit * symbol)
            product *= sp.Symbol(f"{name}{k}")
        return product
    if any(sy.is_frozen(s) for s in power.free_symbols):
        raise DerivationError(f"`{name}` stands with a power that is detached, {power}: no proposition.")
    if number_at(power, values) <= 1:
        raise DerivationError(
            f"`{name}` stands with the power {power}, less than another probability's: no proposition."
        )
    # w^(1 + c) is w and a copy of w that means pi^c, which is a probability too.
    _mean(meanings, f"{name}2", (power - 1) * unit * symbol)
    return product * sp.Symbol(f"{name}2")


def _mean(meanings: dict[str, sp.Expr], name: str, logp: sp.Expr) -> None:
    if sp.simplify(meanings.setdefault(name, logp) - logp) != 0:
        raise DerivationError(f"`{name}` stands both as {meanings[name]} and as {logp} (nats) in one log ratio.")


def _polynomial(x: sp.Expr, units: Mapping[sp.Expr, sp.Expr], meanings: dict[str, sp.Expr]) -> sp.Expr:
    total = sp.S.Zero
    for coefficient, form in monomials(x) or ():
        product = coefficient
        for symbol, exponent in form.coefficients.items():
            name = atom_name(symbol)
            assert name is not None
            power = sp.cancel(exponent / units[symbol])
            if not power.is_Integer:
                raise DerivationError(f"`{name}` stands with different powers, {exponent} and {units[symbol]}.")
            _mean(meanings, name, units[symbol] * symbol)
            product *= sp.Symbol(name) ** power
        total += product
    return total
