"""Where a reference that follows the policy keeps its weights: kinds of layers, adapters and types."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from prefalign.references.moving._weights import AdapterSlots, ModelSlots
from tests.tiny import tiny_model

TOKENS = torch.arange(12).reshape(2, 6)


def randomize(model, adapter):
    for name, parameter in model.named_parameters():
        if f".{adapter}." in name:
            torch.nn.init.normal_(parameter, std=0.3)


def logits(model):
    with torch.no_grad():
        return model(input_ids=TOKENS).logits


def test_a_layer_that_is_stored_transposed_is_followed():
    """GPT-2's Conv1D; a reference that has become the policy computes what the adapter computes."""
    torch.manual_seed(0)
    dense = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)  # 8 inputs, 24 outputs
    model = get_peft_model(dense, config).eval()
    randomize(model, "default")
    slots = AdapterSlots(model)
    (name,) = slots.names
    slots.reference(name).copy_(slots.policy(name))
    with model.disable_adapter():
        start = logits(model)
        with slots.active():
            followed = logits(model)
    torch.testing.assert_close(followed, logits(model), rtol=1e-5, atol=1e-6)
    assert (followed - start).abs().max() > 1e-3


def test_an_adapter_that_is_trained_further_is_followed_from_where_it_was():
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    model = get_peft_model(tiny_model(1), config).eval()
    model.add_adapter("ref", config)
    for adapter in ("default", "ref"):
        randomize(model, adapter)
    slots = AdapterSlots(model)
    for name in slots.names:
        slots.reference(name).copy_(slots.policy(name))
    policy = logits(model)
    model.set_adapter("ref")
    start = logits(model)
    with slots.active():
        followed = logits(model)
    torch.testing.assert_close(followed, policy, rtol=1e-4, atol=1e-5)
    assert (followed - start).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_steps_of_16_bit_weights_add_up(dtype):
    policy, reference = torch.nn.Linear(1, 1, bias=False).to(dtype), torch.nn.Linear(1, 1, bias=False).to(dtype)
    with torch.no_grad():
        policy.weight.fill_(1.5)
        reference.weight.fill_(1.0)
    slots = ModelSlots(policy, reference)
    for _ in range(500):  # a step of 0.0005 is less than half of bfloat16's, 0.0078, and of float16's, 0.00098
        slots.reference("weight").mul_(0.999).add_(slots.policy("weight"), alpha=0.001)
        slots.publish(["weight"])
    expected = torch.tensor(1.5 - 0.5 * 0.999**500).to(dtype)  # 1.1968
    assert abs(reference.weight.item() - expected.item()) <= torch.finfo(dtype).eps
