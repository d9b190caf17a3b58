"""Successive halving in a sweep: who goes on, what is trained meanwhile, and what the page says."""

from __future__ import annotations

import json
import sys

import pytest
import yaml
from safetensors.torch import load_file

from prefalign.cli import main
from prefalign.sweep import _page, _work, open_queue, work
from tests.tiny import save_tiny, tiny_pairs

# A run that gains `gains[rows][seed]` nats of margin at every step, up to the step that it is told.
PLAYED = """
import json, pathlib, sys
folder, until = pathlib.Path(sys.argv[1]), int(sys.argv[3])
name, seed = folder.name.split("-")[1:]
with open(folder / "started", "a") as file:
    file.write(f"{until} ")
gain = json.loads((folder.parents[1] / "gains.json").read_text())[name][int(seed[4:])]
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
    monkeypatch.setattr(_work, "COMMAND", [sys.executable, "-S", str(script)])
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


# Four candidates (unCPO, cCPO, l14, CPO, in this order) and a baseline, two seeds each; rungs at steps 2 and 4.
WORDS = ("--spec", "between cpo and unCPO", "--baselines", "orpo", "--seeds", "0", "1", "--halving", "2")
GAINS = {"unCPO": [7, 5], "cCPO": [2, 2], "l14": [9, -9], "CPO": [2, 4], "ORPO": [-5, -5]}


def sweep(config, *words, gains=None):
    folder = config.parent / "sweep"
    folder.mkdir(exist_ok=True)
    (folder / "gains.json").write_text(json.dumps(gains or GAINS))
    return main(["sweep", "--config", str(config), "--out", str(folder), *words])


def started(config):
    runs = (config.parent / "sweep" / "runs").glob("*/started")
    return {file.parent.name.partition("-")[2]: file.read_text().split() for file in runs}


def test_the_best_of_a_rung_go_on_seeds_are_judged_together_and_baselines_are_not(config, capsys):
    assert sweep(config, *WORDS) == 0
    # At step 2 the means are 12, 4, 0 and 6 in this order. The best so far goes on, of four the best two do:
    # unCPO and CPO. At step 4 CPO has 12 against unCPO's 24.
    both = {name: [f"{name}-seed{seed}" for seed in (0, 1)] for name in GAINS}
    assert started(config) == {
        **{key: ["0"] for key in both["ORPO"]},  # the worst, but a baseline: in one go
        **{key: ["2", "4", "0"] for key in both["unCPO"]},
        **{key: ["2"] for key in both["cCPO"]},
        **{key: ["2"] for key in both["l14"]},  # its first seed is the best of all runs
        **{key: ["2", "4"] for key in both["CPO"]},
    }
    said = json.loads((config.parent / "sweep" / "sweep.json").read_text())
    assert [(arm["name"], arm["stopped"]) for arm in said["arms"]] == [
        ("unCPO", None),
        ("ORPO", None),
        ("CPO", 4),
        ("cCPO", 2),
        ("l14", 2),
    ]
    # What was stopped has no final numbers beside those of whole runs.
    assert [bool(arm["results"]) for arm in said["arms"]] == [True, True, False, False, False]
    page = (config.parent / "sweep" / "sweep.html").read_text()
    assert "3 losses were stopped early" in page
    assert "at step 2, then 4 the generated losses are judged" in page
    assert "stopped at 4" in capsys.readouterr().out
    # Going on trains nothing twice.
    before = started(config)
    assert main(["sweep", "--out", str(config.parent / "sweep"), "--retry-failed"]) == 0
    assert started(config) == before


def test_what_a_dead_worker_had_reported_does_not_count_twice(config):
    means = {"unCPO": [6], "cCPO": [2], "l14": [0], "CPO": [3], "ORPO": [-5]}
    assert sweep(config, *WORDS, "--seeds", "0", "--page-only", gains=means) == 0
    queue = open_queue(config.parent / "sweep")
    dead = next(trial for trial in map(queue.study.ask, [None] * 2) if trial.user_attrs["name"] == "unCPO")
    dead.report(12.0, 2)
    assert not dead.should_prune()
    work(queue)
    # The order now is cCPO, l14, CPO, and again ORPO and unCPO; with the dead one's 12 nats cCPO
    # would be stopped at the first rung, where it is the first and best.
    ends = {name: (trial.state.name, trial.last_step) for name, trial in queue.latest().items()}
    assert ends["cCPO"] == ("COMPLETE", 8)
    assert ends["l14"] == ("PRUNED", 2)
    assert ends["unCPO"] == ("COMPLETE", 8)


def test_baselines_are_judged_when_asked_for_and_by_another_metric(config):
    words = (*WORDS, "--seeds", "0", "--first-rung", "6", "--judge-baselines", "--judge-by", "rejected")
    assert sweep(config, *words) == 0
    study = open_queue(config.parent / "sweep").study
    assert study.direction.name == "MINIMIZE"
    assert {trial.value for trial in study.trials} == {0.0}
    assert started(config)["ORPO-seed0"] == ["6", "0"]


def test_a_loss_whose_runs_all_fail_is_out_and_one_seed_is_enough_to_be_judged(config):
    gains = GAINS | {"unCPO": [None, None], "CPO": [None, 4]}
    assert sweep(config, *WORDS, gains=gains) == 0
    said = {arm["name"]: arm for arm in json.loads((config.parent / "sweep" / "sweep.json").read_text())["arms"]}
    assert len(said["unCPO"]["failures"]) == 2
    assert said["CPO"]["results"]["margin"]["values"] == [32.0]
    before = started(config)
    assert main(["sweep", "--out", str(config.parent / "sweep")]) == 0
    assert started(config) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--halving", "1"), "must be >= 2"),
        (("--halving", "-3"), "must be >= 2"),
        (("--first-rung", "2"), "no effect without `--halving`"),
        (("--halving", "2", "--first-rung", "7"), "before the end"),  # the next evaluation is the last
        (("--halving", "9"), "--first-rung"),  # 8 // 9 is no step
        (("--halving", "2", "--top", "1"), "1 of the losses can be stopped"),
    ],
)
def test_halving_that_cannot_work_is_refused_before_anything_starts(config, words, message, capsys):
    assert sweep(config, *WORDS[:-2], *words) == 2
    assert message in capsys.readouterr().err
    assert not (config.parent / "sweep" / "runs").exists()


@pytest.mark.slow
def test_what_goes_on_after_a_rung_ends_as_if_it_had_not_been_judged(config, monkeypatch, tmp_path):
    monkeypatch.undo()
    save_tiny(tmp_path / "model")
    base = yaml.safe_load(config.read_text()) | {"model_name_or_path": str(tmp_path / "model"), "learning_rate": 1e-2}
    config.write_text(yaml.safe_dump(base))
    words = ("--spec", "between cpo and unCPO", "--top", "2", "--seeds", "0")
    ends = {}
    for name, more in (("whole", ()), ("halved", ("--halving", "2", "--first-rung", "4"))):
        folder = tmp_path / name
        assert main(["sweep", "--config", str(config), *words, *more, "--out", str(folder)]) == 0
        for arm, trial in open_queue(folder).latest().items():
            (weights,) = folder.glob(f"runs/*-{arm}-seed0/run")
            file = weights / "model.safetensors"
            ends[name, arm] = load_file(file) if file.exists() else {}, trial.user_attrs["runs"]["0"]["curves"]
    # The first at a rung goes on; the second does if it is better.
    (mine, my_curves), (theirs, their_curves) = ends["halved", "unCPO"], ends["whole", "unCPO"]
    assert my_curves == their_curves
    assert my_curves["margin"][0] == [0, 2, 4, 6, 8]
    assert theirs
    assert all((mine[name] == theirs[name]).all() for name in theirs)
    second, whole = ends["halved", "cCPO"][1]["margin"], ends["whole", "cCPO"][1]["margin"]
    assert len(second[0]) in (3, 5)
    assert second == [whole[0][: len(second[0])], whole[1][: len(second[0])]]  # the schedule was that of the whole run
