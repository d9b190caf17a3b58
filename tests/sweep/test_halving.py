"""Successive halving in a sweep: who goes on, what is trained meanwhile, and what the page says."""

from __future__ import annotations

import json
import sys
import threading

import pytest
import yaml
from safetensors.torch import load_file

from prefalign.cli import main
from prefalign.logic import parse_spec
from prefalign.sweep import Halving, Plan, Recipe, _page, _work, load_plan, make_arms, open_legs, work
from tests.tiny import save_tiny, tiny_pairs

# A run that gains `gains[rows][seed]` nats of margin at every step, up to the step that it is told.
PLAYED = """
import json, pathlib, sys, yaml
folder, until = pathlib.Path(sys.argv[1]), int(sys.argv[3])
sweep = folder.parents[1]
config = yaml.safe_load((folder / "config.yaml").read_text())
plan = json.loads((sweep / "plan.json").read_text())
arm = next(arm for arm in plan["arms"] if arm["loss"] == config["loss"])
with open(folder / "started", "a") as file:
    file.write(f"{until} ")
gain = json.loads((sweep / "gains.json").read_text())[arm["rows"]][config["seed"]]
if gain is None:
    sys.exit("SomeError: out of luck")
log = [{"step": step, "eval_logps/chosen_change": gain * step, "eval_logps/rejected_change": 0.0}
       for step in range(0, (until or 8) + 1, 2)]
state = json.dumps({"global_step": until or 8, "max_steps": 8, "log_history": log})
place = folder / "run" / (f"checkpoint-{until}" if until else "")
place.mkdir(parents=True, exist_ok=True)
(place / "trainer_state.json").write_text(state)
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    script = tmp_path / "played.py"
    script.write_text(PLAYED)
    monkeypatch.setattr(_work, "COMMAND", [sys.executable, str(script)])
    monkeypatch.setattr(_work, "_PATIENCE", 0.05)
    monkeypatch.setattr(_page, "draw_lattices", lambda rows, metric: [])
    monkeypatch.setattr(_page, "draw_curves", lambda rows: [])
    tiny_pairs(4).to_json(tmp_path / "pairs.jsonl")
    content = {
        "model_name_or_path": "nowhere",
        "dataset_name": str(tmp_path / "pairs.jsonl"),
        "eval_dataset_name": str(tmp_path / "pairs.jsonl"),
        "eval_strategy": "steps",
        "eval_steps": 2,
        "max_steps": 8,
        "use_cpu": True,
    }
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


# Four candidates (unCPO, cCPO, l14, CPO) and a baseline, two seeds each.
WORDS = ("--spec", "between cpo and unCPO", "--baselines", "orpo", "--seeds", "0", "1", "--halving", "2")
GAINS = {"vvxv": [9, -9], "vvxo": [1, 1], "bvxv": [2, 4], "bvxo": [-1, 0], "ovxo": [-5, -5]}


def sweep(config, *words, gains=None):
    folder = config.parent / "sweep"
    folder.mkdir(exist_ok=True)
    (folder / "gains.json").write_text(json.dumps(gains or GAINS))
    return main(["sweep", "--config", str(config), "--out", str(folder), *words])


def started(config):
    runs = (config.parent / "sweep" / "runs").glob("*/started")
    return {file.parent.name.partition("-")[2]: file.read_text().split() for file in runs}


def test_the_best_half_goes_on_seeds_are_judged_together_and_baselines_are_not(config, capsys):
    assert sweep(config, *WORDS) == 0
    # Rungs at 8/2 and 8/4. At 2 the means are 0, 2, 6, -1 for two steps: l14 and cCPO go on; at 4 l14 does.
    assert started(config) == {
        "unCPO-seed0": ["2"],  # the best of all runs, and with its other seed no good
        "unCPO-seed1": ["2"],
        "CPO-seed0": ["2"],
        "CPO-seed1": ["2"],
        "cCPO-seed0": ["2", "4"],
        "cCPO-seed1": ["2", "4"],
        "l14-seed0": ["2", "4", "0"],
        "l14-seed1": ["2", "4", "0"],
        "ORPO-seed0": ["0"],  # the worst, but a baseline: in one go
        "ORPO-seed1": ["0"],
    }
    said = json.loads((config.parent / "sweep" / "sweep.json").read_text())
    assert [(arm["name"], arm["stopped"]) for arm in said["arms"]] == [
        ("l14", None),
        ("ORPO", None),
        ("cCPO", 4),
        ("unCPO", 2),
        ("CPO", 2),
    ]
    # What was stopped has no final numbers beside those of whole runs.
    assert [bool(arm["results"]) for arm in said["arms"]] == [True, True, False, False, False]
    assert said["rungs"][0] == {
        "step": 2,
        "values": {"l14": [4.0, 8.0], "cCPO": [2.0, 2.0], "unCPO": [18.0, -18.0], "CPO": [-2.0, 0.0]},
        "kept": ["l14", "cCPO"],
    }
    page = (config.parent / "sweep" / "sweep.html").read_text()
    assert "3 losses were stopped early" in page
    assert page.count(">stopped here<") == 3
    assert "stopped at 4" in capsys.readouterr().out
    # Going on trains nothing twice, and changes no decision.
    before = started(config)
    rungs = {file.name: file.read_bytes() for file in (config.parent / "sweep" / "rungs").iterdir()}
    assert sorted(rungs) == ["2.json", "4.json"]
    assert main(["sweep", "--out", str(config.parent / "sweep"), "--retry-failed"]) == 0
    assert started(config) == before
    assert {file.name: file.read_bytes() for file in (config.parent / "sweep" / "rungs").iterdir()} == rungs


def test_baselines_are_judged_when_asked_for_and_by_another_metric(config, capsys):
    words = (*WORDS[:-2], "--halving", "4", "--rungs", "6", "--judge-baselines", "--judge-by", "chosen")
    assert sweep(config, *words) == 0
    (decision,) = json.loads((config.parent / "sweep" / "sweep.json").read_text())["rungs"]
    assert decision["kept"] == ["l14", "cCPO"]  # two of five: 5/4, rounded up
    assert started(config)["ORPO-seed0"] == ["6"]


def test_a_loss_whose_runs_all_fail_is_stopped_and_one_seed_is_enough_to_be_judged(config):
    gains = GAINS | {"bvxv": [None, None], "vvxo": [None, 1]}
    assert sweep(config, *WORDS, gains=gains) == 0
    said = json.loads((config.parent / "sweep" / "sweep.json").read_text())
    assert said["rungs"][0]["kept"] == ["cCPO", "unCPO"]
    assert said["rungs"][0]["values"]["l14"] == []
    assert "stopped here: all its runs failed" in (config.parent / "sweep" / "sweep.html").read_text()


@pytest.mark.slow
def test_two_workers_come_to_the_decisions_of_one(config):
    assert sweep(config, *WORDS, "--page-only") == 0
    folder = config.parent / "sweep"
    threads = [threading.Thread(target=work, args=(load_plan(folder), folder), kwargs={"workers": 2}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [json.loads((folder / "rungs" / f"{step}.json").read_text())["kept"] for step in (2, 4)] == [
        ["l14", "cCPO"],
        ["l14"],
    ]
    assert max(map(len, started(config).values())) == 3


def test_a_rung_waits_for_all_seeds_while_baselines_go_on(tmp_path):
    arms = make_arms(
        parse_spec("between cpo and unCPO"), ["orpo"], top=2, by=("literals",), near=None, sft=(0.0,), recipe=Recipe()
    )
    plan = Plan("", {}, arms, (0, 1), 0, {}, Halving(2, (4,)))

    def legs():
        return [(leg.job.name, leg.until) for leg in open_legs(plan, tmp_path)]

    def reach(name, value):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "rung-4.json").write_text(json.dumps({"final": {"margin": value}, "curves": {}}))

    first = [("1-ORPO-seed0", 0), ("2-unCPO-seed0", 4), ("3-cCPO-seed0", 4)]
    assert legs() == first + [(name.replace("seed0", "seed1"), until) for name, until in first]
    for name in ("2-unCPO-seed0", "2-unCPO-seed1", "3-cCPO-seed0"):
        reach(name, 1.0)
    assert legs() == [("1-ORPO-seed0", 0), ("1-ORPO-seed1", 0), ("3-cCPO-seed1", 4)]
    reach("3-cCPO-seed1", 1.0)  # a tie: the first in the plan's order stays
    assert legs() == [(f"{name}-seed{seed}", 0) for seed in (0, 1) for name in ("1-ORPO", "2-unCPO")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--halving", "1"), "must be >= 2"),
        (("--halving", "-3"), "must be >= 2"),
        (("--rungs", "2"), "no effect without `--halving`"),
        (("--halving", "2", "--rungs", "3"), "multiples of `eval_steps` = 2"),
        (("--halving", "2", "--rungs", "8"), "below `max_steps` = 8"),
        (("--halving", "2", "--rungs", "4", "2"), "ascending"),
        (("--halving", "9"), "--rungs"),  # 8 // 9 is no step
        (("--halving", "2", "--top", "1"), "1 of the losses can be stopped"),
    ],
)
def test_halving_that_cannot_work_is_refused_before_anything_starts(config, words, message, capsys):
    assert sweep(config, *WORDS[:-2], *words) == 2
    assert message in capsys.readouterr().err
    assert not (config.parent / "sweep" / "runs").exists()


def test_a_plan_of_before_there_was_halving_can_be_gone_on_with(config):
    assert sweep(config, *WORDS[:-2], "--page-only") == 0
    file = config.parent / "sweep" / "plan.json"
    content = json.loads(file.read_text())
    assert content.pop("halving") is None
    file.write_text(json.dumps(content))
    assert load_plan(file.parent).halving is None
    assert sweep(config, *WORDS[:-2], "--page-only") == 0


@pytest.mark.slow
def test_what_goes_on_after_a_rung_ends_as_if_it_had_not_been_judged(config, monkeypatch, tmp_path):
    monkeypatch.undo()
    save_tiny(tmp_path / "model")
    base = yaml.safe_load(config.read_text()) | {"model_name_or_path": str(tmp_path / "model"), "learning_rate": 1e-2}
    config.write_text(yaml.safe_dump(base))
    words = ("--spec", "between cpo and unCPO", "--top", "2", "--seeds", "0")
    ends = {}
    for name, more in (("whole", ()), ("halved", ("--halving", "2", "--rungs", "4"))):
        folder = tmp_path / name
        assert main(["sweep", "--config", str(config), *words, *more, "--out", str(folder)]) == 0
        for file in folder.glob("runs/*/run/model.safetensors"):
            result = json.loads((file.parents[1] / "result.json").read_text())
            ends[name, file.parents[1].name] = load_file(file), result["curves"]
    (kept,) = [run for name, run in ends if name == "halved"]
    assert len(ends) == 3
    (mine, my_curves), (theirs, their_curves) = ends["halved", kept], ends["whole", kept]
    assert my_curves == their_curves
    assert my_curves["margin"][0] == [0, 2, 4, 6, 8]
    assert all((mine[name] == theirs[name]).all() for name in theirs)
    (stopped,) = {file.parent.name for file in (tmp_path / "halved").glob("runs/*/rung-4.json")} - {kept}
    rung = json.loads((tmp_path / "halved" / "runs" / stopped / "rung-4.json").read_text())["curves"]["margin"]
    whole = ends["whole", stopped][1]["margin"]
    assert rung == [whole[0][:3], whole[1][:3]]  # the schedule was that of the whole run
