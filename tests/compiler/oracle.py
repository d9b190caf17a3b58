"""An oracle for readings that shares no code with the reader: a stranger's function against the rules it was read as.

The function runs in plain torch on batches that are made here. The rules are evaluated from their definition in mpmath:
weighted model counts summed over the rows of the truth table, then the printed link and weight.
"""

# ruff: noqa: E741 - w and l are the two answers, as in the papers
from __future__ import annotations

import itertools
import math

import mpmath
import sympy
import torch

from prefalign.compiler import Reading

# (log pi(w), log pi(l), log ref(w), log ref(l), |w|, |l|), nats and tokens: lengths below, equal and above.
BATCH = (
    (-0.3, -1.7, -0.9, -0.4, 1, 9),
    (-12.5, -3.25, -9.0, -4.5, 7, 7),
    (-41.0, -44.5, -40.25, -43.0, 60, 12),
    (-180.0, -150.5, -171.0, -160.0, 2000, 350),
)


def tensors(rows=BATCH):
    """The columns of a batch as float64 tensors, the policy's with gradients."""
    w, l, rw, rl, n_w, n_l = torch.tensor(rows, dtype=torch.float64).T.contiguous()
    return w.clone().requires_grad_(), l.clone().requires_grad_(), rw, rl, n_w, n_l


def reading_at(reading: Reading, row) -> float:
    """The value of a reading on one pair, in 60 digits."""
    with mpmath.workdps(60):
        return float(_value(reading, row, row))


def slopes_at(reading: Reading, row) -> tuple[float, float]:
    """The derivatives of a reading in W and L on one pair; what is detached stands still."""
    slopes = []
    with mpmath.workdps(60):
        step = mpmath.mpf(10) ** -20
        for place in (0, 1):
            ends = []
            for side in (1, -1):
                moved = list(map(mpmath.mpf, row))
                moved[place] += side * step
                ends.append(_value(reading, moved, row))
            slopes.append(float((ends[0] - ends[1]) / (2 * step)))
    return slopes[0], slopes[1]


def _value(reading, row, held):
    rules = [_term(rule, meaning, reading.hyperparameters, row, held) for rule, meaning in _rules(reading)]
    names = dict(zip(("W", "L", "RW", "RL", "n_w", "n_l"), map(mpmath.mpf, row), strict=True))
    names |= {"W°": mpmath.mpf(held[0]), "L°": mpmath.mpf(held[1])} | reading.hyperparameters
    inside = names | {atom.lower(): mpmath.exp(names[atom]) for atom in ("W", "L", "RW", "RL")}
    still = [_number(v, names) for v, where in reading.constants if where is None or _condition(where, inside)]
    return sum(rules) + sum(still)


def _rules(reading):
    return zip(reading.rules, reading.meanings, strict=True)


def _term(rule, meaning, hypers, row, held):
    names = dict(zip(("W", "L", "RW", "RL", "n_w", "n_l"), map(mpmath.mpf, row), strict=True))
    names |= {"W°": mpmath.mpf(held[0]), "L°": mpmath.mpf(held[1])}
    values = names | {name: mpmath.mpf(value) for name, value in hypers.items()}
    probability = {atom: mpmath.exp(_number(logp, values)) for atom, logp in meaning.items()}
    if rule.guard is not None:
        sums = {"w": names["W"], "l": names["L"], "rw": names["RW"], "rl": names["RL"]}
        inside = values | {atom: mpmath.exp(value) for atom, value in sums.items()}
        if not _condition(rule.guard, inside):
            return mpmath.mpf(0)
    ratios = [_log_ratio(structure.reduced, probability) for structure in rule.structures]
    if len(ratios) == 2:
        first, second = (_number(rule.inner.expression, values | {"rho": ratio}) for ratio in ratios)
        ratios = [first - second]
    inside = values | {"rho": ratios[0]}
    return _number(sympy.Integer(1) * rule.weight, inside) * _number(rule.link.expression, inside)


def _log_ratio(structure, probability):
    count = len(structure.atoms)
    sides = []
    for mask in (structure.top_mask, structure.bottom_mask):
        total = mpmath.mpf(0)
        for number, truth in enumerate(itertools.product((True, False), repeat=count)):
            if mask >> number & 1:
                total += mpmath.fprod(
                    probability[a] if true else 1 - probability[a]
                    for a, true in zip(structure.atoms, truth, strict=True)
                )
        sides.append(total)
    return mpmath.log(sides[0] / sides[1])


def _number(expr, values):
    used = {s: values[s.name] for s in expr.free_symbols}
    function = sympy.lambdify(list(used), expr, "mpmath")
    return mpmath.mpf(function(*used.values()))


def _condition(guard, values):
    used = {s: values[s.name] for s in guard.free_symbols}
    return bool(sympy.lambdify(list(used), guard, "mpmath")(*used.values()))


def agrees(reading: Reading, code, rows=BATCH) -> bool:
    """Whether `code`, called on the columns of each row alone, gives what the reading says of that row."""
    return not differences(reading, code, rows)


def differences(reading: Reading, code, rows=BATCH) -> list[str]:
    """Where value or gradient of `code` on a row alone, or its value on all rows, is not what the reading says."""
    found, values = [], []
    for row in rows:
        columns = tensors([row])
        theirs = _loss(code(*columns)).double().mean()
        values.append(reading_at(reading, row))
        if not _near(theirs.item(), values[-1]):
            found.append(f"{row}: code {theirs.item()}, reading {values[-1]}")
            continue
        slopes = torch.autograd.grad(theirs, columns[:2], allow_unused=True) if theirs.requires_grad else (None, None)
        slopes = [0.0 if slope is None else slope.item() for slope in slopes]
        if not all(map(_near, slopes, slopes_at(reading, row))):
            found.append(f"{row}: gradients of code {slopes}, of reading {slopes_at(reading, row)}")
    if len(set(reading.batch)) == 1 and "token mean" not in reading.batch:
        theirs = _loss(code(*tensors(rows))).double()
        whole = theirs.sum().item() if reading.batch == ("sum",) else theirs.mean().item()
        ours = sum(values) / (1 if reading.batch == ("sum",) else len(rows))
        if not found and not _near(whole, ours):
            found.append(f"all rows: code {whole}, reading {ours}")
    return found


def _loss(result):
    """The loss in what a stranger's function returns, found here as a person would."""
    if isinstance(result, dict):
        return result["loss"]
    if isinstance(result, tuple):
        return getattr(result, "loss", result[0])
    return result


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-7) or (math.isnan(a) and math.isnan(b))
