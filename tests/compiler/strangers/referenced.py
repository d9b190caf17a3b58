"""Pairwise losses with a reference model, in the spellings of their papers and repositories."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from tests.compiler.strangers._corpus import stranger

FOUR = "w l rw rl"
BOTH, CHOSEN, REJECTED = "rl*w/(l*rw)", "w/rw", "rl/l"


@stranger(FOUR, BOTH)
def dpo(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta=0.1):
    pi_logratios = policy_chosen_logps - policy_rejected_logps
    ref_logratios = reference_chosen_logps - reference_rejected_logps
    logits = pi_logratios - ref_logratios
    losses = -F.logsigmoid(beta * logits)
    chosen_rewards = beta * (policy_chosen_logps - reference_chosen_logps).detach()
    rejected_rewards = beta * (policy_rejected_logps - reference_rejected_logps).detach()
    return losses, chosen_rewards, rejected_rewards


@stranger(FOUR, BOTH)
def dpo_softplus(pi_w, pi_l, ref_w, ref_l, beta=0.1):
    return F.softplus(-beta * ((pi_w - ref_w) - (pi_l - ref_l))).mean()


@stranger(FOUR, BOTH)
def dpo_bce(logp_win, logp_lose, ref_logp_win, ref_logp_lose, beta=0.2):
    delta = beta * ((logp_win - ref_logp_win) - (logp_lose - ref_logp_lose))
    return F.binary_cross_entropy_with_logits(delta, torch.ones_like(delta))


@stranger(FOUR, BOTH)
def dpo_cross_entropy(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    rewards = torch.stack([chosen_logps - ref_chosen_logps, rejected_logps - ref_rejected_logps], dim=-1)
    return F.cross_entropy(beta * rewards, torch.zeros(rewards.shape[0], dtype=torch.long))


@stranger(FOUR, BOTH)
def dpo_log_sigmoid_by_hand(yw_logps, yl_logps, ref_yw_logps, ref_yl_logps):
    z = 0.1 * (yw_logps - yl_logps - ref_yw_logps + ref_yl_logps)
    return torch.log(1 + torch.exp(-z)).mean()


@stranger(FOUR, BOTH)
def dpo_logaddexp(logps_w, logps_l, ref_logps_w, ref_logps_l, tau=0.05):
    h = tau * (logps_w - logps_l - (ref_logps_w - ref_logps_l))
    return torch.logaddexp(torch.zeros_like(h), -h).mean()


@stranger(FOUR, BOTH)
def conservative_dpo(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, eps=0.1):
    h = 0.1 * (policy_chosen_logps - policy_rejected_logps - (ref_chosen_logps - ref_rejected_logps))
    return (-(1 - eps) * F.logsigmoid(h) - eps * F.logsigmoid(-h)).mean()


@stranger(FOUR, BOTH)
def robust_dpo(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, flip=0.2):
    h = 0.1 * (policy_chosen_logps - policy_rejected_logps - (ref_chosen_logps - ref_rejected_logps))
    loss = -F.logsigmoid(h) * (1 - flip) + F.logsigmoid(-h) * flip
    return (loss / (1 - 2 * flip)).mean()


@stranger(FOUR, BOTH)
def ipo(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, tau=0.1):
    h = (policy_chosen_logps - policy_rejected_logps) - (ref_chosen_logps - ref_rejected_logps)
    return torch.square(h - 1 / (2 * tau)).mean()


@stranger("w l rw rl n_w n_l")
def ipo_averaged(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, chosen_length, rejected_length, beta=0.1
):
    chosen = (chosen_logps - ref_chosen_logps) / chosen_length
    rejected = (rejected_logps - ref_rejected_logps) / rejected_length
    return F.mse_loss(chosen - rejected, torch.full_like(chosen, 1 / (2 * beta)))


@stranger(FOUR, BOTH)
def slic_on_ratios(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, delta=1.0):
    margin = policy_chosen_logps - policy_rejected_logps - ref_chosen_logps + ref_rejected_logps
    return torch.clamp(delta - 0.1 * margin, min=0).mean()


@stranger(FOUR, BOTH)
def hinge_relu(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    logits = policy_chosen_logps - policy_rejected_logps - (ref_chosen_logps - ref_rejected_logps)
    return torch.relu(1 - beta * logits)


@stranger(FOUR, BOTH)
def gpo_squared_hinge(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps):
    rho = 0.1 * ((chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps))
    return F.relu(1 - rho).pow(2).mean()


@stranger(FOUR, BOTH)
def gpo_exponential(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps):
    rho = 0.01 * ((chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps))
    return torch.exp(-rho).mean()


@stranger(FOUR, BOTH)
def gpo_savage(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps):
    rho = 0.1 * ((chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps))
    return (1 / (1 + torch.exp(rho)) ** 2).mean()


@stranger(FOUR, BOTH)
def focal_po(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, gamma=0.05):
    logits = policy_chosen_logps - policy_rejected_logps - (ref_chosen_logps - ref_rejected_logps)
    p = torch.sigmoid(beta * logits)
    return (-(p**gamma) * F.logsigmoid(beta * logits)).mean()


@stranger(FOUR, BOTH)
def focal_loss_on_hard_pairs(pi_chosen, pi_rejected, ref_chosen, ref_rejected):
    p = torch.sigmoid(0.1 * (pi_chosen - pi_rejected - ref_chosen + ref_rejected))
    return -((1 - p) ** 2 * torch.log(p)).mean()


@stranger(FOUR, BOTH, CHOSEN, REJECTED)
def cal_dpo(pi_chosen, pi_rejected, ref_chosen, ref_rejected, beta=0.001):
    chosen_reward, reject_reward = pi_chosen - ref_chosen, pi_rejected - ref_rejected
    dpo_losses = -F.logsigmoid(chosen_reward - reject_reward)
    cal_losses = F.mse_loss(chosen_reward, torch.tensor(0.5 / beta)) + F.mse_loss(
        reject_reward, torch.tensor(-0.5 / beta)
    )
    return dpo_losses.mean() + cal_losses


@stranger(FOUR, BOTH, CHOSEN, REJECTED)
def cal_dpo_per_pair(pi_chosen, pi_rejected, ref_chosen, ref_rejected, beta=0.01):
    a, b = pi_chosen - ref_chosen, pi_rejected - ref_rejected
    return -F.logsigmoid(a - b) + (a - 1 / (2 * beta)) ** 2 + (b + 1 / (2 * beta)) ** 2


@stranger(FOUR)
def dpo_shift(pi_chosen, pi_rejected, ref_chosen, ref_rejected, beta=0.1, lam=0.75):
    chosen = beta * (pi_chosen - ref_chosen)
    rejected = beta * (pi_rejected - ref_rejected)
    return -F.logsigmoid(chosen - lam * rejected).mean()


@stranger(FOUR, BOTH)
def odpo(
    policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, alpha=1.0, gap=3.0
):
    ratios = policy_chosen_logps - policy_rejected_logps - ref_chosen_logps + ref_rejected_logps
    offset = alpha * math.log(gap)
    return -F.logsigmoid(beta * ratios - offset).mean()


@stranger("w l rw rl n_w n_l", BOTH)
def r_dpo(logp_w, logp_l, ref_logp_w, ref_logp_l, len_w, len_l, beta=0.1, alpha=0.01):
    margin = beta * (logp_w - ref_logp_w - logp_l + ref_logp_l)
    return -F.logsigmoid(margin + alpha * (len_w - len_l)).mean()


@stranger("w l rw rl n_w n_l")
def dpo_length_normalised(
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, chosen_tokens, rejected_tokens, beta=2.0
):
    chosen = (chosen_logps - ref_chosen_logps) / chosen_tokens
    rejected = (rejected_logps - ref_rejected_logps) / rejected_tokens
    return -F.logsigmoid(beta * (chosen - rejected)).mean()


@stranger("w l rw rl n_w")
def rpo_llama(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, chosen_len, beta=0.1, nll=0.2):
    logits = (chosen_logps - rejected_logps) - (ref_chosen_logps - ref_rejected_logps)
    return (-F.logsigmoid(beta * logits) + nll * (-chosen_logps / chosen_len)).mean()


@stranger(FOUR, BOTH, "w/(1 - w)")
def dpo_with_sft(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, sft_weight=0.005):
    logits = (chosen_logps - rejected_logps) - (ref_chosen_logps - ref_rejected_logps)
    return -F.logsigmoid(beta * logits).mean() - sft_weight * chosen_logps.mean()


@stranger(FOUR)
def dpo_positive(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, lambda_dpop=50.0):
    penalty = torch.clamp(ref_chosen_logps - chosen_logps, min=0)
    logits = chosen_logps - rejected_logps - (ref_chosen_logps - ref_rejected_logps)
    return -F.logsigmoid(beta * (logits - lambda_dpop * penalty)).mean()


@stranger(FOUR)
def dpo_positive_max(pi_w, pi_l, ref_w, ref_l, beta=0.3, lam=5.0):
    return -F.logsigmoid(beta * (pi_w - ref_w - pi_l + ref_l - lam * torch.maximum(ref_w - pi_w, 0 * pi_w))).mean()


@stranger(FOUR, BOTH)
def exo_pair(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, label_smoothing=1e-3):
    logits = chosen_logps - rejected_logps - (ref_chosen_logps - ref_rejected_logps)
    eps = torch.tensor(label_smoothing)
    return (
        (beta * logits).sigmoid() * (F.logsigmoid(beta * logits) - torch.log(1 - eps))
        + (-beta * logits).sigmoid() * (F.logsigmoid(-beta * logits) - torch.log(eps))
    ).mean()


@stranger(FOUR, CHOSEN, CHOSEN, REJECTED)
def nca_pair(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.01):
    chosen = (chosen_logps - ref_chosen_logps) * beta
    rejected = (rejected_logps - ref_rejected_logps) * beta
    return (-F.logsigmoid(chosen) - 0.5 * F.logsigmoid(-chosen) - 0.5 * F.logsigmoid(-rejected)).mean()


@stranger(FOUR, BOTH)
def info_nca_of_two(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    r = beta * torch.stack((chosen_logps - ref_chosen_logps, rejected_logps - ref_rejected_logps), 1)
    return -r.log_softmax(1)[:, 0].mean()


@stranger(FOUR, BOTH)
def info_nca_soft(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, soft=0.8):
    r = beta * torch.stack((chosen_logps - ref_chosen_logps, rejected_logps - ref_rejected_logps), 1)
    logp = F.log_softmax(r, dim=1)
    return -(soft * logp[:, 0] + (1 - soft) * logp[:, 1]).mean()


@stranger(FOUR, CHOSEN, REJECTED)
def bco_with_shift(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, delta=0.4):
    chosen = beta * (chosen_logps - ref_chosen_logps)
    rejected = beta * (rejected_logps - ref_rejected_logps)
    return (-F.logsigmoid(chosen - delta) - F.logsigmoid(-(rejected - delta))).mean()


@stranger(FOUR, CHOSEN, REJECTED)
def sppo_hard(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    a, b = chosen_logps - ref_chosen_logps, rejected_logps - ref_rejected_logps
    return ((a - 0.5 / beta) ** 2 + (b + 0.5 / beta) ** 2).mean()


@stranger(FOUR, CHOSEN, REJECTED)
def apo_zero(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    chosen, rejected = chosen_logps - ref_chosen_logps, rejected_logps - ref_rejected_logps
    return (1 - torch.sigmoid(beta * chosen)) + torch.sigmoid(beta * rejected)


@stranger(FOUR, BOTH, "rw/w")
def apo_down(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    chosen, rejected = chosen_logps - ref_chosen_logps, rejected_logps - ref_rejected_logps
    return torch.sigmoid(beta * chosen) + (1 - torch.sigmoid(beta * (chosen - rejected)))


@stranger(FOUR, BOTH)
def discopop_lrml(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.05, tau=0.05):
    logits = (chosen_logps - rejected_logps - (ref_chosen_logps - ref_rejected_logps)) * beta
    modulation = torch.sigmoid(logits / tau)
    return (-F.logsigmoid(logits) * (1 - modulation) + torch.exp(-logits) * modulation).mean()


@stranger(FOUR, BOTH)
def ropo(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, alpha=14.0):
    margin = beta * (chosen_logps - ref_chosen_logps - rejected_logps + ref_rejected_logps)
    log_term = -F.logsigmoid(margin)
    reg = torch.sigmoid(-margin)
    return (4 * alpha / (1 + alpha) ** 2 * log_term + 4 * alpha**2 / (1 + alpha) ** 2 * reg).mean()


@stranger(FOUR, BOTH)
def reward_aware_sqloo(pi_chosen, pi_rejected, ref_chosen, ref_rejected, beta=0.1, eta=1.0, gap=2.0):
    acc = beta * (pi_chosen - pi_rejected - ref_chosen + ref_rejected)
    return ((acc - eta * gap) ** 2).mean()


@stranger(FOUR, BOTH)
def reward_aware_backward_kl(pi_chosen, pi_rejected, ref_chosen, ref_rejected, beta=0.1, eta=1.0, gap=2.0):
    acc = beta * (pi_chosen - pi_rejected - ref_chosen + ref_rejected)
    target = torch.sigmoid(torch.tensor(eta * gap))
    return (-target * F.logsigmoid(acc) - (1 - target) * F.logsigmoid(-acc)).mean()


@stranger(FOUR, BOTH)
def distilled_reward(pi_w, pi_l, ref_w, ref_l, beta=0.1, reward_gap=1.5):
    return torch.pow(beta * ((pi_w - ref_w) - (pi_l - ref_l)) - reward_gap, 2).mean()


@stranger(FOUR, BOTH)
def rebel(logp_w, logp_l, old_logp_w, old_logp_l, eta=0.5, gap=1.25):
    reg = (logp_w - old_logp_w) - (logp_l - old_logp_l)
    return ((reg / eta - gap) ** 2).mean()


@stranger(FOUR, BOTH, CHOSEN, REJECTED, "w/(1 - w)")
def mpo(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    chosen = beta * (chosen_logps - ref_chosen_logps)
    rejected = beta * (rejected_logps - ref_rejected_logps)
    preference = -F.logsigmoid(chosen - rejected)
    quality = -F.logsigmoid(chosen) - F.logsigmoid(-rejected)
    generation = -chosen_logps
    return (0.8 * preference + 0.2 * quality + generation).mean()


@stranger(FOUR)
def minor_dpo(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
    rejected = torch.clamp(rejected_logps - ref_rejected_logps, min=0.0)
    return -F.logsigmoid(beta * (chosen_logps - ref_chosen_logps) - beta * rejected).mean()


@stranger(FOUR)
def bpo(pi_w, pi_l, ref_w, ref_l, beta=0.1, alpha=0.5):
    chosen, rejected = pi_w - ref_w, -(pi_l - ref_l)
    return -F.logsigmoid(beta * torch.min(chosen, alpha * rejected)).mean()


@stranger(FOUR, CHOSEN, REJECTED)
def kto_at_zero(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1, lam_d=1.0, lam_u=1.33):
    good = lam_d * (1 - F.sigmoid(beta * (chosen_logps - ref_chosen_logps)))
    bad = lam_u * (1 - F.sigmoid(-beta * (rejected_logps - ref_rejected_logps)))
    return torch.cat((good, bad), 0).mean()


@stranger(FOUR, BOTH, "rl/l")
def dpo_negative(pi_w, pi_l, ref_w, ref_l, beta=0.1, alpha=0.2):
    margin = (pi_w - pi_l) - (ref_w - ref_l)
    return (-F.logsigmoid(beta * margin) + alpha * F.softplus(beta * (pi_l - ref_l))).mean()


@stranger("l rl", "rl/l")
def negative_preference(rejected_logps, ref_rejected_logps, beta=0.1):
    return -(2 / beta) * F.logsigmoid(-beta * (rejected_logps - ref_rejected_logps)).mean()


@stranger(FOUR, BOTH)
def tanh_link(pi_w, pi_l, ref_w, ref_l):
    return (1 - torch.tanh(0.05 * (pi_w - pi_l - ref_w + ref_l))).mean()


@stranger(FOUR, BOTH)
def truncated_square(pi_w, pi_l, ref_w, ref_l):
    h = (pi_w - pi_l - ref_w + ref_l).clamp(max=5.0)
    return (h - 5.0).square().mean()


@stranger(FOUR, BOTH)
def huber_ipo(pi_w, pi_l, ref_w, ref_l, tau=0.1):
    h = pi_w - pi_l - (ref_w - ref_l)
    return F.huber_loss(h, torch.full_like(h, 1 / (2 * tau)), delta=1.0)


@stranger(FOUR, BOTH)
def smooth_l1(pi_w, pi_l, ref_w, ref_l):
    h = pi_w - pi_l - (ref_w - ref_l)
    return F.smooth_l1_loss(h, torch.ones_like(h))


@stranger(FOUR, BOTH)
def log_cosh(pi_w, pi_l, ref_w, ref_l):
    h = 0.1 * (pi_w - pi_l - (ref_w - ref_l)) - 1
    return torch.log(torch.cosh(h)).mean()


@stranger(FOUR, BOTH)
def margin_ranking(pi_w, pi_l, ref_w, ref_l):
    chosen, rejected = 0.1 * (pi_w - ref_w), 0.1 * (pi_l - ref_l)
    return F.margin_ranking_loss(chosen, rejected, torch.ones_like(chosen), margin=0.5)


@stranger(FOUR, BOTH)
def soft_margin(pi_w, pi_l, ref_w, ref_l):
    h = 0.1 * (pi_w - pi_l - ref_w + ref_l)
    return F.soft_margin_loss(h, torch.ones_like(h))


@stranger(FOUR, BOTH)
def kl_against_labels(pi_w, pi_l, ref_w, ref_l, smoothing=0.1):
    h = 0.1 * (pi_w - pi_l - ref_w + ref_l)
    logp = torch.stack([F.logsigmoid(h), F.logsigmoid(-h)], -1)
    target = torch.tensor([1 - smoothing, smoothing], dtype=logp.dtype)
    return F.kl_div(logp, target.expand_as(logp), reduction="batchmean")


@stranger(FOUR, BOTH)
def average_of_dpo_and_ipo(pi_w, pi_l, ref_w, ref_l, mix=0.3):
    h = pi_w - pi_l - ref_w + ref_l
    return torch.lerp(-F.logsigmoid(0.1 * h), (0.1 * h - 0.5) ** 2, mix).mean()
