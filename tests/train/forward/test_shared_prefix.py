"""The shared-prefix forward gives the plain forward's numbers, or is off and says why."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from prefalign.train.forward import _attention, _shared_prefix
from prefalign.train.forward._plan import plan_pairs
from prefalign.train.forward._shared_prefix import Setup, install
from prefalign.train.forward._support import EXACT, WINDOWED
from tests.train.packed import FAMILIES, RAGGED, cosine, make_batch, make_model, run


def loss(output):
    chosen, rejected = output.log_probs.double().sum(1).chunk(2)
    return -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()


# TRL's own head, for every kind of head: tied, soft-capped, with scaled logits, with a bias.
CHUNKED = ("llama", "gemma2", "cohere2", "phi")


@pytest.mark.parametrize(("family", "head"), [*((f, "kept") for f in FAMILIES), *((f, "chunked") for f in CHUNKED)])
def test_a_family_gives_the_plain_forwards_numbers(family, head, monkeypatch):
    monkeypatch.setattr(_shared_prefix, "fits", lambda *_: head == "kept")
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
    assert loss(packed).item() == pytest.approx(loss(plain).item(), rel=1e-5)
    for ours, theirs in zip(packed_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-4)
        assert cosine(ours, theirs) > 0.99999


def test_the_families_that_are_on_by_default_are_those_tested_here():
    assert set(FAMILIES) == EXACT
    assert {f for f, options in FAMILIES.items() if "sliding_window" in options} <= WINDOWED


@pytest.mark.parametrize("family", sorted(WINDOWED - {f for f, o in FAMILIES.items() if "sliding_window" in o}))
def test_the_window_of_other_families_reaches_the_attention(family):
    options = {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 0, "layer_types": None}
    model = make_model(family, **options)
    with torch.no_grad():
        plain = model(**RAGGED, fused_lm_head=True, use_cache=False).log_probs
        install(model)
        packed = model(**RAGGED, fused_lm_head=True, use_cache=False).log_probs
    torch.testing.assert_close(packed, plain, atol=1e-5, rtol=1e-5)
    wide = make_model(family)
    with torch.no_grad():
        assert (wide(**RAGGED, fused_lm_head=True, use_cache=False).log_probs - plain).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_float64_agrees_to_float64s_rounding(family):
    """What differs in float32 is rounding and nothing else. TRL's own head computes in float32: compared are logits."""
    model = make_model(family, dtype=torch.float64)
    with torch.no_grad():
        logits = model(RAGGED["input_ids"], attention_mask=RAGGED["attention_mask"]).logits
        install(model)
        packed = model(**RAGGED, fused_lm_head=True, use_cache=False).log_probs
    labels = RAGGED["labels"][:, 1:]
    expected = logits.log_softmax(-1)[:, :-1].gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    assert packed.dtype == torch.float64
    assert (packed - expected.masked_fill(labels == -100, 0)).abs().max() < 1e-12


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


