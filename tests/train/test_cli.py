"""`prefalign train`: what it reads, refuses and leaves."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from prefalign.cli import main
from prefalign.train import PrefConfig
from tests.tiny import tiny_pairs, tiny_tokenizer
from tests.train.runs import COMMON, ours


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    tiny_pairs().to_json(path)
    return str(path)


@pytest.fixture
def config(tmp_path, checkpoint, pairs):
    """Writes a config file and returns its path."""

    def write(**options):
        content = {"model_name_or_path": checkpoint, "dataset_name": pairs, "output_dir": str(tmp_path / "run")}
        content |= {**COMMON, "max_steps": 3, "loss": "dpo(beta=0.1)", **options}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return str(path)

    return write


def test_a_config_file_trains_as_the_trainer_does(config, checkpoint, tmp_path, capsys):
    # YAML takes 1e-2, which has no point, for text.
    assert main(["train", "--config", config(learning_rate="1e-2", shared_prefix=False), "--max_steps", "2"]) == 0
    out = capsys.readouterr().out
    assert f"Model:   {tmp_path / 'run'}" in out
    assert f"prefalign report {tmp_path / 'run'}" in out
    trainer = ours(tmp_path, checkpoint, loss="dpo(beta=0.1)", max_steps=2)
    trainer.train()
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(saved[n], p) for n, p in trainer.model.named_parameters() if n in saved)
    for name in ("prefalign_run.json", "trainer_state.json", "README.md", "tokenizer.json"):
        assert (tmp_path / "run" / name).is_file()
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 2


def test_texts_before_and_after_stand_in_the_report(config, tmp_path):
    options = {"samples": 2, "sample_tokens": 5, "learning_rate": 0.5}
    assert main(["train", "--config", config(**options)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text("utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == ["Film 0:", "Film 1:"]
    assert all(len(row["before"]) <= 5 for row in rows)  # a token is a byte
    assert any(row["before"] != row["after"] for row in rows)
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    assert "Film 1:" in (tmp_path / "page.html").read_text("utf-8")


def test_no_texts_are_written_where_none_are_wanted(config, tmp_path):
    assert main(["train", "--config", config(samples=0)]) == 0
    assert not (tmp_path / "run" / "samples.jsonl").exists()


def test_adapters_are_made_and_trained_further(config, checkpoint, tmp_path, capsys):
    adapter = {"use_peft": True, "lora_r": 4, "lora_target_modules": ["q_proj"]}
    assert main(["train", "--config", config(**adapter)]) == 0
    first = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in first} == {"q_proj"}
    again = config(model_name_or_path=str(tmp_path / "run"), output_dir=str(tmp_path / "again"))
    assert main(["train", "--config", again]) == 0
    assert "a frozen copy of its adapter" in capsys.readouterr().out
    second = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_run_is_resumed(config, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    assert main(["train", "--config", config(**saving)]) == 0
    whole = load_file(tmp_path / "run" / "model.safetensors")
    assert main(["train", "--config", config(**saving, resume_from_checkpoint=f"{tmp_path}/run/checkpoint-2")]) == 0
    resumed = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_a_resumed_run_has_no_second_start(config, pairs, tmp_path):
    evaluating = {"eval_dataset_name": pairs, "eval_on_start": True, "eval_strategy": "steps", "eval_steps": 2}
    options = {**evaluating, "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    assert main(["train", "--config", config(**options)]) == 0
    assert main(["train", "--config", config(**options, resume_from_checkpoint=f"{tmp_path}/run/checkpoint-2")]) == 0
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "eval_loss" in entry] == [0, 2, 4]


def test_another_file_is_evaluated_on(config, tmp_path):
    tiny_pairs(4).to_json(tmp_path / "held_out.jsonl")
    options = {"eval_strategy": "steps", "eval_steps": 3, "eval_dataset_name": str(tmp_path / "held_out.jsonl")}
    assert main(["train", "--config", config(**options)]) == 0
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert any("eval_displacement" in entry for entry in state["log_history"])


BAD = [
    ({"lerning_rate": 1}, [], "Did you mean `learning_rate`"),
    ({"rpo_alpha": 1.0}, [], "`rpo_alpha` is no option any more"),
    ({"max_prompt_length": 1}, [], "Use `max_length`"),
    ({"model_name_or_path": None}, [], "`model_name_or_path` must be given"),
    ({"dataset_name": None}, [], "`dataset_name` must be given"),
    ({"dataset_name": "no.jsonl"}, [], "no.jsonl"),
    ({"model_name_or_path": "no/such-model"}, [], "no/such-model"),
    ({"loss": "dpo(betta=0.1)"}, [], "Did you mean `beta`"),
    ({"loss": "robust(dpo(beta=0.1), flip_rate=0.5)"}, [], "flip_rate"),
    ({"beta": 0.2}, [], "both given"),
    ({"lora_r": 4}, [], "use_peft"),
    ({"bnb_4bit_quant_type": "fp4"}, [], "load_in_4bit"),
    ({"max_steps": "many"}, [], "`max_steps` in the config file cannot be read"),
    ({"on_bad_pairs": "skip"}, [], "must be one of 'drop', 'error'"),
    ({"eval_dataset_name": "x.jsonl"}, [], "eval_strategy"),
    ({"eval_strategy": "steps"}, [], "eval_dataset_name"),
    ({"env": 3}, [], "`env`"),
    ({"samples": -1}, [], "`samples` must be >= 0"),
    ({}, ["--betta", "0.1"], "Did you mean `beta`"),
    ({}, ["--max-prompt-length=3"], "Use `max_length`"),
    ({}, ["--loss", "simpo(beta=2.0)"], "needs the argument `gamma`|gamma"),
]


@pytest.mark.parametrize(("options", "words", "message"), BAD, ids=str)
def test_a_bad_option_is_one_error_before_any_weights_load(options, words, message, config, capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    try:
        code = main(["train", "--config", config(**options), *words])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    error = capsys.readouterr().err
    assert any(part in error for part in message.split("|"))
    assert "Traceback" not in error


def test_a_file_that_is_no_config_is_refused(tmp_path, capsys):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    for name in ("list.yaml", "broken.yaml", "missing.yaml"):
        assert main(["train", "--config", str(tmp_path / name)]) == 2
        assert name in capsys.readouterr().err


def test_data_for_an_adapter_are_checked_before_its_weights_load(config, checkpoint, tmp_path, capsys, monkeypatch):
    base = AutoModelForCausalLM.from_pretrained(checkpoint)
    get_peft_model(base, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    tiny_tokenizer().save_pretrained(tmp_path / "adapter")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded"))
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "chosen": " b", "rejected": " b"}\n' * 4)
    words = ["--model_name_or_path", str(tmp_path / "adapter"), "--dataset_name", str(tmp_path / "bad.jsonl")]
    assert main(["train", "--config", config(), *words]) == 2
    assert "chosen equals rejected" in capsys.readouterr().err


def test_an_adapter_on_an_adapter_is_refused(config, checkpoint, tmp_path, capsys):
    base = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    get_peft_model(base, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    tiny_tokenizer().save_pretrained(tmp_path / "adapter")
    words = ["--model_name_or_path", str(tmp_path / "adapter"), "--use_peft"]
    assert main(["train", "--config", config(), *words]) == 2
    assert "is an adapter itself" in capsys.readouterr().err


def test_help_lists_the_fields_of_trl_and_ours(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for option in ("--config", "--loss", "--reference", "--learning_rate", "--lora_r", "--dataset_name"):
        assert option in out
    assert "Sample from so many likeliest tokens" in " ".join(out.split())  # the docstring's words
    assert all("help" in f.metadata for f in fields(PrefConfig) if f.name in {*PrefConfig.__annotations__, "top_p"})
