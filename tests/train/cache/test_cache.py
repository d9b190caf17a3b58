"""Training with a cached reference is training with the reference, whose forward passes are made once, if at all."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaModel, PreTrainedModel

from prefalign._errors import ConfigError
from prefalign.references import cache_folder, stores_in
from prefalign.sweep import Plan, Recipe, make_arms
from prefalign.train import PrefConfig
from tests.tiny import tiny_pairs, tiny_tokenizer
from tests.train.runs import largest_difference, lora, ours, weights

ROUNDING = 1e-5  # rows are computed in other batches than in training


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("PREFALIGN_CACHE", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def counts(monkeypatch):
    """How often weights were loaded, how often a backbone ran, and over how many rows."""
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


def cached(tmp_path, model, trainer=None, **options):
    return ours(
        tmp_path, model, trainer, **{"reference_cache": "on", "loss": "dpo(beta=0.1)", "max_steps": 3, **options}
    )


def batch_of(trainer):
    """The reference's part of the first batch: summed log-probabilities, and those of every token."""
    inputs = dict(next(iter(trainer.get_train_dataloader())))
    tokens = trainer._put_reference(inputs)
    return inputs["ref_chosen_logps"], inputs["ref_rejected_logps"], tokens


def assert_same_reference(mine, plain):
    for ours_, theirs in zip(batch_of(mine), batch_of(plain), strict=True):
        torch.testing.assert_close(ours_, theirs, atol=ROUNDING, rtol=ROUNDING)


@pytest.mark.parametrize(
    ("options", "trainer"),
    [
        ({"loss": "dpo(beta=0.1) + 0.1*sft(reduction='sum')"}, {"eval_dataset": tiny_pairs(8)}),
        pytest.param({"loss": "ipo(beta=0.1)"}, {"peft_config": lora()}, marks=pytest.mark.slow),
        pytest.param({"loss": None, "loss_type": ["sigmoid"], "ld_alpha": 0.5}, {}, marks=pytest.mark.slow),
    ],
    ids=["full", "lora", "ld_alpha"],
)
def test_a_run_with_the_cache_is_the_run_without(options, trainer, checkpoint, tmp_path):
    options = {"max_steps": 8, **options}
    if "eval_dataset" in trainer:
        options |= {"eval_strategy": "steps", "eval_steps": 4}
    runs = []
    for cache in ("off", "on", "on"):
        runs.append(ours(tmp_path, checkpoint, trainer, reference_cache=cache, **options))
        runs[-1].train()
    plain, first, second = runs
    assert largest_difference(first, plain) < ROUNDING
    assert largest_difference(second, first) == 0.0
    assert first.reference_cache.computed == (32 if "eval_dataset" in trainer else 24)
    assert second.reference_cache.computed == 0
    assert second.reference_cache.spread < ROUNDING
    assert "kl" in first.state.log_history[1]


def test_the_reference_is_neither_loaded_nor_run_again(checkpoint, tmp_path, counts):
    first = cached(tmp_path, checkpoint)
    assert counts["loads"] == 1  # the policy, which is its own reference before it is trained
    assert first.ref_model is None
    counts.clear()
    second = cached(tmp_path, checkpoint)
    assert counts == {"loads": 1, "forwards": 2}  # a sample of 8 pairs, in batches of 4
    counts.clear()
    second.train()
    assert counts == {"forwards": 3}


@pytest.mark.slow
def test_nothing_but_new_texts_is_computed_again(checkpoint, tmp_path):
    pairs = tiny_pairs(12)
    assert cached(tmp_path, checkpoint, {"train_dataset": pairs}).reference_cache.computed == 12
    flipped = pairs.shuffle(seed=1).select(range(9)).rename_columns({"chosen": "rejected", "rejected": "chosen"})
    for dataset, options in (
        (flipped, {}),
        (pairs, {"learning_rate": 1e-5, "loss": "slic(beta=0.5)", "seed": 3}),
        (pairs, {"loss": None, "loss_type": ["ipo"], "beta": 0.4, "ld_alpha": 0.2, "per_device_train_batch_size": 2}),
        (pairs, {"pad_to_multiple_of": 8, "loss": "dpo(beta=0.1, mean=True)"}),
    ):
        trainer = cached(tmp_path, checkpoint, {"train_dataset": dataset}, **options)
        assert trainer.reference_cache.computed == 0
        assert_same_reference(
            trainer, cached(tmp_path, checkpoint, {"train_dataset": dataset}, **options, reference_cache="off")
        )
    more = cached(tmp_path, checkpoint, {"train_dataset": tiny_pairs(14)})
    assert more.reference_cache.computed == 2


@pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode is deprecated:FutureWarning")
def test_other_weights_precision_or_truncation_are_computed(checkpoint, other_checkpoint, tmp_path, folder):
    assert cached(tmp_path, checkpoint).reference_cache.computed == 24
    assert cached(tmp_path, other_checkpoint).reference_cache.computed == 24
    assert cached(tmp_path, checkpoint, bf16=True).reference_cache.computed == 24
    assert len(stores_in(folder)) == 3
    for mode in ("keep_start", "keep_end"):
        cut = cached(tmp_path, checkpoint, max_length=16, truncation_mode=mode)
        assert 0 < cut.reference_cache.computed < 24  # short texts are not cut
        plain = cached(tmp_path, checkpoint, max_length=16, truncation_mode=mode, reference_cache="off")
        assert_same_reference(cut, plain)
    assert len(stores_in(folder)) == 3
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3, 5] += 1e-3  # one number of the model
    changed = cached(tmp_path, model, {"processing_class": tiny_tokenizer()})
    assert changed.reference_cache.computed == 24
    wider = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, rms_norm_eps=1e-3)
    assert cached(tmp_path, wider, {"processing_class": tiny_tokenizer()}).reference_cache.computed == 24


@pytest.mark.slow
def test_one_reference_has_one_key_however_it_is_held(checkpoint, tmp_path, folder):
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    assert cached(tmp_path, checkpoint).reference_cache.computed == 24
    for policy, trainer in (
        (checkpoint, {"peft_config": lora()}),
        (checkpoint, {"reference": f"checkpoint({checkpoint!r})"}),
        (checkpoint, {"reference": f"checkpoint({checkpoint!r})", "peft_config": lora()}),
        (model, {"processing_class": tiny_tokenizer()}),
        (checkpoint, {"ref_model": model}),
    ):
        assert cached(tmp_path, policy, trainer).reference_cache.computed == 0
    assert len(stores_in(folder)) == 1


@pytest.mark.parametrize("policy", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_soup_is_cached_and_let_go(policy, checkpoint, other_checkpoint, tmp_path):
    reference = f"soup({checkpoint!r}, {other_checkpoint!r}, weights=[0.25, 0.75])"
    trainer = {"reference": reference} | ({"peft_config": lora()} if policy == "lora" else {})
    mine = cached(tmp_path, checkpoint, trainer)
    assert mine.ref_model is None
    assert_same_reference(mine, cached(tmp_path, checkpoint, trainer, reference_cache="off"))
    mine.train()
    assert cached(tmp_path, checkpoint, trainer).reference_cache.computed == 0


def test_an_adapter_that_is_trained_further_has_its_own_key(checkpoint, tmp_path, folder):
    from peft import PeftModel

    first = cached(tmp_path, checkpoint, {"peft_config": lora()})
    first.train()
    first.save_model(str(tmp_path / "adapter"))

    def further(cache):
        base = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        model = PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True)
        return cached(tmp_path, model, {"processing_class": tiny_tokenizer()}, reference_cache=cache)

    mine = further("on")
    assert (len(stores_in(folder)), mine.reference_cache.computed) == (2, 24)
    assert_same_reference(mine, further("off"))
    assert further("on").reference_cache.computed == 0


@pytest.mark.slow
def test_texts_that_are_not_in_the_cache_bring_the_reference_back(checkpoint, tmp_path):
    unseen = tiny_pairs(30).select(range(24, 30))
    mine, plain = (
        cached(tmp_path, checkpoint, {"eval_dataset": tiny_pairs(4)}, reference_cache=cache) for cache in ("on", "off")
    )
    results = []
    for trainer in (mine, plain):
        trainer.train()
        dataset = trainer._prepare_dataset(unseen, trainer.processing_class, trainer.args, "unseen")
        results.append(trainer.evaluate(dataset))
    assert mine.ref_model is not None
    assert results[0]["eval_loss"] == pytest.approx(results[1]["eval_loss"], abs=ROUNDING)
    assert results[0]["eval_rewards/margins"] == pytest.approx(results[1]["eval_rewards/margins"], abs=ROUNDING)


def test_a_stream_is_cached_as_it_is_met(checkpoint, tmp_path, counts):
    stream = tiny_pairs(8).to_iterable_dataset()
    options = {"train_dataset": stream}
    runs = {}
    for name, cache in (("plain", "off"), ("first", "on"), ("second", "auto")):
        runs[name] = cached(tmp_path, checkpoint, options, reference_cache=cache, max_steps=4)
        counts.clear()
        runs[name].train()
        counts[name] = counts["forwards"]
    # Four steps of four pairs; the stream repeats after two. One more forward checks the first batch that was known.
    assert (counts["second"], runs["first"].reference_cache.computed) == (5, 8)
    assert runs["second"].reference_cache.computed == 0
    assert largest_difference(runs["first"], runs["plain"]) < ROUNDING
    assert largest_difference(runs["second"], runs["plain"]) < ROUNDING


