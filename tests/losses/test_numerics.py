"""Gradients, and values at the ends of what log-probabilities can be."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from prefalign.losses import BetaDPO, OddsRatio, PairLogps, log1mexp, log_odds

from .samples import EVERY_LOSS, random_pairs, title

LOGPS = [0.0, -1e-30, -1e-8, -1e-3, -0.6931472, -1.0, -88.0, -104.0, -750.0, -1e4]
FIELDS = ("chosen", "rejected", "ref_chosen", "ref_rejected")


def assert_finite(loss, pairs: PairLogps):
    leaves = {name: getattr(pairs, name).clone().requires_grad_() for name in FIELDS}
    values = loss(dataclasses.replace(pairs, **leaves))
    assert values.shape == pairs.chosen.shape
    assert values.dtype == pairs.chosen.dtype
    assert values.isfinite().all()
    for gradient in torch.autograd.grad(values.sum(), list(leaves.values()), allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", EVERY_LOSS, ids=title)
def test_half_precision_is_computed_in_float32_and_its_gradient_comes_back_in_half(loss, dtype):
    logps = torch.tensor(list(itertools.product(LOGPS, LOGPS, LOGPS[::3], LOGPS[::3]))).T.to(dtype)
    leaves = [row.clone().requires_grad_() for row in logps]
    counts = torch.full_like(logps[0], 300.0)
    values = loss(PairLogps(*leaves, counts, counts))
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    # Exactly the loss of the numbers that the half-precision tensors hold.
    full = [leaf.detach().float() for leaf in leaves]
    assert torch.equal(values, loss(PairLogps(*full, counts.float(), counts.float())))
    for gradient in torch.autograd.grad(values.sum(), leaves, allow_unused=True):
        assert gradient is None or (gradient.dtype == dtype and not gradient.isnan().any())
        # float16 ends at 65504; bfloat16 has float32's range.
        assert gradient is None or dtype == torch.float16 or gradient.isfinite().all()


# The beta of a batch is detached; test_newer holds its gradient against the formula.
DIFFERENTIABLE = [loss for loss in EVERY_LOSS if not isinstance(loss, BetaDPO)]


@pytest.mark.parametrize("loss", DIFFERENTIABLE, ids=title)
def test_gradients_are_those_of_the_values(loss):
    pairs = random_pairs(10)
    leaves = [(getattr(pairs, name) / 10.0).requires_grad_() for name in FIELDS]
    assert torch.autograd.gradcheck(
        lambda *logps: loss(PairLogps(*logps, pairs.chosen_tokens, pairs.rejected_tokens)), leaves
    )


@pytest.mark.parametrize("tokens", [1.0, 300.0])
@pytest.mark.parametrize("loss", EVERY_LOSS, ids=title)
def test_value_and_gradient_are_finite_for_every_log_probability(loss, tokens):
    logps = torch.tensor(list(itertools.product(LOGPS, LOGPS, LOGPS[::3], LOGPS[::3]))).T
    counts = torch.full_like(logps[0], tokens)
    assert_finite(loss, PairLogps(*logps, counts, counts))


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=title)
def test_value_and_gradient_are_finite_for_extreme_margins(loss):
    ends = torch.tensor(list(itertools.product([-1e4, -1.0, 0.0], repeat=4))).T
    margins = ends[0] - ends[1] - (ends[2] - ends[3])
    assert margins.min() <= -1e4
    assert margins.max() >= 1e4
    ones = torch.ones_like(margins)
    assert_finite(loss, PairLogps(*ends, ones, ones))


def test_log1mexp_agrees_with_higher_precision():
    # log(1 - exp(x)): near 0 it is log(-x) + x/2, far away -exp(x); the middle by hand.
    points = torch.tensor([-1e-8, -1e-12, math.log(0.5), math.log(0.9), -30.0], dtype=torch.float64)
    expected = [math.log(1e-8) - 5e-9, math.log(1e-12) - 5e-13, math.log(0.5), math.log(0.1), -math.exp(-30.0)]
    torch.testing.assert_close(log1mexp(points), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0.0)


def test_log1mexp_at_zero_takes_the_smallest_complement():
    point = torch.zeros(1, requires_grad=True)
    value = log1mexp(point)
    value.backward()
    assert value.item() == pytest.approx(-53 * math.log(2), rel=1e-15)
    assert point.grad.item() == 0.0


def test_log_odds_have_the_slope_of_the_complement():
    point = torch.tensor([-1e-8], requires_grad=True)
    log_odds(point).backward()
    assert point.grad.item() == pytest.approx(1e8, rel=1e-6)


def test_a_certain_completion_does_not_spoil_its_neighbours():
    chosen = torch.tensor([0.0, -1.0], requires_grad=True)
    rejected = torch.tensor([-2.0, 0.0])
    OddsRatio(mean=False)(PairLogps(chosen, rejected)).sum().backward()
    # The rejected completion is certain: the pull on the chosen one is full, times d log odds = 1/(1 - p).
    assert chosen.grad[1].item() == pytest.approx(-1 / (1 - math.exp(-1.0)), rel=1e-6)
    assert chosen.grad[0].isfinite()
