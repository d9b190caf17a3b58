"""The shared-prefix forward gives the plain forward's numbers, or is off and says why."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from prefalign.train._packing import plan_pairs
from prefalign.train._shared_prefix import install, reason_against

OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")
WINDOW = {"sliding_window": 8}
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {**WINDOW, "head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma2": {**WINDOW, "head_dim": 8},
    "gemma3_text": {**WINDOW, "head_dim": 8},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "resid_pdrop": 0, "attn_pdrop": 0, "embd_pdrop": 0},
    "phi": {"resid_pdrop": 0, "embd_pdrop": 0},
    "phi3": {**WINDOW, "pad_token_id": 0, "resid_pdrop": 0},
    "olmo2": {},
    "olmo3": WINDOW,
    "cohere2": {**WINDOW, "head_dim": 8},
    "gpt_oss": {**WINDOW, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    "mixtral": {"num_local_experts": 2},
}


def make_model(family: str, **overrides) -> torch.nn.Module:
    settings = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
        "bos_token_id": None,
        "eos_token_id": 1,
    }
    config = AutoConfig.for_model(family, **{**settings, **FAMILIES.get(family, {}), **overrides})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.dim() > 1:  # the default start is so small that a wrong mask would hardly show
            torch.nn.init.normal_(parameter, std=0.3)
    add_fused_lm_head(model, outputs=OUTPUTS)
    return model


def make_batch(pairs: list[tuple[list[int], list[int], list[int]]]) -> dict[str, torch.Tensor]:
    """TRL's layout of (prompt, chosen, rejected) token lists: chosen rows first, padded on the right."""
    rows = [(p, c) for p, c, _ in pairs] + [(p, r) for p, _, r in pairs]
    width = max(len(p) + len(c) for p, c in rows)
    batch = {
        "input_ids": torch.zeros(len(rows), width, dtype=torch.long),
        "attention_mask": torch.zeros(len(rows), width, dtype=torch.long),
        "labels": torch.full((len(rows), width), -100),
    }
    for i, (prompt, completion) in enumerate(rows):
        ids = torch.tensor(prompt + completion)
        batch["input_ids"][i, : len(ids)] = ids
        batch["attention_mask"][i, : len(ids)] = 1
        batch["labels"][i, len(prompt) : len(ids)] = ids[len(prompt) :]
    return batch


RAGGED = make_batch(
    [
        ([5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17, 18, 19, 20], [12, 13, 21]),
        ([5], [6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
        ([30, 31, 32], [33, 34, 35, 36], [33, 34, 35, 36]),
        ([40, 41], [42], [43]),
    ]
)


def run(model, batch):
    model.zero_grad(set_to_none=True)
    output = model(**batch, fused_lm_head=True, use_cache=False)
    chosen, rejected = output.log_probs.sum(1).chunk(2)
    (-torch.nn.functional.logsigmoid(chosen - rejected).sum() + 0.01 * output.entropy.sum()).backward()
    return output, [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_the_plain_forwards_numbers(family):
    model = make_model(family)
    plain, plain_gradients = run(model, RAGGED)
    forward = install(model)
    packed, packed_gradients = run(model, RAGGED)
    assert forward.active
    assert 0 < forward.packed_tokens < forward.padded_tokens
    assert len(packed_gradients) == len(plain_gradients)
    for field in ("log_probs", "entropy", "mean_logits"):
        torch.testing.assert_close(getattr(packed, field), getattr(plain, field), atol=1e-5, rtol=1e-5)
    assert torch.equal(packed.is_top1, plain.is_top1)
    for ours, theirs in zip(packed_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("base", ["sdpa", "eager"])
def test_gradient_checkpointing_recomputes_with_the_plan(base):
    model = make_model("llama", attn_implementation=base)
    _, plain = run(model, RAGGED)
    forward = install(model)
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    _, packed = run(model, RAGGED)
    assert forward.active
    for ours, theirs in zip(packed, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-4)


tokens = st.lists(st.integers(2, 6), min_size=0, max_size=6)  # few tokens: common prefixes happen


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(tokens, tokens.filter(bool), tokens.filter(bool)), min_size=1, max_size=4))
def test_any_ragged_batch_gives_the_plain_forwards_log_probabilities(pairs):
    batch = make_batch(pairs)
    model = make_model("llama")
    with torch.no_grad():
        plain = model(**batch, fused_lm_head=True, use_cache=False).log_probs
        forward = install(model)
        packed = model(**batch, fused_lm_head=True, use_cache=False).log_probs
    assert forward.active
    torch.testing.assert_close(packed, plain, atol=1e-5, rtol=1e-5)


def test_the_plan_computes_each_unique_token_once():
    # Pair 1: 7 + 9 tokens, rejected adds 1 after a common "12 13"; pair 2: 3 + 12; pair 3: identical; pair 4: 3 + 1.
    plan = plan_pairs(**RAGGED)
    assert plan.packed_tokens == (16 + 1) + (3 + 12) + (7 + 0) + (3 + 1)
    assert plan.logical_tokens == (16 + 10) + (3 + 13) + (7 + 7) + (3 + 3)
    # Scored rows: 9 + 1 (two shared), 2 + 12, 4 (all shared), 1 + 1.
    assert len(plan.targets) == 10 + 14 + 4 + 2


def test_left_padding_and_unscored_batches_take_the_plain_forward():
    left = {key: value.flip(1) for key, value in RAGGED.items()}
    assert plan_pairs(**left) is None
    nothing = {**RAGGED, "labels": torch.full_like(RAGGED["labels"], -100)}
    assert plan_pairs(**nothing) is None


@pytest.mark.parametrize(
    ("family", "overrides", "reason"),
    [
        ("mamba", {}, "recurrent"),
        ("lfm2", {}, "recurrent"),
        ("bloom", {}, "ALiBi"),
        ("opt", {}, "learned positions"),
        ("llama", {"attention_dropout": 0.1}, "dropout"),
        ("starcoder2", {"sliding_window": 8, "residual_dropout": 0, "embedding_dropout": 0}, "not tested"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # transformers warns of its slow fallbacks for recurrent layers
def test_what_cannot_be_packed_is_refused_with_its_reason(family, overrides, reason, caplog):
    model = make_model(family, **overrides)
    with caplog.at_level(logging.WARNING):
        assert install(model) is None
    assert reason in reason_against(model)
    assert len(caplog.records) == 1
    assert reason in caplog.text


def test_a_mismatch_turns_packing_off_loudly(caplog):
    # StableLM's attention does not receive keyword arguments, so the plan never reaches it.
    model = make_model("stablelm")
    plain, _ = run(model, RAGGED)
    with caplog.at_level(logging.WARNING):
        forward = install(model)
        output, _ = run(model, RAGGED)
    assert not forward.active
    assert "differ by" in caplog.text
    assert torch.equal(output.log_probs, plain.log_probs)


def test_an_ordinary_call_is_untouched():
    model = make_model("llama").eval()
    ids = RAGGED["input_ids"][:1]
    before = model(ids).logits
    generated = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    install(model)
    assert torch.equal(model(ids).logits, before)
    assert torch.equal(model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0), generated)
