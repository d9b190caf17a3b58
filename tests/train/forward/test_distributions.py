"""The divergence of two heads, row by row, against the whole softmax in float64."""

from __future__ import annotations

import torch

from prefalign.train.forward import _distributions
from prefalign.train.forward._distributions import _Head, kl_of_rows


def heads(softcap, scale, temperature):
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    targets = torch.zeros(7, dtype=torch.long)
    return [
        _Head(draw(7, 5).requires_grad_(), draw(11, 5).requires_grad_(), draw(11), targets, temperature, softcap, scale)
        for _ in range(2)
    ]


def test_kl_and_its_gradient_are_those_of_the_whole_softmax_in_any_block(monkeypatch):
    softcap, scale, temperature = 2.0, 0.5, 1.5
    policy, reference = heads(softcap, scale, temperature)

    def logps(head):
        logits = (head.hidden @ head.weight.T + head.bias) * scale
        return (torch.tanh(logits / softcap) * softcap / temperature).log_softmax(1)

    theirs = logps(reference).detach()
    expected = (theirs.exp() * (theirs - logps(policy))).sum(1)
    inputs = [policy.hidden, policy.weight]
    slopes = torch.autograd.grad(expected.sum(), inputs)
    for block in (2**24, 22, 1):  # all rows at once, two at a time, one
        monkeypatch.setattr(_distributions, "_BLOCK", block)
        found = kl_of_rows(policy, reference)
        torch.testing.assert_close(found, expected)
        assert found.min() > 0
        for mine, slope in zip(torch.autograd.grad(found.sum(), inputs), slopes, strict=True):
            torch.testing.assert_close(mine, slope)
    assert reference.hidden.grad is None


def test_a_reference_that_ran_on_other_rows_gives_nothing():
    kept = _distributions.Distributions(wanted=True)
    policy, reference = heads(None, 1.0, 1.0)
    kept._keep(reference._replace(targets=torch.ones(7, dtype=torch.long)))
    assert kept._compare(policy) is None
    kept._keep(reference)
    assert kept._compare(policy).shape == (7,)
