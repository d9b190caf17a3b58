"""Losses without a reference model: means over tokens, odds, lengths, and answers on their own."""

# ruff: noqa: E741 - w and l are the two answers, as in the papers
from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.compiler.strangers._corpus import stranger

TWO, LONG = "w l", "w l n_w n_l"


@stranger(TWO, "w/l")
def contrastive(chosen_logps, rejected_logps, beta=0.1):
    return -F.logsigmoid(beta * (chosen_logps - rejected_logps)).mean()


@stranger(TWO, "w/l", "w/(1 - w)")
def cpo(policy_chosen_logps, policy_rejected_logps, beta=0.1, cpo_alpha=1.0):
    logits = policy_chosen_logps - policy_rejected_logps
    return -F.logsigmoid(beta * logits).mean() + cpo_alpha * -policy_chosen_logps.mean()


@stranger(LONG, "w/l")
def simpo(chosen_logps, rejected_logps, chosen_len, rejected_len, beta=2.0, gamma_beta_ratio=0.5):
    pi_logratios = chosen_logps / chosen_len - rejected_logps / rejected_len
    return -F.logsigmoid(beta * (pi_logratios - gamma_beta_ratio)).mean()


@stranger(LONG, "w/l")
def simpo_hinge(chosen_logps, rejected_logps, chosen_lens, rejected_lens, beta=2.0, gamma=1.0):
    logits = beta * (chosen_logps / chosen_lens - rejected_logps / rejected_lens) - gamma
    return torch.relu(1 - logits).mean()


@stranger(LONG, "w/l", "w/(1 - w)")
def cpo_simpo(chosen_logps, rejected_logps, n_w, n_l, beta=2.0, gamma=1.0, alpha=0.1):
    gap = chosen_logps / n_w - rejected_logps / n_l
    return (-F.logsigmoid(beta * gap - gamma) - alpha * chosen_logps / n_w).mean()


@stranger(LONG, "w/l")
def repo(chosen_logps, rejected_logps, chosen_len, rejected_len, gamma=0.4):
    return F.relu(-(chosen_logps / chosen_len - rejected_logps / rejected_len - gamma)).mean()


@stranger(LONG)
def simper(chosen_logps, rejected_logps, chosen_length, rejected_length):
    chosen = torch.exp(chosen_logps / chosen_length)
    rejected = torch.exp(rejected_logps / rejected_length)
    return -(chosen - rejected).mean()


@stranger(TWO, "w*(1 - l)/(l*(1 - w))", "w/(1 - w)")
def orpo(policy_chosen_logps, policy_rejected_logps, beta=0.1):
    log_odds = (policy_chosen_logps - policy_rejected_logps) - (
        torch.log1p(-torch.exp(policy_chosen_logps)) - torch.log1p(-torch.exp(policy_rejected_logps))
    )
    return (-policy_chosen_logps - beta * F.logsigmoid(log_odds)).mean()


@stranger(LONG)
def orpo_of_means(chosen_logps, rejected_logps, chosen_len, rejected_len, lam=0.1):
    w, l = chosen_logps / chosen_len, rejected_logps / rejected_len
    odds = w - torch.log1p(-w.exp()) - l + torch.log1p(-l.exp())
    return (-w - lam * F.logsigmoid(odds)).mean()


@stranger(TWO, "w*(1 - l)/(l*(1 - w))")
def odds_of_probabilities(chosen_logps, rejected_logps):
    w, l = chosen_logps.exp(), rejected_logps.exp()
    ratio = (w / (1 - w)) / (l / (1 - l))
    return -F.logsigmoid(torch.log(ratio)).mean()


@stranger(TWO, "w/l", "w/(1 - w)")
def slic_hf(chosen_logps, rejected_logps, delta=1.0, reg=0.1):
    return (torch.clamp(delta - chosen_logps + rejected_logps, min=0) - reg * chosen_logps).mean()


@stranger(LONG)
def rrhf(chosen_logps, rejected_logps, chosen_len, rejected_len):
    rank = F.relu(rejected_logps / rejected_len - chosen_logps / chosen_len)
    return (rank - chosen_logps / chosen_len).mean()


@stranger("w", "w/(1 - w)")
def sft(chosen_logps):
    return -chosen_logps.mean()


@stranger("w n_w")
def sft_of_means(chosen_logps, chosen_len):
    return -(chosen_logps / chosen_len).mean()


@stranger(TWO, "w/(1 - w)", "(1 - l)/l")
def unlikelihood(chosen_logps, rejected_logps, alpha=1.0):
    return (-chosen_logps - alpha * torch.log1p(-torch.exp(rejected_logps))).mean()


@stranger(TWO)
def clipped_unlikelihood(chosen_logps, rejected_logps):
    return -(chosen_logps + torch.log((1 - rejected_logps.exp()).clamp(min=1e-9))).mean()


@stranger(LONG, "w/l")
def alpha_dpo_fixed_target(chosen_logps, rejected_logps, chosen_len, rejected_len, beta=10.0, gamma=0.3):
    w, l = chosen_logps / chosen_len, rejected_logps / rejected_len
    return -F.logsigmoid(beta * (w - l) - beta * gamma).mean()


@stranger(LONG, "l/w")
def reversed_pair(chosen_logps, rejected_logps, chosen_len, rejected_len):
    return F.logsigmoid(chosen_logps / chosen_len - rejected_logps / rejected_len).mean()


