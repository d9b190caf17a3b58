"""Losses without a reading as rules of one log ratio each, and names that do not say enough: refused, and why."""

# ruff: noqa: E741 - w and l are the two answers, as in the papers
from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.compiler.strangers._corpus import stranger

FOUR, TWO = "w l rw rl", "w l"
MIXED = "log ratios at once"
UNSAID = "does not say of which answer|says more than"


@stranger(FOUR, refused=MIXED)
def product_of_sigmoids(pi_w, pi_l, ref_w, ref_l):
    return -(torch.sigmoid(pi_w - ref_w) * torch.sigmoid(ref_l - pi_l)).mean()


@stranger(TWO, refused=MIXED)
def product_of_logs(chosen_logps, rejected_logps):
    return (chosen_logps * rejected_logps).mean()


@stranger(FOUR, refused="batch|one pair")
def beta_dpo(pi_w, pi_l, ref_w, ref_l, beta=0.1, alpha=0.6):
    d = pi_w - pi_l - ref_w + ref_l
    beta = beta * (1 + alpha * (d - d.mean())).detach()
    return -F.logsigmoid(beta * d).mean()


@stranger(FOUR, refused="batch|does not agree")
def kto_with_kl(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps):
    a, b = chosen_logps - ref_chosen_logps, rejected_logps - ref_rejected_logps
    kl = torch.cat((a, b)).mean().clamp(min=0).detach()
    return torch.cat((1 - torch.sigmoid(0.1 * (a - kl)), 1 - torch.sigmoid(0.1 * (kl - b)))).mean()


@stranger(FOUR, refused="batch|does not agree")
def dr_dpo(pi_w, pi_l, ref_w, ref_l, beta_prime=1.0):
    losses = -F.logsigmoid(0.1 * (pi_w - pi_l - ref_w + ref_l))
    return -beta_prime * torch.log(torch.mean(torch.exp(-losses / beta_prime)))


@stranger(FOUR, refused="batch")
def aot(pi_w, pi_l, ref_w, ref_l):
    a, _ = torch.sort(pi_w - ref_w)
    b, _ = torch.sort(pi_l - ref_l)
    return -F.logsigmoid(0.1 * (a - b)).mean()


@stranger(FOUR, refused="batch|spread")
def standardised(pi_w, pi_l, ref_w, ref_l):
    d = pi_w - pi_l - ref_w + ref_l
    return -F.logsigmoid(d / (d.std() + 1e-6)).mean()


@stranger(FOUR, refused="batch|does not agree")
def centred(pi_w, pi_l, ref_w, ref_l):
    d = pi_w - pi_l - ref_w + ref_l
    return -F.logsigmoid(0.1 * (d - d.mean().detach())).mean()


@stranger(FOUR, refused="random")
def noisy(pi_w, pi_l, ref_w, ref_l):
    d = pi_w - pi_l - ref_w + ref_l
    return -F.logsigmoid(0.1 * d + 0.01 * torch.randn_like(d)).mean()


@stranger(FOUR, refused="random|other numbers")
def dropped(pi_w, pi_l, ref_w, ref_l):
    d = pi_w - pi_l - ref_w + ref_l
    return -F.logsigmoid(0.1 * F.dropout(d, 0.5)).mean()


@stranger("rw rl", refused="reference's log-probabilities alone")
def of_the_reference(ref_chosen_logps, ref_rejected_logps):
    return -F.logsigmoid(0.1 * (ref_chosen_logps - ref_rejected_logps)).mean()


@stranger(TWO, refused="does not depend on the log-probabilities")
def constant(chosen_logps, rejected_logps):
    return (0 * (chosen_logps - rejected_logps)).mean() + 1.0


@stranger(TWO, refused="does not depend on the log-probabilities|policy nothing|detached")
def all_detached(chosen_logps, rejected_logps):
    return -F.logsigmoid(chosen_logps.detach() - rejected_logps.detach()).mean()


@stranger(TWO, refused=UNSAID)
def half_known(chosen_logps, other_logps, beta=0.1):
    return -F.logsigmoid(beta * (chosen_logps - other_logps)).mean()


@stranger(TWO, refused=UNSAID)
def variances(chosen_logps_var, rejected_logps):
    return -F.logsigmoid(chosen_logps_var - rejected_logps).mean()


@stranger(TWO, refused=UNSAID)
def ranked(logp_1, logp_2):
    return -F.logsigmoid(logp_1 - logp_2).mean()


@stranger(TWO, refused="neither a log-probability|same quantity|does not say")
def scores(chosen_score, rejected_score):
    return -F.logsigmoid(chosen_score - rejected_score).mean()


@stranger("w l w", refused="same quantity")
def two_names(chosen_logps, rejected_logps, win_logps):
    return -F.logsigmoid(chosen_logps - rejected_logps + win_logps).mean()


@stranger(TWO, refused="not certain", call=lambda f, w, l: f(w, l)["margin"])
def which_entry(chosen_logps, rejected_logps):
    d = chosen_logps - rejected_logps
    return {"margin": d.mean(), "objective": -F.logsigmoid(d).mean()}


@stranger(TWO, refused="Python number")
def by_float(chosen_logps, rejected_logps):
    return -F.logsigmoid(chosen_logps - rejected_logps).mean() * float(chosen_logps.mean())


@stranger("w l w l", refused="entropy|neither", call=lambda f, w, l, a, b: f(w, l, a, b))
def with_entropy(chosen_logps, rejected_logps, chosen_entropy, rejected_entropy):
    return (-F.logsigmoid(chosen_logps - rejected_logps) - chosen_entropy + rejected_entropy).mean()


@stranger("w l w l", refused="neither a log-probability|margin")
def tdpo(chosen_logps, rejected_logps, chosen_kl, rejected_kl):
    return -F.logsigmoid(chosen_logps - rejected_logps - 0.5 * (rejected_kl - chosen_kl.detach())).mean()


@stranger(TWO, refused="same|certain|several|shape|pairs", call=lambda f, w, l: f(w, l).mean())
def two_losses(chosen_logps, rejected_logps):
    return torch.stack([-F.logsigmoid(chosen_logps - rejected_logps), chosen_logps, rejected_logps], -1)


def _of_tokens(f, w, l, n_w, n_l):
    width = int(torch.cat((n_w, n_l)).max())
    mask = [(torch.arange(width)[None, :] < n[:, None]).to(w.dtype) for n in (n_w, n_l)]
    return f(*((x / n)[:, None] * m for x, n, m in zip((w, l), (n_w, n_l), mask, strict=True)), *mask)


@stranger("w l n_w n_l", refused="spreads over its tokens", call=_of_tokens)
def clamped_tokens(chosen_token_logps, rejected_token_logps, chosen_mask, rejected_mask):
    chosen = (chosen_token_logps.clamp(min=-1) * chosen_mask).sum(-1)
    return -F.logsigmoid(chosen - (rejected_token_logps * rejected_mask).sum(-1)).mean()


@stranger("w l n_w n_l", refused="spreads over its tokens", call=_of_tokens)
def masks_exchanged(chosen_token_logps, rejected_token_logps, chosen_mask, rejected_mask):
    chosen = (chosen_token_logps * rejected_mask).sum(-1)
    return -F.logsigmoid(chosen - (rejected_token_logps * chosen_mask).sum(-1)).mean()


@stranger("w l n_w n_l", refused="does not agree", call=_of_tokens)
def padded_means(chosen_token_logps, rejected_token_logps, chosen_mask, rejected_mask):
    return -F.logsigmoid((chosen_token_logps * chosen_mask).mean(-1) - rejected_token_logps.mean(-1)).mean()
