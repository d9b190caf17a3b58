"""Recipes of other trainers, with the options that their public documents name, and what they must become."""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml

from prefalign._errors import ConfigError, PrefalignError
from prefalign.cli import main
from prefalign.losses import PairLogps, parse_loss
from prefalign.train import DIALECTS, add_training_arguments, convert_recipe
from prefalign.train.config import FOREIGN
from tests.tiny import save_tiny, tiny_pairs
from tests.train.runs import COMMON

HANDBOOK = {
    "model_name_or_path": "alignment-handbook/zephyr-7b-sft-full",
    "torch_dtype": None,
    "dataset_mixer": {"HuggingFaceH4/ultrafeedback_binarized": 1.0},
    "dataset_splits": ["train_prefs", "test_prefs"],
    "preprocessing_num_workers": 12,
    "bf16": True,
    "beta": 0.01,
    "do_eval": True,
    "evaluation_strategy": "steps",
    "eval_steps": 100,
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "learning_rate": "5e-7",
    "lr_scheduler_type": "cosine",
    "max_length": 1024,
    "max_prompt_length": 512,
    "num_train_epochs": 1,
    "optim": "adamw_torch",
    "output_dir": "data/zephyr-7b-dpo-full",
    "per_device_train_batch_size": 8,
    "warmup_ratio": 0.1,
}
TRL = {
    "model_name_or_path": "Qwen/Qwen2-0.5B-Instruct",
    "dataset_name": "trl-lib/ultrafeedback_binarized",
    "loss_type": "sigmoid",
    "label_smoothing": 0.1,
    "rpo_alpha": 0.5,
    "beta": 0.2,
    "use_peft": False,
    "lora_r": 32,
    "torch_dtype": "bfloat16",
    "output_dir": "out",
}
AXOLOTL = {
    "base_model": "meta-llama/Meta-Llama-3-8B-Instruct",
    "model_type": "AutoModelForCausalLM",
    "load_in_8bit": False,
    "strict": False,
    "rl": "dpo",
    "rl_beta": 0.2,
    "chat_template": "llama3",
    "datasets": [
        {"path": "fozziethebeat/alpaca_messages_2k_dpo_test", "type": "chat_template.default", "split": "train"}
    ],
    "val_set_size": 0.05,
    "evals_per_epoch": 4,
    "saves_per_epoch": 2,
    "sequence_len": 4096,
    "sample_packing": False,
    "adapter": "qlora",
    "lora_r": 32,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "lora_target_linear": True,
    "wandb_project": "dpo",
    "wandb_entity": None,
    "gradient_accumulation_steps": 4,
    "micro_batch_size": 2,
    "num_epochs": 4,
    "optimizer": "adamw_bnb_8bit",
    "learning_rate": 0.0002,
    "bf16": "auto",
    "flash_attention": True,
    "warmup_steps": 10,
    "weight_decay": 0.0,
    "special_tokens": {"pad_token": "<|end_of_text|>"},
}
LLAMA_FACTORY = {
    "model_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct",
    "trust_remote_code": True,
    "stage": "dpo",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_rank": 16,
    "lora_target": "all",
    "pref_beta": 0.1,
    "pref_loss": "sigmoid",
    "pref_ftx": 0.5,
    "dataset": "dpo_en_demo",
    "template": "llama3",
    "max_samples": 1000,
    "overwrite_cache": True,
    "output_dir": "saves/dpo",
    "plot_loss": True,
    "per_device_train_batch_size": 1,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "bf16": True,
    "quantization_bit": 4,
}
EXPECTED = {
    "alignment-handbook": (
        HANDBOOK,
        {
            "model_name_or_path": "alignment-handbook/zephyr-7b-sft-full",
            "dataset_name": "HuggingFaceH4/ultrafeedback_binarized",
            "dataset_train_split": "train_prefs",
            "dataset_test_split": "test_prefs",
            "dataset_num_proc": 12,
            "bf16": True,
            "beta": 0.01,
            "eval_strategy": "steps",
            "eval_steps": 100,
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
            "learning_rate": "5e-7",
            "lr_scheduler_type": "cosine",
            "max_length": 1024,
            "num_train_epochs": 1,
            "optim": "adamw_torch",
            "output_dir": "data/zephyr-7b-dpo-full",
            "per_device_train_batch_size": 8,
            "warmup_steps": 0.1,
        },
        [],
    ),
    "trl": (
        TRL,
        {
            "model_name_or_path": "Qwen/Qwen2-0.5B-Instruct",
            "dataset_name": "trl-lib/ultrafeedback_binarized",
            "loss": "smoothed(dpo(beta=0.2), flip_rate=0.1) + 0.5*sft(reduction='token_mean')",
            "use_peft": False,
            "dtype": "bfloat16",
            "output_dir": "out",
        },
        [],
    ),
    "axolotl": (
        AXOLOTL,
        {
            "model_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct",
            "dataset_name": "fozziethebeat/alpaca_messages_2k_dpo_test",
            "dataset_train_split": "train",
            "loss": "dpo(beta=0.2)",
            "max_length": 4096,
            "use_peft": True,
            "lora_r": 32,
            "lora_alpha": 16,
            "lora_dropout": 0.05,
            "lora_target_modules": "all-linear",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "use_bnb_nested_quant": True,
            "gradient_accumulation_steps": 4,
            "per_device_train_batch_size": 2,
            "num_train_epochs": 4,
            "optim": "adamw_bnb_8bit",
            "learning_rate": 0.0002,
            "lr_scheduler_type": "cosine",
            "bf16": True,
            "dtype": "bfloat16",
            "attn_implementation": "flash_attention_2",
            "gradient_checkpointing": False,
            "warmup_steps": 10,
            "weight_decay": 0.0,
            "pad_token": "<|end_of_text|>",
            "save_strategy": "steps",
            "save_steps": 1 / 8,  # twice in each of four epochs
            "save_total_limit": 4,
            "report_to": "wandb",
            "env": {"WANDB_PROJECT": "dpo"},
        },
        ["`type: chat_template.default`", "`chat_template: llama3`", "`val_set_size: 0.05`"],
    ),
    "llama-factory": (
        LLAMA_FACTORY,
        {
            "model_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct",
            "trust_remote_code": True,
            "loss": "dpo(beta=0.1) + 0.5*sft(reduction='sequence_mean')",
            "use_peft": True,
            "lora_r": 16,
            "lora_alpha": 32,
            "lora_dropout": 0.0,
            "lora_target_modules": "all-linear",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "use_bnb_nested_quant": True,
            "max_length": 2048,
            "learning_rate": 5e-5,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.1,
            "bf16": True,
            "dtype": "bfloat16",
            "gradient_checkpointing": True,
            "per_device_train_batch_size": 1,
            "output_dir": "saves/dpo",
        },
        ["dpo_en_demo is a name of `dataset_info.json`", "`template: llama3`", "`max_samples: 1000`"],
    ),
}


