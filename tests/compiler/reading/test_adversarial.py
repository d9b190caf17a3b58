"""Code that invites a wrong reading: names that mislead, sides exchanged, lengths used in odd ways.

Each function is derived as it is, or refused; what comes out is worked out by hand from the function's own text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import sympy as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from prefalign import PrefalignError, derive
from prefalign.compiler import Tokens

# --- derived ---


def rejected_first(rejected_logps, chosen_logps, beta=0.1):
    return F.softplus(-beta * (chosen_logps - rejected_logps))


def prefers_the_rejected(logp_l, logp_w, beta=0.1):
    return -F.logsigmoid(beta * (logp_l - logp_w))


def second_of_the_softmax(chosen_logps, rejected_logps):
    return -torch.log_softmax(torch.stack([chosen_logps, rejected_logps], 1), 1)[:, 1]


def rejected_rows_first(batch: Tokens):
    sums = (batch.log_probs * batch.mask).sum(1)
    half = len(sums) // 2
    return -F.logsigmoid(sums[half:] - sums[:half])


def half_the_odds(chosen_logps, rejected_logps):
    return -F.logsigmoid(chosen_logps - rejected_logps + torch.log1p(-rejected_logps.exp()))


def in_bits(chosen_logps, rejected_logps, beta=0.1):
    return torch.log2(1 + torch.exp2(-beta * (chosen_logps - rejected_logps) / 0.6931471805599453))


def contrastive(pos_logps, neg_logps, temperature=0.5):
    chosen, rejected = torch.exp(pos_logps / temperature), torch.exp(neg_logps / temperature)
    return -torch.log(chosen / (chosen + rejected))


def temperature_of_seven(chosen_logps, rejected_logps):
    return -F.logsigmoid((chosen_logps - rejected_logps) / 7)  # 7 is also a number of tokens that the trace uses


def clamped_gap(chosen_logps, rejected_logps):
    return -F.logsigmoid((chosen_logps - rejected_logps).clamp(-20, 20))


def clipped_ratio(logps_chosen, old_logps_chosen, clip=0.2):
    ratio = (logps_chosen - old_logps_chosen).exp()
    return -torch.minimum(ratio, ratio.clamp(1 - clip, 1 + clip))


def reference_on_one_side(chosen_logps, rejected_logps, ref_chosen_logps, beta=0.1):
    return -F.logsigmoid(beta * (chosen_logps - ref_chosen_logps - rejected_logps))


def wider_on_the_chosen(chosen_logps, rejected_logps, beta_w=0.2, beta_l=0.1):
    return -F.logsigmoid(beta_w * chosen_logps - beta_l * rejected_logps)


class Pair(NamedTuple):
    chosen_logps: Tensor
    rejected_logps: Tensor


def of_a_named_tuple(out: Pair):
    return F.softplus(out.rejected_logps - out.chosen_logps)


@dataclass
class Weighted:
    chosen_logps: Tensor
    rejected_logps: Tensor
    w: float = 0.5


def of_a_dataclass_with_a_weight_named_w(batch: Weighted):
    return batch.w * F.softplus(batch.rejected_logps - batch.chosen_logps)


def of_two_spellings(batch):
    rejected = batch.get("policy_rejected_logps", batch.get("rejected_logps"))
    return F.softplus(rejected - batch["chosen_logps"])


@pytest.mark.parametrize(
    ("function", "ratio", "direction"),
    [
        (rejected_first, "w/l", "decreasing"),
        (prefers_the_rejected, "l/w", "decreasing"),
        (second_of_the_softmax, "l/w", "decreasing"),
        (rejected_rows_first, "l/w", "decreasing"),
        (half_the_odds, "w*(1 - l)/l", "decreasing"),
        (in_bits, "w/l", "decreasing"),
        (contrastive, "w/l", "decreasing"),
        (temperature_of_seven, "w/l", "decreasing"),
        (clamped_gap, "w/l", "decreasing"),
        (clipped_ratio, "w/rw", "decreasing"),
        (reference_on_one_side, "w/(l*rw)", "decreasing"),
        (wider_on_the_chosen, "w*w2/l", "decreasing"),
        (of_a_named_tuple, "w/l", "decreasing"),
        (of_a_dataclass_with_a_weight_named_w, "w/l", "decreasing"),
        (of_two_spellings, "w/l", "decreasing"),
    ],
)
def test_what_invites_a_wrong_reading_is_read_as_it_is(function, ratio, direction):
    (rule,) = derive(function).rules
    assert (str(rule.structure.ratio), rule.link.direction) == (ratio, direction)


def test_the_numbers_of_the_odd_links_are_right():
    rho = sp.Symbol("rho")
    assert derive(temperature_of_seven).rules[0].link.expression == sp.log(1 + sp.exp(-rho / 7))
    clamped = derive(clamped_gap).rules[0].link.expression
    for at, want in ((30.0, 20.0), (-30.0, -20.0), (5.0, 5.0)):  # -log sigmoid of the gap, cut at 20
        assert float(clamped.subs(rho, at)) == pytest.approx(float(sp.log(1 + sp.exp(-want))), rel=1e-9)
    (in_log2,) = derive(in_bits).rules
    assert float(in_log2.weight) == pytest.approx(1.4426950408889634)  # 1/log 2


# --- lengths ---


def one_more_than_the_length(chosen_logps, rejected_logps, chosen_len, rejected_len, beta=2.0):
    return -F.logsigmoid(beta * (chosen_logps / (chosen_len + 1) - rejected_logps / (rejected_len + 1)))


def root_of_the_length(chosen_logps, rejected_logps, chosen_len, rejected_len):
    return -F.logsigmoid(chosen_logps / chosen_len.sqrt() - rejected_logps / rejected_len.sqrt())


def lengths_exchanged(chosen_logps, rejected_logps, chosen_len, rejected_len):
    return -F.logsigmoid(chosen_logps / rejected_len - rejected_logps / chosen_len)


def both_by_both_lengths(chosen_logps, rejected_logps, chosen_len, rejected_len):
    return -F.logsigmoid((chosen_logps - rejected_logps) / (chosen_len + rejected_len))


def only_the_chosen_by_its_length(chosen_logps, rejected_logps, chosen_len):
    return -F.logsigmoid(chosen_logps / chosen_len - rejected_logps)


@pytest.mark.parametrize(
    ("function", "w", "lost"),
    [
        (one_more_than_the_length, "W/(n_w + 1)", "L/(n_l + 1)"),
        (root_of_the_length, "W/sqrt(n_w)", "L/sqrt(n_l)"),
        (lengths_exchanged, "W/n_l", "L/n_w"),
        (both_by_both_lengths, "W/(n_l + n_w)", "L/(n_l + n_w)"),
        (only_the_chosen_by_its_length, "W/n_w", "L"),
    ],
)
def test_lengths_are_in_the_atoms_as_the_code_uses_them(function, w, lost):
    found = derive(function)
    assert str(found.structure.ratio) == "w/l"
    assert {name: str(logp) for name, logp in found.meanings[0].items()} == {"w": w, "l": lost}
    said = " ".join((*found.remarks, *found.notes))
    usual = function is only_the_chosen_by_its_length
    assert ("in its own way" in said) != usual
    assert ("w is the policy's probability of the chosen answer, means over tokens." in said) == usual


def margin_by_length(chosen_logps, rejected_logps, chosen_len, rejected_len, beta=0.1, alpha=0.02):
    return -F.logsigmoid(beta * (chosen_logps - rejected_logps) - alpha * (chosen_len - rejected_len))


def test_a_margin_that_depends_on_the_lengths_stays_in_the_link():
    (rule,) = derive(margin_by_length).rules
    rho, beta, alpha, n_w, n_l = sp.symbols("rho beta alpha n_w n_l")
    assert sp.simplify(rule.link.expression - sp.log(1 + sp.exp(alpha * (n_w - n_l) - beta * rho))) == 0


def weight_by_length(chosen_logps, rejected_logps, chosen_len, beta=0.1):
    return -F.logsigmoid(beta * (chosen_logps - rejected_logps)) / chosen_len


def test_a_weight_by_length_is_a_weight():
    (rule,) = derive(weight_by_length).rules
    assert (str(rule.weight), rule.structure.rows) == ("1/n_w", "bvxo")


# --- refused ---


def scores_of_a_reward_model(chosen_logits, rejected_logits):
    return -F.logsigmoid(chosen_logits - rejected_logits)


def soft_label(chosen_logps, rejected_logps, win_prob, beta=0.1):
    gap = beta * (chosen_logps - rejected_logps)
    return -win_prob * F.logsigmoid(gap) - (1 - win_prob) * F.logsigmoid(-gap)


def ratios_not_logs(chosen_ratio, rejected_ratio):
    return -F.logsigmoid(torch.log(chosen_ratio) - torch.log(rejected_ratio))


def single_tokens(chosen_token_logps, rejected_token_logps):
    return -F.logsigmoid(chosen_token_logps.sum(-1) - rejected_token_logps.sum(-1))


def prompt_too(chosen_logps, rejected_logps, chosen_prompt_logps):
    return -F.logsigmoid(chosen_logps + chosen_prompt_logps - rejected_logps)


def normalised_by_name(length_normalized_chosen_logps, length_normalized_rejected_logps):
    return -F.logsigmoid(length_normalized_chosen_logps - length_normalized_rejected_logps)


def negated(chosen_nll, rejected_nll):
    return F.softplus(chosen_nll - rejected_nll)


def a_weight_named_w_in_the_batch(batch):
    return batch["w"] * F.softplus(batch["rejected_logps"] - batch["chosen_logps"])


def against_the_next_pair(chosen_logps, rejected_logps):
    both = torch.cat([rejected_logps[1:], rejected_logps[:1]])
    return F.softplus(both - chosen_logps)


def other_pairs_dropped(chosen_logps, rejected_logps):
    return F.softplus(rejected_logps - chosen_logps)[: max(1, len(chosen_logps) // 2)]


def labels_at_random(chosen_logps, rejected_logps):
    flip = torch.rand(len(chosen_logps)) < 0.5
    return torch.where(flip, F.softplus(chosen_logps - rejected_logps), F.softplus(rejected_logps - chosen_logps))


CALLS = iter(range(1, 1000))


def another_each_time(chosen_logps, rejected_logps):
    return F.softplus(-(0.1 * next(CALLS)) * (chosen_logps - rejected_logps))


def rewards_before_the_loss(chosen_logps, rejected_logps):
    return chosen_logps.detach(), F.softplus(rejected_logps - chosen_logps).mean()


def product_of_two(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps):
    return -(chosen_logps - ref_chosen_logps) * (rejected_logps - ref_rejected_logps)


def mixed_with_the_reference(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, alpha=0.5):
    chosen = torch.log(alpha * chosen_logps.exp() + (1 - alpha) * ref_chosen_logps.exp())
    rejected = torch.log(alpha * rejected_logps.exp() + (1 - alpha) * ref_rejected_logps.exp())
    return -F.logsigmoid(chosen - rejected)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (scores_of_a_reward_model, "`chosen_logits` is neither a log-probability"),
        (soft_label, "`chosen_logps` and `win_prob` are the same quantity"),
        (ratios_not_logs, "`chosen_ratio` is neither"),
        (single_tokens, "`chosen_token_logps` speaks of log-probabilities"),
        (prompt_too, "`chosen_prompt_logps` speaks of log-probabilities"),
        (normalised_by_name, "`length_normalized_chosen_logps` speaks of log-probabilities"),
        (negated, "`chosen_nll` is neither"),
        (a_weight_named_w_in_the_batch, "`w` and `chosen_logps` are the same quantity|`w` and"),
        (against_the_next_pair, "couples the pairs"),
        (other_pairs_dropped, "couples the pairs"),
        (another_each_time, "other numbers each time"),
        (rewards_before_the_loss, "does not depend on the log-probabilities"),
        (product_of_two, "2 log ratios at once"),
        (mixed_with_the_reference, "alpha stands inside a sum"),
    ],
)
def test_what_has_no_right_reading_is_refused(function, reason):
    with pytest.raises(PrefalignError, match=reason):
        derive(function)


@pytest.mark.parametrize("seed", range(40))
def test_code_that_draws_is_refused_whatever_it_draws(seed):
    """Of three pairs all labels come out alike in an eighth of the draws: one other call would not tell."""
    torch.manual_seed(seed)
    with pytest.raises(PrefalignError, match="other numbers each time"):
        derive(labels_at_random)


def test_what_was_asked_for_can_be_given_as_a_label():
    # With the label given, it is label smoothing by 1 - win_prob.
    (rule,) = derive(soft_label, win_prob=0.9).rules
    assert (rule.structure.rows, rule.link.direction) == ("bvxo", "turning")
