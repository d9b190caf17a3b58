"""References in training: what is loaded, how often the models run, what is saved and restored."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaModel, PreTrainedModel
from trl.trainer import dpo_trainer

from prefalign._errors import CheckpointError, ConfigError, ParseError
from prefalign.references import Checkpoint, Initial, NoReference, load_state, parse_reference, save_state
from prefalign.train import PrefTrainer
from tests.tiny import tiny_model, tiny_pairs, tiny_tokenizer
from tests.train.runs import history, largest_difference, lora, ours, theirs, weights

SIMPO = "simpo(beta=2.0, gamma=1.0)"


@pytest.fixture
def counts(monkeypatch):
    """How often weights were loaded, and how often a backbone ran."""
    seen = Counter()
    load, forward = PreTrainedModel.from_pretrained.__func__, LlamaModel.forward

    def counted_load(cls, *args, **kwargs):
        seen["loads"] += 1
        return load(cls, *args, **kwargs)

    def counted_forward(self, *args, **kwargs):
        seen["forwards"] += 1
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(counted_load))
    monkeypatch.setattr(LlamaModel, "forward", counted_forward)
    return seen


@pytest.mark.parametrize(
    ("loss", "trainer", "loads", "forwards"),
    [
        (SIMPO, {}, 1, 1),
        (SIMPO, {"peft_config": lora()}, 1, 1),
        (SIMPO, {"reference": "initial"}, 2, 2),
        ("dpo(beta=0.1)", {}, 2, 2),
        ("dpo(beta=0.1)", {"peft_config": lora()}, 1, 2),
    ],
    ids=["simpo", "simpo-lora", "simpo-initial", "dpo", "dpo-lora"],
)
def test_no_more_is_loaded_and_run_than_the_loss_needs(loss, trainer, loads, forwards, checkpoint, tmp_path, counts):
    mine = ours(tmp_path, checkpoint, trainer, loss=loss, max_steps=3)
    assert counts["loads"] == loads
    mine.train()
    once = loss != SIMPO and "peft_config" in trainer  # the start of an adapter is held against its reference
    assert counts["forwards"] == 3 * forwards + once


def test_without_a_reference_rewards_are_the_policys_own(checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, loss=SIMPO, max_steps=2)
    assert trainer.ref_model is None
    trainer.train()
    first = history(trainer)[0]
    assert first["rewards/chosen"] == pytest.approx(2.0 * first["logps/chosen"])
    assert "kl" not in first


def test_a_checkpoint_is_what_ref_model_is_to_trl(checkpoint, other_checkpoint, tmp_path):
    other = AutoModelForCausalLM.from_pretrained(other_checkpoint, dtype=torch.float32)
    trl = theirs(tmp_path, checkpoint, {"ref_model": other}, loss_type="sigmoid")
    trl.train()
    for trainer in ({"reference": f"checkpoint({other_checkpoint})"}, {"ref_model": other}):
        mine = ours(tmp_path, checkpoint, trainer, loss="dpo(beta=0.1)")
        mine.train()
        assert largest_difference(mine, trl) == 0.0
    assert history(trl)[0]["loss"] != pytest.approx(0.6931, abs=1e-3)  # the reference is not the start


def test_a_checkpoint_takes_the_policys_dtype_and_attention(checkpoint, other_checkpoint, tmp_path):
    init = {"dtype": "bfloat16", "attn_implementation": "eager"}
    mine = ours(tmp_path, checkpoint, {"reference": Checkpoint(other_checkpoint)}, model_init_kwargs=init)
    for model in (mine.model, mine.ref_model):
        assert (model.dtype, model.config._attn_implementation) == (torch.bfloat16, "eager")
    policy = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16, attn_implementation="eager")
    mine = ours(tmp_path, policy, {"reference": Checkpoint(other_checkpoint)})
    assert (mine.ref_model.dtype, mine.ref_model.config._attn_implementation) == (torch.bfloat16, "eager")


def test_sync_ref_model_is_trls(checkpoint, tmp_path):
    options = {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.3}
    mine = ours(tmp_path, checkpoint, loss="dpo(beta=0.1)", **options)
    mine.train()
    trl = theirs(tmp_path, checkpoint, loss_type="sigmoid", **options)
    trl.train()
    assert largest_difference(mine, trl) == 0.0
    still = theirs(tmp_path, checkpoint, loss_type="sigmoid")
    still.train()
    assert largest_difference(mine, still) > 1e-3


SLOW = ("accumulation", "no reference")
RESUMED = {
    "full": ({}, {}),
    "lora": ({}, {"peft_config": lora()}),
    "accumulation": ({"gradient_accumulation_steps": 2}, {}),
    "no reference": ({"loss": SIMPO}, {}),
    "moving average": ({"reference": "moving_average(alpha=0.5, every=2)"}, {}),
}


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (c in SLOW)) for c in RESUMED])
def test_a_resumed_run_equals_an_uninterrupted_one(case, checkpoint, tmp_path):
    options, trainer = RESUMED[case]
    options = {"loss": "dpo(beta=0.1)", "save_strategy": "steps", "save_steps": 5, **options}
    whole = ours(tmp_path, checkpoint, trainer, **options)
    whole.train()
    resumed = ours(tmp_path, checkpoint, trainer, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "ours" / "checkpoint-5"))
    # transformers' last entry averages the losses of the resumed part only
    assert history(resumed)[:-1] == history(whole)[:-1]
    assert len(history(whole)) == 10
    after = weights(resumed)
    assert all(torch.equal(after[name], value) for name, value in weights(whole).items())


@pytest.mark.parametrize("length", [{"max_steps": 4}, {"max_steps": -1, "num_train_epochs": 1}])
def test_a_run_that_was_finished_takes_no_step_when_resumed(length, checkpoint, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant", **length}
    whole = ours(tmp_path, checkpoint, **options)
    whole.train()
    resumed = ours(tmp_path, checkpoint, **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step
    after = weights(resumed)
    assert all(torch.equal(after[name], value) for name, value in weights(whole).items())


def test_resuming_needs_the_same_reference(checkpoint, other_checkpoint, tmp_path):
    saving = {"loss": "dpo(beta=0.1)", "save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    ours(tmp_path, checkpoint, **saving).train()
    folder = str(tmp_path / "ours" / "checkpoint-2")
    with pytest.raises(CheckpointError, match="weights differ"):
        ours(tmp_path, other_checkpoint, **saving).train(folder)
    with pytest.raises(CheckpointError, match=r"trained with the reference 'initial' .*checkpoint"):
        ours(tmp_path, checkpoint, {"reference": Checkpoint(other_checkpoint)}, **saving).train(folder)
    lora_folder = tmp_path / "lora"
    ours(lora_folder, checkpoint, {"peft_config": lora()}, **saving).train()
    again = ours(lora_folder, other_checkpoint, {"peft_config": lora()}, **saving)
    with pytest.raises(CheckpointError, match="weights differ"):
        again.train(str(lora_folder / "ours" / "checkpoint-2"))
    moving = {**saving, "max_steps": 4, "reference": "moving_average()"}
    for file in (tmp_path / "ours" / "checkpoint-2").glob("prefalign_*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="must hold the state of the reference"):
        ours(tmp_path, checkpoint, **moving).train(folder)
    shutil.rmtree(tmp_path / "ours")
    with pytest.raises(ConfigError, match="needs a whole checkpoint"):
        ours(tmp_path, checkpoint, **saving).train(resume_from_checkpoint=True)


def test_resuming_needs_the_same_loss(checkpoint, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 2}
    ours(tmp_path, checkpoint, loss="dpo(beta=0.1)", max_steps=2, **saving).train()
    folder = tmp_path / "ours" / "checkpoint-2"
    other = ours(tmp_path, checkpoint, loss="ipo(beta=0.1)", max_steps=4, **saving)
    with pytest.raises(CheckpointError, match=r"with the loss 'dpo\(beta=0.1.*got 'ipo\(beta=0.1.*start a new run"):
        other.train(str(folder))
    # The same loss in TRL's words is the same loss; and a checkpoint that does not say is believed.
    ours(tmp_path, checkpoint, loss_type="sigmoid", beta=0.1, max_steps=3, **saving).train(str(folder))
    watched = load_state(folder, "prefalign_watch")
    save_state(folder, "prefalign_watch", {key: value for key, value in watched.items() if key != "loss"})
    (folder / "prefalign_files.json").unlink()
    other.train(str(folder))


def test_a_model_in_memory_can_be_trained_and_compared_with_its_start(tmp_path):
    trainer = ours(tmp_path, tiny_model(), {"processing_class": tiny_tokenizer()}, max_steps=2)
    before = {name: value.clone() for name, value in trainer.ref_model.named_parameters()}
    trainer.train()
    assert "built in memory" in trainer.reference.identity
    assert all(torch.equal(value, before[name]) for name, value in trainer.ref_model.named_parameters())
    assert any(not torch.equal(value, before[name]) for name, value in weights(trainer).items())


def test_a_second_training_of_the_same_object_starts_from_where_it_is(tmp_path):
    model = tiny_model()
    for _ in range(2):
        trainer = ours(tmp_path, model, {"processing_class": tiny_tokenizer()}, max_steps=2)
        trainer.train()
        assert history(trainer)[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
        assert history(trainer)[1]["loss"] != history(trainer)[0]["loss"]


def test_references_are_read_back_from_their_expressions():
    for reference in (Initial(), NoReference(), Checkpoint("a/b-c"), Checkpoint("with space, and (brackets)")):
        assert parse_reference(reference.expression) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("__import__('os')", "no reference"),
        ("./sft", r"checkpoint\(./sft\)"),
        ("initial + none", "expected a reference"),
        ("checkpoint(path=a, path=b)", "given twice"),
        ("checkpoint(initial())", "`path` cannot be a reference"),
        ("checkpoint('')", "must be a directory"),
    ],
)
def test_what_is_no_reference_is_refused_with_a_caret(text, message):
    with pytest.raises((ParseError, CheckpointError), match=message) as caught:
        parse_reference(text)
    assert "^" in str(caught.value)


def test_states_are_safetensors_and_json_and_an_incomplete_one_is_an_error(tmp_path):
    state = {"a": torch.arange(3), "name": "x", "numbers": [1, 2.5]}
    save_state(tmp_path, "s", state)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.json", "s.safetensors"]
    assert json.loads((tmp_path / "s.json").read_text()) == {
        "tensors": ["a"],
        "values": {"name": "x", "numbers": [1, 2.5]},
    }
    again = load_state(tmp_path, "s")
    assert again is not None
    assert again["a"].tolist() == [0, 1, 2]
    assert (again["name"], again["numbers"]) == ("x", [1, 2.5])
    assert load_state(tmp_path, "none") is None
    (tmp_path / "s.safetensors").unlink()
    with pytest.raises(CheckpointError, match="earlier checkpoint"):
        load_state(tmp_path, "s")


def test_trl_never_sees_the_stand_in(checkpoint, tmp_path, monkeypatch):
    given = []
    original = dpo_trainer.add_fused_lm_head
    monkeypatch.setattr(
        dpo_trainer, "add_fused_lm_head", lambda model, **k: (given.append(model), original(model, **k))
    )
    trainer: PrefTrainer = ours(tmp_path, checkpoint, {"train_dataset": tiny_pairs(4)}, loss=SIMPO)
    assert given == [trainer.model]
