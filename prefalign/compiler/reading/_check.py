"""The check that every reading passes before it is returned: the rules give the code's numbers and gradients."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from ..._errors import DerivationError
from ...logic import AnyRule, PreferenceStructure, Rule
from ...losses import log1mexp
from ..symbols import evaluate as value_of
from ..symbols import holds, in_logs
from ..tracing import Quantities, evaluate, label_of, masks_of, random
from ._reading import Reading

SCALES = (0.7, 5.0, 40.0, 150.0, 2000.0)
_ORDINARY = 150.0  # nats, of an answer; code that overflows beyond is not held against its reading
GUARDED_SCALES = (0.7, 2.0, 5.0)
_PAIRS = 3
_RTOL = 2e-5
_WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda values, tokens: values.mean(),
    "sum": lambda values, tokens: values.sum(),
    "token mean": lambda values, tokens: (values * tokens).sum() / tokens.sum(),
}
# Rules whose reductions are found out one by one: there are 3^12 ways, of which 2 * 3^6 sums are made.
_MOST_RULES = 12


class Disagreement(DerivationError):
    """The rules do not give the code's numbers, or the code fails at the hyperparameters that were tried."""


def check(
    reading: Reading,
    function: Callable[..., Any],
    given: Mapping[str, Any],
    hypers: Mapping[str, float],
    groups: int = 0,
    scales: tuple[float, ...] = SCALES,
) -> Reading:
    """`reading` with its `batch` filled in, if it agrees with the code on random batches.

    Raises:
        DerivationError: It does not.
    """
    ways: list[tuple[str, ...]] | None = None
    for seed, scale in enumerate(scales):
        q, theirs = _sample(function, given, hypers, groups, seed, scale)
        if scale > _ORDINARY and not _is_finite(q, theirs):
            continue  # beyond what the code was written for
        here = _agreeing(reading, q, theirs, ways)
        if not here:
            _refuse_chance(function, given, hypers, groups, seed, scale)
            raise Disagreement(_mismatch(reading, q, theirs, function, given, hypers, groups, seed, scale))
        # One pair cannot tell a mean from a sum.
        ways = here if q.counts["w"].numel() > 1 else ways
    return replace(reading, batch=(ways or [("pairs",)])[0][: len(reading.rules)])


def _is_finite(q: Quantities, theirs: Tensor) -> bool:
    """Whether the code's numbers and gradients are."""
    if not torch.isfinite(theirs).all() or not theirs.requires_grad:
        return bool(torch.isfinite(theirs).all())
    leaves = (q.token_logps["w"], q.token_logps["l"])
    slopes = torch.autograd.grad(theirs.sum(), leaves, retain_graph=True, allow_unused=True)
    return all(slope is None or bool(torch.isfinite(slope).all()) for slope in slopes)


def _sample(
    function: Callable[..., Any],
    given: Mapping[str, Any],
    hypers: Mapping[str, float],
    groups: int,
    seed: int,
    scale: float,
    most: int = _PAIRS,
) -> tuple[Quantities, Tensor]:
    """Random pairs and what the code makes of them: several pairs, or one for code that only takes one."""
    errors: list[Exception] = []
    draws = [(most, torch.float64), (1, torch.float64), (most, torch.float32)]
    if masks_of(function):  # of one pair, sums and tokens broadcast alike
        draws.remove((1, torch.float64))
    for pairs, dtype in draws:
        q = _draw(seed, pairs, scale, hypers, groups, dtype)
        try:
            theirs = evaluate(function, q, given)
            if theirs.requires_grad:  # some of torch's functions mix dtypes forward but not backward
                torch.autograd.grad(theirs.sum(), q.token_logps["w"], retain_graph=True, allow_unused=True)
            return q, theirs
        except Exception as error:
            errors.append(error)
    first = errors[0]
    raise Disagreement(f"The code fails on random pairs: {type(first).__name__}: {first}") from first


def _refuse_chance(
    function: Callable[..., Any],
    given: Mapping[str, Any],
    hypers: Mapping[str, float],
    groups: int,
    seed: int,
    scale: float,
) -> None:
    """Say so where the code gives other numbers each time it is called.

    Raises:
        DerivationError: Its numbers differ from call to call.
    """
    first, *others = (_sample(function, given, hypers, groups, seed, scale)[1] for _ in range(8))
    if any(not torch.equal(first, other) for other in others):
        raise DerivationError(
            "The code gives other numbers each time it is called on the same batch: it draws random numbers, or keeps "
            "a state between calls. No formula says that."
        )


