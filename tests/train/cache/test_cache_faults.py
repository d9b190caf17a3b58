"""A reference cache that is interrupted, damaged, read-only or another reference's."""

from __future__ import annotations

import os

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from prefalign._errors import CheckpointError, ConfigError
from prefalign.cli import main
from prefalign.references import LogpStore, cache_folder, open_shard
from prefalign.train import PrefTrainer
from prefalign.train.cache import _cache
from prefalign.train.checkpoints import _start
from tests.tiny import tiny_pairs, tiny_tokenizer
from tests.train.runs import largest_difference, lora, ours


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("PREFALIGN_CACHE", str(tmp_path / "cache"))
    return cache_folder()


def cached(tmp_path, model, trainer=None, **options):
    return ours(
        tmp_path, model, trainer, **{"reference_cache": "on", "loss": "dpo(beta=0.1)", "max_steps": 3, **options}
    )


def shards(folder):
    return sorted(folder.glob("*/*.safetensors"))


def shift(folder, by):
    """Change every value, with checksums that fit: what another reference would have left there."""
    for path in shards(folder):
        shard = open_shard(path)
        rows = {shard.keys[n].tobytes(): shard.row(n) + by for n in range(len(shard.ends))}
        path.unlink()
        made = LogpStore(path.parent)
        for key, values in rows.items():
            made.add(key, values)
        made.flush()


def test_the_loss_is_that_of_the_cached_values(checkpoint, tmp_path, folder, monkeypatch):
    """A negative control: other values in the cache make another run."""

    def reference(trainer):
        inputs = dict(next(iter(trainer.get_train_dataloader())))
        trainer._put_reference(inputs)
        return inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]

    trainer = cached(tmp_path, checkpoint)
    before = reference(trainer)
    scored = next(iter(trainer.get_train_dataloader()))["completion_mask"][:, 1:].sum(1).chunk(2)
    shift(folder, -0.5)
    monkeypatch.setattr(_start, "ROUNDING", 1.0)
    after = reference(cached(tmp_path, checkpoint))
    for place in (0, 1):
        torch.testing.assert_close(before[place] - after[place], 0.5 * scored[place])


def test_another_references_values_are_refused(checkpoint, tmp_path, folder):
    cached(tmp_path, checkpoint)
    shift(folder, 0.01)
    with pytest.raises(CheckpointError, match=r"differ by 0\.01 nats .*prefalign cache clear [0-9a-f]{32}"):
        cached(tmp_path, checkpoint)


@pytest.mark.parametrize("choice", ["on", "auto"])
def test_another_references_values_are_refused_in_a_stream(choice, checkpoint, tmp_path, folder):
    stream = tiny_pairs(8).to_iterable_dataset()
    cached(tmp_path, checkpoint, {"train_dataset": stream}).train()
    again = cached(tmp_path, checkpoint, {"train_dataset": stream}, reference_cache=choice)
    again.train()
    shift(folder, 0.01)
    other = cached(tmp_path, checkpoint, {"train_dataset": stream}, reference_cache=choice)
    with pytest.raises(CheckpointError, match=r"differ by 0\.01 nats"):
        other.train()


def test_a_float64_policy_is_checked_as_closely_as_a_float32_one(checkpoint, tmp_path, folder):
    def double():
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float64)
        return cached(tmp_path, model, {"processing_class": tiny_tokenizer()})

    double()
    shift(folder, 0.01)
    with pytest.raises(CheckpointError, match=r"differ by 0\.01 nats"):
        double()


def test_dropout_of_attention_under_an_adapter_is_a_reason_against(checkpoint, tmp_path, caplog):
    model = AutoModelForCausalLM.from_pretrained(checkpoint, attention_dropout=0.3).train()
    with pytest.raises(ConfigError, match="dropout makes its values random"):
        cached(tmp_path, model, {"peft_config": lora(), "processing_class": tiny_tokenizer()})


def test_a_shard_of_another_reference_holds_no_row_here(checkpoint, other_checkpoint, tmp_path, folder, caplog, capsys):
    cached(tmp_path, checkpoint)
    (mine,) = shards(folder)
    cached(tmp_path, other_checkpoint)
    (theirs,) = set(shards(folder)) - {mine}
    mine.unlink()
    foreign = mine.parent / theirs.name
    foreign.write_bytes(theirs.read_bytes())
    assert main(["cache", "verify"]) == 1
    assert foreign.name in capsys.readouterr().out
    again = cached(tmp_path, checkpoint)
    assert again.reference_cache.computed == 24
    assert "another reference's" in caplog.text


