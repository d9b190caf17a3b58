"""Remedies that are losses: the run's own loss with one change, in an expression that parses."""

from __future__ import annotations

import pytest
import torch

from prefalign.diagnose._remedy import allow_for_flips, hold_chosen, knows_flips
from prefalign.logic import catalogue
from prefalign.losses import AOT, SFT, AOTUnpaired, BetaDPO, DrDPO, SePPO, parse_loss

from ..losses.samples import EVERY_LOSS, random_pairs, title

UNREADABLE = "The run's loss cannot be read here"
STRUCTURES = {rule.structure for name in catalogue for rule in catalogue[name].rules.rules}
FORMULAS = sorted(f"logic('{s.P.ascii}', given='{s.P_C.ascii}', also='{s.P_A.ascii}', beta=0.5)" for s in STRUCTURES)
NO_PAIRWISE_PART = (AOT, AOTUnpaired, BetaDPO, DrDPO, SePPO, SFT)  # nothing for `robust` to wrap


def loss_of(change):
    assert change.code.startswith("loss: ")
    return parse_loss(change.code.removeprefix("loss: "))


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=title)
def test_what_is_proposed_parses_and_is_another_loss(loss):
    for change in (hold_chosen(loss.expression), allow_for_flips(loss.expression, 0.2)):
        if isinstance(loss, SFT) and not change.code:
            assert "learning rate" in change.words
            continue
        assert loss_of(change) != loss
        assert UNREADABLE not in change.words


@pytest.mark.parametrize("loss", [loss for loss in EVERY_LOSS if not isinstance(loss, NO_PAIRWISE_PART)], ids=title)
def test_at_a_flip_rate_of_0_the_proposed_loss_is_the_runs_own(loss):
    pairs = random_pairs(3)
    torch.testing.assert_close(loss_of(allow_for_flips(loss.expression, 0.0))(pairs), loss(pairs))


@pytest.mark.parametrize(
    ("expression", "proposed"),
    [
        ("dpo(beta=0.1)", "dpo(beta=0.1) + 0.005*sft(reduction='sum')"),
        ("rpo(0.5, 0.005, 'sum')", "rpo(beta=0.5, eta=0.05, reduction='sum')"),
        ("rpo(0.5, 0.2, 'sum')", "rpo(beta=0.5, eta=0.4, reduction='sum')"),
        ("rpo(0.5, 0, 'sum')", "rpo(beta=0.5, eta=0.005, reduction='sum')"),
        ("rpo(0.5, 'linear(0.2, 0)', 'sum')", "rpo(beta=0.5, eta='linear(0.4, 0)', reduction='sum')"),
        ("rpo(0.5, 'warmup(0.02, 0.1)', 'sum')", "rpo(beta=0.5, eta='warmup(0.2, 0.1)', reduction='sum')"),
        ("2*rpo(0.5, 0.1, 'sum') + ipo(0.3)", "2.0*rpo(beta=0.5, eta=0.2, reduction='sum') + ipo(beta=0.3)"),
        ("dpo(0.5) + 0.005*sft('sum')", "dpo(beta=0.5) + 0.05*sft(reduction='sum')"),
        ("cpo(0.1)", "cpo(beta=0.1, alpha=2.0)"),
        ("orpo(0.2)", "orpo(beta=0.1)"),
        ("slic_hf(1, 0.5)", "slic_hf(delta=1.0, regulariser=1.0)"),
        # The likelihood of other texts than the chosen ones does not hold these.
        (
            "rpo(0.5, 0.1, 'sum', 'reference')",
            "rpo(beta=0.5, eta=0.1, reduction='sum', baseline='reference') + 0.005*sft(reduction='sum')",
        ),
    ],
)
def test_a_supervised_term_that_is_there_gets_more_weight_and_else_one_is_added(expression, proposed):
    change = hold_chosen(expression)
    assert change.code == f"loss: {proposed}"
    assert change.words.startswith("Add" if "+ 0.005*" in proposed else ("Raise", "Lower"))


@pytest.mark.parametrize(
    ("expression", "proposed"),
    [
        ("dpo(0.5)", "robust(dpo(beta=0.5), flip_rate=0.3)"),
        ("dpo(0.5) + 0.3*ipo(0.2)", "robust(dpo(beta=0.5) + 0.3*ipo(beta=0.2), flip_rate=0.3)"),
        ("dpo(0.5) + sft('sum')", "robust(dpo(beta=0.5), flip_rate=0.3) + sft(reduction='sum')"),
        ("rpo(0.5, 0.1, 'sum')", "robust(dpo(beta=0.5), flip_rate=0.3) + 0.05*sft(reduction='sum')"),
        ("orpo(0.2)", "sft(reduction='token_mean') + 0.2*robust(odds_ratio(), flip_rate=0.3)"),
        ("aot(0.4)", "robust(dpo(beta=0.4), flip_rate=0.3)"),
        ("seppo(0.4)", "robust(dpo(beta=0.4), flip_rate=0.3)"),
        ("dro(0.5)", "robust(dpo(beta=0.5), flip_rate=0.3)"),
    ],
)
def test_robust_goes_around_the_pairwise_part_and_beta_stays(expression, proposed):
    assert allow_for_flips(expression, 0.3).code == f"loss: {proposed}"


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("aot(0.4)", "cannot wrap AOT(beta=0.4)"),
        ("seppo(0.4)", "cannot wrap SePPO(beta=0.4)"),
        ("sft('sum')", "no pairwise part"),
        ("rpo(0.5, 'linear(0.2, 0)', 'sum')", "replaced by its highest value"),
        ("dro(0.5)", UNREADABLE),
    ],
)
def test_where_robust_cannot_wrap_the_loss_the_words_say_so(expression, said):
    assert said in allow_for_flips(expression, 0.3).words


@pytest.mark.parametrize(
    ("expression", "beta", "expected"),
    [
        ("dro(0.5)", None, 0.5),
        ("dro(mean=True, beta=2)", None, 2.0),
        ("my.own(loss)", None, 0.1),
        ("my.own(loss)", 0.7, 0.7),
        ("dro(1.2.3)", None, 0.1),
        ("dro(0)", None, 0.1),
        ("", None, 0.1),
    ],
)
def test_a_loss_that_cannot_be_read_leaves_its_beta_to_dpo(expression, beta, expected):
    assert allow_for_flips(expression, 0.3, beta).code == f"loss: robust(dpo(beta={expected}), flip_rate=0.3)"


def test_a_loss_that_warned_when_it_was_trained_does_not_warn_again():
    dead = "logic('M(l) -> M(w)', beta=0.5, mean=False)"
    with pytest.warns(UserWarning, match="saturated"):
        parse_loss(dead)
    assert "mean=False" in hold_chosen(dead).code


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas_of_the_catalogue_are_kept(formula):
    own = parse_loss(formula).expression
    assert hold_chosen(formula).code == f"loss: {own} + 0.005*sft(reduction='sum')"
    assert allow_for_flips(formula, 0.3).code == f"loss: robust({own}, flip_rate=0.3)"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("rdpo(0.1, 0.2)", True),
        ("dr_dpo(0.1)", True),
        ("0.5*smoothed(dpo(0.1), 0.2) + sft('sum')", True),
        ("robust(dro(0.1))", True),
        ("dpo(0.1) + sft('sum')", False),
        ("my.own(loss)", False),
    ],
)
def test_losses_that_know_of_flips(expression, expected):
    assert knows_flips(expression) is expected
