"""Losses of two log ratios, f(g(rho_1) - g(rho_2)): other divergences than the reverse KL, and their kin."""

# ruff: noqa: E741 - w and l are the two answers, as in the papers
from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.compiler.strangers._corpus import stranger

FOUR, TWO = "w l rw rl", "w l"
SIDES = ("w/rw", "l/rl")


@stranger(FOUR, *SIDES)
def f_dpo_forward_kl(pi_w, pi_l, ref_w, ref_l, beta=0.1):
    return -F.logsigmoid(beta * (-torch.exp(ref_w - pi_w) + torch.exp(ref_l - pi_l))).mean()


@stranger(FOUR, *SIDES)
def f_dpo_jensen_shannon(pi_w, pi_l, ref_w, ref_l, beta=0.1):
    a, b = pi_w - ref_w, pi_l - ref_l
    return -F.logsigmoid(beta * (a - b - (F.softplus(a) - F.softplus(b)))).mean()


@stranger(FOUR, *SIDES)
def f_dpo_alpha(pi_w, pi_l, ref_w, ref_l, beta=0.1, alpha=0.5):
    a, b = pi_w - ref_w, pi_l - ref_l
    return -F.logsigmoid(beta * (torch.exp(-alpha * b) - torch.exp(-alpha * a)) / alpha).mean()


@stranger(FOUR, *SIDES)
def chi_po(pi_w, pi_l, ref_w, ref_l, beta=0.1):
    def phi(d):
        return torch.exp(d) + d

    return -F.logsigmoid(beta * (phi(pi_w - ref_w) - phi(pi_l - ref_l))).mean()


@stranger(FOUR, *SIDES)
def squared_po(pi_w, pi_l, ref_w, ref_l, beta=0.1):
    def link(d):
        return d * torch.exp(-d)

    return -F.logsigmoid(beta * (link(pi_w - ref_w) - link(pi_l - ref_l))).mean()


@stranger("w l n_w n_l", "w", "l")
def alpha_po(chosen_logps, rejected_logps, chosen_len, rejected_len, beta=2.5, alpha=0.25, gamma=0.1):
    def reward(x):
        return beta * (1 - torch.exp(-alpha * x)) / alpha

    return -F.logsigmoid(reward(chosen_logps / chosen_len) - reward(rejected_logps / rejected_len) - gamma).mean()


@stranger(FOUR, *SIDES)
def by_f_divergence(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, coef=0.5):
    """As trainers write it: differences of capped exponentials."""
    chosen_logratios, rejected_logratios = chosen_logps - ref_chosen_logps, rejected_logps - ref_rejected_logps
    delta = (torch.exp(rejected_logratios * -coef) - torch.exp(chosen_logratios * -coef)) / coef
    return (-F.logsigmoid(beta * delta) * 0.9 - F.logsigmoid(-beta * delta) * 0.1).mean()


@stranger(FOUR, *SIDES)
def jensen_shannon_by_ratio(pi_w, pi_l, ref_w, ref_l, beta=0.1):
    def generator_slope(d):
        u = torch.exp(d)
        return torch.log(2 * u / (1 + u))

    return torch.log1p(torch.exp(-beta * (generator_slope(pi_w - ref_w) - generator_slope(pi_l - ref_l)))).mean()


@stranger(FOUR, *SIDES)
def chi_po_clipped(pi_w, pi_l, ref_w, ref_l, beta=0.05, bound=4.0):
    w, l = pi_w - ref_w, pi_l - ref_l
    inside = beta * ((torch.exp(w) + w) - (torch.exp(l) + l))
    return -F.logsigmoid(inside.clamp(-2 * bound, 2 * bound)).mean()


@stranger(FOUR, *SIDES)
def ipo_of_forward_kl(pi_w, pi_l, ref_w, ref_l, tau=0.5):
    gap = torch.exp(ref_l - pi_l) - torch.exp(ref_w - pi_w)
    return ((gap - 1 / (2 * tau)) ** 2).mean()


@stranger(FOUR, *SIDES)
def hinge_of_alpha(pi_w, pi_l, ref_w, ref_l, alpha=0.3):
    gap = (torch.exp(-alpha * (pi_l - ref_l)) - torch.exp(-alpha * (pi_w - ref_w))) / alpha
    return torch.relu(1 - gap).mean()


@stranger(FOUR, *SIDES)
def squared_po_turned(pi_w, pi_l, ref_w, ref_l, beta=0.1):
    t_w, t_l = torch.exp(pi_w - ref_w), torch.exp(pi_l - ref_l)
    return F.softplus(beta * (t_l.log() / t_l - t_w.log() / t_w)).mean()


@stranger(FOUR, *SIDES, "w/(1 - w)")
def forward_kl_with_sft(pi_w, pi_l, ref_w, ref_l, beta=0.1, sft_weight=0.2):
    gap = torch.exp(ref_l - pi_l) - torch.exp(ref_w - pi_w)
    return -F.logsigmoid(beta * gap).mean() - sft_weight * pi_w.mean()


@stranger("w l n_w n_l", "w", "l")
def alpha_po_by_power(chosen_logps, rejected_logps, chosen_len, rejected_len, beta=2.0, alpha=-0.5):
    p_w, p_l = torch.exp(chosen_logps / chosen_len), torch.exp(rejected_logps / rejected_len)
    return -F.logsigmoid(beta * (1 - p_w**-alpha) / alpha - beta * (1 - p_l**-alpha) / alpha).mean()


@stranger(TWO, "w", "l")
def gap_of_probabilities(chosen_logps, rejected_logps):
    return -F.logsigmoid(5 * (chosen_logps.exp() - rejected_logps.exp())).mean()


@stranger(FOUR, *SIDES)
def tanh_gap(pi_w, pi_l, ref_w, ref_l, beta=1.0):
    return torch.exp(-beta * (torch.tanh(pi_w - ref_w) - torch.tanh(pi_l - ref_l))).mean()


@stranger(FOUR, refused="log ratios at once")
def one_inner_function_each(pi_w, pi_l, ref_w, ref_l):
    return -F.logsigmoid(torch.exp(ref_l - pi_l) - torch.sigmoid(ref_w - pi_w)).mean()


@stranger(FOUR, *SIDES)
def both_and_each(pi_w, pi_l, ref_w, ref_l):
    w, l = pi_w - ref_w, pi_l - ref_l
    return -F.logsigmoid(torch.exp(w) - torch.exp(l) + torch.relu(w - l)).mean()
