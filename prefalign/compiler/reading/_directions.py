"""Which way the terms of a loss go in their log ratio, and the sign of their weights."""

from __future__ import annotations

from collections.abc import Mapping

import sympy as sp
import torch

from ...logic import Course, Direction
from ..symbols import _symbols as sy
from ..symbols import evaluate
from ._log_linear import Values, number_at

RHO = sp.Symbol("rho", real=True)


def direction_of(link: sp.Expr, values: Values) -> int | None:
    """-1 where the link never rises in ρ, 1 where it never falls, 0 where it turns, at the hyperparameters' values.

    None if that depends on detached quantities or on lengths.
    """
    found = {_direction_at(link, values, drawn, lengths) for drawn in _DETACHED for lengths in _LENGTHS}
    return found.pop() if len(found) == 1 else None


def direction_by_name(link: sp.Expr, values: Mapping[str, float]) -> Direction:
    """Which way a link goes, in words; `values` has a number for every name but `rho` and log-probabilities."""
    found = direction_of(link, {s: values[s.name] for s in link.free_symbols if s.name in values})
    return "unknown" if found is None else "decreasing" if found == -1 else "turning"


def course_by_name(inner: sp.Expr, values: Mapping[str, float]) -> Course:
    """Which way an inner function goes, likewise."""
    found = direction_of(inner, {s: values[s.name] for s in inner.free_symbols if s.name in values})
    return "unknown" if found is None else "increasing" if found == 1 else "turning"


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


def sign_unknown(weight: sp.Expr) -> bool:
    """Whether a weight with detached quantities or lengths may be of either sign."""
    if is_constant(weight):
        return False  # its value is known
    signed = weight.replace(sy.Select, _of_one_sign).replace(sy.Sigmoid, lambda x: sp.Dummy(positive=True))
    signed = signed.replace(sy.LogSigmoid, lambda x: sp.Dummy(negative=True))
    return not (signed.is_nonnegative or signed.is_nonpositive)


def is_constant(weight: sp.Expr) -> bool:
    """Whether a weight is one number for all pairs."""
    return not any(sy.is_frozen(s) or s in (sy.N_W, sy.N_L, sy.RW, sy.RL) for s in weight.free_symbols)


def _of_one_sign(distance: sp.Expr, yes: sp.Expr, no: sp.Expr) -> sp.Expr:
    """A stand-in for a case distinction, with the sign that both sides have."""
    for sign in ("nonnegative", "nonpositive"):
        if getattr(yes, f"is_{sign}") and getattr(no, f"is_{sign}"):
            return sp.Dummy(**{sign: True})
    return sp.Dummy(real=True)


def weight_of(link: sp.Expr, values: Values) -> tuple[sp.Expr, sp.Expr]:
    """A positive constant factor, and the rest."""
    if link.is_Add:
        factored = sp.factor_terms(link)
        # Constants that the code computed (log 0.01) have no readable common factor.
        link = factored if all(r.q < 10**6 for r in factored.atoms(sp.Rational)) else link
    weight, rest = link.as_independent(RHO, as_Add=False)
    negative = number_at(weight, values) < 0 if is_constant(weight) else weight.could_extract_minus_sign()
    return (-weight, -rest) if negative else (weight, rest)
