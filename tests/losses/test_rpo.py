"""RPO's baselines and schedules: what they are worth, how they are written, and what is refused."""

from __future__ import annotations

import pytest
import torch

from prefalign import derive
from prefalign._errors import DerivationError, LossError, PrefalignError
from prefalign.losses import DPO, RPO, SFT, PairLogps, at_its_highest, parse_loss, scheduled, share_done


def pairs(**more: torch.Tensor) -> PairLogps:
    logps = {"chosen": [-4.0, -3.0], "rejected": [-5.0, -2.0], "ref_chosen": [-4.5, -3.0], "ref_rejected": [-4.0, -2.5]}
    tokens = {"chosen_tokens": [2.0, 3.0], "rejected_tokens": [1.0, 4.0]}
    return PairLogps(**{k: torch.tensor(v, dtype=torch.float64) for k, v in {**logps, **tokens}.items()}, **more)


BASELINE = {
    "baseline": torch.tensor([-6.0, -12.0], dtype=torch.float64),
    "baseline_tokens": torch.tensor([2.0, 7.0], dtype=torch.float64),
}


@pytest.mark.parametrize(
    ("reduction", "likelihood"), [("sum", [6.0, 12.0]), ("sequence_mean", [3.0, 12 / 7]), ("token_mean", [2.0, 2.0])]
)
@pytest.mark.parametrize("baseline", ["sft_dataset", "reference"])
def test_the_likelihood_is_of_the_baselines_completions(reduction, likelihood, baseline):
    given = pairs(**BASELINE)
    added = RPO(0.5, 0.2, reduction, baseline)(given) - DPO(0.5)(given)
    torch.testing.assert_close(added, 0.1 * torch.tensor(likelihood, dtype=torch.float64))


def test_the_baseline_does_not_move_when_labels_are_swapped():
    swapped = pairs(**BASELINE).swapped()
    assert SFT("sum", "reference")(swapped).tolist() == [6.0, 12.0]


def test_a_baseline_that_is_not_there_is_named():
    with pytest.raises(LossError, match="give `baseline`"):
        RPO(0.1, 0.5, "sum", "sft_dataset")(pairs())
    with pytest.raises(LossError, match="give `baseline_tokens`"):
        SFT("sequence_mean", "reference")(pairs(baseline=BASELINE["baseline"]))


@pytest.mark.parametrize(
    ("eta", "values"),  # at the first of five steps, at each after it
    [
        ("linear(0.4, 0)", [0.4, 0.3, 0.2, 0.1, 0.0]),
        ("linear(0, 1)", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("cosine(1, 0)", [1.0, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0.0]),
        ("warmup(0.3, 0.5)", [0.0, 0.15, 0.3, 0.3, 0.3]),
        (0.2, [0.2] * 5),
    ],
)
def test_eta_follows_the_training(eta, values):
    loss = RPO(beta=0.5, eta=eta, reduction="sum")
    found = [loss.eta_at(share_done(step, 5)) for step in range(5)]
    assert found == pytest.approx(values)
    weights = [{type(term): weight for weight, term in loss.terms_at(step / 4)}[SFT] for step in range(5)]
    assert weights == pytest.approx([0.5 * value for value in values])
    assert (2.0 * loss).terms_at(1.0)[1][0] == pytest.approx(values[-1])


def test_outside_a_training_a_schedule_counts_with_its_first_value():
    given = pairs()
    assert torch.equal(RPO(0.1, "linear(0.3, 0)", "sum")(given), RPO(0.1, 0.3, "sum")(given))
    assert torch.equal(RPO(0.1, "warmup(0.3, 0.1)", "sum")(given), DPO(0.1)(given))


@pytest.mark.parametrize(
    ("written", "expression"),
    [
        ("rpo(.1, 'linear( .1,0 )', sum)", "rpo(beta=0.1, eta='linear(0.1, 0)', reduction='sum')"),
        (
            "2*rpo(.1, 'cosine(0.1234567,0)', sum, baseline=reference)",
            "2.0*rpo(beta=0.1, eta='cosine(0.1234567, 0)', reduction='sum', baseline='reference')",
        ),
        ("sft(sum, sft_dataset)", "sft(reduction='sum', baseline='sft_dataset')"),
    ],
)
def test_schedules_and_baselines_are_read_and_written(written, expression):
    loss = parse_loss(written)
    assert loss.expression == expression
    assert parse_loss(loss.expression) == loss


def test_the_formula_says_schedule_and_baseline():
    loss = 2.0 * RPO(0.1, "linear(0.5, 0)", "sum", "reference") + SFT("sum")
    last, own = str(loss).splitlines()[-2:]
    assert last.strip() == "2*0.1*linear(0.5, 0) * [-log pi(y) with y sampled from the reference], sums over tokens"
    assert own.strip() == "1 * [-log pi(w)], sums over tokens"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rpo(.1, 'linear(0.1)', sum)", r"two numbers in its schedule, linear\(START, END\)"),
        ("rpo(.1, 'linear(0.1, 0, 0)', sum)", "two numbers"),
        ("rpo(.1, 'linear(end=0.1, start=0)', sum)", "two numbers"),
        ("rpo(.1, 'lineer(0.1, 0)', sum)", "Did you mean `linear`"),
        ("rpo(.1, 'linear(-0.1, 0)', sum)", "must be >= 0 at every step"),
        ("rpo(.1, 'warmup(0.1, 0)', sum)", "a share of the steps"),
        ("rpo(.1, 'warmup(0.1, 1.5)', sum)", "a share of the steps"),
        ("rpo(.1, 'linear(0.1', sum)", "must be a number >= 0 or a schedule"),
        ("rpo(.1, '__import__(1)', sum)", "must be a number >= 0 or a schedule"),
        ("rpo(.1, estimate, sum)", "must be a number >= 0 or a schedule"),
        ("rpo(.1, -0.5, sum)", "`eta` must be a finite number >= 0"),
        ("rpo(.1, 0.5, sum, baseline=base)", "`baseline` must be one of 'chosen', 'sft_dataset', 'reference'"),
    ],
)
def test_what_is_no_schedule_and_no_baseline_is_one_error(text, said):
    with pytest.raises(PrefalignError, match=said):
        parse_loss(text)


def test_scheduled_parts_are_found_and_read_at_their_highest():
    loss = DPO(0.1) + 0.5 * RPO(0.2, "warmup(0.3, 0.1)", "sum")
    assert [part.eta for part in scheduled(loss)] == ["warmup(0.3, 0.1)"]
    assert scheduled(DPO(0.1) + RPO(0.2, 0.3, "sum")) == ()
    assert at_its_highest(loss) == DPO(0.1) + 0.5 * RPO(0.2, 0.3, "sum")


def test_a_schedule_derives_like_the_number_with_eta_as_symbol():
    scheduled_rules, fixed = derive(RPO(0.1, "linear(0, 0.5)", "sum")), derive(RPO(0.1, 0.5, "sum"))
    assert [(r.structure.rows, str(r.weight)) for r in scheduled_rules.rules] == [
        (r.structure.rows, str(r.weight)) for r in fixed.rules
    ]
    assert str(fixed.rules[1].weight) == "beta*eta"


def test_another_baseline_leaves_dpos_rule_and_a_note():
    found = derive(RPO(0.1, 0.5, "sum", "sft_dataset"))
    assert [rule.structure for rule in found.rules] == [rule.structure for rule in derive(DPO(0.1)).rules]
    assert "left out of the reading" in found.notes[-1]
    with pytest.raises(DerivationError, match="nothing to read"):
        derive(SFT("sum", "reference"))
