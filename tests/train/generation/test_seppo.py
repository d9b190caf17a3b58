"""Training on winners alone: who generates, who scores, what is resumed."""

from __future__ import annotations

import json
import math

import pytest
import torch
from datasets import Dataset

from prefalign._errors import CheckpointError, TrainingError
from prefalign.train import _callback
from tests.tiny import tiny_model, tiny_pairs, tiny_tokenizer
from tests.train.runs import history, largest_difference, lora, theirs, weights
from tests.train.self_play import Spy, fingerprint, run, winners


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_the_snapshot_that_is_drawn_generates_and_scores(checkpoint, tmp_path, adapter):
    trainer, spy = run(
        tmp_path,
        checkpoint,
        trainer={"peft_config": lora()} if adapter else {},
        reference="past(keep=9, every=2, seed=4)",
        generate_ahead=3,
        max_steps=10,
        num_train_epochs=5,
    )
    trainer.train()
    assert len(spy.scored) == 10
    ages = set()
    for step, version, weights_then in spy.scored:
        assert version in range(0, step + 1, 2)
        assert weights_then == spy.policy[version], step  # the very weights that the policy had at that step
        ages.add(step - version)
    assert len(ages) > 2  # not always the latest
    for version, weights_then, *_ in spy.calls:
        assert weights_then == spy.policy[version]
    assert [version for version, *_ in spy.calls] == [version for step, version, _ in spy.scored if step % 2 == 0]
    assert len({json.dumps(now) for now in spy.policy.values()}) == 10  # the policy itself went on


@pytest.mark.parametrize("choose", ["latest", "initial"])
def test_where_policy_and_reference_are_equal_the_loss_is_log_two(checkpoint, tmp_path, choose):
    trainer, _ = run(tmp_path, checkpoint, reference=f"past(every=3, choose={choose})", max_steps=6)
    trainer.train()
    rows = [row for row in history(trainer) if "loss" in row]
    equal = [step for step, row in enumerate(rows) if row["loss"] == pytest.approx(math.log(2), abs=1e-6)]
    assert equal == ([0, 3] if choose == "latest" else [0])
    assert [row["reference/staleness"] for row in rows] == ([0, 1, 2] * 2 if choose == "latest" else [*range(6)])
    assert rows[0]["anchor/margin"] == rows[0]["anchor/flip_rate"] == 0


def test_without_flipper_it_is_trls_own_dpo_bit_for_bit(checkpoint, tmp_path):
    """SPIN is DPO on pairs whose loser was generated: here the generator reads it off TRL's own data."""
    pairs, tokenizer = tiny_pairs(), tiny_tokenizer()
    losers = {
        tuple(tokenizer(row["prompt"])["input_ids"]): tokenizer(row["rejected"] + "<|im_end|>")["input_ids"]
        for row in pairs
    }

    class FromTheData(Spy):
        def __call__(self, model, request):
            return [losers[prompt] for prompt in request.prompts]

    spin, _ = run(
        tmp_path,
        checkpoint,
        FromTheData(),
        loss="seppo(beta=0.1, flipper=none)",
        reference="past(choose=initial)",
        max_steps=9,
        gradient_accumulation_steps=2,
        num_train_epochs=3,
    )
    spin.train()
    trl = theirs(tmp_path, checkpoint, max_steps=9, gradient_accumulation_steps=2, num_train_epochs=3)
    trl.train()
    assert largest_difference(spin, trl) == 0
    other = theirs(tmp_path, checkpoint, max_steps=9, gradient_accumulation_steps=2, num_train_epochs=3, beta=0.11)
    other.train()
    assert largest_difference(spin, other) > 0


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_a_resumed_run_repeats_the_uninterrupted_one_token_by_token(checkpoint, tmp_path, adapter):
    """Saved in the middle of a round and of what was generated ahead, in the second epoch, with accumulation."""
    options = {
        "reference": "past(keep=2, every=5)",
        "generate_ahead": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 12,
        "save_strategy": "steps",
        "save_steps": 6,
        "num_train_epochs": 10,
    }
    arguments = {"peft_config": lora()} if adapter else {}
    whole, before = run(tmp_path / "whole", checkpoint, trainer=arguments, **options)
    whole.train()
    resumed, after = run(tmp_path / "resumed", checkpoint, trainer=arguments, **options)
    resumed.train(str(tmp_path / "whole" / "ours" / "checkpoint-6"))
    assert after.batches == before.batches[12:]
    assert after.scored == [row for row in before.scored if row[0] >= 6]
    assert len(after.calls) < len(before.calls)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    rows = [[row for row in history(trainer) if row.get("step", 0) > 6] for trainer in (whole, resumed)]
    for mine, theirs_ in zip(*rows, strict=True):
        for key in mine.keys() - {"generated/seconds", "train_loss", "total_flos"}:
            assert mine[key] == theirs_[key], key


