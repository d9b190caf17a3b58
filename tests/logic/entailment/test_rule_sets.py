"""Rule sets entail and dominate one another rule by rule; and it is said why a loss does not entail another."""

from __future__ import annotations

import pytest

from prefalign._errors import SpecError
from prefalign.logic import (
    LINKS,
    PreferenceStructure,
    Rule,
    RuleSet,
    Spec,
    catalogue,
    compare,
    describe,
    dominates,
    entails,
    parse_spec,
)

CE, CPO, ORPO = (catalogue[name].structure for name in ("ce", "cpo", "orpo"))


def two(first, second, link="logistic"):
    return RuleSet((Rule(first, LINKS[link]), Rule(second, LINKS[link], weight=2)))


def test_rule_sets_entail_each_other_in_any_order_of_their_rules():
    weaker = RuleSet((Rule(catalogue["ccpo"].structure), Rule(CE, weight=2)))
    assert entails(two(CPO, CE), weaker)
    assert entails(RuleSet(tuple(reversed(two(CPO, CE).rules))), weaker)
    assert not entails(weaker, two(CPO, CE))
    assert entails(RuleSet((Rule(CPO),)), "ccpo")  # a structure alone has the logistic link


def test_a_turning_link_orders_nothing():
    assert not entails(two(CPO, CE, "square"), two(CPO, CE, "square"))
    with pytest.raises(SpecError, match="need not fall"):
        dominates(two(CPO, CE, "square"), two(CPO, CE))


def test_rule_sets_dominate_each_other_rule_by_rule():
    assert dominates(two(CPO, CE), two(catalogue["ccpo"].structure, CE))
    answer = dominates(two(CPO, CE), two(CE, CE))
    assert not answer
    first, second = answer.ratios
    assert first > second  # at the witness the first loss is the smaller
    with pytest.raises(SpecError, match="cannot be paired"):
        dominates(two(CPO, CE), RuleSet((Rule(CPO),)))


def test_a_row_says_why_a_loss_does_not_entail_another():
    assert "row TT" in describe("cpo", "orpo")
    assert describe("cpo", "orpo").endswith("CPO has it on both sides, and ORPO not counted.")
    assert "entails cCPO" in describe("cpo", "ccpo")
    assert "w alone is valid (row TF)" in describe("ovxx", "oxxx")
    assert "no answer is valid (row FF)" in describe("ovxv", "ovxo")


def test_a_comparison_says_why():
    found = compare("orpo", "cpo", "rpo", "ipo")
    assert "row TT" in found.why(0, 1)
    assert "1 rules and" not in found.why(0, 0)
    assert "they are not paired" in found.why(0, 2)


def test_a_specification_says_why_a_structure_is_not_in_it():
    spec = Spec(above="ccpo", monotone=True, rows={"FF": "v"})
    said = spec.why("cpo")
    assert "`above ccpo` (row TT is b, and may be v)" in said
    assert "`row FF = v` (row FF is o, and may be v)" in said
    assert "monotone" not in said
    assert parse_spec("monotone").why("orpo") == "ORPO satisfies it."
    assert "depends on rw" in parse_spec("monotone").why("dpo")
    assert PreferenceStructure.from_rows("vvxo") in parse_spec("monotone")