# Few tokens: common prefixes, of prompts and of completions, and identical completions happen. Prompts may be empty or
# one token; what then has no predictor is not scored.
tokens = st.lists(st.integers(2, 6), min_size=0, max_size=6)
MODELS = {}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(tokens, tokens.filter(bool), tokens.filter(bool)), min_size=1, max_size=4))
def test_any_ragged_batch_gives_the_plain_forwards_numbers(pairs):
    batch = make_batch(pairs)
    if not MODELS:
        MODELS["plain"], MODELS["packed"] = make_model("llama"), make_model("llama")
        MODELS["forward"] = install(MODELS["packed"])
    plain, plain_gradients = run(MODELS["plain"], batch)
    packed, packed_gradients = run(MODELS["packed"], batch)
    assert MODELS["forward"].active
    torch.testing.assert_close(packed.log_probs, plain.log_probs, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(packed_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-4)


def test_the_plan_computes_each_unique_token_once():
    # Pair 1: 7 + 9 tokens, rejected adds 1 after a common "12 13"; pair 2: 3 + 12; pair 3: identical; pair 4: 3 + 1.
    plan = plan_pairs(**RAGGED)
    assert plan.packed_tokens == (16 + 1) + (3 + 12) + (7 + 0) + (3 + 1)
    assert sum(s.stop - s.start + s.shared for s in plan.segments) == (16 + 10) + (3 + 13) + (7 + 7) + (3 + 3)
    # Scored rows: 9 + 1 (two shared), 2 + 12, 4 (all shared), 1 + 1.
    assert len(plan.targets) == 10 + 14 + 4 + 2


def test_the_plan_tells_a_varlen_kernel_which_keys_each_sequence_has():
    # Row: "1 2 3 4" (chosen), "5" (rejected after the shared "1 2"), then the pair "6 7" with nothing left of rejected.
    plan = plan_pairs(**make_batch([([1, 2], [3, 4], [5]), ([6], [7], [7])]))
    lengths = plan.varlen()
    assert plan.input_ids[0][lengths.keys].tolist() == [1, 2, 3, 4, 1, 2, 5, 6, 7]
    assert lengths.queries_up_to.tolist() == [0, 4, 5, 7]
    assert lengths.keys_up_to.tolist() == [0, 4, 7, 9]
    assert (lengths.most_queries, lengths.most_keys) == (4, 4)
    assert lengths.keys_up_to.dtype == torch.int32


def test_left_padding_and_unscored_batches_take_the_plain_forward():
    left = {key: value.flip(1) for key, value in RAGGED.items()}
    assert plan_pairs(**left) is None
    nothing = {**RAGGED, "labels": torch.full_like(RAGGED["labels"], -100)}
    assert plan_pairs(**nothing) is None


def test_a_model_that_was_packed_before_is_packed_once():
    """A second trainer takes the same model object, and its reference is a copy of it."""
    model = make_model("llama")
    plain, _ = run(model, RAGGED)
    install(model)
    forward = install(model)
    again, _ = run(model, RAGGED)
    assert forward.active
    torch.testing.assert_close(again.log_probs, plain.log_probs, atol=1e-5, rtol=1e-5)


def test_the_attention_it_was_given_is_not_saved_with_the_model(tmp_path):
    model = make_model("llama")
    install(model)
    model.save_pretrained(tmp_path)
    assert "prefalign" not in (tmp_path / "config.json").read_text()


def test_an_ordinary_call_is_untouched():
    model = make_model("llama").eval()
    ids = RAGGED["input_ids"][:1]
    before = model(ids).logits
    generated = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    install(model)
    assert torch.equal(model(ids).logits, before)
    assert torch.equal(model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0), generated)


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


def forgets_the_mask(call, query, key, value):
    """An attention whose rejected rests see the whole row before them, chosen answers too."""
    mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()[None, None]
    return call(query, key, value, mask)


def slightly_off(call, query, key, value):
    """An attention that is wrong by a little more than rounding."""
    output, weights = _attention._by_streams(call, query, key, value)
    return output * 1.001, weights


def not_a_number(call, query, key, value):
    output, weights = _attention._by_streams(call, query, key, value)
    return output * torch.nan, weights


def raises(call, query, key, value):
    raise RuntimeError("no kernel for this")


@pytest.mark.parametrize("wrong", [forgets_the_mask, slightly_off, not_a_number, raises])
def test_a_wrong_attention_is_found_on_the_first_batch(wrong, monkeypatch, caplog):
    monkeypatch.setitem(_attention._WAYS, "streams", wrong)
    model = make_model("llama")
    plain, plain_gradients = run(model, RAGGED)
    forward = install(model)
    with caplog.at_level(logging.WARNING):
        output, gradients = run(model, RAGGED)
    assert forward.checked
    assert not forward.active
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert ("no kernel for this" if wrong is raises else "differ by") in caplog.text
    assert torch.equal(output.log_probs, plain.log_probs)
    assert all(torch.equal(a, b) for a, b in zip(gradients, plain_gradients, strict=True))


