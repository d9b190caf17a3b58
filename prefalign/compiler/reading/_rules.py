"""From the formula of a loss to rules: find the log ratios, group them, and split the loss into one link for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import sympy as sp

from ..._errors import DerivationError, PrefalignError
from ...logic import Direction, PreferenceStructure
from ..symbols import _symbols as sy
from ._cases import collapse, simplest, soften, split_pairs
from ._directions import RHO, direction_of, sign_unknown, weight_of
from ._distinct import LogRatios, show, spanned
from ._log_linear import Form, Values, is_live, linear, number_at
from ._log_ratio import Core, core_of
from ._two_ratios import TwoParts, read_two

MAX_GUARDS = 6


@dataclass(frozen=True)
class Part:
    """One term of a loss, in the traced symbols: where the guards hold, weight · link(ρ).

    Args:
        core: The log ratio.
        structure: Its reading.
        link: In `RHO`, hyperparameters, and detached quantities.
        direction: Whether the term, weight and all, falls in ρ everywhere, rises somewhere, or that is not known.
        weight: Without `RHO`, positive at the hyperparameters' values where its sign is known.
        guards: (distance, whether distance > 0): all must hold.
    """

    core: Core
    structure: PreferenceStructure
    link: sp.Expr
    direction: Direction
    weight: sp.Expr = sp.S.One
    guards: tuple[tuple[sp.Expr, bool], ...] = ()

    @property
    def structures(self) -> tuple[PreferenceStructure, ...]:
        """The structure, as `TwoParts` has two."""
        return (self.structure,)

    @property
    def functions(self) -> tuple[sp.Expr, ...]:
        """The link, as `TwoParts` has two functions."""
        return (self.link,)

    @property
    def meanings(self) -> Mapping[str, sp.Expr]:
        """What the atoms stand for, in the traced symbols."""
        return self.core.meanings


def read(expr: sp.Expr, values: Values) -> list[AnyPart]:
    """The parts of a loss, at least one of them a rule's.

    Args:
        expr: As traced.
        values: A number for every hyperparameter.

    Raises:
        DerivationError: A term is no function of one log ratio of weighted model counts.
    """
    expr = collapse(expr, values)
    errors: list[PrefalignError] = []
    for prepare in (soften, split_pairs):
        try:
            return _with_a_rule(_guarded(prepare(expr), values, 0))
        except PrefalignError as error:
            errors.append(error)
    raise errors[0]


@dataclass(frozen=True)
class Constant:
    """What a loss adds without teaching the policy anything: a number, or the reference's values.

    Args:
        value: In the traced symbols, without the policy's log-probabilities, or with detached ones alone.
        guards: As in `Part`.
    """

    value: sp.Expr
    guards: tuple[tuple[sp.Expr, bool], ...] = ()


AnyPart: TypeAlias = Part | TwoParts | Constant


def _with_a_rule(found: list[AnyPart]) -> list[AnyPart]:
    still = [part.value for part in found if isinstance(part, Constant)]
    if len(still) < len(found):
        return found
    values = {value.replace(sy.LogSigmoid, lambda x: -sp.log(1 + sp.exp(-x))) for value in still}
    shown = " or ".join(sorted(map(str, values))) or "0"
    raise DerivationError(f"The loss does not depend on the log-probabilities: it is {shown} for all of them.")


def _guarded(expr: sp.Expr, values: Values, depth: int) -> list[AnyPart]:
    """The parts of `expr`, none where it is 0; where necessary one set of them on each side of a condition."""
    if expr == 0:
        return []
    try:
        return _flat(expr, values)
    except DerivationError:
        distances = sorted({node.args[0] for node in expr.atoms(sy.Select)}, key=simplest)
        if not distances or depth >= MAX_GUARDS:
            raise
    # The simplest condition first; the others may then decide themselves.
    distance = distances[0]
    holds, fails = (_guarded(sy.assume(expr, distance, side), values, depth + 1) for side in (True, False))
    both = [part for part in holds if any(_same(part, other) for other in fails)]
    parts = [*both]
    for side, found in ((True, holds), (False, fails)):
        for part in found:
            if not any(_same(part, other) for other in both):
                parts.append(replace(part, guards=((distance, side), *part.guards)))
    return parts


def _same(a: AnyPart, b: AnyPart) -> bool:
    if isinstance(a, Constant) or isinstance(b, Constant):
        return a == b
    keys = [(p.structures, p.functions, p.weight, p.guards, dict(p.meanings)) for p in (a, b)]
    return keys[0] == keys[1]


def _terms(expr: sp.Expr) -> list[sp.Expr]:
    """The summands, with constant factors and factors of several log ratios multiplied out."""
    if expr.is_Add:
        return [term for part in expr.args for term in _terms(part)]
    if expr.is_Mul:
        sums = [factor for factor in expr.args if factor.is_Add and is_live(factor)]
        others = [factor for factor in expr.args if is_live(factor) and not factor.is_Add]
        if len(sums) == 1 and not others and linear(expr) is None:
            rest = expr / sums[0]
            return [term for part in sums[0].args for term in _terms(rest * part)]
    return [expr]


def _flat(expr: sp.Expr, values: Values) -> list[AnyPart]:
    try:
        return _of_terms(expr, values)
    except DerivationError:
        two = read_two(expr, values)
        if two is None:
            raise
        return [two]


def _of_terms(expr: sp.Expr, values: Values) -> list[AnyPart]:
    bag = LogRatios()
    straight, bent = Form(), []
    parts: list[AnyPart] = []
    for term in _terms(expr):
        form = linear(term)
        if form is None:
            bent.append((term, bag.abstract(term)))
        else:
            straight = straight + form
    constant = straight.constant
    straight = Form(straight.coefficients)
    groups: dict[int, list[sp.Expr]] = {}
    for written, term in bent:
        term, used = bag.cores_of(term)
        if len(used) != 1:
            two = read_two(written, values)
            if two is None:
                raise DerivationError(_mixed(term, [bag.forms[i] for i in used]))
            parts.append(two)
            continue
        groups.setdefault(used[0], []).append(term)
    for i, k in spanned(straight, {i: bag.forms[i] for i in groups}).items():
        groups[i].append(k * bag.symbols[i])
        straight = straight + bag.forms[i].scaled(-k)
    of_one = []
    for i, terms in groups.items():
        part, left = _part(bag.forms[i], bag.symbols[i], terms, values)
        of_one.append(part)
        constant += left
    of_one += _straight(straight, values)
    # The chosen answer's rules come first, as they are written by hand.
    of_one.sort(key=lambda part: "w" not in part.meanings)
    constant = sp.simplify(constant) if constant != 0 else constant
    if constant != 0 and of_one:
        of_one[0] = replace(of_one[0], link=of_one[0].link + constant / of_one[0].weight)
    return [*of_one, *parts] if of_one or constant == 0 else [*parts, Constant(constant)]


def _mixed(term: sp.Expr, forms: list[Form]) -> str:
    if not forms:
        return f"The term {term} is no function of log-probabilities."
    names = " and ".join(f"[{show(form)}]" for form in forms[:3])
    return (
        f"One term applies a non-linear function to {len(forms)} log ratios at once: {names}. Only sums of functions "
        "of one log ratio each, and of differences g(ρ₁) - g(ρ₂), have a reading."
    )


def _part(form: Form, symbol: sp.Symbol, terms: list[sp.Expr], values: Values) -> tuple[Part, sp.Expr]:
    """One core with the sum of its terms as a link; and a constant left over."""
    core = core_of(form, values)
    link = sp.Add(*terms).xreplace({symbol: core.scale * RHO})
    down = direction_of(link, values)
    if down == 1 or (not down and number_at(_leading(form), values) < 0):
        core = core_of(form.scaled(-sp.S.One), values)
        link = link.xreplace({RHO: -RHO})
    weight, link = weight_of(link, values)
    link, left = _upright(link)
    direction: Direction = (
        "unknown" if down is None or sign_unknown(weight) else "turning" if down == 0 else "decreasing"
    )
    return Part(core, core.structure(), link, direction, weight), left * weight


def _leading(form: Form) -> sp.Expr:
    """The sign that the chosen answer's probability has in a form, or minus the rejected one's."""
    for symbol, sign in ((sy.W, 1), (sy.L, -1), (sy.RW, -1), (sy.RL, 1)):
        if symbol in form.coefficients:
            return sign * form.coefficients[symbol]
    return sp.S.One


def _upright(link: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """-sigmoid(x) as sigmoid(-x), and the -1 between them."""
    left, terms = sp.S.Zero, []
    for term in sp.Add.make_args(link):
        c, rest = term.as_independent(RHO, as_Add=False)
        if isinstance(rest, sy.Sigmoid) and c.could_extract_minus_sign():
            left += c
            term = -c * sy.Sigmoid(-rest.args[0])
        terms.append(term)
    return sp.Add(*terms), left


def _straight(form: Form, values: Values) -> list[Part]:
    """The rules of a linear combination of logs: semantic losses, or ρ itself."""
    if not form.coefficients:
        return []
    whole = _semantic(form, values)
    if whole is not None:
        return [whole]
    parts = []
    for atom, c in form.coefficients.items():
        part = _semantic(Form({atom: c}), values)
        if part is None:
            raise DerivationError(f"The term {c * atom} has no reading: it is no log of a weighted model count.")
        parts.append(part)
    return parts


def _semantic(form: Form, values: Values) -> Part | None:
    """-log(T/U) as the logistic loss of T over U - T if that is a weighted model count, or else as -ρ of T over U."""
    try:
        core = core_of(form.scaled(-sp.S.One), values)
    except DerivationError:
        return None
    if any(name[-1].isdigit() and name[0] != "y" for name in core.meanings):
        return None
    top, bottom = sp.fraction(sp.cancel(core.top / core.bottom))
    for rest, link in ((sp.expand(bottom - top), -sy.LogSigmoid(RHO)), (None, -RHO)):
        if rest == 0:
            continue
        new = core if rest is None else replace(core, top=top, bottom=rest)
        try:
            return Part(new, new.structure(), link, "decreasing", core.scale)
        except PrefalignError:
            continue
    return None
