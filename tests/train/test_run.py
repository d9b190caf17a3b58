"""What a run says, records and refuses while it runs."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import DPOConfig

from prefalign._errors import ConfigError, DataError, TrainingError
from prefalign.data import flip_labels
from prefalign.losses import Loss
from prefalign.train import PrefTrainer
from tests.tiny import save_tiny, tiny_pairs
from tests.train.runs import COMMON, history, lora, ours, theirs, weights


def test_a_run_says_what_it_trains_and_records_it(checkpoint, tmp_path, capsys):
    data = flip_labels(tiny_pairs(), rate=0.25, seed=0)
    loss = "robust(dpo(beta=0.1), flip_rate=0.25)"
    trainer = ours(tmp_path, checkpoint, {"train_dataset": data}, loss=loss, max_steps=2, save_strategy="steps")
    trainer.train()
    out = capsys.readouterr().out
    assert out.index("Loss: Robust(DPO(beta=0.1), flip_rate=0.25)") < out.index("'loss':")
    assert f"Reference: initial: {checkpoint} as training starts" in out
    record = json.loads((tmp_path / "ours" / "prefalign_run.json").read_text("utf-8"))
    assert record["loss"]["expression"] == loss
    assert "log sigmoid" in record["loss"]["formula"]
    assert record["reference"]["expression"] == "initial"
    assert record["noise_rate"] == 0.25
    assert record["data"]["train"]["rows"] == 24
    assert record["model"] == checkpoint
    assert record["options"]["max_steps"] == 2
    assert record["versions"]["trl"].startswith("1.16.")
    card = (tmp_path / "ours" / "README.md").read_text("utf-8")
    assert "log sigmoid" in card
    assert f"- Loss, as an expression: `{loss}`" in card
    assert "- Reference: initial" in card
    assert "- Label noise: 25.0% of the labels were flipped on purpose" in card
    assert card.index("### Objective") < card.index("### Framework versions")


@pytest.mark.parametrize(("loss", "is_dpo"), [("simpo(beta=2.0, gamma=1.0)", False), ("rdpo(0.1, 0.2)", True)])
def test_the_card_names_no_other_method_and_no_missing_model(loss, is_dpo, checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, loss=loss, max_steps=1)
    trainer.create_model_card()
    card = (tmp_path / "ours" / "README.md").read_text("utf-8")
    assert ("trained with DPO" in card, "Cite DPO as" in card) == (is_dpo, is_dpo)
    assert "None" not in card
    assert "Cite TRL as" in card
    assert "### Objective" in card


def test_the_state_file_holds_the_metrics(checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, loss="dpo(beta=0.1)", max_steps=2)
    trainer.train()
    trainer.save_state()
    saved = json.loads((tmp_path / "ours" / "trainer_state.json").read_text("utf-8"))
    assert {"displacement", "logps/chosen_change", "kl"} <= set(saved["log_history"][0])


def test_bad_rows_are_dropped_with_a_count_or_refused(checkpoint, tmp_path, capsys):
    rows = tiny_pairs(12).to_list()
    rows[3] = {**rows[3], "rejected": rows[3]["chosen"]}
    data = type(tiny_pairs(1)).from_list(rows)
    trainer = ours(tmp_path, checkpoint, {"train_dataset": data}, max_steps=1)
    assert len(trainer.train_dataset) == 11
    assert trainer.train_dataset["pair_index"][:5] == [0, 1, 2, 4, 5]
    assert trainer.data_reports["train"].dropped == 1
    assert "identical" in capsys.readouterr().out
    with pytest.raises(DataError, match="3"):
        ours(tmp_path, checkpoint, {"train_dataset": data}, on_bad_pairs="error")


def test_a_plain_dpo_config_will_do(checkpoint, tmp_path):
    args = DPOConfig(str(tmp_path / "plain"), **{**COMMON, "max_steps": 2}, bf16=False, loss_type="ipo", beta=0.2)
    mine = PrefTrainer(checkpoint, args=args, train_dataset=tiny_pairs())
    mine.train()
    trl = theirs(tmp_path, checkpoint, loss_type="ipo", beta=0.2, max_steps=2)
    trl.train()
    assert history(mine)[1]["loss"] == history(trl)[1]["loss"]


class Squared(Loss):
    """A loss of the user's own, without a name in expressions."""

    needs_reference = False
    formula = "(log pi(w) - log pi(l))^2"

    def __call__(self, pair_logps):
        return (pair_logps.chosen - pair_logps.rejected) ** 2


