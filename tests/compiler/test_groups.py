"""List-wise code over (groups, K): what has a reading is read for every K, and what has none is refused truly."""

from __future__ import annotations

import mpmath
import pytest
import torch
import torch.nn.functional as F

from prefalign import derive
from prefalign._errors import DerivationError
from tests.compiler.oracle import _log_ratio, _number


def all_pairs(logps, beta=0.1):
    gaps = logps[:, :, None] - logps[:, None, :]
    first, second = torch.triu_indices(logps.shape[1], logps.shape[1], 1)
    return -F.logsigmoid(beta * gaps[:, first, second]).mean()


def best_against_each(logps):
    return F.softplus(logps[:, 1:] - logps[:, :1]).sum(-1).mean()


def neighbours(logps, margin=0.5):
    return torch.relu(margin - logps[:, :-1] + logps[:, 1:]).sum(-1).mean()


def odds_of_the_best(policy_logps):
    return -(policy_logps[:, 0] - torch.log1p(-policy_logps[:, 0].exp())).mean() + policy_logps[:, -1].mean()


def plackett_luce(logps):
    later = torch.flip(torch.logcumsumexp(torch.flip(logps, [-1]), -1), [-1])
    return (later - logps).sum(-1).mean()


@pytest.mark.parametrize("answers", [3, 4])
@pytest.mark.parametrize("function", [all_pairs, best_against_each, neighbours, odds_of_the_best])
def test_list_wise_code_is_read(function, answers):
    reading = derive(function, answers=answers)
    logps = [-0.4, -3.5, -1.25, -7.0][:answers]
    values = {name: mpmath.mpf(value) for name, value in reading.hyperparameters.items()}
    probabilities = {f"y{i}": mpmath.exp(value) for i, value in enumerate(logps, 1)}
    total = mpmath.mpf(0)
    for rule in reading.rules:
        inside = values | {"rho": _log_ratio(rule.structure.reduced, probabilities)}
        weight = mpmath.mpf(1) if rule.weight == 1 else _number(rule.weight, values)
        total += weight * _number(rule.link.expression, inside)
    theirs = function(torch.tensor([logps], dtype=torch.float64)).item()
    assert float(total) == pytest.approx(theirs, rel=1e-9)


def test_a_softmax_over_more_than_two_answers_is_no_model_count():
    with pytest.raises(DerivationError, match="no log of a weighted model count"):
        derive(plackett_luce, answers=3)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: derive(all_pairs, answers=1), "from 2 to 8"),
        (lambda: derive("w/l", answers=3), "for Python functions"),
        (lambda: derive(all_pairs), r"answers=K"),
    ],
)
def test_how_many_answers_must_be_said_and_sensible(call, reason):
    with pytest.raises(DerivationError, match=reason):
        call()
