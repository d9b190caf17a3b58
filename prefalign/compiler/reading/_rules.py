"""From the formula of a loss to rules: find the log ratios, group them, and split the loss into one link for each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import sympy as sp
import torch

from ..._errors import DerivationError, PrefalignError
from ...logic import Direction, PreferenceStructure
from ..symbols import _symbols as sy
from ..symbols import evaluate
from ._cases import Values, collapse, simplest, soften, split_pairs
from ._log_linear import Form, atom_name, is_live, linear
from ._log_ratio import Core, core_of, number_at

RHO = sp.Symbol("rho", real=True)
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


def read(expr: sp.Expr, values: Values) -> list[Part | Constant]:
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


def _with_a_rule(found: list[Part | Constant]) -> list[Part | Constant]:
    still = [part.value for part in found if isinstance(part, Constant)]
    if len(still) < len(found):
        return found
    values = {value.replace(sy.LogSigmoid, lambda x: -sp.log(1 + sp.exp(-x))) for value in still}
    shown = " or ".join(sorted(map(str, values))) or "0"
    raise DerivationError(f"The loss does not depend on the log-probabilities: it is {shown} for all of them.")


def _guarded(expr: sp.Expr, values: Values, depth: int) -> list[Part | Constant]:
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


def _same(a: Part | Constant, b: Part | Constant) -> bool:
    if isinstance(a, Constant) or isinstance(b, Constant):
        return a == b
    keys = [(p.structure, p.link, p.weight, p.guards, dict(p.core.meanings)) for p in (a, b)]
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


def _flat(expr: sp.Expr, values: Values) -> list[Part | Constant]:
    bag = _Cores()
    straight, bent = Form(), []
    for term in _terms(expr):
        form = linear(term)
        if form is None:
            bent.append(bag.abstract(term))
        else:
            straight = straight + form
    constant = straight.constant
    straight = Form(straight.coefficients)
    groups: dict[int, list[sp.Expr]] = {}
    for term in bent:
        term, used = bag.cores_of(term)
        if len(used) != 1:
            raise DerivationError(_mixed(term, [bag.forms[i] for i in used]))
        groups.setdefault(used[0], []).append(term)
    for i, k in _spanned(straight, {i: bag.forms[i] for i in groups}).items():
        groups[i].append(k * bag.symbols[i])
        straight = straight + bag.forms[i].scaled(-k)
    parts = []
    for i, terms in groups.items():
        part, left = _part(bag.forms[i], bag.symbols[i], terms, values)
        parts.append(part)
        constant += left
    parts += _straight(straight, values)
    # The chosen answer's rules come first, as they are written by hand.
    parts.sort(key=lambda part: "w" not in part.core.meanings)
    constant = sp.simplify(constant) if constant != 0 else constant
    if not parts:
        return [Constant(constant)] if constant != 0 else []
    if constant != 0:
        parts[0] = replace(parts[0], link=parts[0].link + constant / parts[0].weight)
    return [*parts]


def _spanned(straight: Form, forms: dict[int, Form]) -> dict[int, sp.Expr]:
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


def _mixed(term: sp.Expr, forms: list[Form]) -> str:
    if not forms:
        return f"The term {term} is no function of log-probabilities."
    names = " and ".join(f"[{_show(form)}]" for form in forms[:3])
    return (
        f"One term applies a non-linear function to {len(forms)} log ratios at once: {names}. Only sums of functions "
        "of one log ratio each have a reading (a divergence other than the reverse KL, for example, has none)."
    )


def _show(form: Form) -> str:
    return str(_written(form))


def _written(form: Form) -> sp.Expr:
    return sp.Add(*(c * a for a, c in form.coefficients.items()))


def _of_policy(form: Form) -> bool:
    return any(not is_reference(s) for a in form.coefficients for s in a.free_symbols if atom_name(s))


class _Cores:
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
        policy = [i for i in used if _of_policy(self.forms[i])]
        asked = {symbol for node in term.atoms(sy.Select) for symbol in node.args[0].free_symbols}
        if len(policy) != 1 or any(self.symbols[i] in asked for i in used if i not in policy):
            return term, used  # a condition on the reference is a guard
        back = {self.symbols[i]: _written(self.forms[i]) for i in used if i not in policy}
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


def _part(form: Form, symbol: sp.Symbol, terms: list[sp.Expr], values: Values) -> tuple[Part, sp.Expr]:
    """One core with the sum of its terms as a link; and a constant left over."""
    core = core_of(form, values)
    link = sp.Add(*terms).xreplace({symbol: core.scale * RHO})
    down = _direction(link, values)
    if down == 1 or (not down and number_at(_leading(form), values) < 0):
        core = core_of(form.scaled(-sp.S.One), values)
        link = link.xreplace({RHO: -RHO})
    weight, link = _weight(link, values)
    link, left = _upright(link)
    direction: Direction = (
        "unknown" if down is None or _sign_unknown(weight) else "turning" if down == 0 else "decreasing"
    )
    return Part(core, core.structure(), link, direction, weight), left * weight


def _leading(form: Form) -> sp.Expr:
    """The sign that the chosen answer's probability has in a form, or minus the rejected one's."""
    for symbol, sign in ((sy.W, 1), (sy.L, -1), (sy.RW, -1), (sy.RL, 1)):
        if symbol in form.coefficients:
            return sign * form.coefficients[symbol]
    return sp.S.One


def _direction(link: sp.Expr, values: Values) -> int | None:
    """-1 where the link never rises in ρ, 1 where it never falls, 0 where it turns, at the hyperparameters' values.

    None if that depends on detached quantities or on lengths.
    """
    found = {_direction_at(link, values, drawn, lengths) for drawn in _DETACHED for lengths in _LENGTHS}
    return found.pop() if len(found) == 1 else None


# Log-probabilities behind a `detach`, and token counts, at which a link is looked at.
_DETACHED = ((-1.0, -1.0), (-0.01, -30.0), (-30.0, -0.01))
_LENGTHS = ((1.0, 1.0), (2.0, 40.0), (40.0, 2.0))


def _direction_at(link: sp.Expr, values: Values, detached: tuple[float, float], lengths: tuple[float, float]) -> int:
    span = torch.logspace(-3, 3, 200, dtype=torch.float64)
    grid = torch.cat([-span.flip(0), torch.zeros(1, dtype=torch.float64), span])
    points = {s.name: torch.full_like(grid, values.get(s, 1.0)) for s in link.free_symbols}
    points |= {s.name: torch.full_like(grid, detached[s is sy.RL]) for s in (sy.RW, sy.RL)}
    points |= {sy.N_W.name: torch.full_like(grid, lengths[0]), sy.N_L.name: torch.full_like(grid, lengths[1])}
    for symbol in link.free_symbols:
        if sy.is_frozen(symbol):
            chosen = sy.thaw(symbol).name.lower().endswith(("w", "y1"))
            points[sy.thaw(symbol).name] = torch.full_like(grid, detached[0 if chosen else 1])
    heights = evaluate(link, points | {"rho": grid})
    steps = heights.diff()
    slack = 1e-9 * heights.abs().clamp(min=1e-6)[1:]
    known = torch.isfinite(steps)
    steps, slack = steps[known], slack[known]
    return -1 if bool((steps <= slack).all()) else 1 if bool((steps >= -slack).all()) else 0


def _sign_unknown(weight: sp.Expr) -> bool:
    """Whether a weight with detached quantities or lengths may be of either sign."""
    if is_constant(weight):
        return False  # its value is known
    signed = weight.replace(sy.Select, _of_one_sign).replace(sy.Sigmoid, lambda x: sp.Dummy(positive=True))
    signed = signed.replace(sy.LogSigmoid, lambda x: sp.Dummy(negative=True))
    return not (signed.is_nonnegative or signed.is_nonpositive)


def is_reference(symbol: sp.Symbol) -> bool:
    """Whether a symbol is one of the reference's log-probabilities."""
    return symbol in (sy.RW, sy.RL)


def is_constant(weight: sp.Expr) -> bool:
    """Whether a weight is one number for all pairs."""
    return not any(sy.is_frozen(s) or s in (sy.N_W, sy.N_L, sy.RW, sy.RL) for s in weight.free_symbols)


def _of_one_sign(distance: sp.Expr, yes: sp.Expr, no: sp.Expr) -> sp.Expr:
    """A stand-in for a case distinction, with the sign that both sides have."""
    for sign in ("nonnegative", "nonpositive"):
        if getattr(yes, f"is_{sign}") and getattr(no, f"is_{sign}"):
            return sp.Dummy(**{sign: True})
    return sp.Dummy(real=True)


def _weight(link: sp.Expr, values: Values) -> tuple[sp.Expr, sp.Expr]:
    """A positive constant factor, and the rest."""
    if link.is_Add:
        factored = sp.factor_terms(link)
        # Constants that the code computed (log 0.01) have no readable common factor.
        link = factored if all(r.q < 10**6 for r in factored.atoms(sp.Rational)) else link
    weight, rest = link.as_independent(RHO, as_Add=False)
    negative = number_at(weight, values) < 0 if is_constant(weight) else weight.could_extract_minus_sign()
    return (-weight, -rest) if negative else (weight, rest)


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
