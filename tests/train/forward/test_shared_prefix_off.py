"""Where the shared-prefix forward is off, and the line that says why."""

from __future__ import annotations

import logging

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DynamoBackend
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import disable_dropout_in_model

from prefalign.train.forward._shared_prefix import install, install_all
from prefalign.train.forward._support import reason_against
from tests.train.packed import make_model

HYBRID = {"num_hidden_layers": 2, "pad_token_id": 0}
SSM = {**HYBRID, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4}
OFF = [
    ("mamba", {}, "recurrent"),
    ("mamba2", {"num_heads": 4, "head_dim": 8, "state_size": 8, "n_groups": 1, "expand": 2}, "recurrent"),
    ("jamba", {**HYBRID, "num_experts": 2, "mamba_d_state": 4, "mamba_dt_rank": 4}, "recurrent"),
    ("bamba", SSM, "recurrent"),
    ("falcon_h1", {**SSM, "mamba_d_ssm": 32, "head_dim": 8}, "recurrent"),
    ("granitemoehybrid", {**SSM, "num_local_experts": 2}, "recurrent"),
    ("lfm2", {}, "recurrent"),
    ("qwen3_next", {**HYBRID, "head_dim": 8, "num_experts": 2}, "recurrent"),
    ("recurrent_gemma", {**HYBRID, "head_dim": 8, "lru_width": 16}, "recurrent"),
    ("rwkv", {"attention_hidden_size": 16}, "recurrent"),
    ("llama4_text", {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 32, "pad_token_id": 0}, "chunks"),
    ("bloom", {"n_head": 2, "n_layer": 2}, "ALiBi"),
    ("mpt", {"d_model": 16, "n_heads": 2, "n_layers": 2}, "ALiBi"),
    ("falcon", {"alibi": True}, "ALiBi"),
    ("opt", {"ffn_dim": 32, "word_embed_proj_dim": 16}, "learned positions"),
    ("llama", {"attention_dropout": 0.1}, "dropout"),
    ("gpt2", {"resid_pdrop": 0.1}, "dropout"),
    ("stablelm", {"hidden_dropout": 0.1}, "dropout"),
    ("mixtral", {"output_router_logits": True}, "auxiliary loss"),
    ("granite", {"sliding_window": 8}, "not tested"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "overrides", "reason"), OFF, ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.filterwarnings("ignore")  # transformers warns of its slow fallbacks for recurrent layers
def test_what_cannot_be_packed_is_off_with_its_reason(family, overrides, reason, caplog):
    model = make_model(family, **overrides)
    forward = model.forward
    with caplog.at_level(logging.WARNING, "prefalign"):
        assert install(model) is None
    assert reason in reason_against(model)
    assert len(caplog.records) == 1
    assert reason in caplog.text
    assert model.forward == forward


def asked(model, answer, accelerator=None):
    return install_all(model, None, accelerator or Accelerator(cpu=True), answer)


def test_by_default_a_tested_family_is_on():
    assert asked(make_model("llama"), None) is not None


def test_by_default_a_family_that_was_not_tested_is_off_and_said_so(caplog):
    with caplog.at_level(logging.WARNING, "prefalign"):
        assert asked(make_model("stablelm"), None) is None
    assert "stablelm was not tested" in caplog.text
    assert len(caplog.records) == 1
    assert asked(make_model("stablelm"), True) is not None


def test_false_is_off_without_a_word(caplog):
    with caplog.at_level(logging.DEBUG, "prefalign"):
        assert asked(make_model("llama"), False) is None
    assert not caplog.records


@pytest.mark.filterwarnings("ignore")  # transformers warns of its slow fallbacks for recurrent layers
def test_asking_for_it_where_it_is_wrong_is_no_error_but_a_line(caplog):
    with caplog.at_level(logging.WARNING, "prefalign"):
        assert asked(make_model("mamba"), True) is None
    assert "recurrent" in caplog.text
    assert len(caplog.records) == 1


def test_adapters():
    base = make_model("llama")
    lora = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert reason_against(lora) is None
    with_dropout = LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=0.1, task_type="CAUSAL_LM")
    assert "dropout" in reason_against(get_peft_model(make_model("llama"), with_dropout))
    prompts = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    assert "prompt-learning" in reason_against(get_peft_model(make_model("llama"), prompts))


def test_an_adapter_that_looks_for_its_invocation_tokens_is_off():
    activated = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", alora_invocation_tokens=[5, 6])
    assert "invocation tokens" in reason_against(get_peft_model(make_model("llama"), activated))


def test_what_counts_is_the_dropout_of_the_layers_and_not_a_number_in_the_configuration():
    """Of GPT-2, whose published configurations say 0.1, `disable_dropout` sets the layers to zero."""
    model = make_model("gpt2", attn_pdrop=0.1, resid_pdrop=0.1, embd_pdrop=0.1)
    assert "dropout" in reason_against(model)
    disable_dropout_in_model(model)
    assert reason_against(model) is None


def test_noise_on_the_embeddings_is_off(caplog):
    with caplog.at_level(logging.WARNING, "prefalign"):
        assert install_all(make_model("llama"), None, Accelerator(cpu=True), None, neftune=5.0) is None
    assert "NEFTune" in caplog.text
    assert len(caplog.records) == 1


def test_a_layer_of_an_unknown_kind_is_off_in_a_known_family():
    model = make_model("llama")
    model.config.layer_types = ["full_attention", "linear_attention"]
    assert "'linear_attention'" in reason_against(model)
    model.config.layer_types = ["full_attention", "chunked_attention"]
    assert "chunks" in reason_against(model)


def test_an_attention_that_is_not_known_is_off():
    model = make_model("llama")
    model.config._attn_implementation = "paged|sdpa"
    assert "'paged|sdpa'" in reason_against(model)


def test_images_are_off():
    config = AutoConfig.for_model("llava")
    config.text_config.num_hidden_layers = 1
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", num_hidden_layers=1))
    model.config = config
    assert "text" in reason_against(model)


def test_a_compiled_model_is_off(caplog):
    fake = type("Fake", (), {})()
    fake.unwrap_model = lambda model: model
    fake.parallelism_config = None
    fake.is_main_process = True
    fake.state = type("State", (), {"dynamo_plugin": type("Plugin", (), {"backend": DynamoBackend.INDUCTOR})})
    with caplog.at_level(logging.WARNING, "prefalign"):
        assert asked(make_model("llama"), None, fake) is None
    assert "compile" in caplog.text


def test_rows_that_are_cut_into_pieces_are_off(caplog):
    fake = type("Fake", (), {})()
    fake.unwrap_model = lambda model: model
    fake.parallelism_config = type("Parallel", (), {"cp_size": 2, "sp_size": 1})
    fake.is_main_process = False
    with caplog.at_level(logging.WARNING, "prefalign"):
        assert asked(make_model("llama"), None, fake) is None
    assert not caplog.records  # the main process says it
