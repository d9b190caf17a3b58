"""Compiled losses at the ends of what log-probabilities can be: 0, -1e-8, -10⁴; float32 and bfloat16; inductor."""

from __future__ import annotations

import shutil

import pytest
import torch

from prefalign import to_loss
from prefalign.logic import PreferenceStructure
from prefalign.losses import PairLogps

from .test_to_loss import ATOMS4, SATISFIABLE, exactly_one, quiet, random_masks

EXTREMES = (0.0, -1e-8, -1e-3, -0.7, -40.0, -500.0, -1e4)


def extreme_pairs(dtype):
    """The grid of EXTREMES for w and l, with eight references at each point; and six tokens, for means."""
    grid = torch.cartesian_prod(*[torch.tensor(EXTREMES)] * 2)
    ref = torch.cartesian_prod(torch.tensor([-1e4, 0.0, -1e-8, -3.0]), torch.tensor([0.0, -2.0]))
    grid = grid.repeat_interleave(len(ref), 0)
    ref = ref.repeat(len(EXTREMES) ** 2, 1)
    return [x.to(dtype) for x in (*grid.T, *ref.T)], torch.full((len(grid),), 6.0, dtype=dtype)


def finite_at_extremes(loss, dtype):
    logps, tokens = extreme_pairs(dtype)
    leaves = [x.clone().requires_grad_(i < 2) for i, x in enumerate(logps)]
    value = loss(PairLogps(*leaves, tokens, tokens))
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all(), loss
    if value.requires_grad:
        for g in torch.autograd.grad(value.sum(), leaves[:2], allow_unused=True):
            assert g is None or (g.dtype == dtype and torch.isfinite(g).all()), loss
    return value.detach()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reference", [False, True])
def test_values_and_gradients_are_finite_at_the_ends_of_every_pair_structure(reference, dtype):
    for column in SATISFIABLE:
        finite_at_extremes(quiet(PreferenceStructure.from_rows(column), reference=reference), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_finite_at_the_ends_with_a_reference(dtype):
    for top, bottom in random_masks(150, seed=3):
        finite_at_extremes(quiet(PreferenceStructure(ATOMS4, top, bottom)), dtype)


# Not "exponential": exp(-beta*rho) itself is beyond float32 at rho = -10⁴ (and beyond float64).
@pytest.mark.parametrize("link", ["hinge", "scaled_hinge", "perceptron", "square", "sigmoid"])
@pytest.mark.parametrize("mean", [False, True])
def test_other_links_are_finite_at_the_ends(link, mean):
    for column in SATISFIABLE[::4]:
        finite_at_extremes(quiet(PreferenceStructure.from_rows(column), link=link, mean=mean), torch.bfloat16)


def test_bfloat16_gives_the_loss_of_the_numbers_that_it_holds():
    logps, tokens = extreme_pairs(torch.bfloat16)
    for column in SATISFIABLE[::7]:
        loss = quiet(PreferenceStructure.from_rows(column), beta=0.7)
        full = loss(PairLogps(*(x.float() for x in logps), tokens.float(), tokens.float()))
        assert torch.equal(finite_at_extremes(loss, torch.bfloat16), full)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_finite_at_the_ends_of_ten_thousand(dtype):
    for top, bottom in random_masks(10_000, seed=4):
        finite_at_extremes(quiet(PreferenceStructure(ATOMS4, top, bottom)), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_groups_are_finite_at_the_ends(dtype):
    loss = to_loss(PreferenceStructure.from_formulas("y1", given=exactly_one(3)), beta=1.0)
    logps = torch.cartesian_prod(*[torch.tensor(EXTREMES)] * 3).to(dtype).requires_grad_()
    value = loss(logps)
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()
    (gradient,) = torch.autograd.grad(value.sum(), logps)
    assert gradient.dtype == dtype
    assert torch.isfinite(gradient).all()


# Where both are impossible, both terms of the sum w(1 - l) + l(1 - w) are 0.
@pytest.mark.parametrize(("column", "rejected"), [("vvxo", -2.0), ("xvvb", -2.0), ("ovvx", -torch.inf)])
def test_an_impossible_answer_has_a_finite_gradient(column, rejected):
    logps = {"w": torch.full((1,), -torch.inf, requires_grad=True), "l": torch.full((1,), rejected, requires_grad=True)}
    value = quiet(PreferenceStructure.from_rows(column), reference=False).of_logps(logps).sum()
    gradients = torch.autograd.grad(value, list(logps.values()))
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's inductor compiles C++")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own, inside inductor
def test_a_loss_compiles_with_inductor_in_one_graph_and_without_storms():
    torch._dynamo.reset()
    logps, tokens = extreme_pairs(torch.float32)  # the far tails, 0 and -1e-8 among them
    loss = quiet(PreferenceStructure.from_rows("vvxb"), reference=True)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compiled = torch.compile(loss.__call__, fullgraph=True)
    for count in (len(tokens), 3, 5, 17):
        found = []
        for function in (compiled, loss):
            leaves = [x[:count].clone().requires_grad_(i < 2) for i, x in enumerate(logps)]
            value = function(PairLogps(*leaves, tokens[:count], tokens[:count]))
            found.append((value.detach(), *torch.autograd.grad(value.sum(), leaves[:2])))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    # One graph for the first size, one for any size.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before <= 2