@cache
def known_options():
    parser = argparse.ArgumentParser()
    add_training_arguments(parser)
    return parser.get_default("actions")


def converted(recipe, dialect=None, folder=Path()):
    return convert_recipe(recipe, known_options(), dialect, folder)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_recipe_becomes_what_it_says(dialect, tmp_path):
    recipe, expected, left = EXPECTED[dialect]
    found, made = converted(recipe, folder=tmp_path)
    assert found == dialect
    assert made.values == expected
    assert len(made.left) == len(left)
    assert all(start in line for start, line in zip(sorted(left), sorted(made.left), strict=True)), made.left


def pairs_for_losses():
    torch.manual_seed(0)
    policy_w, policy_l, reference_w, reference_l = (-20 * torch.rand(5, dtype=torch.float64) - 1 for _ in range(4))
    lengths = torch.tensor([3.0, 5.0, 2.0, 8.0, 4.0], dtype=torch.float64)
    return PairLogps(policy_w, policy_l, reference_w, reference_l, lengths, lengths.flip(0))


def by_hand(name, p):
    """The losses as LLaMA-Factory's trainer and TRL's compute them, in plain torch."""
    w, l = p.chosen, p.rejected  # noqa: E741
    h = (w - p.ref_chosen) - (l - p.ref_rejected)
    mean_w, mean_l = w / p.chosen_tokens, l / p.rejected_tokens
    mean_h = mean_w - p.ref_chosen / p.chosen_tokens - mean_l + p.ref_rejected / p.rejected_tokens
    odds = (mean_w - mean_l) - (torch.log1p(-mean_w.exp()) - torch.log1p(-mean_l.exp()))
    return {
        "sigmoid": lambda: -F.logsigmoid(0.3 * h),
        "smoothed": lambda: -0.9 * F.logsigmoid(0.3 * h) - 0.1 * F.logsigmoid(-0.3 * h),
        "hinge": lambda: torch.relu(1 - 0.3 * h),
        "ipo": lambda: (mean_h - 1 / 0.6) ** 2,
        "simpo": lambda: -F.logsigmoid(0.3 * (mean_w - mean_l) - 0.7),
        "orpo": lambda: -mean_w - 0.3 * F.logsigmoid(odds),
    }[name]() - 0.25 * mean_w


