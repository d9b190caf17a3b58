"""Reward calibration: the value stays, the gradient is shared out anew."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from prefalign import PrefalignError
from prefalign.losses import DPO, LD, SFT, TDPO, Calibrated, Robust, SimPO, parse_loss

from .samples import random_pairs


def gradients(loss, pairs):
    leaves = {side: getattr(pairs, side).clone().requires_grad_() for side in ("chosen", "rejected")}
    value = loss(dataclasses.replace(pairs, **leaves))
    return value.detach(), torch.autograd.grad(value.sum(), list(leaves.values()))


@pytest.mark.parametrize("inner", [DPO(beta=0.1), SimPO(beta=2.0, gamma=0.5) + 0.1 * SFT(reduction="sum")])
def test_the_value_stays_and_the_gradients_are_multiplied(inner):
    pairs = random_pairs(0)
    value, (chosen, rejected) = gradients(inner, pairs)
    marked = dataclasses.replace(pairs, calibration=2.0)
    calibrated, (up, down) = gradients(Calibrated(inner), marked)
    assert torch.equal(calibrated, value)
    torch.testing.assert_close(up, 2 * chosen)
    torch.testing.assert_close(down, rejected / 2)
    assert torch.equal(gradients(Calibrated(inner), pairs)[1][0], chosen)


def test_incentives_worked_by_hand():
    # DPO: beta*sigmoid(-beta*D) on both sides; SimPO: that of its margin, divided by each length.
    pairs = random_pairs(1)
    margin = (pairs.chosen - pairs.ref_chosen) - (pairs.rejected - pairs.ref_rejected)
    pull = (0.1 * torch.sigmoid(-0.1 * margin)).mean()
    torch.testing.assert_close(Calibrated(DPO(beta=0.1)).incentives(pairs), (pull, pull))
    chosen, rejected = pairs.logps(mean=True)
    force = 2 * torch.sigmoid(-(2 * (chosen - rejected) - 0.5))
    expected = tuple((force / tokens).mean() for tokens in pairs.tokens())
    torch.testing.assert_close(Calibrated(SimPO(beta=2.0, gamma=0.5)).incentives(pairs), expected)


def test_it_is_read_back():
    loss = parse_loss("calibrated(dpo(beta=0.1) + 0.1*sft(sum), decay=0.9) + 0.5*ipo(beta=0.1)")
    assert parse_loss(loss.expression) == loss
    assert loss.couples_pairs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Calibrated("dpo"), "must be a loss"),
        (lambda: Calibrated(DPO(beta=0.1), decay=1.0), "`decay` must be"),
        (lambda: Calibrated(LD(DPO(beta=0.1), 0.5)), "sums tokens by itself"),
        (lambda: Calibrated(TDPO(beta=0.1)), "sums tokens by itself"),
        (lambda: Calibrated(Calibrated(DPO(beta=0.1))), "calibrated already"),
        (lambda: LD(Calibrated(DPO(beta=0.1)), 0.5), "calibrate outside"),
        (lambda: Robust(Calibrated(DPO(beta=0.1)), 0.2), "couples the pairs"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(make, message):
    with pytest.raises(PrefalignError, match=message):
        make()
