"""Every bad input is one clear error before any weights load."""

from __future__ import annotations

import re

import pytest
import torch
from datasets import Dataset
from transformers import HfArgumentParser, PreTrainedModel, TrainingArguments
from trl import DPOConfig, TrlParser

from prefalign._errors import CheckpointError, ConfigError, DataError, LossError, ParseError
from prefalign.losses import DPO, SimPO
from prefalign.references import Checkpoint, Initial, NoReference
from prefalign.train import PrefConfig, PrefTrainer
from tests.tiny import save_tiny, tiny_model, tiny_pairs, tiny_tokenizer
from tests.train.runs import COMMON, ours

SIMPO = "simpo(beta=2.0, gamma=1.0)"


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """Loading weights is a failure in this module."""

    def refuse(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)


def config(**options):
    return PrefConfig("unused", **{**COMMON, **options})


BAD_CONFIGS = [
    ({"rpo_alpha": 1.0}, ConfigError, "rpo_alpha.*sft"),
    ({"max_prompt_length": 128}, ConfigError, "max_prompt_length.*max_length"),
    ({"max_completion_length": 128}, ConfigError, "max_length"),
    ({"reference_free": True}, ConfigError, 'reference="none"'),
    ({"tokenizer": None}, ConfigError, "processing_class"),
    ({"evaluation_strategy": "steps"}, ConfigError, "eval_strategy"),
    ({"betta": 0.1}, ConfigError, "Did you mean `beta`"),
    ({"lerning_rate": 0.1}, ConfigError, "Did you mean `learning_rate`"),
    ({"on_bad_pairs": "skip"}, ConfigError, "'drop' or 'error'"),
    ({"beta": 0.0}, LossError, "beta"),
    ({"beta": -1.0, "loss_type": "ipo"}, LossError, "beta"),
    ({"loss": "dpo(beta=0)"}, LossError, "beta"),
    ({"loss_type": "robust", "label_smoothing": 0.5}, LossError, "0.5"),
    ({"loss": "robust(dpo(beta=0.1), flip_rate=0.5)"}, LossError, "flip_rate"),
    ({"loss_type": "sigmod"}, LossError, "Did you mean `sigmoid`"),
    ({"loss": "dpoo(beta=0.1)"}, ParseError, "Did you mean `dpo`"),
    ({"loss": 3}, ConfigError, "`loss` must be"),
    ({"label_smoothing": 0.1}, LossError, "label_smoothing.*smoothed"),
    ({"discopop_tau": 0.1}, LossError, "discopop_tau"),
    ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}, LossError, "loss_weights"),
    ({"loss": "dpo(beta=0.1)", "beta": 0.1}, ConfigError, "`beta=0.1` and `loss` were both given"),
    ({"loss": "dpo(beta=0.1)", "loss_type": "sigmoid"}, ConfigError, "`loss_type=.*both given"),
    ({"loss": "dpo(beta=0.1)", "loss_weights": [1.0]}, ConfigError, "loss_weights"),
    ({"loss": "dpo(beta=0.1)", "label_smoothing": 0.1}, ConfigError, "label_smoothing"),
    ({"loss": "dpo(beta=0.1)", "use_weighting": True}, ConfigError, "use_weighting"),
    ({"loss": "dpo(beta=0.1)", "ld_alpha": 0.5}, ConfigError, "ld_alpha"),
    ({"loss": "dpo(beta=0.1)", "f_divergence_type": "forward_kl"}, ConfigError, "f_divergence_type"),
    ({"f_alpha_divergence_coef": 0.7}, ConfigError, "f_alpha_divergence_coef"),
    ({"ref_model_mixup_alpha": 0.5}, ConfigError, "sync_ref_model"),
    ({"ref_model_sync_steps": 5}, ConfigError, "sync_ref_model"),
    ({"precompute_ref_batch_size": 5}, ConfigError, "precompute_ref_log_probs"),
    ({"padding_free": True}, ConfigError, "padding_free"),
    ({"precompute_ref_log_probs": True, "ld_alpha": 0.5}, ConfigError, "ld_alpha"),
    ({"precompute_ref_log_probs": True, "sync_ref_model": True}, ConfigError, "contradict"),
    ({"reference": "initail"}, ParseError, "Did you mean `initial`"),
    ({"reference": "checkpoint()"}, ParseError, "needs the argument `path`"),
    ({"reference": "checkpoint(a, b)"}, ParseError, "takes 1 argument"),
    ({"reference": "moving_average(evry=3)"}, ParseError, "Did you mean `every`"),
    ({"reference": 7}, ConfigError, "`reference` must be"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_CONFIGS, ids=lambda value: str(value)[:60])