def test_a_loss_without_a_name_trains_and_is_recorded_by_its_formula(checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, loss=Squared(), max_steps=2, save_strategy="steps", save_steps=1)
    trainer.train()
    record = json.loads((tmp_path / "ours" / "prefalign_run.json").read_text("utf-8"))
    assert record["loss"]["expression"] is None
    assert "(log pi(w) - log pi(l))^2" in record["loss"]["formula"]
    assert torch.load(tmp_path / "ours" / "checkpoint-2" / "training_args.bin", weights_only=False).loss_type == []


@pytest.fixture
def poisoned(tmp_path):
    """A model that gives no number for any text with a Z, and pairs of which row 17 has one."""
    folder = save_tiny(tmp_path / "poisoned", tie_word_embeddings=False)
    state = load_file(folder / "model.safetensors")
    vocabulary = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    state["model.embed_tokens.weight"][vocabulary["Z"]] = float("nan")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    rows = tiny_pairs().to_list()
    rows[17] = {**rows[17], "prompt": "Film Z:"}
    return str(folder), type(tiny_pairs(1)).from_list(rows)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_row(poisoned, tmp_path):
    model, data = poisoned
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6, "seed": 3}
    trainer = ours(tmp_path, model, {"train_dataset": data, "peft_config": lora()}, loss="dpo(beta=0.1)", **options)
    with pytest.raises(TrainingError, match="row 17 of the train data, which begins with 'Film Z:") as caught:
        trainer.train()
    step = trainer.state.global_step
    assert 0 < step < 6
    last = tmp_path / "ours" / f"checkpoint-{step}"
    assert f"The last good state is {str(last)!r}" in str(caught.value)
    assert all(torch.isfinite(value).all() for value in load_file(last / "adapter_model.safetensors").values())


def test_an_evaluation_that_is_no_number_names_its_data_set(poisoned, checkpoint, tmp_path):
    model, data = poisoned
    trainer = ours(tmp_path, model, {"eval_dataset": {"clean": tiny_pairs(4), "dirty": data}}, loss="dpo(beta=0.1)")
    with pytest.raises(TrainingError, match="row 17 of the eval_dirty data") as caught:
        trainer.evaluate()
    assert "No checkpoint had been saved yet" in str(caught.value)


class Spoil(TrainerCallback):
    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 3:
            with torch.no_grad():
                next(model.parameters())[0, 0] = float("inf")


def test_weights_that_are_no_numbers_are_not_saved(checkpoint, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6}
    trainer = ours(tmp_path, checkpoint, {"callbacks": [Spoil()]}, loss="dpo(beta=0.1)", **options)
    with pytest.raises(TrainingError, match="not finite after step 3") as caught:
        trainer.train()
    assert "checkpoint-2" in str(caught.value)
    assert not (tmp_path / "ours" / "checkpoint-3").exists()


def test_another_forward_may_take_the_place_of_the_plain_one(checkpoint, tmp_path):
    calls = []

    def forward(model, inputs):
        calls.append(tuple(inputs["input_ids"].shape))
        return model(**inputs)

    plain, replaced = (ours(tmp_path, checkpoint, loss="dpo(beta=0.1)", max_steps=3) for _ in range(2))
    replaced.forward_pass = forward
    plain.train()
    replaced.train()
    assert len(calls) == 6  # policy and reference, every step
    assert all(torch.equal(value, weights(plain)[name]) for name, value in weights(replaced).items())


def test_evaluate_takes_a_new_data_set(checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, {"eval_dataset": tiny_pairs(6)}, loss="dpo(beta=0.1)", max_steps=2)
    trainer.train()
    assert trainer.evaluate(tiny_pairs(6))["eval_loss"] == trainer.evaluate()["eval_loss"]


def test_the_folder_of_an_adapter_is_that_adapter_trained_further(checkpoint, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(checkpoint)
    made = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM"))
    made.save_pretrained(tmp_path / "adapter")
    trained = []
    for model in (
        str(tmp_path / "adapter"),
        PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(checkpoint), tmp_path / "adapter", is_trainable=True
        ),
    ):
        run = ours(tmp_path, model, max_steps=3)
        run.train()
        trained.append({name: value for name, value in weights(run).items() if "lora" in name})
    assert trained[0]
    assert trained[0].keys() == trained[1].keys()
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())
    with pytest.raises(ConfigError, match="is an adapter itself"):
        ours(tmp_path, str(tmp_path / "adapter"), {"peft_config": LoraConfig(target_modules=["k_proj"])})