@stranger(LONG)
def simnpo(chosen_logps, rejected_logps, chosen_len, rejected_len, beta=2.5, retain=0.1):
    forget = -F.logsigmoid(-beta * rejected_logps / rejected_len) * 2 / beta
    return (forget - retain * chosen_logps / chosen_len).mean()


@stranger(TWO, "w/l")
def bradley_terry_of_probabilities(chosen_logps, rejected_logps):
    w, l = chosen_logps.exp(), rejected_logps.exp()
    return -torch.log(w / (w + l)).mean()


@stranger(TWO, "w/l")
def softmax_of_two(chosen_logps, rejected_logps):
    both = torch.stack([chosen_logps, rejected_logps])
    return -(chosen_logps - torch.logsumexp(both, 0)).mean()


@stranger(LONG, "w/l")
def pro_of_two(chosen_logps, rejected_logps, chosen_len, rejected_len, temperature=1.0):
    w, l = chosen_logps / chosen_len / temperature, rejected_logps / rejected_len / temperature
    return (torch.logsumexp(torch.stack((w, l), dim=1), dim=1) - w).mean()


@stranger("w l n_w n_l")
def length_penalty(chosen_logps, rejected_logps, chosen_len, rejected_len, alpha=0.01):
    return (-F.logsigmoid(0.1 * (chosen_logps - rejected_logps)) + alpha * F.relu(chosen_len - rejected_len)).mean()


@stranger("w l n_w n_l")
def length_gap(chosen_logps, rejected_logps, chosen_len, rejected_len, alpha=0.01):
    return -F.logsigmoid(0.1 * (chosen_logps - rejected_logps) - alpha * (chosen_len - rejected_len).abs()).mean()


@stranger("w l n_w n_l")
def by_longer(chosen_logps, rejected_logps, chosen_len, rejected_len):
    return -F.logsigmoid((chosen_logps - rejected_logps) / torch.maximum(chosen_len, rejected_len)).mean()


@stranger("w l n_w n_l")
def by_total(chosen_logps, rejected_logps, chosen_len, rejected_len):
    return -F.logsigmoid(10 * (chosen_logps - rejected_logps) / (chosen_len + rejected_len)).mean()


@stranger("w l n_w n_l")
def by_root(chosen_logps, rejected_logps, chosen_len, rejected_len):
    return -F.logsigmoid(chosen_logps / chosen_len.sqrt() - rejected_logps / rejected_len.sqrt()).mean()


@stranger("w l n_w n_l")
def gnmt(chosen_logps, rejected_logps, chosen_len, rejected_len, alpha=0.6):
    w = chosen_logps / ((5 + chosen_len) / 6) ** alpha
    l = rejected_logps / ((5 + rejected_len) / 6) ** alpha
    return -F.logsigmoid(w - l).mean()


@stranger("w l n_w n_l")
def equal_lengths_weigh_half(chosen_logps, rejected_logps, chosen_len, rejected_len):
    weight = torch.where(chosen_len == rejected_len, 0.5, 1.0)
    return (weight * -F.logsigmoid(0.1 * (chosen_logps - rejected_logps))).mean()


@stranger("w l n_w n_l")
def only_longer_winners(chosen_logps, rejected_logps, chosen_len, rejected_len):
    return (-F.logsigmoid(0.1 * (chosen_logps - rejected_logps)) * (chosen_len > rejected_len).float()).mean()


@stranger("w l n_w n_l")
def not_shorter_winners(chosen_logps, rejected_logps, chosen_len, rejected_len):
    return (-F.logsigmoid(0.1 * (chosen_logps - rejected_logps)) * (chosen_len >= rejected_len)).mean()


@stranger("w l n_w n_l")
def length_ratio_weight(chosen_logps, rejected_logps, chosen_len, rejected_len):
    weight = torch.minimum(chosen_len, rejected_len) / torch.maximum(chosen_len, rejected_len)
    return -(weight * F.logsigmoid(0.1 * (chosen_logps - rejected_logps))).mean()


@stranger(LONG)
def token_level_average(chosen_logps, rejected_logps, chosen_len, rejected_len):
    return (
        -(chosen_logps.sum() / chosen_len.sum())
        - 0.5 * F.logsigmoid(chosen_logps / chosen_len - rejected_logps / rejected_len).mean()
    )


@stranger("w l", "w/l", call=lambda f, w, l: f(w.exp(), l.exp()))
def from_probabilities(chosen_probs, rejected_probs):
    return -torch.log(chosen_probs / (chosen_probs + rejected_probs)).mean()


@stranger("w l n_w n_l", call=lambda f, w, l, n, m: f(w / n, l / m))
def from_averages(avg_chosen_logps, avg_rejected_logps, beta=2.0):
    return -F.logsigmoid(beta * (avg_chosen_logps - avg_rejected_logps)).mean()


@stranger(TWO)
def brier(chosen_logps, rejected_logps):
    return ((1 - torch.sigmoid(chosen_logps - rejected_logps)) ** 2).mean()


@stranger(TWO)
def probability_gap(chosen_logps, rejected_logps):
    return (rejected_logps.exp() - chosen_logps.exp()).mean()


@stranger(TWO)
def squared_log(chosen_logps, rejected_logps):
    return (chosen_logps**2 + (rejected_logps + 10) ** 2).mean()


@stranger(TWO)
def floor_on_rejected(chosen_logps, rejected_logps, floor=-50.0):
    return (-chosen_logps + 0.1 * F.relu(rejected_logps - floor)).mean()