@pytest.mark.parametrize("name", ["sigmoid", "smoothed", "hinge", "ipo", "simpo", "orpo"])
def test_llama_factorys_losses_keep_their_values(name):
    options = {"pref_beta": 0.3, "pref_ftx": 0.25, "simpo_gamma": 0.7}
    options["pref_loss"] = "sigmoid" if name == "smoothed" else name
    options["dpo_label_smoothing"] = 0.1 if name == "smoothed" else 0.0
    _, made = converted({**LLAMA_FACTORY, **options})
    pairs = pairs_for_losses()
    torch.testing.assert_close(parse_loss(made.values["loss"])(pairs).mean(), by_hand(name, pairs).mean())


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        ({"rl": "ipo"}, "ipo(beta=0.2)"),
        ({"rl": "orpo", "rl_beta": None, "orpo_alpha": 0.3}, "orpo(beta=0.3)"),
        ({"rl": "simpo"}, "simpo(beta=0.2, gamma=0.5) + 1.0*sft(reduction='token_mean')"),
        ({"rl": "simpo", "cpo_alpha": 0, "simpo_gamma": 1}, "simpo(beta=0.2, gamma=1.0)"),
        ({"rl": True, "rl_beta": None}, "dpo(beta=0.1)"),
        ({"trl": {"beta": 0.4}}, "dpo(beta=0.4)"),
        ({"dpo_label_smoothing": "1e-1"}, "smoothed(dpo(beta=0.2), flip_rate=0.1)"),
    ],
)
def test_axolotls_losses(options, loss):
    assert converted({**AXOLOTL, **options})[1].values["loss"] == loss


