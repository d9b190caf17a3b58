"""The check withholds wrong readings: each is a true one with a single thing changed."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import math
import pkgutil

import pytest
import sympy as sp
import torch
import torch.nn.functional as F

import prefalign.compiler
from prefalign import derive, to_loss
from prefalign._errors import DerivationError
from prefalign.compiler.reading._check import check
from prefalign.logic import LINKS, PreferenceStructure, Rule


def pair_loss(chosen_logps, rejected_logps, chosen_len, beta=0.5):
    return F.softplus(-beta * (chosen_logps - rejected_logps)) - 0.1 * chosen_logps / chosen_len


TRUE = derive(pair_loss)
RHO, BETA = sp.symbols("rho beta")


def changed(i, **fields):
    rules = list(TRUE.rules)
    rules[i] = dataclasses.replace(rules[i], **fields)
    return dataclasses.replace(TRUE, rules=tuple(rules))


def test_the_true_reading_passes():
    assert check(TRUE, pair_loss, {}, TRUE.hyperparameters).batch == ("pairs",)


@pytest.mark.parametrize(
    "wrong",
    [
        changed(0, structure=PreferenceStructure.from_rows("bxvo")),
        changed(0, structure=PreferenceStructure.from_rows("vvxo")),
        changed(0, link=LINKS["sigmoid"]),
        changed(0, weight=sp.Rational(11, 10)),
        changed(1, weight=sp.Rational(9, 100)),
        changed(1, structure=PreferenceStructure.from_rows("xv", atoms=("w",))),
        changed(0, guard=sp.Gt(sp.Symbol("w"), sp.Symbol("l"))),
        dataclasses.replace(TRUE, rules=TRUE.rules[:1], meanings=TRUE.meanings[:1]),
        dataclasses.replace(TRUE, meanings=(TRUE.meanings[0], {"w": sp.Symbol("W", negative=True)})),
        dataclasses.replace(TRUE, hyperparameters={"beta": 0.55}),
    ],
)
def test_a_reading_with_one_thing_changed_is_withheld(wrong):
    with pytest.raises(DerivationError, match="withheld"):
        check(wrong, pair_loss, {}, TRUE.hyperparameters)


def tempered(chosen_logps, rejected_logps, beta=0.5):
    return beta * F.softplus(-math.exp(beta) * (chosen_logps - rejected_logps))


def test_a_hyperparameter_that_the_code_turns_into_a_number_is_one_everywhere():
    """`math.exp` gives a number, true of this beta alone, so that beta cannot stay a symbol in front of it."""
    found = derive(tempered)
    assert found.hyperparameters == {}
    assert found.rules[0].weight == sp.Rational(1, 2)
    assert found.rules[0].link.expression.subs(RHO, 1.0) == pytest.approx(math.log1p(math.exp(-math.exp(0.5))))


def half_gradient(chosen_logps, rejected_logps):
    loss = F.softplus(rejected_logps - chosen_logps)
    return loss.detach() / 2 + loss / 2


def test_a_reading_with_the_right_value_and_the_wrong_gradient_is_withheld():
    full = derive(lambda chosen_logps, rejected_logps: F.softplus(rejected_logps - chosen_logps))
    with pytest.raises(DerivationError, match="gradients differ"):
        check(full, half_gradient, {}, {})


def test_a_rule_of_the_logic_can_be_compiled_and_read_again():
    # The catalogue's rule -> code -> the same rule.
    rule = Rule(PreferenceStructure.from_rows("vvxo"))
    (again,) = derive(to_loss(rule.structure, reference=False, mean=True)).rules
    assert again.structure == rule.structure
    assert again.link == rule.link


def test_the_examples_in_the_docstrings_are_true():
    names = {"torch": torch, "PreferenceStructure": PreferenceStructure, "prefalign": prefalign}
    names |= {n: getattr(prefalign.compiler, n) for n in dir(prefalign.compiler) if not n.startswith("__")}
    tried = 0
    for info in pkgutil.walk_packages(prefalign.compiler.__path__, "prefalign.compiler."):
        module = importlib.import_module(info.name)
        for test in doctest.DocTestFinder().find(module, extraglobs=names):
            result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
            assert not result.failed, test.name
            tried += result.attempted
    assert tried >= 12


def test_a_token_mean_beside_three_rules_of_pair_means_is_read():
    def loss(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, chosen_len, beta=0.1):
        up, down = chosen_logps - ref_chosen_logps, rejected_logps - ref_rejected_logps
        pairs = F.relu(1 - beta * (up - down)) - F.logsigmoid(beta * up) - F.logsigmoid(-beta * down)
        return pairs.mean() - 0.3 * chosen_logps.sum() / chosen_len.sum()

    found = derive(loss)
    assert len(found.rules) == 4
    assert sorted(found.batch) == ["mean", "mean", "mean", "token mean"]


def many_rules(count, odd):
    """So many rules: that of `odd` is a mean over tokens, the second a sum over pairs, the others means over pairs."""

    def loss(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, chosen_len):
        chosen, rejected, ref_chosen, ref_rejected = chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
        up, down, none = chosen - ref_chosen, rejected - ref_rejected, torch.log1p(-chosen.exp())
        ratios = [up - down, up, down, chosen - rejected, chosen, rejected, chosen - ref_rejected, chosen - none]
        ratios += [rejected - ref_chosen, none, chosen + rejected, none - rejected, none + rejected]
        total = torch.zeros(())
        for place, ratio in enumerate(ratios[:count]):
            values = -(1 + place / 7) * F.logsigmoid(0.1 * ratio)
            if place == odd:
                total = total + (values * chosen_len).sum() / chosen_len.sum()
            else:
                total = total + (values.sum() if place == 1 else values.mean())
        return total

    return loss


@pytest.mark.parametrize("odd", [0, 5])
def test_six_rules_with_three_reductions_are_read(odd):
    found = derive(many_rules(6, odd))
    assert len(found.rules) == 6
    assert sorted(found.batch) == ["mean"] * 4 + ["sum", "token mean"]


def test_twelve_rules_with_three_reductions_are_read():
    assert sorted(derive(many_rules(12, 11)).batch) == ["mean"] * 10 + ["sum", "token mean"]


def test_of_more_rules_than_are_told_apart_the_reason_is_true():
    with pytest.raises(DerivationError, match=r"neither the mean nor the sum of it\. Rule by rule .* 12 rules at most"):
        derive(many_rules(13, 12))


def test_terms_of_one_ratio_that_are_reduced_differently_are_refused_for_that_reason():
    def loss(chosen_logps, rejected_logps):
        rho = chosen_logps - rejected_logps
        return -F.logsigmoid(rho).sum() + F.relu(1 - rho).mean()

    with pytest.raises(DerivationError, match="or takes terms of one log ratio in different ways, such as a mean and"):
        derive(loss)