def test_a_damaged_shard_is_set_aside_and_computed_again(checkpoint, tmp_path, folder, caplog):
    cached(tmp_path, checkpoint, {"train_dataset": tiny_pairs(20)})
    cached(tmp_path, checkpoint)
    first, second = sorted(shards(folder), key=lambda path: path.stat().st_size)
    content = bytearray(second.read_bytes())
    content[open_shard(second).logps.start] ^= 1  # the last bit of the first value
    second.write_bytes(content)
    again = cached(tmp_path, checkpoint)
    assert again.reference_cache.computed == 20
    assert "does not match its checksum" in caplog.text
    assert first.exists()
    assert second.with_name(second.name + ".damaged").read_bytes() == bytes(content)
    assert cached(tmp_path, checkpoint).reference_cache.computed == 0


def test_an_interrupted_computation_goes_on(checkpoint, tmp_path, folder, monkeypatch):
    monkeypatch.setattr(_cache, "_LEAST_TOKENS", 1)  # batches of eight pairs
    calls = []
    original = PrefTrainer.reference_logps

    def interrupted(self, model, inputs, **options):
        calls.append(len(inputs["input_ids"]) // 2)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, model, inputs, **options)

    monkeypatch.setattr(PrefTrainer, "reference_logps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, checkpoint)
    done = sum(calls[:2])
    assert 0 < done < 24
    monkeypatch.setattr(PrefTrainer, "reference_logps", original)
    assert cached(tmp_path, checkpoint).reference_cache.computed == 24 - done


def test_a_read_only_cache_is_read(checkpoint, tmp_path, folder, monkeypatch, caplog):
    caplog.set_level("INFO")
    cached(tmp_path, checkpoint)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **k: access(path, mode) and str(folder) not in str(path))
    files = sorted(folder.rglob("*"))
    trainer = cached(tmp_path, checkpoint, reference_cache="auto")
    assert trainer.reference_cache.computed == 0
    assert sorted(folder.rglob("*")) == files
    more = {"train_dataset": tiny_pairs(30)}
    with pytest.raises(ConfigError, match=r"6 pairs are missing, and .* may not be written to"):
        cached(tmp_path, checkpoint, more)
    assert cached(tmp_path, checkpoint, more, reference_cache="auto", max_steps=9).reference_cache is None
    assert "Reference cache: off, 6 pairs are missing" in caplog.text


@pytest.mark.parametrize(
    "options",
    [{"shared_prefix": True}, pytest.param({"tokens_per_batch": 128}, marks=pytest.mark.slow)],
    ids=["shared", "tokens"],
)
def test_the_cache_goes_with_other_ways_to_save_time(options, checkpoint, tmp_path):
    runs = []
    for cache in ("off", "on"):
        runs.append(cached(tmp_path, checkpoint, reference_cache=cache, max_steps=4, **options))
        runs[-1].train()
    plain, mine = runs
    assert mine.reference_cache.computed == 24
    assert largest_difference(mine, plain) < 1e-5


@pytest.mark.parametrize("streamed", [False, True])
def test_a_full_disk_of_the_cache_alone_costs_the_cache_alone(streamed, checkpoint, tmp_path, monkeypatch, caplog):
    def data():
        return {"train_dataset": tiny_pairs().to_iterable_dataset() if streamed else tiny_pairs()}

    plain = cached(tmp_path, checkpoint, data(), reference_cache="off")

    def full(source, target):
        if str(target).endswith(".safetensors"):
            raise OSError(28, os.strerror(28), str(target))
        return replace(source, target)

    replace = os.replace
    monkeypatch.setattr(os, "replace", full)
    mine = cached(tmp_path, checkpoint, data())
    for trainer in (plain, mine):
        trainer.train()
    assert largest_difference(mine, plain) == 0
    assert caplog.text.count("No space left on device") == 1
    assert "the run goes on" in caplog.text


class Cut(TrainerCallback):
    """Cuts every shard short after the first step."""

    def __init__(self, folder):
        self.folder = folder

    def on_step_end(self, args, state, control, **_):
        if state.global_step == 1:
            for path in shards(self.folder):
                os.truncate(path, 100)


def test_a_shard_that_is_cut_short_during_a_run_costs_its_rows_alone(checkpoint, tmp_path, folder, caplog):
    plain = cached(tmp_path, checkpoint, reference_cache="off")
    mine = cached(tmp_path, checkpoint, {"callbacks": [Cut(folder)]})
    for trainer in (plain, mine):
        trainer.train()
    assert largest_difference(mine, plain) < 1e-6  # rows were computed in other batches
    assert "is damaged" in caplog.text
