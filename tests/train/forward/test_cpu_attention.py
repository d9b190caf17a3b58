"""Attention of a packed row on a CPU: values and gradients by definition, and what it keeps for the backward pass."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from prefalign.train._trl import base_of
from prefalign.train.forward import _cpu_attention
from prefalign.train.forward._plan import plan_pairs
from prefalign.train.forward._shared_prefix import install
from tests.train.packed import RAGGED, make_batch, make_model, run

HEADS, GROUPS, CHANNELS = 4, 2, 8
# Nothing shared; a chosen answer that is the start of the rejected one.
EDGES = make_batch([([5], [6, 7, 8], [9]), ([1, 2], [3], [3, 4, 5])])
EDGES["input_ids"][2, 0] = 4  # another prompt before the first rejected answer


def by_definition(q, k, v, plan, window):
    """Attention with one mask over the whole row, (1, T, H, D)."""
    pair, rejected, shared = plan.places()
    position = plan.position_ids[0]
    distance = position[:, None] - position[None]
    same = (rejected[:, None] == rejected[None]) | (rejected[:, None] & shared[None])
    seen = (pair[:, None] == pair[None]) & same & (distance >= 0) & (distance < (window or 10**6))
    k, v = (x.repeat_interleave(HEADS // GROUPS, 1) for x in (k, v))
    scores = (q @ k.transpose(2, 3) * 0.3).masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("batch", [RAGGED, EDGES], ids=["ragged", "edges"])
def test_values_and_gradients_are_those_of_one_masked_attention(batch, window):
    plan = plan_pairs(**batch)
    generator = torch.Generator().manual_seed(0)
    row = (plan.packed_tokens, CHANNELS)
    leaves = [
        torch.randn(1, heads, *row, generator=generator, dtype=torch.float64).requires_grad_()
        for heads in (HEADS, GROUPS, GROUPS)
    ]
    weight = torch.randn(1, row[0], HEADS, row[1], generator=generator, dtype=torch.float64)
    found = _cpu_attention.attend(*leaves, plan, window, 0.3)
    expected = by_definition(*leaves, plan, window)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    ours, theirs = (torch.autograd.grad((output * weight).sum(), leaves) for output in (found, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-12, rtol=1e-12)


def test_kept_for_the_backward_pass_is_the_row_once():
    plan = plan_pairs(**RAGGED)
    query, key, value = (
        torch.randn(1, heads, plan.packed_tokens, CHANNELS, requires_grad=True) for heads in (HEADS, GROUPS, GROUPS)
    )
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        _cpu_attention.attend(query, key, value, plan, None, None)
    row = plan.packed_tokens
    # Query, key, value, output; and the log of the sum of every query's weights.
    assert sum(tensor.numel() for tensor in saved) == row * CHANNELS * 2 * (HEADS + GROUPS) + row * HEADS


@pytest.fixture
def calls(monkeypatch):
    """How often a layer's attention went this way."""
    found, attend = [], _cpu_attention.attend
    monkeypatch.setattr(_cpu_attention, "attend", lambda *args: found.append(1) or attend(*args))
    return found


def packed(family):
    model = make_model(family)
    forward = install(model)
    run(model, RAGGED)
    assert forward.active
    return model


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_layers_on_a_cpu_go_this_way(family, calls):
    assert base_of(packed(family).config._attn_implementation) == "sdpa"
    assert len(calls) == 2


def test_the_kernel_can_be_switched_off_as_for_pytorchs_own_call(calls):
    with sdpa_kernel(SDPBackend.MATH):
        packed("llama")
    assert not calls