def _draw(
    seed: int, pairs: int, scale: float, hypers: Mapping[str, float], groups: int, dtype: torch.dtype
) -> Quantities:
    used: dict[str, float] = {}

    def plain(name: str, value: float) -> float:
        label = label_of(name)
        while label in used and used[label] != value:
            label += "_"
        used[label] = value
        return hypers.get(label, value)

    return random(seed, pairs, scale, plain, dtype, groups)


def _agreeing(
    reading: Reading, q: Quantities, theirs: Tensor, ways: list[tuple[str, ...]] | None
) -> list[tuple[str, ...]]:
    """The ways to make a batch's number out of the pairs' that give the code's value and gradient."""
    ours = rule_values(reading, q)
    one: list[tuple[str, ...]] = [("pairs",)] if theirs.ndim == 1 else [("mean",), ("sum",)]
    # One value per pair that is not the rules' own may still have their mean over the batch.
    number = theirs.mean() if theirs.ndim == 1 else theirs
    agreeing = []
    for way in itertools.chain(one, _several(ours, number, q)) if ways is None else ways:
        if _close(reduce_batch(ours, way, q), theirs if way == ("pairs",) else number, q):
            agreeing.append(way)
            if way in one:
                break
    return agreeing


def _several(ours: list[Tensor], number: Tensor, q: Quantities) -> Iterator[tuple[str, ...]]:
    """The ways to reduce rule by rule that come to the number: what one half lacks is looked up in the other."""
    if number.numel() != 1 or len(ours) > _MOST_RULES:
        return
    tokens, target = q.counts["w"].double(), number.item()
    reduced = [[(float(way(v.detach(), tokens)), name) for name, way in _WAYS.items()] for v in ours]
    half = len(ours) // 2
    first, second = (
        [(sum(value for value, _ in row), tuple(name for _, name in row)) for row in itertools.product(*rows)]
        for rows in (reduced[:half], reduced[half:])
    )
    second.sort(key=lambda pair: pair[0])
    sums = [total for total, _ in second]
    slack = 2 * _RTOL * (1 + abs(target))
    for total, names in first:
        low, high = bisect_left(sums, target - total - slack), bisect_right(sums, target - total + slack)
        yield from (names + others for _, others in sorted(second[low:high], key=lambda pair: pair[1]))


def reduce_batch(ours: list[Tensor], way: tuple[str, ...], q: Quantities) -> Tensor:
    """The number, or the vector, that the rules' values make."""
    if way == ("pairs",):
        return torch.stack(ours).sum(0)
    ways = way * len(ours) if len(way) == 1 else way
    tokens = q.counts["w"].double()
    return torch.stack([_WAYS[w](v, tokens) for w, v in zip(ways, ours, strict=True)]).sum()


def _close(ours: Tensor, theirs: Tensor, q: Quantities) -> bool:
    theirs = theirs.double().reshape(ours.shape) if theirs.numel() == ours.numel() else theirs.double()
    if theirs.shape != ours.shape or not _near(ours, theirs):
        return False
    if not theirs.requires_grad:
        return True
    leaves = [q.token_logps["w"], q.token_logps["l"], *([q.logps["y"]] if "y" in q.logps else [])]
    width = leaves[0].shape[1]
    # Padding adds 0 to a sum; whether a gradient reaches it is no part of the loss.
    masks = [torch.arange(width)[None, :] < q.counts[side][:, None] for side in ("w", "l")]
    gradients = [
        torch.autograd.grad(x.sum(), leaves, retain_graph=True, allow_unused=True)
        if x.requires_grad
        else [None] * len(leaves)
        for x in (ours, theirs)
    ]
    return all(
        _near(*(torch.zeros_like(leaf).double() if g is None else g.double() * mask for g in pair))
        for leaf, mask, *pair in zip(leaves, [*masks, torch.ones(())][: len(leaves)], *gradients, strict=True)
    )


def _near(a: Tensor, b: Tensor) -> bool:
    scale = 1 + torch.maximum(a.abs(), b.abs())
    return bool(((a - b).abs() <= _RTOL * scale).all())