def test_completions_of_other_rows_are_made_anew_with_a_warning(checkpoint, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(_callback, "check_binding", lambda *_: None)  # as for a checkpoint that does not say its seed
    options = {"save_strategy": "steps", "save_steps": 3, "max_steps": 5, "reference": "past(every=5)"}
    trainer, spy = run(tmp_path, checkpoint, **options)
    trainer.train()
    assert [rows for _, _, rows, _ in spy.calls] == [16, 4]  # one step's are left over at step 3
    resumed, again = run(tmp_path, checkpoint, **options, data_seed=99)
    with caplog.at_level("WARNING", "prefalign"):
        resumed.train(str(tmp_path / "ours" / "checkpoint-3"))
    assert "belong to other rows" in caplog.text
    assert [rows for _, _, rows, _ in again.calls] == [4, 4]


def test_completions_are_made_for_several_steps_at_once_but_not_across_a_round(checkpoint, tmp_path):
    trainer, spy = run(tmp_path, checkpoint, reference="past(every=6)", generate_ahead=4, max_steps=8)
    trainer.train()
    # Batches of 4: steps 0-3, then 4-5 up to the round's end, then 6-7 up to the epoch's end (24 rows, 6 steps).
    assert [rows for _, _, rows, _ in spy.calls] == [16, 8, 8]
    assert len({seed for *_, seed in spy.calls}) == 3


def test_an_epochs_end_cuts_what_is_made_ahead(checkpoint, tmp_path):
    trainer, spy = run(
        tmp_path,
        checkpoint,
        trainer={"train_dataset": winners(10)},
        reference="past(choose=initial)",
        generate_ahead=5,
        max_steps=6,
        gradient_accumulation_steps=2,
        num_train_epochs=3,
    )
    trainer.train()
    # 10 rows in batches of 4, 4, 2, two to a step: each epoch has its 10 rows generated at once.
    assert [rows for _, _, rows, _ in spy.calls] == [10, 10, 10]
    assert [len(batch) for batch in spy.batches] == [8, 8, 4] * 3


class Scripted(Spy):
    """Returns what it is told."""

    def __init__(self, script):
        super().__init__()
        self.script = script

    def __call__(self, model, request):
        self.calls.append(request)
        return [list(self.script[place % len(self.script)]) for place in range(len(request.prompts))]


def test_what_is_generated_stands_where_the_loser_belongs(checkpoint, tmp_path):
    """Cut at the stop token; an empty completion becomes the empty answer, and is counted."""
    spy = Scripted([[70, 71, 2, 99], [], [0, 0], [72]])
    trainer, _ = run(tmp_path, checkpoint, spy, max_steps=1)
    trainer.train()
    losers = [
        [token for token in row if token][len(prompt) :]
        for row, prompt in zip(spy.batches[0][4:], spy.calls[0].prompts, strict=False)
    ]
    assert losers == [[70, 71, 2], [2], [2], [72]]
    row = history(trainer)[0]
    assert row["generated/length"] == (3 + 0 + 0 + 1) / 4
    assert (row["generated/ended"], row["generated/empty"], row["generated/same"]) == (0.25, 0.5, 0)


def test_a_generator_that_returns_nothing_stops_the_run_with_its_last_state_intact(checkpoint, tmp_path):
    class Fails(Spy):
        def __call__(self, model, request):
            return [[]] * len(request.prompts) if self.calls else super().__call__(model, request)

    options = {"save_strategy": "steps", "save_steps": 2, "reference": "past(every=2)"}
    trainer, _ = run(tmp_path, checkpoint, Fails(), **options)
    with pytest.raises(TrainingError, match="nothing, or only padding, for all of 8 prompts"):
        trainer.train()
    resumed, _ = run(tmp_path, checkpoint, **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 8


def test_a_tampered_snapshot_stops_a_resumed_run(checkpoint, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 3, "max_steps": 3}
    trainer, _ = run(tmp_path, checkpoint, **options)
    trainer.train()
    saved = tmp_path / "ours" / "checkpoint-3" / "prefalign_past"
    for path in saved.glob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.unlink()  # a link: the run's own copy stays as it is
        path.write_bytes(content)
    resumed, _ = run(tmp_path, checkpoint, **{**options, "max_steps": 6})
    with pytest.raises(CheckpointError, match="SHA-256"):
        resumed.train(str(saved.parent))


def test_conversations_end_alike_on_both_sides(checkpoint, tmp_path):
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Film {i}?"}],
            "completion": [{"role": "assistant", "content": "Good"}],
        }
        for i in range(4)
    ]
    spy = Scripted([[70, 71, 2]])
    trainer, _ = run(tmp_path, checkpoint, spy, {"train_dataset": Dataset.from_list(rows)}, max_steps=1)
    trainer.train()
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(spy.calls[0].prompts[0]).endswith("<|im_end|>\n<|im_start|>assistant\n")
    chosen, generated = (tokenizer.decode([t for t in spy.batches[0][row] if t]) for row in (0, 4))
    assert chosen.endswith("assistant\nGood<|im_end|>\n")
    assert generated.endswith("assistant\n" + tokenizer.decode([70, 71]) + "<|im_end|>\n")


@pytest.mark.parametrize("reference", ["initial", "moving_average(alpha=0.5, every=2)"])
def test_other_references_generate_too(checkpoint, tmp_path, reference):
    trainer, spy = run(tmp_path, checkpoint, reference=reference, max_steps=4)
    trainer.train()
    assert len(spy.calls) == (1 if reference == "initial" else 4)


def test_a_model_that_was_trained_further_starts_its_past_anew(tmp_path):
    """`train` called twice: the second run's first snapshot is the policy as it is then."""
    trainer, spy = run(tmp_path, tiny_model(), trainer={"processing_class": tiny_tokenizer()}, max_steps=3)
    trainer.train()
    then = fingerprint(trainer.model)
    spy.scored.clear()
    trainer.train()
    assert spy.scored[0] == (0, 0, then)
