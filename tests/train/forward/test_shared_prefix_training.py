"""Trainings with the shared prefix, beside TRL's own trainer: the same numbers to rounding."""

from __future__ import annotations

import logging

import pytest
import torch

from prefalign.train import PrefConfig
from tests.tiny import tiny_pairs
from tests.train.runs import STEPS, history, lora, ours, theirs, weights

# What a step logs is compared relative to its size, or to one where it is smaller.
METRICS = ("loss", "logps/chosen", "logps/rejected", "rewards/margins", "logits/chosen", "entropy", "grad_norm")
SETTINGS = {
    "plain": ({}, {}),
    "accumulation": ({"gradient_accumulation_steps": 2}, {}),
    "checkpointing": ({"gradient_checkpointing": True}, {}),
    "lora": ({}, {"peft_config": lora()}),
    "evaluation": ({"eval_strategy": "steps", "eval_steps": 3}, {"eval_dataset": tiny_pairs(8)}),
}
FAST = ("plain", "lora")


def both(folder, model, trainer=None, *, mine=None, **options):
    a = ours(folder, model, trainer, loss="dpo(beta=0.1)", shared_prefix=None, **(mine or {}), **options)
    b = theirs(folder, model, trainer, loss_type=["sigmoid"], **options)
    for run in (a, b):
        run.train()
        assert run.state.global_step == STEPS
    assert a.shared_prefix.checked
    assert a.shared_prefix.active
    assert 0 < a.shared_prefix.packed_tokens < a.shared_prefix.padded_tokens
    return a, b


def worst(a, b, keys=METRICS):
    """The largest difference of what both logged, relative to its size or to one."""
    gaps = [
        abs(mine[key] - trl[key]) / max(1.0, abs(trl[key]))
        for mine, trl in zip(history(a), history(b), strict=True)
        for key in trl
        if key.removeprefix("eval_") in keys
    ]
    assert len(gaps) >= STEPS * len(keys)
    return max(gaps)


@pytest.mark.parametrize("setting", [pytest.param(s, marks=[pytest.mark.slow] * (s not in FAST)) for s in SETTINGS])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw_torch"])
def test_nine_steps_follow_trls(setting, optimizer, checkpoint, tmp_path):
    options, trainer = SETTINGS[setting]
    a, b = both(tmp_path, checkpoint, trainer, optim=optimizer, **options)
    assert 0 < worst(a, b) < 1e-5


def test_the_weights_after_nine_steps_of_sgd_are_trls(checkpoint, tmp_path):
    a, b = both(tmp_path, checkpoint, optim="sgd")
    theirs_, start = weights(b), ours(tmp_path / "start", checkpoint, loss="dpo(beta=0.1)")
    before = weights(start)
    for name, value in weights(a).items():
        moved = (theirs_[name] - before[name]).norm()
        assert (value - theirs_[name]).norm() <= 1e-4 * moved + 1e-9, name


def test_a_slightly_different_beta_is_further_away(checkpoint, tmp_path):
    a = ours(tmp_path, checkpoint, loss="dpo(beta=0.1001)", shared_prefix=True, optim="sgd")
    b = theirs(tmp_path, checkpoint, loss_type=["sigmoid"], optim="sgd")
    a.train()
    b.train()
    assert worst(a, b) > 1e-5


def test_policy_and_reference_are_checked_once(checkpoint, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "prefalign.train"):
        a = ours(tmp_path, checkpoint, loss="dpo(beta=0.1)", shared_prefix=True)
        a.train()
    assert caplog.text.count("agrees with the plain forward") == 2


REFERENCES = {
    "past": {"reference": "past(keep=2, every=2, choose='latest')"},
    "moving average": {"reference": "moving_average(alpha=0.5, every=2)"},
    "precomputed": {"precompute_ref_log_probs": True},
}


@pytest.mark.parametrize("case", [*REFERENCES, "soup", "past, lora"])
def test_every_reference_goes_through_it(case, checkpoint, other_checkpoint, tmp_path):
    trainer = {"peft_config": lora()} if "lora" in case else {}
    options = REFERENCES.get(case.partition(",")[0]) or {"reference": f"soup({checkpoint!r}, {other_checkpoint!r})"}
    runs = [
        ours(tmp_path / str(on), checkpoint, trainer, loss="dpo(beta=0.1)", optim="sgd", shared_prefix=on, **options)
        for on in (True, False)
    ]
    for run in runs:
        run.train()
    packed, plain = runs
    assert packed.shared_prefix.active
    assert plain.shared_prefix is None
    second = packed.ref_model
    if second is not None:
        assert "prefalign" in second.config._attn_implementation
    gaps = [
        abs(mine[key] - other[key]) / max(1.0, abs(other[key]))
        for mine, other in zip(history(packed), history(plain), strict=True)
        for key in ("loss", "rewards/chosen", "rewards/rejected")
        if key in other
    ]
    assert len(gaps) == 3 * STEPS
    assert packed.shared_prefix.packed_tokens > 0
    assert max(gaps) < 1e-5


def test_bfloat16_autocast_is_no_further_from_float32_than_trls(checkpoint, tmp_path):
    exact = theirs(tmp_path, checkpoint, loss_type=["sigmoid"], max_steps=1, optim="sgd")
    a, b = (
        make(tmp_path, checkpoint, **options, bf16=True, max_steps=1, optim="sgd")
        for make, options in (
            (ours, {"loss": "dpo(beta=0.1)", "shared_prefix": True}),
            (theirs, {"loss_type": ["sigmoid"]}),
        )
    )
    errors = []
    for run in (exact, a, b):
        run.train()
    for run in (a, b):
        errors.append(
            max(abs(history(run)[0][key] - history(exact)[0][key]) for key in ("logps/chosen", "logps/rejected"))
        )
    assert a.shared_prefix.active
    assert errors[0] <= 2 * errors[1] + 0.01


def test_trls_own_configuration_means_trls_own_forward(checkpoint, tmp_path):
    from trl import DPOConfig

    from prefalign.train import PrefTrainer
    from tests.train.runs import COMMON

    args = DPOConfig(str(tmp_path), bf16=False, gradient_checkpointing=False, **COMMON)
    assert PrefTrainer(checkpoint, args=args, train_dataset=tiny_pairs()).shared_prefix is None


def test_the_option_is_read_from_text(tmp_path):
    assert PrefConfig(str(tmp_path), use_cpu=True).shared_prefix is None
    assert PrefConfig(str(tmp_path), use_cpu=True, shared_prefix=True).shared_prefix is True


def test_the_checkpoint_is_one_that_transformers_reads(checkpoint, tmp_path):
    from transformers import AutoModelForCausalLM

    a = ours(tmp_path, checkpoint, loss="dpo(beta=0.1)", shared_prefix=True, max_steps=1)
    a.train()
    a.save_model(str(tmp_path / "saved"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert model.config._attn_implementation == "sdpa"
    for name, value in model.named_parameters():
        assert torch.equal(value, a.model.get_parameter(name))
