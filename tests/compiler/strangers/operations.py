"""Losses in torch's less usual words: written in place, in fused products, in functions that turn."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.compiler.strangers._corpus import stranger

FOUR, TWO = "w l rw rl", "w l"
BOTH, ALONE = "rl*w/(l*rw)", "w/l"


@stranger(TWO, ALONE)
def filled_in_place(chosen_logps, rejected_logps):
    out = torch.empty_like(chosen_logps)
    out.copy_(chosen_logps).sub_(rejected_logps)
    return -F.logsigmoid(out).mean()


@stranger(TWO, ALONE)
def added_up(chosen_logps, rejected_logps):
    total = chosen_logps.new_zeros(chosen_logps.shape)
    for sign, logps in ((1.0, chosen_logps), (-1.0, rejected_logps)):
        total = total + sign * logps
    return F.softplus(-total).mean()


@stranger(TWO, ALONE)
def against_soft_labels(chosen_logps, rejected_logps):
    both = torch.stack([chosen_logps, rejected_logps], -1)
    target = chosen_logps.new_tensor([0.9, 0.1]).expand_as(both)
    return F.kl_div(F.log_softmax(both, -1), target, reduction="batchmean")


@stranger(TWO)
def product_of_two_sigmoids(chosen_logps, rejected_logps):
    return -torch.log(torch.sigmoid(chosen_logps + 1) * torch.sigmoid(-rejected_logps - 2)).mean()


@stranger(FOUR, "w/rw", "rl/l")
def product_of_verdicts(pi_w, pi_l, ref_w, ref_l, beta=0.1):
    good, bad = torch.sigmoid(beta * (pi_w - ref_w)), torch.sigmoid(beta * (pi_l - ref_l))
    return -torch.log(good * (1 - bad)).mean()


@stranger(TWO, ALONE)
def sine(chosen_logps, rejected_logps):
    return torch.sin(0.1 * (rejected_logps - chosen_logps)).mean()


@stranger(TWO, ALONE)
def arc_tangent(chosen_logps, rejected_logps, tau=0.5):
    return torch.atan(tau * (rejected_logps - chosen_logps)).mean()


@stranger(TWO, ALONE)
def normal_error(chosen_logps, rejected_logps):
    return (1 - torch.erf(0.2 * (chosen_logps - rejected_logps))).mean()


@stranger(TWO, ALONE)
def by_differences(chosen_logps, rejected_logps):
    return -F.logsigmoid(torch.diff(torch.stack([rejected_logps, chosen_logps], -1), dim=-1).squeeze(-1)).mean()


@stranger(TWO, ALONE)
def exponential_linear(chosen_logps, rejected_logps):
    return F.elu(rejected_logps - chosen_logps).mean()


@stranger(TWO, ALONE)
def swish(chosen_logps, rejected_logps):
    return F.silu(rejected_logps - chosen_logps).mean()


@stranger(TWO, ALONE)
def hyperbola(chosen_logps, rejected_logps):
    gap = rejected_logps - chosen_logps
    return (torch.sqrt(gap**2 + 1) + gap).mean()
