"""The column `weight`: what it multiplies, what it leaves alone, and what is refused."""

from __future__ import annotations

import pytest
import torch

from prefalign._errors import ConfigError, DataError, PrefalignError
from prefalign.data import check_pairs, pair_weights
from tests.tiny import tiny_pairs
from tests.train.runs import history, ours, theirs, weights


def weighted(values):
    return tiny_pairs(len(values)).add_column("weight", values)


def one_step(tmp_path, checkpoint, data, **options):
    # Plain gradient descent without clipping: what a step moves is the gradient.
    how = {"max_steps": 1, "optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "constant", "learning_rate": 0.1}
    trainer = ours(tmp_path, checkpoint, {"train_dataset": data}, **{**how, **options})
    start = weights(trainer)
    trainer.train()
    return {name: value - start[name] for name, value in weights(trainer).items()}


def test_weights_of_one_are_trls_run_to_the_last_bit(tmp_path, checkpoint):
    mine = ours(tmp_path, checkpoint, {"train_dataset": weighted([1.0] * 24)})
    trl = theirs(tmp_path, checkpoint)
    mine.train(), trl.train()
    assert all(torch.equal(value, weights(mine)[name]) for name, value in weights(trl).items())
    assert [e["loss"] for e in history(mine)[:-1]] == [e["loss"] for e in history(trl)[:-1]]


def test_a_weight_of_zero_is_dropping_up_to_the_number_of_pairs(tmp_path, checkpoint):
    kept = [0, 2, 3, 5, 6, 7]
    values = [1.0 if row in kept else 0.0 for row in range(8)]
    batch = {"per_device_train_batch_size": 8}
    zeros = one_step(tmp_path / "a", checkpoint, weighted(values), **batch)
    dropped = one_step(tmp_path / "b", checkpoint, tiny_pairs(8).select(kept), per_device_train_batch_size=6)
    for name, moved in zeros.items():
        torch.testing.assert_close(moved, dropped[name] * 6 / 8, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    "how", [{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, {"packed": True}]
)
def test_how_a_step_is_divided_changes_nothing(tmp_path, checkpoint, how):
    values = [0.5, 2.0, 0.0, 1.0, 0.25, 3.0, 1.0, 0.1]
    if how.pop("packed", False):
        how = {"per_device_train_batch_size": 8, "tokens_per_batch": 60}
    whole = one_step(tmp_path / "a", checkpoint, weighted(values), per_device_train_batch_size=8)
    parts = one_step(tmp_path / "b", checkpoint, weighted(values), **how)
    for name, moved in whole.items():
        torch.testing.assert_close(parts[name], moved, atol=1e-6, rtol=1e-3)


def test_each_pair_is_multiplied_by_its_own_weight_also_after_rows_were_dropped(tmp_path, checkpoint):
    rows = tiny_pairs(5).to_dict()
    rows["rejected"][1] = rows["chosen"][1]  # dropped by the check: the rows after it keep their weights
    from datasets import Dataset

    data = Dataset.from_dict({**rows, "weight": [0.0, 9.0, 0.0, 4.0, 0.0]})
    moved = one_step(tmp_path / "a", checkpoint, data, per_device_train_batch_size=4)
    alone = one_step(tmp_path / "b", checkpoint, tiny_pairs(5).select([3]), per_device_train_batch_size=1)
    for name, value in moved.items():
        torch.testing.assert_close(value, alone[name] * 4 / 4, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("bad", [-0.5, float("nan"), float("inf"), None])
def test_what_is_no_weight_is_one_error_with_its_row(tmp_path, checkpoint, monkeypatch, bad):
    data = weighted([1.0, bad, 1.0])
    monkeypatch.setattr("trl.DPOTrainer.__init__", lambda *args, **kwargs: pytest.fail("weights were loaded"))
    with pytest.raises(DataError, match=r"finite numbers >= 0 \(got .* in row 1\)"):
        ours(tmp_path, checkpoint, {"train_dataset": data})
    report = check_pairs(data)
    assert report.findings[0].kind == "weights"
    with pytest.raises(DataError, match="in row 1"):
        report.raise_if_unusable()


def test_weights_that_are_all_zero_or_text_are_refused():
    with pytest.raises(DataError, match="must not be 0 in every row"):
        pair_weights(weighted([0, 0]))
    with pytest.raises(DataError, match="finite numbers"):
        pair_weights(weighted(["1", "2"]))
    assert pair_weights(tiny_pairs(2)) is None
    assert pair_weights(weighted([1, 3])).tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "dr_dpo(beta=0.1)"}, "cannot be combined with DrDPO"),
        ({"loss": "dpo(beta=0.1) + sft(token_mean)"}, "cannot be combined with SFT"),
    ],
)
def test_a_loss_without_one_value_per_pair_is_refused(tmp_path, checkpoint, options, said):
    with pytest.raises((ConfigError, PrefalignError), match=said):
        ours(tmp_path, checkpoint, {"train_dataset": weighted([1.0, 0.5, 1.0])}, **options)


def test_an_evaluation_weighs_too(tmp_path, checkpoint):
    trainer = ours(tmp_path, checkpoint, {"eval_dataset": weighted([0.0, 0.0, 3.0])}, per_device_eval_batch_size=3)
    plain = ours(tmp_path, checkpoint, {"eval_dataset": tiny_pairs(3).select([2])}, per_device_eval_batch_size=1)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=1e-5)