def rule_values(reading: Reading, q: Quantities) -> list[Tensor]:
    """Each rule's term for each pair, from the definition: weighted model counts summed over rows; then constants."""
    names = {"W": "w", "L": "l", "RW": "rw", "RL": "rl"}
    values = {symbol: q.logps[name].double() for symbol, name in names.items()}
    values |= {"n_w": q.counts["w"].double(), "n_l": q.counts["l"].double()}
    if "y" in q.logps:
        values |= {f"Y{k + 1}": q.logps["y"][:, k].double() for k in range(q.logps["y"].shape[1])}
    sample = next(iter(values.values()))
    values |= {k: torch.as_tensor(v, dtype=torch.float64) for k, v in q_hypers(reading, q).items()}
    terms = []
    for rule, meanings in zip(reading.rules, reading.meanings, strict=True):
        logps = {name: value_of(e, values) for name, e in meanings.items()}
        inside = values | {"rho": _rho(rule, logps, values)}
        term = value_of(sp.sympify(rule.weight, strict=True), values) * value_of(rule.link.expression, inside)
        if rule.guard is not None:
            term = torch.where(holds(in_logs(rule.guard), values), term, torch.zeros_like(term))
        terms.append(term)
    for value, guard in reading.constants:
        term = value_of(value, values)
        terms.append(term if guard is None else torch.where(holds(in_logs(guard), values), term, 0.0))
    return [term.expand_as(sample) if term.ndim == 0 else term for term in terms]


def _rho(rule: AnyRule, logps: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Tensor:
    """What the link sees: the log ratio, or the difference of the inner function at two."""
    if isinstance(rule, Rule):
        return log_ratio(rule.structure, logps)
    first, second = (
        value_of(rule.inner.expression, {**values, "rho": log_ratio(structure, logps)}) for structure in rule.structures
    )
    return first - second


def q_hypers(reading: Reading, q: Quantities) -> Mapping[str, float]:
    """The hyperparameters' values in this draw."""
    return {name: q.hypers(name, value) for name, value in reading.hyperparameters.items()}


def log_ratio(structure: PreferenceStructure, logps: Mapping[str, Tensor]) -> Tensor:
    """ρ from the definition: log of the sum over rows on top minus that over rows on the bottom, float64."""
    structure = structure.reduced
    count = len(structure.atoms)
    positive = [logps[a].double() for a in structure.atoms]
    negative = [log1mexp(p) for p in positive]
    sides = []
    for mask in (structure.top_mask, structure.bottom_mask):
        rows = [
            sum(negative[i] if row >> (count - 1 - i) & 1 else positive[i] for i in range(count))
            for row in range(1 << count)
            if mask >> row & 1
        ]
        sides.append(torch.logsumexp(torch.stack([torch.as_tensor(r, dtype=torch.float64) for r in rows]), 0))
    return sides[0] - sides[1]


def _mismatch(
    reading: Reading,
    q: Quantities,
    theirs: Tensor,
    function: Callable[..., Any],
    given: Mapping[str, Any],
    hypers: Mapping[str, float],
    groups: int,
    seed: int,
    scale: float,
) -> str:
    if q.counts["w"].numel() > 1:
        alone = [(row, evaluate(function, row, given)) for row in q.rows()]
        agrees = all(_agreeing(reading, row, value, None) for row, value in alone)
        if agrees and len(reading.rules) > _MOST_RULES:
            return (
                f"For a batch of one pair the loss is the sum of {len(reading.rules)} rules, but over several pairs it "
                f"is neither the mean nor the sum of it. Rule by rule the means and sums are found for {_MOST_RULES} "
                "rules at most: derive parts of the loss."
            )
        if agrees:
            mixed = any(rule.link.expression.is_Add for rule in reading.rules)
            or_else = ", or takes terms of one log ratio in different ways, such as a mean and a sum" if mixed else ""
            return (
                f"The loss couples the pairs of a batch{or_else}: for a batch of one pair its rules are "
                f"{'; '.join(map(str, reading.rules))}, but a batch of several is no mean or sum over its pairs."
            )
    ours = torch.stack(rule_values(reading, q)).sum(0)
    return (
        "The reading does not agree with the code, so it is withheld. At log-probabilities "
        f"{ {k: [round(x, 4) for x in v.tolist()] for k, v in q.logps.items()} } the code gives {theirs.tolist()}, "
        f"the rules {ours.tolist()} per pair (or their gradients differ)."
    )
