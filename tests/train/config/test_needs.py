"""What is not installed, or not measured, is said before weights load."""

from __future__ import annotations

import argparse
import json
import re
from types import SimpleNamespace

import pytest
import yaml
from datasets import DatasetDict
from peft import LoraConfig

from prefalign._errors import PrefalignError
from prefalign.cli import main
from prefalign.train import PrefConfig, add_training_arguments
from prefalign.train.config import check_images
from prefalign.train.config._foreign import FOREIGN
from tests.tiny import save_tiny, tiny_pairs, tiny_tokenizer
from tests.train.runs import ours

LONG = tiny_pairs(24).add_column("length", list(range(24)))
EVALUATED = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}


@pytest.mark.parametrize(
    ("options", "arguments", "said"),
    [
        ({"report_to": "wandb"}, {}, "needs the package 'wandb'"),
        ({"optim": "adamw_bnb_8bit"}, {}, "needs the package 'bitsandbytes'"),
        ({"optim": "galore_adamw"}, {}, "`pip install galore-torch`"),
        ({"load_best_model_at_end": True}, {}, "nothing is evaluated"),
        (
            {**EVALUATED, "load_best_model_at_end": True, "metric_for_best_model": "rewards/margin"},
            {"eval_dataset": tiny_pairs(4)},
            r"is no metric of the evaluation\. Did you mean `eval_rewards/margins`",
        ),
        (
            {**EVALUATED, "load_best_model_at_end": True, "metric_for_best_model": "eval_loss"},
            {"eval_dataset": {"clean": tiny_pairs(4), "noisy": tiny_pairs(4)}},
            "the sets are clean, noisy",
        ),
        ({}, {"train_dataset": DatasetDict({"train": tiny_pairs(4), "test": tiny_pairs(4)})}, r"data\['train'\]"),
        ({"train_sampling_strategy": "group_by_length"}, {}, "needs a column `length`"),
        ({"length_column_name": "n"}, {}, "`length_column_name='n'` would have no effect"),
        ({"train_sampling_strategy": "batch_rebalance", "length_column_name": "n"}, {}, "needs a column `n`"),
        (
            {"train_sampling_strategy": "group_by_length"},
            {"train_dataset": LONG, "eval_dataset": tiny_pairs(4)},
            "the eval data have none",
        ),
        ({}, {"train_dataset": tiny_pairs(4).with_format("torch")}, "The train data have the format 'torch'"),
        ({}, {"train_dataset": tiny_pairs(4).with_format("numpy", columns=["prompt"])}, "the format 'numpy'"),
        ({}, {"train_dataset": tiny_pairs(4).to_iterable_dataset().with_format("torch")}, "the format 'torch'"),
        ({}, {"eval_dataset": {"a": tiny_pairs(4).with_format("pandas")}}, "The eval_a data have the format 'pandas'"),
        ({}, {"train_dataset": tiny_pairs(4).add_column("image", [None] * 4)}, "the model reads texts alone"),
    ],
)
def test_it_is_one_error_before_weights_load(options, arguments, said, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *_, **__: pytest.fail("weights loaded"))
    with pytest.raises(PrefalignError, match=said):
        ours(tmp_path, checkpoint, arguments, loss="dpo(beta=0.1)", **options)


def test_pairs_are_grouped_by_the_lengths_that_they_are_given(checkpoint, tmp_path):
    options = {"train_sampling_strategy": "group_by_length", "max_steps": 2}
    trainer = ours(tmp_path, checkpoint, {"train_dataset": LONG}, loss="dpo(beta=0.1)", **options)
    batches = [batch["pair_index"].tolist() for batch in trainer.get_train_dataloader()]
    assert sorted(row for batch in batches for row in batch) == list(range(24))
    assert all(batch == sorted(batch, reverse=True) for batch in batches)  # the lengths are the rows' numbers
    trainer.train()