@pytest.mark.slow
def test_a_resumed_run_holds_the_cached_reference_against_the_saved_one(checkpoint, other_checkpoint, tmp_path):
    from prefalign._errors import CheckpointError

    saving = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    whole = cached(tmp_path, checkpoint, **saving)
    whole.train()
    folder = str(tmp_path / "ours" / "checkpoint-3")
    resumed = cached(tmp_path, checkpoint, **saving)
    resumed.train(folder)
    assert all(torch.equal(weights(resumed)[name], value) for name, value in weights(whole).items())
    with pytest.raises(CheckpointError, match="weights differ"):
        cached(tmp_path, other_checkpoint, **saving).train(folder)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"max_steps": 6}, "one epoch"),
        ({"max_steps": 7, "precompute_ref_log_probs": True}, "precompute_ref_log_probs"),
        ({"max_steps": 7, "reference": "moving_average()"}, "changes during training"),
        ({"max_steps": 7, "loss": "simpo(beta=2.0, gamma=1.0)"}, "no reference"),
        ({"max_steps": 7}, None),
    ],
)
def test_auto_says_what_it_decides(options, why, checkpoint, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    trainer = cached(tmp_path, checkpoint, reference_cache="auto", **options)
    said = capsys.readouterr().out
    if why is None:
        assert re.search(r"Reference cache: on, 24 pairs, 24 of them computed now, in .*; cached and fresh", said)
    else:
        assert trainer.reference_cache is None
        assert re.search(f"Reference cache: off, .*{why}", caplog.text)
        assert "Reference cache" not in said


@pytest.mark.slow
def test_auto_uses_what_an_earlier_run_has_left(checkpoint, other_checkpoint, tmp_path, counts):
    cached(tmp_path, checkpoint, {"train_dataset": tiny_pairs(20)})
    counts.clear()
    trainer = cached(tmp_path, checkpoint, reference_cache="auto", max_steps=6)  # one epoch of 24 pairs
    assert trainer.reference_cache.computed == 4
    assert trainer.ref_model is None
    # Of another reference nothing is there: it is loaded after all, and the run is the one without a cache.
    late = cached(tmp_path, other_checkpoint, reference_cache="auto")
    assert late.reference_cache is None
    assert late.ref_model is not None
    late.train()
    plain = cached(tmp_path, other_checkpoint, reference_cache="off")
    plain.train()
    assert largest_difference(late, plain) == 0.0


def test_the_runs_of_a_sweep_share_one_pass(checkpoint, tmp_path, folder):
    losses = ["dpo(beta=0.1)", "simpo(beta=2.0, gamma=1.0)"]
    recipe = Recipe("logistic", None, True, True)
    arms = make_arms(None, losses, top=1, by=(), near=None, sft=[0.0], recipe=recipe)
    base = {"dataset_name": "pairs.jsonl", "reference_cache": str(folder / "mine")}
    plan = Plan("", {"dataset_name": "pairs.jsonl"}, arms, (0,), 0, {})
    assert [plan.config(job, tmp_path)["reference_cache"] for job in plan.jobs] == ["shared"] * 2
    named = Plan("", base, arms, (0,), 0, {})
    choices = [named.config(job, tmp_path)["reference_cache"] for job in named.jobs]
    assert choices == [str(folder / "mine"), "shared"]  # SimPO has no reference: a folder would be an error
    # One epoch each.
    shared = {"reference_cache": "shared", "max_steps": 6}
    computed = [cached(tmp_path, checkpoint, loss=loss, seed=seed, **shared).reference_cache.computed
                for loss in ("dpo(beta=0.1)", "ipo(beta=0.2)") for seed in (0, 1)]  # fmt: skip
    assert computed == [24, 0, 0, 0]
    assert cached(tmp_path, checkpoint, **{**shared, "loss": "simpo(beta=2.0, gamma=1.0)"}).reference_cache is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precompute_ref_log_probs": True}, "no effect: `precompute_ref_log_probs=True`"),
        ({"reference": "moving_average()"}, "no effect: the reference .* changes"),
        ({"loss": "simpo(beta=2.0, gamma=1.0)"}, "no effect: the loss has no reference"),
        ({"reference_cache": "FILE"}, "no effect: its folder .* cannot be made"),
    ],
)
def test_what_was_asked_for_and_cannot_be_is_an_error(options, message, checkpoint, tmp_path, counts):
    (tmp_path / "file").touch()
    options = {key: value.replace("FILE", str(tmp_path / "file")) if value is not True else value
               for key, value in options.items()}  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        cached(tmp_path, checkpoint, **options)
    assert counts["loads"] == 0


@pytest.mark.parametrize("choice", ["", " ", "a\0b", None, 3])
def test_a_choice_that_is_none_is_refused(choice):
    with pytest.raises(ConfigError, match="reference_cache"):
        PrefConfig("run", reference_cache=choice, use_cpu=True)


def test_yamls_truth_values_are_words():
    choices = [PrefConfig("run", reference_cache=value, use_cpu=True).reference_cache for value in (True, False)]
    assert choices == ["on", "off"]


def test_a_folder_may_be_named(checkpoint, tmp_path, folder):
    trainer = cached(tmp_path, checkpoint, reference_cache=str(tmp_path / "mine"))
    assert len(stores_in(tmp_path / "mine")) == 1
    assert stores_in(folder) == []
    assert list(itertools.islice(trainer.reference_cache.store.folder.glob("*.safetensors"), 2))