def test_a_bad_config_is_refused(options, error, message):
    with pytest.raises(error, match=re.compile(message, re.DOTALL)):
        config(**options)


BAD_TRAINERS = [
    ({}, {"tokenizer": tiny_tokenizer()}, ConfigError, "processing_class"),
    ({}, {"reff_model": None}, ConfigError, "Did you mean `ref_model`"),
    ({}, {"model": None}, ConfigError, "`model` must be"),
    ({}, {"args": TrainingArguments("unused", use_cpu=True)}, ConfigError, "`args` must be a `PrefConfig`"),
    ({}, {"model": "no/such-model"}, ConfigError, "no/such-model"),
    ({}, {"train_dataset": None}, ConfigError, "train_dataset"),
    ({}, {"train_dataset": Dataset.from_dict({"prompt": ["a"], "chosen": ["b"]})}, DataError, "rejected"),
    ({"on_bad_pairs": "error"}, {"train_dataset": "identical"}, DataError, "identical|equal"),
    ({"loss": "dpo(beta=0.1)"}, {"loss": "ipo(beta=0.1)"}, ConfigError, "given twice"),
    ({"beta": 0.1}, {"loss": "dpo(beta=0.1)"}, ConfigError, "`beta=0.1` and `loss` were both given"),
    ({"ld_alpha": 0.5}, {"loss": "dpo(beta=0.1)"}, ConfigError, "ld_alpha"),
    ({}, {"loss": "dpo(beta=0.1)", "reference": "none"}, ConfigError, "needs a reference"),
    ({"reference": "none"}, {}, ConfigError, "needs a reference"),
    ({"reference": "initial"}, {"reference": "none"}, ConfigError, "given twice"),
    ({"loss": SIMPO, "sync_ref_model": True}, {}, ConfigError, "`sync_ref_model=True` would have no effect"),
    ({"loss": SIMPO, "precompute_ref_log_probs": True}, {}, ConfigError, "would have no effect"),
    ({"loss_type": "sft", "precompute_ref_log_probs": True}, {}, ConfigError, "would have no effect"),
    ({"sync_ref_model": True, "reference": "initial"}, {}, ConfigError, "contradict"),
    ({"precompute_ref_log_probs": True, "reference": "moving_average()"}, {}, ConfigError, "contradict"),
    ({"reference": "checkpoint(no/such-model)"}, {}, CheckpointError, "no/such-model"),
    ({}, {"ref_model": tiny_model(), "reference": "initial"}, ConfigError, "both given"),
    ({"model_init_kwargs": {"dtype": "float32"}}, {"model": tiny_model()}, ConfigError, "model_init_kwargs"),
    ({}, {"model": tiny_model()}, ConfigError, "processing_class"),
]


@pytest.mark.parametrize(("options", "arguments", "error", "message"), BAD_TRAINERS, ids=lambda value: str(value)[:50])
def test_a_bad_trainer_is_refused(options, arguments, error, message, checkpoint):
    if arguments.get("train_dataset") == "identical":
        arguments = {"train_dataset": Dataset.from_dict({"prompt": ["a"], "chosen": ["b"], "rejected": ["b"]})}
    with pytest.raises(error, match=re.compile(message, re.DOTALL)):
        PrefTrainer(**{"model": checkpoint, "args": config(**options), "train_dataset": tiny_pairs(4), **arguments})


def test_another_vocabulary_is_refused(checkpoint, tmp_path):
    bigger = save_tiny(tmp_path / "bigger", vocab_size=300)
    with pytest.raises(CheckpointError, match=r"259 tokens.*300"):
        PrefTrainer(checkpoint, args=config(), reference=Checkpoint(str(bigger)), train_dataset=tiny_pairs(4))