def test_simpos_own_recipes_state_the_margin_as_a_ratio():
    recipe = {**HANDBOOK, "trainer_type": "simpo", "beta": 2.5, "gamma_beta_ratio": 0.4, "loss_type": "sigmoid"}
    assert converted(recipe)[1].values["loss"] == "simpo(beta=2.5, gamma=1.0)"


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"lr": 1}, "is of none of TRL"),
        ({**LLAMA_FACTORY, "stage": "sft"}, "`stage` in the recipe must be dpo"),
        ({**AXOLOTL, "rl": "grpo"}, "must be dpo, ipo, simpo or orpo"),
        ({**AXOLOTL, "rl": None}, "must be dpo, ipo, simpo or orpo"),
        ({**AXOLOTL, "rl_beta": -1}, r"`dpo\(beta=-1.0\)`, cannot be made"),
        ({**AXOLOTL, "rl_beta": "much"}, "`rl_beta` in the recipe must be a number"),
    ],
)
def test_what_is_no_recipe_for_pairs_is_refused(recipe, said):
    with pytest.raises(ConfigError, match=said):
        converted(recipe)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({**LLAMA_FACTORY, "pref_loss": "kto_pair"}, "`pref_loss: kto_pair` has no equal"),
        ({**LLAMA_FACTORY, "pref_bco_weight": 0.5}, "`pref_bco_weight: 0.5` has no equal"),
        ({**LLAMA_FACTORY, "finetuning_type": "freeze"}, "`finetuning_type: freeze`"),
        ({**LLAMA_FACTORY, "use_galore": True}, "`use_galore: True`"),
        ({**AXOLOTL, "datasets": [{"path": "a"}, {"path": "b"}]}, "Data sets: a, b."),
        ({**HANDBOOK, "dataset_mixer": {"a": 0.5}}, "a share of 0.5"),
        ({**TRL, "loss_type": "kto_pair"}, "which TRL has removed"),
        ({**TRL, "beta_schedule": 3}, "`beta_schedule: 3`. There is no such option here."),
    ],
)
def test_what_has_no_translation_is_said_and_not_guessed(recipe, said):
    made = converted(recipe)[1]
    assert any(said in line for line in made.left), made.left
    assert all(f"# NOT CONVERTED: {line}" in made.as_yaml("TRL") for line in made.left)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_values_of_a_wrong_kind_are_one_error_or_are_passed_on(dialect):
    recipe = EXPECTED[dialect][0]
    for name in {*recipe, *FOREIGN, "rpo_alpha", "save_steps", "trl", "adapter_name_or_path", "test_datasets"}:
        for value in (7, "seven", [7], ["a", {}], {"a": 7}, True, "\x1b[31m", [], {}, float("nan")):
            try:
                made = converted({**recipe, name: value}, dialect)[1]
            except PrefalignError:
                continue
            assert yaml.safe_load(made.as_yaml("TRL")) is not None


def small(dialect, model, data, folder):
    """A recipe that a CPU trains in a second."""
    common = {name: COMMON[name] for name in ("max_steps", "use_cpu", "logging_steps", "report_to", "save_strategy")}
    common |= {"learning_rate": 1e-2, "output_dir": str(folder / "run"), "bf16": False, "max_steps": 2, "samples": 0}
    lora = {"lora_r": 2, "lora_alpha": 4, "lora_dropout": 0.0}
    return {
        "trl": {**common, "model_name_or_path": model, "dataset_name": data, "loss_type": "ipo", "warmup_ratio": 0.5},
        "alignment-handbook": {**common, "model_name_or_path": model, "dataset_mixer": {data: 1.0}, "beta": 0.3},
        "axolotl": {
            **common,
            **lora,
            **{"base_model": model, "rl": "simpo", "datasets": [{"path": data}], "adapter": "lora"},
            **{"lora_target_linear": True, "micro_batch_size": 4, "num_epochs": 1, "report_to": None},
        },
        "llama-factory": {
            **common,
            **{"model_name_or_path": model, "stage": "dpo", "dataset": "mine", "dataset_dir": ".", "lora_rank": 2},
            **{"pref_ftx": 0.1, "lora_target": "q_proj, v_proj", "disable_gradient_checkpointing": True},
        },
    }[dialect]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_was_converted_trains(dialect, tmp_path, capsys):
    model, data = str(save_tiny(tmp_path / "model")), str(tmp_path / "pairs.jsonl")
    tiny_pairs(8).to_json(data)
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": {"file_name": "pairs.jsonl", "ranking": True}}))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(small(dialect, model, data, tmp_path)))
    out = tmp_path / "ours.yaml"
    assert main(["convert", str(tmp_path / "recipe.yaml"), "--from", dialect, "-o", str(out)]) == 0
    assert main(["train", str(out)]) == 0
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 2
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "recipe.yaml"), "-o", str(out)]) == 2
    assert "must be a new file" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "recipe.yaml")]) == 0
    assert capsys.readouterr().out == out.read_text()
