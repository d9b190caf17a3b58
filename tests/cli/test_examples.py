"""The configs in examples/ train: each here on a tiny model, for two steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from prefalign.cli import main
from prefalign.logic import known_losses
from prefalign.losses import parse_loss
from prefalign.sweep import open_queue
from tests.tiny import save_tiny

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "examples").glob("0[1-3]_*.yaml"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("tiny")))


@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing.* is deprecated:FutureWarning")  # TRL's own
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_an_example_trains_the_formula_that_it_states(config, model, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    content = yaml.safe_load(config.read_text())
    options = {"model_name_or_path": model, "output_dir": str(tmp_path / "run"), "max_steps": 2, "eval_steps": 2}
    for name in ("dataset_name", "eval_dataset_name"):  # the beginning of the files that the config names
        options[name] = str(tmp_path / Path(content[name]).name)
        Path(options[name]).write_text("\n".join(Path(content[name]).read_text("utf-8").splitlines()[:8]), "utf-8")
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert main(["train", "--config", str(config), "--disable_tqdm", "true", *words]) == 0
    record = json.loads((tmp_path / "run" / "prefalign_run.json").read_text())
    assert parse_loss(record["loss"]["expression"]) == parse_loss(content["loss"])
    assert record["reference"]["expression"] == "initial"
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    first, last = (entry for entry in history if "eval_loss" in entry)
    assert first["eval_logps/chosen_change"] == 0
    assert last["eval_logps/chosen_change"] != 0


def test_there_are_two_named_formulas_and_one_without_a_name():
    structures = [parse_loss(yaml.safe_load(path.read_text())["loss"]).structure for path in CONFIGS]
    assert [known_losses(structure).name for structure in structures] == ["cCPO", "qfUNL", ""]
    assert not known_losses(structures[2])  # nor is its ratio that of a known loss


def test_the_case_study_holds_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    # Drawing is tested elsewhere.
    monkeypatch.setattr("prefalign.sweep.write_page", lambda *_: None)
    assert main(["sweep", "--plan", "examples/04_case_study.yaml", "--out", str(tmp_path), "--page-only"]) == 0
    plan = open_queue(tmp_path).plan.to_json()
    assert len(plan["arms"]) * len(plan["seeds"]) == 66
    named = [arm for arm in plan["arms"] if arm["kind"] == "baseline" and not arm["sft"]]
    assert [arm["rows"] for arm in named] == ["bvxo", "ovxo", "vvxo", "ovxb", "ovxv", "vvxv"]
    made = [arm["rows"] for arm in plan["arms"] if arm["kind"] == "candidate" and not arm["sft"]]
    assert len(made) == len({*made} - {arm["rows"] for arm in named}) == 5
    assert all(rows[3] == "o" for rows in made)  # a gradient is left at any length


@pytest.mark.slow
def test_a_miniature_of_the_case_study_runs(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    heldout = (ROOT / "examples/data/reviews_heldout.jsonl").read_text("utf-8").splitlines()[:4]
    (tmp_path / "heldout.jsonl").write_text("\n".join(heldout), "utf-8")
    base = yaml.safe_load((ROOT / "examples/04_case_study_base.yaml").read_text())
    base |= {"model_name_or_path": model, "eval_dataset_name": str(tmp_path / "heldout.jsonl"), "use_cpu": True}
    # The tiny model has no upper third of thirty layers.
    base |= {"max_steps": 2, "eval_steps": 1, "save_steps": 1, "lora_target_modules": ["q_proj", "v_proj"]}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    small = [
        "--config",
        str(tmp_path / "base.yaml"),
        "--baselines",
        "unCPO",
        "--top",
        "1",
        "--seeds",
        "0",
        "--sft",
        "0.01",
    ]
    words = ["sweep", "--plan", "examples/04_case_study.yaml", *small, "--out", str(tmp_path / "sweep")]
    assert main(words) == 0
    said = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert said["sorted_by"] == "gold"
    for arm in said["arms"]:
        assert not arm["failures"], arm
        # Two updates of a random model at this rate change what it says of the held-out pairs.
        assert arm["results"]["chosen"]["mean"] != 0
        assert -1 <= arm["results"]["gold"]["mean"] <= 1
    assert {arm["name"]: arm["theory"]["may_collapse"] for arm in said["arms"]} == {
        "unCPO + 0.01 sft": True,
        "bbxo + 0.01 sft": False,
    }
    assert (tmp_path / "sweep" / "sweep.html").is_file()
