"""Losses with branches, guards, detached factors, and clamps."""

# ruff: noqa: E741 - w and l are the two answers, as in the papers
from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.compiler.strangers._corpus import stranger

FOUR = "w l rw rl"


def logits(w, l, rw, rl):
    return w - l - rw + rl


@stranger(FOUR)
def wpo(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    weight = torch.exp(0.01 * (chosen_logps + rejected_logps)).detach()
    return (
        -weight * F.logsigmoid(beta * logits(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps))
    ).mean()


@stranger("w l rw rl n_w n_l")
def wpo_of_means(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, chosen_len, rejected_len):
    with torch.no_grad():
        weight = torch.clamp(torch.exp(chosen_logps / chosen_len + rejected_logps / rejected_len), max=1.0)
    return -(
        weight * F.logsigmoid(0.1 * logits(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps))
    ).mean()


@stranger("w l rw rl n_w n_l")
def alpha_dpo(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, n_w, n_l, beta=2.5, alpha=0.05):
    w, l = chosen_logps / n_w, rejected_logps / n_l
    target = (w - l - ref_chosen_logps / n_w + ref_rejected_logps / n_l).detach()
    return -F.logsigmoid(beta * (w - l) - 0.3 - alpha * target).mean()


@stranger(FOUR)
def stop_gradient_on_rejected(pi_w, pi_l, ref_w, ref_l):
    return -F.logsigmoid(0.1 * (pi_w - ref_w) - 0.1 * (pi_l - ref_l).detach()).mean()


@stranger(FOUR)
def detached_margin_weight(pi_w, pi_l, ref_w, ref_l):
    d = pi_w - pi_l - ref_w + ref_l
    return (torch.sigmoid(-0.1 * d).detach() * -F.logsigmoid(0.1 * d)).mean()


@stranger(FOUR)
def policy_gradient_form(pi_w, pi_l, ref_w, ref_l):
    weight = torch.sigmoid(-0.1 * (pi_w - pi_l - ref_w + ref_l)).detach()
    return -(0.1 * weight * (pi_w - pi_l)).mean()


@stranger(FOUR)
def only_where_reference_errs(pi_w, pi_l, ref_w, ref_l):
    loss = -F.logsigmoid(0.1 * (pi_w - pi_l - ref_w + ref_l))
    return torch.where(ref_w < ref_l, loss, torch.zeros_like(loss)).mean()


@stranger(FOUR)
def where_the_reference_prefers(pi_w, pi_l, ref_w, ref_l):
    d = pi_w - pi_l - ref_w + ref_l
    return torch.where(ref_w > ref_l, F.softplus(-0.1 * d), F.relu(1 - 0.1 * d)).mean()


@stranger(FOUR)
def mask_fill(pi_w, pi_l, ref_w, ref_l):
    loss = F.softplus(-0.1 * (pi_w - pi_l - ref_w + ref_l))
    return loss.masked_fill(pi_w > ref_w, 0.0).mean()


@stranger(FOUR)
def times_a_truth(pi_w, pi_l, ref_w, ref_l):
    return (F.softplus(-0.1 * (pi_w - pi_l - ref_w + ref_l)) * (pi_w < ref_w)).mean()


@stranger(FOUR)
def seppo(pi_w, pi_l, ref_w, ref_l, beta=0.1):
    up, down = F.softplus(-beta * (pi_w - ref_w - pi_l + ref_l)), F.softplus(-beta * (pi_w - ref_w + pi_l - ref_l))
    return torch.where(pi_w >= ref_w, up, down).mean()


@stranger("w l rw rl n_w n_l")
def penalty_where_longer(pi_w, pi_l, ref_w, ref_l, len_w, len_l):
    loss = F.softplus(-0.1 * (pi_w - pi_l - ref_w + ref_l))
    return torch.where(len_w > len_l, 2 * loss, loss).mean()


@stranger(FOUR)
def clipped_margin(pi_w, pi_l, ref_w, ref_l):
    return -F.logsigmoid(torch.clamp(0.1 * (pi_w - pi_l - ref_w + ref_l), -3, 3)).mean()


@stranger(FOUR)
def clipped_sides(pi_w, pi_l, ref_w, ref_l):
    a, b = torch.clamp(pi_w - ref_w, -5, 5), torch.clamp(pi_l - ref_l, -5, 5)
    return -F.logsigmoid(0.1 * (a - b)).mean()


@stranger(FOUR)
def three_clamps(pi_w, pi_l, ref_w, ref_l):
    a, b = torch.clamp(pi_w - ref_w, -5, 5), torch.clamp(pi_l - ref_l, -5, 5)
    return -F.logsigmoid(torch.clamp(0.1 * (a - b), -0.3, 0.3)).mean()


@stranger(FOUR)
def ppo_like(pi_w, pi_l, ref_w, ref_l, clip=0.2):
    a, b = torch.exp(pi_w - ref_w), torch.exp(pi_l - ref_l)
    up = torch.minimum(a, a.clamp(1 - clip, 1 + clip))
    down = torch.maximum(b, b.clamp(1 - clip, 1 + clip))
    return (down - up).mean()


@stranger("w rw", "w/rw")
def k3_penalty_alone(chosen_logps, ref_chosen_logps):
    d = ref_chosen_logps - chosen_logps
    return (d.exp() - d - 1).mean()


@stranger(FOUR)
def leaky(pi_w, pi_l, ref_w, ref_l):
    return F.leaky_relu(1 - 0.1 * (pi_w - pi_l - ref_w + ref_l), 0.05).mean()


@stranger(FOUR)
def elu(pi_w, pi_l, ref_w, ref_l):
    return F.elu(1 - 0.1 * (pi_w - pi_l - ref_w + ref_l)).mean()


@stranger(FOUR)
def python_if(pi_w, pi_l, ref_w, ref_l, kind="hinge", beta=0.1):
    d = beta * (pi_w - pi_l - ref_w + ref_l)
    if kind == "hinge":
        return torch.relu(1 - d).mean()
    if kind == "sigmoid":
        return -F.logsigmoid(d).mean()
    raise ValueError(kind)


@stranger(FOUR)
def in_place(pi_w, pi_l, ref_w, ref_l):
    d = (pi_w - pi_l).clone()
    d -= ref_w
    d.add_(ref_l).mul_(0.1)
    return -F.logsigmoid(d).mean()


@stranger(FOUR)
def reference_margin_as_weight(pi_w, pi_l, ref_w, ref_l):
    return (torch.sigmoid(ref_w - ref_l) * F.softplus(-0.1 * (pi_w - pi_l))).mean()


@stranger(FOUR)
def nothing_where_far(pi_w, pi_l, ref_w, ref_l):
    d = pi_w - pi_l - ref_w + ref_l
    keep = (d.abs() < 20).to(d.dtype).detach()
    return (keep * F.softplus(-0.1 * d)).mean()


@stranger(FOUR)
def kl_to_reference(pi_w, pi_l, ref_w, ref_l, coef=0.05):
    d = pi_w - pi_l - ref_w + ref_l
    return (F.softplus(-0.1 * d) + coef * ((pi_w - ref_w) ** 2 + (pi_l - ref_l) ** 2) / 2).mean()
