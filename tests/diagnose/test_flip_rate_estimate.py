"""`flip_rate="estimate"`: a loss that waits for its number, and a trainer that measures it before it trains."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from prefalign._errors import CheckpointError, ConfigError, LossError, ParseError
from prefalign.diagnose import pair_features
from prefalign.losses import DPO, SFT, PairLogps, Robust, Smoothed, parse_loss, waits_for_flip_rate, with_flip_rate
from prefalign.train import PrefConfig, PrefTrainer
from tests.tiny import save_tiny, tiny_tokenizer

# TRL 1.16 uses a name that transformers 5 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing.* is deprecated:FutureWarning")
ASKED = "robust(dpo(beta=0.1), flip_rate='estimate') + 0.1*sft(reduction='sum')"


def test_a_loss_that_waits_is_read_and_written():
    loss = parse_loss(ASKED)
    assert loss.expression == ASKED
    assert waits_for_flip_rate(loss)
    assert "to be estimated" in str(loss)
    assert parse_loss("rdpo(beta=0.1, flip_rate=estimate)") == Robust(DPO(beta=0.1), "estimate")


def test_a_number_takes_the_place_of_the_word_wherever_it_stands():
    settled = Robust(DPO(beta=0.1), 0.25) + 0.1 * SFT(reduction="sum")
    assert with_flip_rate(parse_loss(ASKED), 0.25) == settled
    assert not waits_for_flip_rate(settled)
    inside = Smoothed(Robust(DPO(beta=0.1), "estimate"), 0.1)
    assert with_flip_rate(inside, 0.2) == Smoothed(Robust(DPO(beta=0.1), 0.2), 0.1)
    known = Robust(DPO(beta=0.1), 0.1)
    assert with_flip_rate(known, 0.3) is known
    with pytest.raises(LossError, match=r"\[0, 0.5\)"):
        with_flip_rate(parse_loss(ASKED), 0.5)


def test_a_loss_that_waits_cannot_be_computed():
    zeros = torch.zeros(2)
    for loss in (Robust(DPO(beta=0.1), "estimate"), Smoothed(DPO(beta=0.1), "estimate")):
        with pytest.raises(LossError, match="prefalign noise"):
            loss(PairLogps(zeros, zeros, zeros, zeros))


def test_other_words_are_refused():
    with pytest.raises(ParseError, match="`flip_rate` must be a number or 'estimate'"):
        parse_loss("robust(dpo(beta=0.1), flip_rate='guess')")
    with pytest.raises(ParseError, match="`beta` must be a number"):
        parse_loss("dpo(beta='estimate')")
    with pytest.raises(LossError, match="flip_rate"):
        Robust(DPO(beta=0.1), "guess")


def letters(pairs, flipped, seed=0):
    """Pairs in which more letters `a` are better, a share of them flipped."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(pairs):
        one, other = sorted(random.permutation(13)[:2])
        if (random.random() > 1 / (1 + np.exp(one - other))) ^ (random.random() < flipped):
            one, other = other, one
        rows.append({"prompt": "Say:", "chosen": "a" * other + "z" * (12 - other)})
        rows[-1]["rejected"] = "a" * one + "z" * (12 - one)
    return Dataset.from_list(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("tiny") / "model"))


def trainer(folder, out, pairs, loss=ASKED):
    options = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "max_steps": 1}
    return PrefTrainer(folder, args=PrefConfig(str(out), loss=loss, **options), train_dataset=pairs)


def test_the_trainer_measures_the_rate_prints_it_and_trains_with_it(folder, tmp_path, capsys):
    pairs = letters(400, flipped=0.2)
    run = trainer(folder, tmp_path / "run", pairs)
    said = capsys.readouterr().out
    rate = float(re.search(r"Flip rate: ([\d.]+), 95 % interval", said)[1])
    assert rate == pytest.approx(0.2, abs=0.1)
    expected = f"robust(dpo(beta=0.1), flip_rate={rate}) + 0.1*sft(reduction='sum')"
    assert f"Loss: {expected}" in said
    assert run.objective.expression == run.args.loss == expected
    run.train()
    record = json.loads((tmp_path / "run" / "prefalign_run.json").read_text("utf-8"))
    assert record["loss"]["expression"] == expected
    # A run that is taken up again must take the same number.
    assert trainer(folder, tmp_path / "run", pairs).objective == run.objective


def test_a_model_in_memory_is_left_as_it_was(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"use_cpu": True, "report_to": "none", "save_strategy": "no"}
    args = PrefConfig(str(tmp_path), loss="robust(dpo(beta=0.1), flip_rate=estimate)", **options)
    run = PrefTrainer(model, args=args, train_dataset=letters(400, 0.2), processing_class=tiny_tokenizer())
    assert not waits_for_flip_rate(run.objective.loss)
    assert run.model.training
    assert all(torch.equal(before[name], value) for name, value in run.model.state_dict().items())


def test_the_margins_are_those_of_the_weights_that_are_trained(folder, tmp_path, monkeypatch):
    load, asked = AutoModelForCausalLM.from_pretrained, []

    def loading(name, **options):
        asked.append(options)
        return load(name, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loading)
    loss = "robust(dpo(beta=0.1), flip_rate=estimate)"
    options = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "model_init_kwargs": {"dtype": "bfloat16"}}
    args = PrefConfig(str(tmp_path), loss=loss, **options)
    PrefTrainer(folder, args=args, train_dataset=letters(400, 0.2))
    assert asked[0]["dtype"] == "bfloat16"


def test_features_of_a_model_that_is_loaded_otherwise_are_not_mixed_up(folder, tmp_path):
    pairs, cache = letters(60, 0.0), tmp_path / "cache"
    full = pair_features(pairs, folder, cache=cache)
    half = pair_features(pairs, folder, cache=cache, model_init_kwargs={"dtype": "bfloat16"})
    assert 0 < np.abs(full - half).max() < 0.1
    assert np.array_equal(pair_features(pairs, folder, cache=cache), full)
    with pytest.raises(CheckpointError, match="would have no effect"):
        pair_features(pairs, AutoModelForCausalLM.from_pretrained(folder), tiny_tokenizer(), model_init_kwargs={"a": 1})


def test_pairs_that_cannot_tell_stop_the_run_before_it_starts(folder, tmp_path):
    random = np.random.default_rng(0)
    coin = [{"prompt": f"{i}:", "chosen": "a" if random.random() < 0.5 else "b"} for i in range(120)]
    pairs = Dataset.from_list([{**row, "rejected": "b" if row["chosen"] == "a" else "a"} for row in coin])
    with pytest.raises(ConfigError, match=r"cannot tell(.|\n)*flip_rate=0\.1"):
        trainer(folder, tmp_path / "run", pairs)
    with pytest.raises(ConfigError, match="fewer than 50"):
        trainer(folder, tmp_path / "run", letters(20, 0.0))


def test_what_else_is_wrong_is_said_before_the_rate_is_measured(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))
    loss = "robust(dpo(beta=0.1), flip_rate=estimate) + 0.01*sft(reduction='sum', baseline='sft_dataset')"
    with pytest.raises(ConfigError, match="needs one data set"):
        trainer(folder, tmp_path / "run", letters(60, 0.0), loss)
    assert "Flip rate" not in capsys.readouterr().out


def test_a_stream_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="read twice"):
        trainer(folder, tmp_path / "run", letters(60, 0.0).to_iterable_dataset())
