"""Training on winners alone: who generates, who scores, what is resumed, what is refused."""

from __future__ import annotations

import json
import math

import pytest
import torch
from datasets import Dataset

from prefalign._errors import CheckpointError, ConfigError, DataError, TrainingError
from prefalign.train import PrefConfig, TransformersGenerator
from prefalign.train._self_play import SAMPLES_FILE
from tests.tiny import tiny_model, tiny_pairs, tiny_tokenizer
from tests.train.runs import COMMON, history, largest_difference, lora, ours, theirs, weights

SEPPO = {"loss": "seppo(beta=0.1)", "max_new_tokens": 5}


def winners(count=24):
    return tiny_pairs(count).remove_columns("rejected")


def fingerprint(model):
    """What tells the weights of a model apart: their sums, trained ones only where there are adapters."""
    named = [(name, p) for name, p in model.named_parameters() if "lora_" in name or not hasattr(model, "peft_config")]
    return [round(p.detach().double().abs().sum().item(), 9) for _, p in named]


class Spy:
    """A generator, and an observer of all that scores."""

    def __init__(self):
        self.calls = []
        self.generate = TransformersGenerator()

    def __call__(self, model, request):
        self.calls.append((request.version, fingerprint(model), len(request.prompts), request.seed))
        return self.generate(model, request)

    def watch(self, trainer):
        """Note at each step the policy's weights, the reference's, and the tokens that it scores."""
        self.policy, self.scored, self.batches = {}, [], []
        original = trainer.reference.logps

        def logps(inputs):
            step = trainer.state.global_step
            self.policy.setdefault(step, fingerprint(trainer.accelerator.unwrap_model(trainer.model)))
            with trainer.reference.serving() as model:
                self.scored.append((step, trainer.reference.version, fingerprint(model)))
            self.batches.append(inputs["input_ids"].tolist())
            return original(inputs)

        trainer.reference.logps = logps
        return trainer


def run(folder, model, spy=None, trainer=None, **options):
    spy = spy or Spy()
    settings = {**SEPPO, "reference": "past(keep=3, every=2)", "max_steps": 8, **options}
    data = {"train_dataset": winners(), "generator": spy, **(trainer or {})}
    return spy.watch(ours(folder, model, data, **settings)), spy


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


def test_completions_of_other_rows_are_made_anew_with_a_warning(checkpoint, tmp_path, caplog):
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
