"""What a parameter's name says decides what it is given; what it does not say is asked for, never guessed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prefalign import PrefalignError, derive
from prefalign.logic import catalogue

DPO = catalogue["dpo"].structure


def with_scores(chosen_logps, rejected_logps, chosen_score, rejected_score):
    # Were the scores taken for the log-probabilities, this would be a loss that prefers the rejected answer.
    return -F.logsigmoid(0.1 * (chosen_logps - rejected_logps) - 0.5 * (chosen_score - rejected_score))


def with_rewards(chosen_logps, rejected_logps, chosen_rewards, rejected_rewards):
    return -F.logsigmoid(chosen_logps - rejected_logps) * (chosen_rewards - rejected_rewards)


def with_an_entropy(chosen_logps, rejected_logps, chosen_entropy):
    return -F.logsigmoid(chosen_logps - rejected_logps) - 0.01 * chosen_entropy


def with_a_mask(loss_mask_chosen, chosen_logps, rejected_logps):
    return rejected_logps - chosen_logps * loss_mask_chosen


def with_an_unknown_word(chosen_foo, chosen_logps, rejected_logps):
    return rejected_logps - chosen_logps - chosen_foo


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (with_scores, "chosen_score"),
        (with_rewards, "chosen_rewards"),
        (with_an_entropy, "chosen_entropy"),
        (with_a_mask, "loss_mask_chosen"),
        (with_an_unknown_word, "chosen_foo"),
    ],
)
def test_what_is_no_log_probability_is_not_taken_for_one(function, name):
    with pytest.raises(PrefalignError, match=f"The parameter `{name}` is neither a log-probability"):
        derive(function)


def weighted(chosen_logps, rejected_logps, w):
    # Were `w` taken for the chosen log-probability as well, this would be a square of it.
    return rejected_logps - w * chosen_logps


def test_two_names_for_one_quantity_are_refused():
    with pytest.raises(PrefalignError, match="`chosen_logps` and `w` are the same quantity"):
        derive(weighted)
    assert [str(rule.structure.ratio) for rule in derive(weighted, w=0.5).rules] == ["w/(1 - w)", "1/l"]


def test_what_was_asked_for_can_be_given():
    (rule,) = derive(with_scores, chosen_score=0.7, rejected_score=0.3).rules
    assert rule.structure.rows == "bvxo"


def of_probabilities(chosen_probs, rejected_probs):
    return -torch.log(chosen_probs / (chosen_probs + rejected_probs))


def of_counts_by_letter(logps_w, logps_l, n_w, n_l):
    return -F.logsigmoid(logps_w / n_w - logps_l / n_l)


def of_means(policy_chosen_avg_logps, policy_rejected_avg_logps):
    return -F.logsigmoid(policy_chosen_avg_logps - policy_rejected_avg_logps)


def of_two_letters(lp_c, lp_r):
    return F.softplus(lp_r - lp_c)


@pytest.mark.parametrize("function", [of_probabilities, of_counts_by_letter, of_means, of_two_letters])
def test_names_for_the_same_pair_give_cpo(function):
    (rule,) = derive(function).rules
    assert (rule.structure.rows, rule.link.name) == ("bvxo", "logistic")


@pytest.mark.parametrize("function", [of_counts_by_letter, of_means])
def test_means_are_known_as_means(function):
    assert {name: str(logp) for name, logp in derive(function).meanings[0].items()} == {"w": "W/n_w", "l": "L/n_l"}


def by_places(pi_logps, ref_logps, yw_idxs, yl_idxs, beta=0.1):
    pi_gap = pi_logps[yw_idxs] - pi_logps[yl_idxs]
    return -F.logsigmoid(beta * (pi_gap - (ref_logps[yw_idxs] - ref_logps[yl_idxs])))


def by_ratios_of_the_models(chosen_logratios, rejected_logratios, beta=0.1):
    return -F.logsigmoid(beta * (chosen_logratios - rejected_logratios))


def by_ratios_of_the_answers(pi_logratios, ref_logratios, beta=0.1):
    return -F.logsigmoid(beta * (pi_logratios - ref_logratios))


def by_a_dictionary_of_settings(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, config):
    return -F.logsigmoid(config["beta"] * (chosen_logps - ref_chosen_logps - rejected_logps + ref_rejected_logps))


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (by_places, {}),
        (by_ratios_of_the_models, {}),
        (by_ratios_of_the_answers, {}),
        (by_a_dictionary_of_settings, {"config": {"beta": 0.1}}),
    ],
)
def test_names_for_the_same_pair_and_reference_give_dpo_with_beta_a_symbol(function, given):
    found = derive(function, **given)
    assert (found.structure, found.rules[0].link.name, found.hyperparameters) == (DPO, "logistic", {"beta": 0.1})


class Module(nn.Module):
    def forward(self, chosen_logps, rejected_logps):
        return F.mse_loss(chosen_logps - rejected_logps, torch.full_like(chosen_logps, 5.0))


def test_a_module_is_read_by_its_forward():
    found = derive(Module())
    (rule,) = found.rules
    assert (found.name, rule.structure.rows, rule.link.direction) == ("Module", "bvxo", "turning")
    assert float(rule.link.expression.subs("rho", 2)) == 9.0  # (2 - 5)²
