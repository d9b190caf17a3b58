"""Trajectories against TRL's own trainer: all that TRL logs and the final weights are equal to the last bit."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, set_seed

from prefalign.references import Reference
from tests.tiny import tiny_pairs
from tests.train.runs import STEPS, history, largest_difference, lora, ours, theirs, weights

PAIRS = {
    "dpo(beta=0.1)": {"loss_type": ["sigmoid"]},
    "robust(dpo(beta=0.1), flip_rate=0.2)": {"loss_type": ["robust"], "label_smoothing": 0.2},
    "ipo(beta=0.1)": {"loss_type": ["ipo"]},
    "slic(beta=0.1)": {"loss_type": ["hinge"]},
    "dpo(beta=0.1, mean=True)": {"loss_type": ["sigmoid_norm"]},
    "dpo(beta=0.1) + 0.5*sft(reduction='token_mean')": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
}
SETTINGS = {
    "accumulation": ({"gradient_accumulation_steps": 2}, {}),
    "precomputed": ({"precompute_ref_log_probs": True}, {}),
    "evaluation": ({"eval_strategy": "steps", "eval_steps": 3}, {"eval_dataset": tiny_pairs(8)}),
    "two evaluations": (
        {"eval_strategy": "steps", "eval_steps": 5},
        {"eval_dataset": {"a": tiny_pairs(4), "b": tiny_pairs(8)}},  # whole batches: TRL counts those
    ),
    "checkpointing": ({"gradient_checkpointing": True}, {}),
    "bf16": ({"bf16": True}, {}),
    "lora": ({}, {"peft_config": lora()}),
    "lora, precomputed": ({"precompute_ref_log_probs": True}, {"peft_config": lora()}),
}


def compare(folder, model, mine, trl, trainer=None, **options):
    """Train both ways and return the largest difference; `mine` and `trl` are what differs."""
    a = ours(folder, model, trainer, **mine, **options)
    a.train()
    b = theirs(folder, model, trainer, **trl, **options)
    b.train()
    assert a.state.global_step == b.state.global_step == STEPS
    assert len({entry["loss"] for entry in history(b) if "loss" in entry}) == STEPS  # it moves
    return largest_difference(a, b)


@pytest.mark.parametrize("expression", PAIRS)
def test_our_loss_objects_train_as_trl(expression, checkpoint, tmp_path):
    assert compare(tmp_path, checkpoint, {"loss": expression}, PAIRS[expression]) == 0.0


FAST = ("accumulation", "precomputed", "lora")


@pytest.mark.parametrize("setting", [pytest.param(s, marks=[pytest.mark.slow] * (s not in FAST)) for s in SETTINGS])
def test_settings_train_as_in_trl(setting, checkpoint, tmp_path):
    options, trainer = SETTINGS[setting]
    trl = PAIRS["robust(dpo(beta=0.1), flip_rate=0.2)"]
    loss = {"loss": "robust(dpo(beta=0.1), flip_rate=0.2)"}
    assert compare(tmp_path, checkpoint, loss, trl, trainer, **options) == 0.0


def test_what_only_trl_computes_keeps_its_meaning(checkpoint, tmp_path):
    options = {"loss_type": "sigmoid", "ld_alpha": 0.5}
    assert compare(tmp_path, checkpoint, options, options) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": ["bco_pair", "sft"], "loss_weights": [0.8, 0.2]},
        {"loss_type": "aot"},
        {"loss_type": "apo_zero", "beta": 0.3},
        {"loss_type": "sigmoid", "use_weighting": True},
        {"loss_type": "robust", "label_smoothing": 0.1, "f_divergence_type": "js_divergence"},
    ],
    ids=str,
)
def test_options_of_trl_keep_their_meaning(options, checkpoint, tmp_path):
    assert compare(tmp_path, checkpoint, options, options) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"loss_type": "exo_pair", "label_smoothing": 1e-3}, {"loss_type": "discopop", "discopop_tau": 0.1}],
    ids=str,
)
def test_losses_with_a_steadier_formula_than_trls_differ_by_rounding(options, checkpoint, tmp_path):
    assert compare(tmp_path, checkpoint, options, options) < 2e-3


LAYOUTS = {
    "conversational": [
        {
            "prompt": [{"role": "user", "content": f"Film {i}?"}],
            "chosen": [{"role": "assistant", "content": "good " * (1 + i % 3)}],
            "rejected": [{"role": "assistant", "content": "dull " * (1 + i % 2)}],
        }
        for i in range(8)
    ],
    "implicit prompt": [{"chosen": f"Film {i} is good", "rejected": f"Film {i} was bad"} for i in range(8)],
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_trls_data_formats_train_as_in_trl(layout, checkpoint, tmp_path):
    trainer = {"train_dataset": Dataset.from_list(LAYOUTS[layout])}
    assert compare(tmp_path, checkpoint, {"loss": "dpo(beta=0.1)"}, {"loss_type": "sigmoid"}, trainer) == 0.0


@pytest.mark.slow
def test_a_stream_trains_as_in_trl(checkpoint, tmp_path):
    trainer = {"train_dataset": tiny_pairs().to_iterable_dataset()}
    assert compare(tmp_path, checkpoint, {"loss": "dpo(beta=0.1)"}, {"loss_type": "sigmoid"}, trainer) == 0.0


@pytest.mark.parametrize("loss", ["dpo(beta=0.101)", "dpo(beta=0.1) + 0.001*sft(reduction='token_mean')"])
def test_a_slightly_different_loss_does_not_pass_for_trl(loss, checkpoint, tmp_path):
    assert compare(tmp_path, checkpoint, {"loss": loss}, {"loss_type": "sigmoid"}) > 1e-5


class Zero(Reference):
    """A broken reference."""

    identity = expression = "zero"

    def logps(self, inputs):
        return torch.zeros(len(inputs["input_ids"]) // 2), torch.zeros(len(inputs["input_ids"]) // 2)


def test_a_reference_of_zeros_does_not_pass_for_trl(checkpoint, tmp_path):
    broken = ours(tmp_path, checkpoint, {"reference": Zero()}, loss="dpo(beta=0.1)")
    broken.train()
    trl = theirs(tmp_path, checkpoint, loss_type="sigmoid")
    trl.train()
    assert largest_difference(broken, trl) > 1e-3


def adapted(checkpoint):
    """A model with an adapter that was trained before: its B matrices are not zero."""
    set_seed(7)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def test_retraining_an_adapter_trains_as_in_trl(checkpoint, tmp_path):
    a = ours(tmp_path, adapted(checkpoint), loss="dpo(beta=0.1)")
    assert "frozen copy of its adapter" in a.reference.identity
    a.train()
    b = theirs(tmp_path, adapted(checkpoint), loss_type="sigmoid")
    b.train()
    assert largest_difference(a, b) == 0.0
    assert history(a)[0]["logps/chosen_change"] == 0.0 != history(a)[-2]["logps/chosen_change"]


def test_a_model_object_is_its_own_reference(checkpoint, tmp_path):
    """TRL would load its name again, and so compare a changed model with what it was before."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    trainer = ours(tmp_path, model, loss="dpo(beta=0.1)")
    trainer.train()
    first = history(trainer)[0]
    assert first["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert first["logps/chosen_change"] == first["kl"] == first["displacement"] == 0.0


def test_weighting_as_an_object_trains_as_in_trl(checkpoint, tmp_path):
    trl = {"loss_type": "sigmoid", "use_weighting": True}
    assert compare(tmp_path, checkpoint, {"loss": "wpo(dpo(beta=0.1))"}, trl) == 0.0


def test_length_desensitising_as_an_object_trains_as_in_trl(checkpoint, tmp_path):
    # TRL's metrics are of the desensitised sums too, ours of the whole ones: the loss and the weights are compared.
    mine = ours(tmp_path, checkpoint, loss="ld(dpo(beta=0.1), alpha=0.5)")
    trl = theirs(tmp_path, checkpoint, loss_type="sigmoid", ld_alpha=0.5)
    losses = []
    for trainer in (mine, trl):
        trainer.train()
        losses.append([entry["loss"] for entry in history(trainer) if "loss" in entry])
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == STEPS
    assert all(torch.equal(value, weights(mine)[name]) for name, value in weights(trl).items())
