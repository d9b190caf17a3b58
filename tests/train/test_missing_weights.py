"""Weights that a folder lacks are not replaced by random ones."""

from __future__ import annotations

import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from prefalign._errors import CheckpointError
from tests.tiny import save_tiny
from tests.train.runs import ours


def without(file, part):
    """Take the tensors out whose names hold `part`."""
    kept = {name: value for name, value in load_file(file).items() if part not in name}
    assert len(kept) < len(load_file(file))
    save_file(kept, file, metadata={"format": "pt"})


@pytest.mark.parametrize("role", ["policy", "reference"])
def test_a_model_that_lacks_weights_is_refused(role, checkpoint, tmp_path):
    broken = save_tiny(tmp_path / "broken")
    without(broken / "model.safetensors", "layers.1.mlp.up_proj")
    policy, options = (str(broken), {}) if role == "policy" else (checkpoint, {"reference": f"checkpoint('{broken}')"})
    with pytest.raises(CheckpointError, match=r"1 are missing, 'model\.layers\.1\.mlp\.up_proj\.weight' among them"):
        ours(tmp_path, policy, options, loss="dpo(beta=0.1)")


def test_an_adapter_that_lacks_weights_is_refused(tmp_path):
    base = save_tiny(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    without(tmp_path / "adapter" / "adapter_model.safetensors", "layers.1.self_attn.q_proj.lora_B")
    with pytest.raises(CheckpointError, match=r"adapter's weights are not whole.*layers\.1\.self_attn\.q_proj\.lora_B"):
        ours(tmp_path, str(tmp_path / "adapter"), loss="dpo(beta=0.1)")
