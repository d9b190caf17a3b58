"""Losses f(g(rho_1) - g(rho_2)): what is read, what is said of it, and which of them entailment orders."""

from __future__ import annotations

import json

import pytest
import sympy as sp
import torch
import torch.nn.functional as F

from prefalign import derive
from prefalign.cli import main
from prefalign.compiler import compare
from prefalign.logic import Inner, PreferenceStructure, RuleSet, TwoRatioRule, explain, named_inner

RHO = sp.Symbol("rho")
FORWARD = Inner(-sp.exp(-RHO), "increasing")


def forward_kl(pi_w, pi_l, ref_w, ref_l, beta=0.1):
    return -F.logsigmoid(beta * (torch.exp(ref_l - pi_l) - torch.exp(ref_w - pi_w))).mean()


def squared_po(pi_w, pi_l, ref_w, ref_l, beta=0.1):
    t_w, t_l = torch.exp(pi_w - ref_w), torch.exp(pi_l - ref_l)
    return -F.logsigmoid(beta * (t_w.log() / t_w - t_l.log() / t_l)).mean()


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        ("-exp(-rho)", "forward KL"),
        ("-exp(-rho/2)", "alpha divergence"),
        ("-log(1 + exp(-rho))", "Jensen-Shannon"),
        ("exp(rho) + rho", "chi-squared and KL, of χPO"),
        ("rho*exp(-rho)", "the squared log ratio, of SquaredPO"),
        ("-exp(Piecewise((80, -rho/2 > 80), (-rho/2, True)))", "alpha divergence, capped"),
        ("tanh(rho)", "a function of its own"),
    ],
)
def test_a_divergence_is_known_by_its_inner_function(expression, name):
    assert named_inner(sp.parse_expr(expression), "increasing").name == name


def test_the_two_structures_the_inner_function_and_the_link_are_read():
    (rule,) = derive(forward_kl).rules
    assert isinstance(rule, TwoRatioRule)
    assert [str(s.ratio) for s in rule.structures] == ["w/rw", "l/rl"]
    assert (rule.inner, rule.inner.name, rule.link.name) == (FORWARD, "forward KL", "logistic")
    assert rule.orders


def test_an_inner_function_that_turns_orders_nothing():
    reading = derive(squared_po)
    assert reading.rules[0].inner.direction == "turning"
    assert not reading.orders
    assert "need not fall" in str(explain(reading))


def test_a_loss_of_two_ratios_has_no_single_structure():
    with pytest.raises(Exception, match="2 structures, so no single formula"):
        _ = derive(forward_kl).structure


def test_two_of_them_are_ordered_by_their_structures_and_no_other_loss_with_them():
    # Where the policy or the reference finds w valid is less than where the policy does and the reference does not.
    weak, strong = PreferenceStructure.from_formulas("M(w) | R(w)"), PreferenceStructure.from_formulas("M(w) & ~R(w)")
    rejected = PreferenceStructure.from_formulas("M(l)")
    rules = [RuleSet((TwoRatioRule(first, rejected, FORWARD),)) for first in (weak, strong)]
    assert compare(*rules).relation(1, 0) == "entails"
    assert (
        compare(*[RuleSet((TwoRatioRule(rejected, s, FORWARD),)) for s in (weak, strong)]).relation(0, 1) == "entails"
    )
    turning = Inner(RHO * sp.exp(-RHO), "turning")
    others = [RuleSet((TwoRatioRule(first, rejected, turning),)) for first in (weak, strong)]
    assert compare(*others).relation(0, 1) == "incomparable"
    found = compare(forward_kl, "dpo")
    assert found.relation(0, 1) == "incomparable"
    assert "compared with others of its form alone" in str(found)


def test_pages_and_commands_show_both_ratios(tmp_path, capsys):
    reading = derive(forward_kl)
    assert "g        -exp(-rho): forward KL, increasing in rho" in reading.page()
    assert reading.page().count("prefer   P") == 2
    assert "g'(rho) = exp(-rho)" in str(explain(reading))
    file = tmp_path / "loss.py"
    file.write_text(
        "import torch\n"
        "def mine(pi_w, pi_l, ref_w, ref_l):\n"
        "    gap = torch.exp(ref_l - pi_l) - torch.exp(ref_w - pi_w)\n"
        "    return -torch.nn.functional.logsigmoid(gap).mean()\n"
    )
    assert main(["explain", f"{file}:mine", "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)["rules"]
    assert said["ratios"] == ["w/rw", "l/rl"]
    assert said["inner"]["name"] == "forward KL"
    assert main(["derive", f"{file}:mine"]) == 0
    assert "g(log(w/rw)) - g(log(l/rl)), g(rho) = -exp(-rho)" in capsys.readouterr().out