def test_options_that_images_rule_out_are_said():
    processor = SimpleNamespace(image_processor=object())
    for options, name in (
        ({"truncation_mode": "keep_end", "max_length": 9}, "truncation_mode"),
        ({"precompute_ref_log_probs": True}, "precompute_ref_log_probs"),
    ):
        args = PrefConfig("run", use_cpu=True)
        for option, value in options.items():
            setattr(args, option, value)
        with pytest.raises(PrefalignError, match=name):
            check_images(args, processor)
    check_images(PrefConfig("run", use_cpu=True), processor)


@pytest.mark.parametrize("option", ["--model", "--tokenizer"])
def test_check_finds_a_token_without_an_embedding(option, tmp_path, capsys):
    folder = save_tiny(tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    tokenizer.save_pretrained(folder)
    tiny_pairs(4).to_json(tmp_path / "pairs.jsonl")
    assert main(["check", str(tmp_path / "pairs.jsonl"), option, str(folder)]) == 2
    assert "'<|tool|>' is number 259, and the model has 259 rows" in capsys.readouterr().err
    tiny_tokenizer().save_pretrained(folder)
    assert main(["check", str(tmp_path / "pairs.jsonl"), option, str(folder)]) == 0


def test_a_token_without_an_embedding_is_named(tmp_path, monkeypatch):
    folder = save_tiny(tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    tokenizer.save_pretrained(folder)
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *_, **__: pytest.fail("weights loaded"))
    with pytest.raises(PrefalignError, match=r"'<\|tool\|>' is number 259, and the model has 259 rows"):
        ours(tmp_path, str(folder), loss="dpo(beta=0.1)")


def test_all_unknown_options_are_said_at_once_each_with_what_to_write(tmp_path, capsys):
    recipe = {
        "base_model": "model",
        "micro_batch_size": 2,
        "sequence_len": 512,
        "rl": "dpo",
        "torch_dtype": "bfloat16",
        "overwrite_output_dir": True,
        "learning_rat": 1e-5,
        "rpo_alpha": 1.0,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    file = str(tmp_path / "recipe.yaml")
    assert main(["train", file, "--config", file]) == 2
    assert "was given twice" in capsys.readouterr().err
    assert main(["train", file]) == 2
    said = capsys.readouterr().err
    assert "has 8 options that are not known here" in said
    for name, remedy in {
        "base_model": "`model_name_or_path`",
        "micro_batch_size": "`per_device_train_batch_size`",
        "sequence_len": "`max_length`",
        "rl": "`loss: dpo(beta=0.1)`",
        "torch_dtype": "`dtype`",
        "overwrite_output_dir": "Leave it out",
        "learning_rat": "Did you mean `learning_rate`?",
        "rpo_alpha": "sft(reduction=",
    }.items():
        (line,) = [line for line in said.splitlines() if line.startswith(f"  `{name}`:")]
        assert remedy in line


def test_what_is_said_of_foreign_options_names_options_that_exist():
    parser = argparse.ArgumentParser()
    add_training_arguments(parser)
    known = set(parser.get_default("actions"))
    for name, remedy in FOREIGN.items():
        assert name not in known
        for option in re.findall(r"Use `([a-z_0-9]+)", remedy) + re.findall(r"as `([a-z_]+)`", remedy):
            assert option in known, (name, option)


def test_a_module_that_is_not_there_cannot_be_saved(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *_, **__: pytest.fail("weights loaded"))
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_haed"], task_type="CAUSAL_LM")
    with pytest.raises(
        PrefalignError, match=r"names 'lm_haed', which the model does not have\. Did you mean `lm_head`"
    ):
        ours(tmp_path, checkpoint, {"peft_config": config}, loss="dpo(beta=0.1)")


def test_a_model_that_nobody_can_build_is_refused(tmp_path):
    folder = save_tiny(tmp_path / "model")
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_hidden_layers": 1_000_000}))
    with pytest.raises(PrefalignError, match=r"at most 10000 \(got 1000000\)"):
        ours(tmp_path, str(folder), loss="dpo(beta=0.1)")
