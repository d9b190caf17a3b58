"""One formula, many containers and operations: how arguments arrive, and what torch calls its arithmetic."""

# ruff: noqa: E741 - w and l are the two answers, as in the papers
from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from tests.compiler.strangers._corpus import stranger

TWO, FOUR, BOTH = "w l", "w l rw rl", "rl*w/(l*rw)"


def as_dict(*names):
    return lambda f, *columns: f(dict(zip(names, columns, strict=True)))


@stranger(FOUR, BOTH, call=as_dict("chosen_logps", "rejected_logps", "ref_chosen_logps", "ref_rejected_logps"))
def of_a_batch(batch):
    d = batch["chosen_logps"] - batch["rejected_logps"] - batch["ref_chosen_logps"] + batch["ref_rejected_logps"]
    return {"loss": -F.logsigmoid(0.1 * d).mean(), "margin": d.detach().mean()}


@stranger(TWO, "w/l", call=lambda f, w, l: f(SimpleNamespace(policy_chosen_logps=w, policy_rejected_logps=l)))
def of_attributes(outputs):
    return -F.logsigmoid(outputs.policy_chosen_logps - outputs.policy_rejected_logps).mean()


@dataclass
class Rewards:
    chosen_logps: torch.Tensor
    rejected_logps: torch.Tensor
    beta: float = 0.1


@stranger(TWO, "w/l", call=lambda f, w, l: f(Rewards(w, l)))
def of_a_dataclass(item: Rewards):
    return -F.logsigmoid(item.beta * (item.chosen_logps - item.rejected_logps)).mean()


class Out(NamedTuple):
    metrics: torch.Tensor
    loss: torch.Tensor


@stranger(TWO, "w/l")
def into_a_named_tuple(chosen_logps, rejected_logps):
    d = chosen_logps - rejected_logps
    return Out(d.detach().mean(), -F.logsigmoid(d).mean())


@stranger(TWO, "w/l", call=lambda f, w, l: f(torch.cat((w, l))))
def chunked(all_logps):
    chosen, rejected = all_logps.chunk(2)
    return -F.logsigmoid(0.1 * (chosen - rejected)).mean()


@stranger(FOUR, BOTH, call=lambda f, w, l, rw, rl: f(torch.cat((w, l)), torch.cat((rw, rl))))
def halves(policy_logps, ref_logps):
    n = policy_logps.shape[0] // 2
    ratio = policy_logps - ref_logps
    return -F.logsigmoid(0.1 * (ratio[:n] - ratio[n:])).mean()


class Module(nn.Module):
    def __init__(self, beta: float = 0.1) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, chosen_logps, rejected_logps):
        return -F.logsigmoid(self.beta * (chosen_logps - rejected_logps)).mean()


stranger(TWO, "w/l")(Module())


class Instance:
    def __call__(self, chosen_logps, rejected_logps):
        return -F.logsigmoid(0.1 * (chosen_logps - rejected_logps)).mean()


stranger(TWO, "w/l")(Instance())


@stranger(FOUR, BOTH, call=lambda f, w, l, rw, rl: f(w - rw, l - rl))
def of_log_ratios(chosen_logratios, rejected_logratios, beta=0.1):
    return -F.logsigmoid(beta * (chosen_logratios - rejected_logratios)).mean()


@stranger(FOUR, BOTH, call=lambda f, w, l, rw, rl: f(w - l, rw - rl))
def of_pair_ratios(pi_logratios, ref_logratios, beta=0.1):
    return -F.logsigmoid(beta * (pi_logratios - ref_logratios)).mean()


@stranger(TWO, "w/l")
def by_torch_functions(chosen_logps, rejected_logps):
    return torch.neg(torch.mean(torch.log(torch.sigmoid(torch.mul(torch.sub(chosen_logps, rejected_logps), 0.1)))))


@stranger(TWO, "w/l")
def by_alpha(chosen_logps, rejected_logps):
    return F.softplus(-torch.sub(0.1 * chosen_logps, rejected_logps, alpha=0.1)).mean()


@stranger(TWO, "w/l")
def by_softplus_beta(chosen_logps, rejected_logps):
    return (0.1 * F.softplus(rejected_logps - chosen_logps, beta=0.1)).mean()


@stranger(TWO, "w/l")
def by_einsum(chosen_logps, rejected_logps):
    return -F.logsigmoid(torch.einsum("b,b->b", chosen_logps - rejected_logps, torch.ones_like(chosen_logps))).mean()