def test_a_renumbered_vocabulary_is_refused(checkpoint, tmp_path):
    save_tiny(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text("utf-8")
    swapped = text.replace('"a":', '"\0":').replace('"b":', '"a":').replace('"\0":', '"b":')
    (tmp_path / "tokenizer.json").write_text(swapped, "utf-8")
    with pytest.raises(CheckpointError, match="2 tokens differ, 'a'"):
        PrefTrainer(checkpoint, args=config(), reference=f"checkpoint('{tmp_path}')", train_dataset=tiny_pairs(4))


def test_an_adapter_as_reference_is_refused_with_the_remedy(checkpoint, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="merge it"):
        PrefTrainer(checkpoint, args=config(), reference=Checkpoint(str(tmp_path)), train_dataset=tiny_pairs(4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nothing", "cannot be read"),
        ("{}", "names no base model"),
        ('{"peft_type": "LORA"}', r"names no base model.*PeftModel\.from_pretrained"),
    ],
)
def test_an_adapter_that_names_no_base_model_is_refused(content, message, tmp_path):
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        PrefTrainer(str(tmp_path), args=config(), train_dataset=tiny_pairs(4))


def test_a_loss_and_a_reference_may_be_objects_or_text():
    args = config(loss=DPO(beta=0.2), reference=Checkpoint("a"))
    assert (args.loss, args.reference) == ("dpo(beta=0.2)", "checkpoint('a')")
    same = config(loss=args.loss, reference=args.reference)
    assert (same.loss_object, same.reference_object) == (DPO(beta=0.2), Checkpoint("a"))


def test_the_default_reference_follows_the_loss():
    from prefalign.train.config._objective import put_together

    assert put_together(config()).reference == Initial()
    assert put_together(config(loss=SIMPO)).reference == NoReference()
    assert put_together(config(), loss=SimPO(beta=2.0, gamma=1.0)).reference == NoReference()
    assert put_together(config(loss=SIMPO, reference="initial")).reference == Initial()
    assert put_together(DPOConfig("unused", use_cpu=True, bf16=False, beta=0.3)).loss == DPO(beta=0.3)


def test_rewards_are_scaled_by_the_first_beta_of_the_loss():
    from prefalign.train.config._objective import put_together

    assert put_together(config()).beta == 0.1
    assert put_together(config(loss="0.5*sft(reduction='sum') + robust(ipo(beta=0.3), flip_rate=0.1)")).beta == 0.3
    assert put_together(config(loss="sft(reduction='sum')")).beta == 1.0


def test_the_parsers_of_trl_still_read_the_config():
    for parser in (TrlParser, HfArgumentParser):
        words = ["--output_dir", "o", "--loss", "dpo(beta=0.2)", "--use_cpu", "--report_to", "none"]
        (args,) = parser([PrefConfig]).parse_args_into_dataclasses(words)
        assert args.loss_object == DPO(beta=0.2)
        (args,) = parser([PrefConfig]).parse_args_into_dataclasses(["--output_dir", "o", "--beta", "0.2", "--use_cpu"])
        assert (args.beta, args.loss_type) == (0.2, ["sigmoid"])


def test_a_cpu_gets_float32_without_checkpointing_unless_asked():
    args = config()
    assert (args.bf16, args.gradient_checkpointing) == (False, False)
    args = config(bf16=True, gradient_checkpointing=True)
    assert (args.bf16, args.gradient_checkpointing) == (True, True)
    assert config(fp16=True).bf16 is False


def test_a_device_with_bfloat16_gets_trls_defaults(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr("prefalign.train.config._config.is_torch_bf16_gpu_available", lambda: True)
    args = PrefConfig.__new__(PrefConfig)
    args.use_cpu, args.fp16, args.bf16, args.gradient_checkpointing = False, False, None, None
    args._choose_for_machine()
    assert (args.bf16, args.activation_checkpointing) == (True, True)


def test_no_gpu_is_no_error_without_use_cpu():
    assert PrefConfig("unused").bf16 is False


@pytest.mark.skipif(torch.accelerator.is_available(), reason="about machines without an accelerator")
def test_bfloat16_can_be_asked_for_without_a_gpu():
    args = PrefConfig("unused", bf16=True)
    assert (args.bf16, args.use_cpu) == (True, True)


@pytest.mark.parametrize(
    "loss", ["0*dpo(beta=0.1)", "dpo(beta=0.1) - dpo(beta=0.1)", "0*dpo(beta=0.1) + 0*sft(reduction='sum')"]
)
def test_a_loss_that_trains_nothing_is_refused(loss, checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="would train nothing"):
        ours(tmp_path, checkpoint, loss=loss)


def test_a_precision_that_a_cpu_has_not_is_refused(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="`fp16=True` would have no effect on a CPU"):
        ours(tmp_path, checkpoint, loss="dpo(beta=0.1)", fp16=True)
