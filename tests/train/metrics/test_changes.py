"""What is watched: changes since the start, displacement, distance to the reference, terms."""

from __future__ import annotations

import math

import pytest
import torch

from prefalign.losses import DPO, SFT, PairLogps
from prefalign.train.metrics._changes import Watch, before_end, divergence, kl_metric
from prefalign.train.metrics._terms import term_metrics, term_names
from tests.tiny import tiny_pairs
from tests.train.runs import history, ours


def alone(tensor):
    """One process gathers from itself."""
    return tensor


def pairs(chosen, rejected, ref_chosen=None, ref_rejected=None):
    return PairLogps(*(None if x is None else torch.tensor(x) for x in (chosen, rejected, ref_chosen, ref_rejected)))


def test_changes_are_log_ratios_where_the_reference_is_the_start():
    found = Watch(from_reference=True).changes(
        pairs([-1.0, -5.0], [-2.0, -9.0], [-2.0, -3.0], [-1.0, -3.0]), None, alone
    )
    assert found == {"logps/chosen_change": -0.5, "logps/rejected_change": -3.5, "displacement": 0.5}


def test_elsewhere_a_pair_starts_where_it_is_first_seen():
    watch = Watch(from_reference=False)
    assert watch.changes(pairs([-1.0, -5.0], [-2.0, -9.0]), torch.tensor([7, 3]), alone) == {}
    # Row 3 comes again, beside one that is new.
    found = watch.changes(pairs([-4.0, -3.0], [-9.5, -1.0]), torch.tensor([3, 8]), alone)
    assert found == {"logps/chosen_change": 1.0, "logps/rejected_change": -0.5, "displacement": 0.0}


def test_the_starts_survive_a_checkpoint():
    watch = Watch(from_reference=False)
    watch.changes(pairs([-1.0], [-2.0]), torch.tensor([2**40 + 7]), alone)
    again = Watch(from_reference=False)
    again.load_state_dict(watch.state_dict())
    assert again.first_seen == {2**40 + 7: (-1.0, -2.0)}
    Watch(from_reference=True).load_state_dict(Watch(from_reference=True).state_dict())


def test_rows_without_a_number_have_no_start():
    assert Watch(from_reference=False).changes(pairs([-1.0], [-2.0]), None, alone) == {}


def test_the_divergence_is_kl_of_reference_from_policy_in_expectation():
    torch.manual_seed(0)
    policy, reference = torch.randn(2, 50, dtype=torch.float64).log_softmax(dim=1)
    exact = (reference.exp() * (reference - policy)).sum().item()
    each = divergence(policy[:, None], reference[:, None], torch.ones(50, 1))
    assert (each >= 0).all()
    assert (reference.exp() * each).sum().item() == pytest.approx(exact, rel=1e-6)


def test_the_divergence_stays_finite_where_the_policy_gave_a_token_up():
    assert divergence(torch.tensor([[-1e4]]), torch.tensor([[0.0]]), torch.ones(1, 1)).item() == 9999.0


def test_kl_is_a_mean_over_completion_tokens():
    policy, reference = torch.tensor([[math.log(0.5), -3.0, -9.0]]), torch.tensor([[math.log(0.25), -3.0, 0.0]])
    mask = torch.tensor([[1, 1, 0]])
    # r = 2 and r = 1; the third token is padding.
    expected = (2 - 1 - math.log(2) + 0) / 2
    found = kl_metric(divergence(policy, reference, mask), mask, alone, policy.device)
    assert found["kl"] == pytest.approx(expected, rel=1e-6)


def test_the_end_of_text_does_not_count_as_sampled():
    masks = torch.tensor([[0, 1, 1, 1, 0], [0, 0, 0, 0, 1], [1, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    assert before_end(masks).tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_a_learned_end_of_text_does_not_move_the_logged_kl(checkpoint, tmp_path):
    """The first step's policy is the reference but for its end of text, which was made exp(5) times more likely."""
    trainer = ours(tmp_path, checkpoint, {"reference": f"checkpoint({checkpoint})"}, loss="dpo(beta=0.1)", max_steps=1)
    end = trainer.processing_class.eos_token_id
    head = trainer.model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(head.weight.shape[0]))
    head.bias.data[end] = 5.0
    trainer.train()
    # The tiny model's distribution is nearly uniform, so every other token became 1 + (exp(5) - 1) / V less likely.
    r = 1 / (1 + math.expm1(5) / len(head.bias))
    assert history(trainer)[0]["kl"] == pytest.approx(r - 1 - math.log(r), rel=0.1)


def test_terms_are_named_and_numbered():
    assert term_names(DPO(beta=0.1) + 0.5 * SFT(reduction="sum")) == ("dpo", "sft")
    assert term_names(DPO(beta=0.1) + DPO(beta=0.2)) == ("dpo_1", "dpo_2")


def test_a_single_term_is_the_loss_and_is_not_logged_twice():
    assert term_metrics(DPO(beta=0.1), [torch.ones(2)], alone) == {}


def test_the_logged_terms_add_up_to_the_loss(checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, loss="dpo(beta=0.1) + 0.25*sft(reduction='sum')", max_steps=3)
    trainer.train()
    for entry in history(trainer)[:-1]:
        assert entry["loss"] == pytest.approx(entry["loss/dpo"] + 0.25 * entry["loss/sft"], rel=1e-6)
        assert entry["logps/chosen"] == pytest.approx(-entry["loss/sft"], rel=1e-6)


def test_changes_agree_with_rewards_and_evaluation_has_them_too(checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, {"eval_dataset": tiny_pairs(6)}, loss="dpo(beta=0.5)", max_steps=4)
    trainer.train()
    found = trainer.evaluate()
    assert found["eval_rewards/chosen"] == pytest.approx(0.5 * found["eval_logps/chosen_change"], rel=1e-5)
    assert found["eval_rewards/rejected"] == pytest.approx(0.5 * found["eval_logps/rejected_change"], rel=1e-5)
    assert found["eval_kl"] > 0


def test_without_a_reference_a_pair_is_compared_with_its_first_epoch(checkpoint, tmp_path):
    trainer = ours(
        tmp_path,
        checkpoint,
        {"train_dataset": tiny_pairs(8), "eval_dataset": tiny_pairs(4)},
        loss="simpo(beta=2.0, gamma=1.0)",
        max_steps=4,
        eval_strategy="steps",
        eval_steps=2,
        eval_on_start=True,
    )
    trainer.train()
    entries = history(trainer)
    trained = [entry for entry in entries if "loss" in entry]
    assert ["displacement" in entry for entry in trained] == [False, False, True, True]
    evaluated = [entry for entry in entries if "eval_loss" in entry]
    assert len(evaluated) == 3
    start = evaluated[0]["eval_logps/chosen"]
    for entry in evaluated[1:]:
        assert entry["eval_logps/chosen_change"] == pytest.approx(entry["eval_logps/chosen"] - start, abs=1e-4)
        assert entry["eval_logps/chosen_change"] != 0


def test_precomputed_reference_has_changes_but_no_kl(checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, loss="dpo(beta=0.1)", precompute_ref_log_probs=True, max_steps=2)
    trainer.train()
    assert "kl" not in history(trainer)[1]
    assert history(trainer)[1]["logps/chosen_change"] != 0