@stranger(TWO, "w/l")
def by_matmul(chosen_logps, rejected_logps):
    both = torch.stack([chosen_logps, rejected_logps], dim=1)
    signs = torch.tensor([0.1, -0.1], dtype=both.dtype)
    return -F.logsigmoid(both @ signs).mean()


@stranger(TWO, "w/l")
def by_addcmul(chosen_logps, rejected_logps):
    half = torch.full_like(chosen_logps, 0.5)
    return -F.logsigmoid(torch.addcmul(-0.5 * rejected_logps, chosen_logps, half)).mean()


@stranger(TWO, "w/l")
def by_diff(chosen_logps, rejected_logps):
    d = torch.diff(torch.stack([rejected_logps, chosen_logps], dim=-1), dim=-1).squeeze(-1)
    return -F.logsigmoid(0.1 * d).mean()


@stranger(TWO, "w/l")
def by_dot(chosen_logps, rejected_logps):
    losses = F.softplus(rejected_logps - chosen_logps)
    return torch.dot(losses, torch.ones_like(losses)) / losses.numel()


@stranger(TWO, "w/l")
def by_empty_like(chosen_logps, rejected_logps):
    out = torch.empty_like(chosen_logps)
    out[:] = F.softplus(rejected_logps - chosen_logps)
    return out.mean()


@stranger(TWO, "w/l")
def by_loop(chosen_logps, rejected_logps):
    total = 0.0
    for w, l in zip(chosen_logps, rejected_logps, strict=True):
        total = total - F.logsigmoid(w - l)
    return total / len(chosen_logps)


@stranger(TWO, "w/l")
def by_reductions(chosen_logps, rejected_logps, reduction="mean"):
    losses = -nn.LogSigmoid()(chosen_logps - rejected_logps)
    return losses.mean() if reduction == "mean" else losses.sum()


@stranger(TWO, "w/l")
def by_weights(chosen_logps, rejected_logps):
    losses = -F.logsigmoid(chosen_logps - rejected_logps)
    return (losses * torch.ones_like(losses)).sum() / torch.ones_like(losses).sum()


@stranger(TWO, "w/l")
def by_unbind(chosen_logps, rejected_logps):
    w, l = torch.stack((chosen_logps, rejected_logps), -1).unbind(-1)
    return -(w - l).sigmoid().log().mean()


@stranger(TWO, "w/l")
def by_rsub(chosen_logps, rejected_logps):
    return torch.rsub(torch.sigmoid(0.1 * (chosen_logps - rejected_logps)), 1).mean()


@stranger(TWO, "w/l")
def by_expit(chosen_logps, rejected_logps):
    return -torch.log(torch.special.expit(chosen_logps - rejected_logps)).mean()


@stranger(TWO, "w/l")
def by_bce_of_probabilities(chosen_logps, rejected_logps):
    p = torch.sigmoid(0.1 * (chosen_logps - rejected_logps))
    return F.binary_cross_entropy(p, torch.ones_like(p))


@stranger(TWO, "w/l")
def by_cosine_free_names(logprobs_chosen, logprobs_rejected, *, beta: float = 0.3):
    return -F.logsigmoid((logprobs_chosen - logprobs_rejected) * beta).mean()


@stranger(TWO, "w/l")
def camel(chosenLogProbs, rejectedLogProbs):
    return -F.logsigmoid(chosenLogProbs - rejectedLogProbs).mean()


@stranger(TWO, "w/l", roles={"rating_a": "w", "rating_b": "l"})
def said_by_roles(rating_a, rating_b):
    return -F.logsigmoid(rating_a - rating_b).mean()


@stranger(TWO, "w/l", roles={"rej_lps_x": "l"})
def said_for_one(chosen_lps, rej_lps_x):
    return -F.logsigmoid(chosen_lps - rej_lps_x).mean()


def by_keyword(f, w, l, rw, rl):
    return f(chosen_logps=w, rejected_logps=l, ref_chosen_logps=rw, ref_rejected_logps=rl)


@stranger(FOUR, BOTH, call=by_keyword)
def keyword_only(*, chosen_logps=None, rejected_logps=None, ref_chosen_logps=None, ref_rejected_logps=None):
    return -F.logsigmoid(0.1 * (chosen_logps - rejected_logps - ref_chosen_logps + ref_rejected_logps)).mean()