@pytest.mark.parametrize("later", ["with gradients", "in training mode", "with the adapter"])
def test_every_state_of_the_model_is_checked(later, monkeypatch, caplog):
    """What goes wrong in training alone is not missed because the reference's forward, or an evaluation, was right."""
    model = get_peft_model(make_model("llama"), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    layer = next(module for module in model.modules() if isinstance(module, BaseTunerLayer))
    states = {
        "with gradients": torch.is_grad_enabled,
        "in training mode": lambda: model.training,
        "with the adapter": lambda: not layer.disable_adapters,
    }
    right = _attention._WAYS["streams"]
    monkeypatch.setitem(_attention._WAYS, "streams", lambda *a: (slightly_off if states[later]() else right)(*a))
    forward = install(model)
    model.eval()
    with torch.no_grad(), model.disable_adapter():
        model(**RAGGED, fused_lm_head=True, use_cache=False)
    assert forward.active
    with caplog.at_level(logging.WARNING, "prefalign"):
        model.train(later == "in training mode")
        with torch.set_grad_enabled(later == "with gradients"):
            if later == "with the adapter":
                model(**RAGGED, fused_lm_head=True, use_cache=False)
            else:
                with model.disable_adapter():
                    model(**RAGGED, fused_lm_head=True, use_cache=False)
    assert not forward.active
    assert "differ by" in caplog.text


def test_padding_on_the_left_is_said_once(caplog):
    model = make_model("llama")
    forward = install(model)
    left = {key: value.flip(1) for key, value in RAGGED.items()}
    with caplog.at_level(logging.WARNING, "prefalign"):
        for _ in range(2):
            run(model, left)
    assert len(caplog.records) == 1
    assert "padded on the left" in caplog.text
    assert forward.active
    assert not forward.packed_tokens


def test_the_first_batch_costs_one_forward_more_and_later_ones_none():
    model = make_model("llama")
    install(model)
    calls = []
    model.model.register_forward_pre_hook(lambda *_: calls.append(1))
    run(model, RAGGED)
    assert len(calls) == 2
    run(model, RAGGED)
    assert len(calls) == 3


def sharded(monkeypatch, others_failed):
    """A model whose forward passes are those of all processes together; what the others say."""
    said = []
    monkeypatch.setattr(_shared_prefix, "_any_process", lambda failed, device: said.append(failed) or others_failed)
    model = make_model("llama")
    plain, _ = run(model, RAGGED)
    forward = install(model, setup=Setup(sharded=True))
    calls = []
    model.model.register_forward_pre_hook(lambda *_: calls.append(1))
    return model, plain, forward, calls, said


def test_where_weights_are_sharded_a_process_that_cannot_pack_goes_along(monkeypatch):
    model, plain, forward, calls, said = sharded(monkeypatch, others_failed=False)
    left = {key: value.flip(1) for key, value in RAGGED.items()}
    run(model, left)
    assert (calls, said) == ([1, 1], [False])  # as many forward passes as where it is compared
    packed, _ = run(model, RAGGED)
    assert forward.active
    assert forward.packed_tokens > 0
    torch.testing.assert_close(packed.log_probs, plain.log_probs, atol=1e-5, rtol=1e-5)


def test_where_weights_are_sharded_all_processes_fall_back_together(monkeypatch, caplog):
    model, plain, forward, calls, said = sharded(monkeypatch, others_failed=True)
    output, _ = run(model, RAGGED)
    assert said == [False]
    assert not forward.active
    assert "another process" in caplog.text
    assert len(calls) == 3
    assert torch.equal(output.log_probs, plain.log_probs)


def test_attention_functions_of_others_are_left_alone():
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    install(make_model("llama"))
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
