"""The reference "initial" is the policy's start, whatever the adapter and its name, and stays there."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from peft import (
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoraConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from transformers import AutoModelForCausalLM, set_seed

from prefalign._errors import CheckpointError, ConfigError
from tests.train.runs import history, ours

pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),
]
LM = {"task_type": "CAUSAL_LM"}
Q = {"target_modules": ["q_proj"], **LM}
TRAINED = {
    "lora": LoraConfig(r=4, init_lora_weights=False, **Q),
    "embeddings": LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"], init_lora_weights=False, **LM),
    "bias": LoraConfig(r=4, bias="lora_only", init_lora_weights=False, **Q),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], **LM),
    "vera": VeraConfig(r=4, **Q),
    "loha": LoHaConfig(r=4, **Q),
    "norms": LNTuningConfig(target_modules=["input_layernorm"], **LM),
    "saved module": LoraConfig(r=4, modules_to_save=["lm_head"], init_lora_weights=False, **Q),
}
FRESH = {
    "pissa": LoraConfig(r=4, init_lora_weights="pissa", **Q),
    "olora": LoraConfig(r=4, init_lora_weights="olora", **Q),
    "bias": LoraConfig(r=4, bias="lora_only", **Q),
}


def load(checkpoint):
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)


def trained_before(checkpoint, config, name="default"):
    """A model with an adapter whose parameters are no longer those of a fresh one."""
    set_seed(5)
    model = get_peft_model(load(checkpoint), config, adapter_name=name)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def sums_under(model, trainer):
    """Summed log-probabilities of the first rows, by transformers' own forward, in nats."""
    rows = [trainer.train_dataset[number] for number in range(4)]
    batch = trainer.data_collator(rows)
    with torch.no_grad():
        logits = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    tokens = logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    return (tokens * batch["completion_mask"][:, 1:]).sum(dim=1), batch


def assert_kept(start, trainer):
    """The reference gives the start's log-probabilities before and after steps that change the policy."""
    expected, batch = sums_under(start, trainer)
    assert_gives(expected, trainer.reference, batch)
    trainer.train()
    assert_gives(expected, trainer.reference, batch)
    assert history(trainer)[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    changed = sums_under(trainer.accelerator.unwrap_model(trainer.model), trainer)[0]
    assert (changed - expected).abs().max() > 1e-3


def assert_gives(expected, reference, batch):
    found = reference.logps(batch)
    torch.testing.assert_close(torch.cat([found.chosen, found.rejected]), expected, atol=2e-4, rtol=1e-5)


STEEP = {"loss": "dpo(beta=0.1)", "max_steps": 3, "learning_rate": 0.3}


@pytest.mark.parametrize("name", ["default", "policy"])
@pytest.mark.parametrize("config", TRAINED.values(), ids=list(TRAINED))
def test_an_adapter_that_is_trained_further_is_compared_with_its_start(config, name, checkpoint, tmp_path):
    model = trained_before(checkpoint, config, name)
    start = copy.deepcopy(model)
    assert_kept(start, ours(tmp_path, model, **STEEP))


@pytest.mark.parametrize("config", FRESH.values(), ids=list(FRESH))
@pytest.mark.parametrize("named", [True, False], ids=["path", "model"])
def test_a_fresh_adapter_that_changes_the_base_is_compared_with_the_base_as_it_was(config, named, checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint if named else load(checkpoint), {"peft_config": config}, **STEEP)
    assert_kept(load(checkpoint), trainer)


@pytest.mark.parametrize(
    ("config", "reference", "said"),
    [
        (LoraConfig(r=4, init_lora_weights=False, **Q), "initial", "does not start as its base model"),
        (
            LoraConfig(r=4, init_lora_weights="loftq", loftq_config={"loftq_bits": 4}, **Q),
            "initial",
            "init_lora_weights='loftq'",
        ),
        (PromptTuningConfig(num_virtual_tokens=4, **LM), "initial", "PromptTuningConfig does not start"),
        (FRESH["pissa"], "moving_average(alpha=0.5, every=1)", "keeps what an adapter adds"),
        (FRESH["bias"], "moving_average(alpha=0.5, every=1)", "a trained bias"),
    ],
)
def test_a_start_that_cannot_be_kept_is_refused_before_weights_load(
    config, reference, said, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *_, **__: pytest.fail("weights loaded"))
    with pytest.raises(ConfigError, match=said):
        ours(tmp_path, checkpoint, {"peft_config": config, "reference": reference}, loss="dpo(beta=0.1)")


def test_a_reference_that_is_not_the_start_stops_the_first_step(checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, {"peft_config": LoraConfig(r=4, **Q)}, **STEEP)
    with torch.no_grad():
        for name, value in trainer.model.named_parameters():
            if "lora_B" in name:
                value.normal_()
    with pytest.raises(CheckpointError, match=r"must be the policy as training starts.*\(LORA\)"):
        trainer.train()


def test_the_past_of_an_adapter_with_biases_is_its_own(checkpoint, tmp_path):
    # Biases are put in the place of the policy's like all that is trained: no second model is needed.
    trainer = ours(tmp_path, checkpoint, {"peft_config": FRESH["bias"], "reference": "past(keep=2, every=2)"}, **STEEP)
    trainer.train()
    assert trainer.ref_model is None
    assert history(trainer)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