@stranger(TWO, "w/l")
def with_logging(chosen_logps, rejected_logps):
    d = chosen_logps - rejected_logps
    stats = {"acc": (d > 0).float().mean().item(), "std": d.std().item(), "max": d.max().item(), "n": len(d)}
    return -F.logsigmoid(d).mean(), stats


@stranger(TWO, "w/l")
def with_asserts(chosen_logps, rejected_logps):
    assert chosen_logps.shape == rejected_logps.shape
    if torch.isnan(chosen_logps).any():
        raise ValueError("nan")
    return -F.logsigmoid(chosen_logps - rejected_logps).mean()


@stranger(TWO, "w/l")
def nan_to_num(chosen_logps, rejected_logps):
    return torch.nan_to_num(-F.logsigmoid(chosen_logps - rejected_logps)).mean()


@stranger(TWO, "w/l")
def view_one(chosen_logps, rejected_logps):
    d = (chosen_logps.view(-1, 1) - rejected_logps.view(-1, 1)).squeeze(1)
    return F.softplus(-d).mean(dim=0)


def _token_columns(f, w, l, n_w, n_l):
    width = int(torch.cat((n_w, n_l)).max())
    mask = [(torch.arange(width)[None, :] < n[:, None]).to(w.dtype) for n in (n_w, n_l)]
    rows = [(x / n)[:, None] * m for x, n, m in zip((w, l), (n_w, n_l), mask, strict=True)]
    return f(*rows, *mask)


@stranger("w l n_w n_l", call=_token_columns)
def of_tokens(chosen_per_token_logps, rejected_per_token_logps, chosen_mask, rejected_mask):
    chosen = (chosen_per_token_logps * chosen_mask).sum(-1)
    rejected = (rejected_per_token_logps * rejected_mask).sum(-1)
    return -F.logsigmoid(0.1 * (chosen - rejected)).mean()


@stranger("w l n_w n_l", call=_token_columns)
def of_tokens_averaged(chosen_token_logps, rejected_token_logps, chosen_mask, rejected_mask, beta=2.0, gamma=0.5):
    chosen = (chosen_token_logps * chosen_mask).sum(-1) / chosen_mask.sum(-1)
    rejected = (rejected_token_logps * rejected_mask).sum(-1) / rejected_mask.sum(-1)
    return -F.logsigmoid(beta * (chosen - rejected) - gamma).mean()


@stranger("w l n_w n_l", call=_token_columns)
def of_masked_logps(policy_chosen_logps, policy_rejected_logps, chosen_mask, rejected_mask):
    chosen = (policy_chosen_logps * chosen_mask).sum(-1)
    rejected = (policy_rejected_logps * rejected_mask).sum(-1)
    return -F.logsigmoid(chosen - rejected).mean()


def _masks_alone(f, w, l, n_w, n_l):
    width = int(torch.cat((n_w, n_l)).max())
    return f(w, l, *((torch.arange(width)[None, :] < n[:, None]).to(w.dtype) for n in (n_w, n_l)))


@stranger("w l n_w n_l", call=_masks_alone)
def of_masks_for_lengths(chosen_logps, rejected_logps, chosen_loss_mask, rejected_loss_mask, beta=2.0):
    chosen = chosen_logps / chosen_loss_mask.sum(dim=1).clamp(min=1)
    rejected = rejected_logps / rejected_loss_mask.sum(dim=1).clamp(min=1)
    return -F.logsigmoid(beta * (chosen - rejected)).mean()


def _token_columns_with_reference(f, w, l, rw, rl, n_w, n_l):
    width = int(torch.cat((n_w, n_l)).max())
    mask = [(torch.arange(width)[None, :] < n[:, None]).to(w.dtype) for n in (n_w, n_l)]
    columns = zip((w, l, rw, rl), (n_w, n_l) * 2, mask * 2, strict=True)
    return f(*((x / n)[:, None] * m for x, n, m in columns), *mask)


@stranger("w l rw rl n_w n_l", BOTH, call=_token_columns_with_reference)
def of_tokens_and_reference(
    chosen_token_logps,
    rejected_token_logps,
    ref_chosen_token_logps,
    ref_rejected_token_logps,
    chosen_response_mask,
    rejected_response_mask,
    beta=0.1,
):
    chosen = torch.einsum("bt,bt->b", chosen_token_logps - ref_chosen_token_logps, chosen_response_mask.double())
    rejected = ((rejected_token_logps - ref_rejected_token_logps) * rejected_response_mask).sum(1)
    return F.softplus(-beta * (chosen - rejected)).mean()
