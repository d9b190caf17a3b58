"""Data of winners alone: evaluated, streamed, imitated, left out, refused."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from prefalign._errors import ConfigError, DataError
from prefalign.train import PrefConfig
from prefalign.train.generation._self_play import SAMPLES_FILE
from tests.tiny import tiny_pairs
from tests.train.runs import COMMON, history, ours
from tests.train.self_play import run, winners


def test_held_out_winners_are_scored_and_samples_are_kept(checkpoint, tmp_path):
    trainer, _ = run(
        tmp_path,
        checkpoint,
        trainer={"eval_dataset": winners(6)},
        eval_strategy="steps",
        eval_steps=4,
        eval_on_start=True,
        max_steps=4,
    )
    trainer.train()
    assert trainer.evaluate()["eval_loss"] == trainer.evaluate()["eval_loss"]
    first, last = (row for row in history(trainer)[:-3] if "eval_logps/chosen" in row)
    assert last["eval_logps/chosen"] > first["eval_logps/chosen"]
    change = last["eval_logps/chosen"] - first["eval_logps/chosen"]
    assert last["eval_logps/chosen_change"] == pytest.approx(change, rel=1e-4)
    assert {"eval_anchor/flip_rate", "eval_generated/length", "eval_reference/staleness"} <= last.keys()
    assert "eval_logps/rejected_change" not in last
    lines = [json.loads(line) for line in (tmp_path / "ours" / SAMPLES_FILE).read_text().splitlines()]
    assert [(line["step"], line["reference_step"]) for line in lines][:2] == [(0, 0)] * 2
    assert lines[0].keys() == {"step", "reference_step", "prompt", "chosen", "generated"}


def test_new_winners_are_evaluated_too(checkpoint, tmp_path):
    """As if they had been given when the trainer was made: the same samples, so the same numbers."""
    trainer, spy = run(tmp_path, checkpoint, trainer={"eval_dataset": winners(6)}, max_steps=2)
    trainer.train()
    known = trainer.evaluate()
    new = trainer.evaluate(winners(6).rename_column("chosen", "completion"))
    assert new["eval_logps/chosen"] == known["eval_logps/chosen"]
    assert [rows for _, _, rows, _ in spy.calls[-4:]] == [4, 2, 4, 2]
    both = trainer.evaluate({"a": winners(4), "b": tiny_pairs(4)})
    assert {"eval_a_loss", "eval_b_loss"} <= both.keys()
    assert spy.calls[-1][2] == 4  # pairs have their losers
    pairs = ours(tmp_path / "pairs", checkpoint, loss="dpo(beta=0.1)")
    with pytest.raises(DataError, match="rejected"):
        pairs.evaluate(winners(4))


def test_a_stream_of_winners_is_trained_on(checkpoint, tmp_path):
    stream = winners().rename_column("chosen", "completion").to_iterable_dataset()
    trainer, spy = run(tmp_path, checkpoint, trainer={"train_dataset": stream}, max_steps=3)
    trainer.train()
    assert trainer.data_reports["train"].layout == "winners"
    assert [rows for _, _, rows, _ in spy.calls] == [8, 4]  # 2 steps up to the round's end, then the last one
    record = json.loads((tmp_path / "ours" / "prefalign_run.json").read_text())
    assert record["generation"]["max_new_tokens"] == 5


def test_imitation_needs_no_losers_and_generates_none(checkpoint, tmp_path):
    """SFT on winners alone is SFT on pairs, whose losers it never looks at."""
    sft = {"loss": "sft(reduction='sum')", "max_steps": 3}
    alone = ours(tmp_path, checkpoint, {"train_dataset": winners()}, **sft)
    pairs = ours(tmp_path, checkpoint, **sft)
    alone.train()
    pairs.train()
    assert alone.self_play is None
    curves = [[row["logps/chosen"] for row in history(run_)[:3]] for run_ in (alone, pairs)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    assert curves[0][0] != curves[0][1]
    with pytest.raises(ConfigError, match="no `seppo` term"):
        ours(tmp_path, checkpoint, {"train_dataset": winners()}, **sft, max_new_tokens=4)
    with pytest.raises(DataError, match="rejected"):
        ours(tmp_path, checkpoint, {"train_dataset": winners()}, loss="dpo(beta=0.1) + sft(reduction='sum')")


def test_pairs_are_trained_on_as_they_are_with_a_warning(checkpoint, tmp_path, caplog):
    with caplog.at_level("WARNING", "prefalign"):
        trainer = ours(tmp_path, checkpoint, loss="seppo(beta=0.1)", reference="past(every=2)")
    assert trainer.self_play is None
    assert caplog.text.count("Remove their column `rejected`") == 1


def test_prompts_without_winners_are_left_out_and_counted(checkpoint, tmp_path):
    rows = [*winners(4).to_list(), {"prompt": "Film A:", "chosen": None}, {"prompt": "Film B:", "chosen": "  "}]
    trainer, _ = run(tmp_path, checkpoint, trainer={"train_dataset": Dataset.from_list(rows)})
    report = trainer.data_reports["train"]
    assert (report.rows, report.dropped, len(trainer.train_dataset)) == (6, 2, 4)
    assert report.count("missing_value") == report.count("empty_completion") == 1


REFUSED = [
    ({"loss": "dpo(beta=0.1)"}, {}, DataError, "rejected"),
    ({"precompute_ref_log_probs": True, "reference": "initial"}, {}, ConfigError, "generated during training"),
    ({"stop_tokens": ["<|stop|>"]}, {}, ConfigError, "single tokens of the vocabulary"),
    ({}, {"train_dataset": tiny_pairs(4)}, ConfigError, "`max_new_tokens` would have no effect.*`rejected`"),
    ({"max_new_tokens": None}, {"train_dataset": tiny_pairs(4)}, ConfigError, "`generator` would have no effect"),
]


@pytest.mark.parametrize(("options", "arguments", "error", "message"), REFUSED)
def test_what_contradicts_winners_alone_is_refused(checkpoint, tmp_path, options, arguments, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path, checkpoint, trainer=arguments, **options)


@pytest.mark.parametrize(
    "option",
    [
        {"max_new_tokens": 0},
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": 2.5},
        {"generate_ahead": 0},
        {"generation_batch_size": True},
        {"stop_tokens": "x"},
        {"temperature": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ConfigError, match=f"`{next(iter(option))}` must be"):
        PrefConfig("unused", **COMMON, loss="seppo(beta=0.1)", **option)
