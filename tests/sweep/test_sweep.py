"""`prefalign sweep`: plans, fleets, interrupts and the page; runs are played by a script that trains nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest
import yaml
from optuna.trial import TrialState

from prefalign import PrefalignError
from prefalign.cli import main
from prefalign.logic import parse_spec
from prefalign.losses import parse_loss
from prefalign.sweep import Recipe, _page, _work, make_arms, open_queue, work
from prefalign.sweep._curves import draw_lattices
from prefalign.sweep._plan import METRICS
from prefalign.sweep._results import Row
from tests.tiny import save_tiny, tiny_pairs

# A run whose chosen log-probability changes by seed + 1, and whose rejected one by -2.
PLAYED = """
import json, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
with open(folder / "started", "a") as file:
    file.write("x")
if (folder.parents[1] / "hang").exists():
    time.sleep(60)
if (folder.parents[1] / "fail").exists():
    sys.exit("SomeError: out of luck")
value = int(folder.name.rpartition("seed")[2]) + 1.0
log = [
    {"step": 0, "eval_logps/chosen_change": 0.0, "eval_logps/rejected_change": 0.0},
    {"step": 4, "eval_logps/chosen_change": value, "eval_logps/rejected_change": -2.0, "eval_displacement": 0.25},
]
if (folder.parents[1] / "blind").exists():
    log = log[:0]
(folder / "run").mkdir(exist_ok=True)
(folder / "run" / "trainer_state.json").write_text(json.dumps({"global_step": 4, "max_steps": 4, "log_history": log}))
(folder / "run" / "prefalign_run.json").write_text("{}")
"""


@pytest.fixture
def config(tmp_path):
    tiny_pairs(4).to_json(tmp_path / "pairs.jsonl")
    content = {
        "model_name_or_path": "nowhere",
        "dataset_name": str(tmp_path / "pairs.jsonl"),
        "eval_dataset_name": str(tmp_path / "pairs.jsonl"),
        "eval_strategy": "steps",
        "eval_steps": 4,
        "max_steps": 4,
        "learning_rate": "5e-4",
        "use_cpu": True,
    }
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def played(tmp_path, monkeypatch):
    script = tmp_path / "played.py"
    script.write_text(PLAYED)
    monkeypatch.setattr(_work, "COMMAND", [sys.executable, "-S", str(script)])
    monkeypatch.setattr(_work, "_PATIENCE", 0.05)


@pytest.fixture
def unillustrated(monkeypatch):
    """Drawing takes seconds, and one test looks at the pictures."""
    monkeypatch.setattr(_page, "draw_curves", lambda rows: [])
    monkeypatch.setattr(_page, "draw_lattices", lambda rows, metric: [])


def sweep(config, *words):
    return main(["sweep", "--config", str(config), "--out", str(config.parent / "sweep"), *words])


def arms(spec, baselines, **options):
    given = {"top": 5, "by": ("literals",), "near": None, "sft": (0.0,), "recipe": Recipe(), **options}
    return make_arms(None if spec is None else parse_spec(spec), baselines, **given)


def test_candidates_are_the_simplest_that_are_no_baselines():
    made = arms("between cpo and unCPO", ["cpo", "orpo"], top=2)
    assert [(arm.name, arm.kind, arm.rows) for arm in made] == [
        ("CPO", "baseline", "bvxo"),
        ("ORPO", "baseline", "ovxo"),
        ("unCPO", "candidate", "vvxv"),
        ("cCPO", "candidate", "vvxo"),
    ]


def test_every_arm_comes_with_every_sft_weight_and_one_recipe():
    made = arms(None, ["ccpo"], sft=(0.0, 0.01), recipe=Recipe(beta=2.0, reference=False))
    assert [(arm.name, arm.family) for arm in made] == [("cCPO", "cCPO"), ("cCPO + 0.01 sft", "cCPO")]
    plain, both = (parse_loss(arm.loss) for arm in made)
    assert (plain.beta, plain.mean, plain.needs_reference) == (2.0, True, False)
    assert [weight for weight, _ in both.terms] == [1.0, 0.01]


def test_a_loss_with_a_reference_has_the_place_of_its_structure_without():
    (arm,) = arms(None, ["dpo(beta=0.1)"])
    assert (arm.rows, arm.atoms) == ("bvxo", ("w", "l"))  # CPO's
    (arm,) = arms(None, ["bco(beta=0.1)"])
    assert arm.structure is None


def test_a_sweep_leaves_a_table_with_intervals_and_a_page(config, played, capsys):
    assert (
        sweep(config, "--spec", "between cpo and unCPO", "--baselines", "cpo", "--top", "1", "--seeds", "0", "1") == 0
    )
    out = capsys.readouterr().out
    assert "2 losses x 2 seeds = 4 runs" in out
    folder = config.parent / "sweep"
    said = json.loads((folder / "sweep.json").read_text())
    assert said["sorted_by"] == "margin"
    first = said["arms"][0]["results"]
    # Changes of 1 and 2 over the two seeds, against -2: the margin is 3 and 4.
    assert first["margin"]["values"] == [3.0, 4.0]
    assert first["margin"]["mean"] == 3.5
    assert first["margin"]["low"] == 3.0
    assert first["margin"]["high"] == 4.0
    assert first["displacement"]["mean"] == 0.25
    page = (folder / "sweep.html").read_text()
    assert "unCPO" in page
    assert "may collapse" in page
    assert page.count("data:image/png;base64,") == 5  # the lattice, and four metrics
    config_of_one = yaml.safe_load(sorted(folder.glob("runs/*/config.yaml"))[0].read_text())
    assert config_of_one["learning_rate"] == "5e-4"
    assert config_of_one["eval_on_start"] is True


def test_what_is_done_is_not_done_again(config, played, unillustrated, capsys):
    words = ("--baselines", "cpo", "orpo", "--seeds", "0")
    assert sweep(config, *words) == 0
    assert main(["sweep", "--out", str(config.parent / "sweep")]) == 0
    started = [file.read_text() for file in (config.parent / "sweep" / "runs").glob("*/started")]
    assert started == ["x", "x"]
    assert sweep(config, *words, "--beta", "3") == 2
    assert "differs in arms" in capsys.readouterr().err
    tiny_pairs(5).to_json(config.parent / "pairs.jsonl")
    assert sweep(config, *words) == 2
    assert "differs in data" in capsys.readouterr().err


def test_a_failed_run_is_told_and_tried_again_when_asked(config, played, unillustrated, capsys):
    folder = config.parent / "sweep"
    folder.mkdir()
    (folder / "fail").touch()
    assert sweep(config, "--baselines", "cpo", "--seeds", "0") == 0
    assert "SomeError: out of luck" in (folder / "sweep.html").read_text()
    (folder / "fail").unlink()
    assert main(["sweep", "--out", str(folder)]) == 0
    assert "0/1" in capsys.readouterr().out
    assert main(["sweep", "--out", str(folder), "--retry-failed"]) == 0
    assert "1/1" in capsys.readouterr().out


def test_a_run_without_an_evaluation_has_failed_and_stops_no_other(config, played, unillustrated, capsys):
    folder = config.parent / "sweep"
    folder.mkdir()
    (folder / "blind").touch()
    assert sweep(config, "--baselines", "cpo", "orpo", "--seeds", "0") == 0
    assert (folder / "sweep.html").read_text().count("has no evaluation after the first") == 2


def test_an_interrupted_sweep_ends_its_runs_and_goes_on(config, played, unillustrated, capsys, monkeypatch):
    folder = config.parent / "sweep"
    folder.mkdir()
    (folder / "hang").touch()

    def interrupt():
        while not list(folder.glob("runs/*/started")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    began = time.monotonic()
    assert sweep(config, "--baselines", "cpo", "--seeds", "0") == 130
    assert time.monotonic() - began < 30  # the run would have slept for a minute
    assert not list(folder.glob("runs/*/*.json"))
    (folder / "hang").unlink()
    assert main(["sweep", "--out", str(folder)]) == 0
    assert [file.read_text() for file in folder.glob("runs/*/started")] == ["xx"]
    assert "1/1" in capsys.readouterr().out


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_fleet_shares_the_runs(config, played, unillustrated, storage):
    folder = config.parent / "sweep"
    plan = ["--baselines", "cpo", "orpo", "ccpo", "--seeds", "0", "--storage", storage]
    assert sweep(config, *plan, "--page-only") == 0
    threads = [threading.Thread(target=work, args=(open_queue(folder),), kwargs={"workers": 2}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [file.read_text() for file in folder.glob("runs/*/started")] == ["x", "x", "x"]
    assert [trial.state.name for trial in open_queue(folder).study.trials] == ["COMPLETE"] * 3
    assert main(["sweep", "--out", str(folder)]) == 0  # finds the study, whatever keeps it
    other = "journal" if storage == "sqlite" else "sqlite"
    assert main(["sweep", "--out", str(folder), "--storage", other]) == 2


def begin(queue):
    """Take a loss as a worker does that dies at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna: "Heartbeat of storage is supposed to be used with Study.optimize"
        return queue.study.ask()


def states(queue):
    return [(trial.user_attrs["name"], trial.state.name) for trial in queue.study.trials]


def test_the_loss_of_a_dead_worker_is_taken_over_at_once(config, played, unillustrated):
    assert sweep(config, "--baselines", "cpo", "orpo", "--seeds", "0", "--page-only") == 0
    queue = open_queue(config.parent / "sweep")
    begin(queue)
    work(queue)
    assert states(queue) == [("CPO", "FAIL"), ("ORPO", "COMPLETE"), ("CPO", "COMPLETE")]


def database(config):
    """A study in a database, which has heartbeats."""
    return f"sqlite:///{config.parent / 'fleet.db'}"


def test_in_a_database_a_worker_without_a_heartbeat_is_dead_after_a_while(config, played, unillustrated):
    plan = ["--baselines", "cpo", "--seeds", "0", "--storage", database(config)]
    assert sweep(config, *plan, "--page-only") == 0
    queue = open_queue(config.parent / "sweep", database(config), stale_after=300)
    # One that died before its first heartbeat, which Optuna alone would wait for for ever.
    begin(queue)
    assert not queue.serve_one(None)
    queue._silent[0] -= 301
    work(queue)
    assert states(queue) == [("CPO", "FAIL"), ("CPO", "COMPLETE")]


def test_a_worker_that_was_taken_for_dead_leaves_the_loss_to_its_successor(config, played, unillustrated, monkeypatch):
    folder = config.parent / "sweep"
    plan = ["--baselines", "cpo", "--seeds", "0", "--storage", database(config)]
    assert sweep(config, *plan, "--page-only") == 0
    monkeypatch.setattr(_work, "_LOOK", 0.1)
    (folder / "hang").touch()

    def bury():
        while not list(folder.glob("runs/*/started")):
            time.sleep(0.02)
        (folder / "hang").unlink()
        open_queue(folder, database(config)).study.tell(0, state=TrialState.FAIL)

    thread = threading.Thread(target=bury)
    thread.start()
    queue = open_queue(folder, database(config))
    began = time.monotonic()
    work(queue)
    thread.join()
    assert time.monotonic() - began < 30  # the first process would have slept for a minute
    assert states(queue) == [("CPO", "FAIL"), ("CPO", "COMPLETE")]
    assert [file.read_text() for file in folder.glob("runs/*/started")] == ["xx"]


@pytest.mark.slow
def test_a_run_whose_worker_died_before_it_came_to_life_trains_nothing(config, tmp_path):
    save_tiny(tmp_path / "model")
    (tmp_path / "job").mkdir()
    own = {
        "model_name_or_path": str(tmp_path / "model"),
        "loss": "simpo(beta=2.0, gamma=1.0)",
        "output_dir": str(tmp_path / "job" / "run"),
    }
    (tmp_path / "job" / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | own))
    words = [*_work.COMMAND, str(tmp_path / "job"), "0", "0"]
    assert subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 75
    assert not (tmp_path / "job" / "run").exists()
    # With a worker the same run ends well.
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.wait(120) == 0
    assert (tmp_path / "job" / "run" / "trainer_state.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs losses"),
        (["--baselines", "cpo", "cpo"], "must be different losses"),
        (["--baselines", "dpo(betta=1)"], "betta"),
        (["--baselines", "cpo", "--seeds", "1", "1"], "--seeds"),
        (["--baselines", "cpo", "--sft", "-1"], "--sft"),
        (["--baselines", "cpo", "--top", "3"], "no effect without `--spec`"),
        (["--baselines", "cpo", "--workers", "0"], "--workers"),
        (["--baselines", "cpo", "--storage", "mysql"], "must be sqlite, journal or the URL"),
        (["--baselines", "cpo", "--storage", "nosuch://host/db"], "cannot be opened"),
        (["--baselines", "cpo", "--stale-after", "60"], "no effect"),
        (["--baselines", "cpo", "--stale-after", "1", "--storage", "sqlite:///x.db"], "5 to 86400"),
        (["--baselines", "cpo", "--link", "cubic"], "link"),
        (["--spec", "betwen cpo and ce"], "Did you mean `between`"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(config, played, words, message, capsys):
    assert sweep(config, *words) == 2
    assert message in capsys.readouterr().err
    assert not (config.parent / "sweep" / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "dpo(beta=0.1)"}, "a sweep decides it run by run"),
        ({"seed": 3}, "a sweep decides it run by run"),
        ({"eval_strategy": "no"}, "held-out pairs"),
        ({"lerning_rate": 1}, "Did you mean `learning_rate`"),
    ],
)
def test_a_base_config_that_cannot_work_is_refused(config, change, message, capsys):
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | change))
    assert sweep(config, "--baselines", "cpo") == 2
    assert message in capsys.readouterr().err


def test_a_plan_file_holds_the_options_and_the_command_line_wins(config, played, unillustrated, capsys, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        yaml.safe_dump({"config": str(config), "baselines": ["cpo", "orpo"], "seeds": [0, 1], "sft": [0, 0.01]})
    )
    folder = tmp_path / "sweep"
    assert main(["sweep", "--plan", str(plan), "--seeds", "5", "--out", str(folder)]) == 0
    assert "4 losses x 1 seeds" in capsys.readouterr().out
    plan.write_text(yaml.safe_dump({"config": str(config), "baseline": ["cpo"]}))
    assert main(["sweep", "--plan", str(plan), "--out", str(folder)]) == 2
    assert "Did you mean `baselines`" in capsys.readouterr().err


def test_a_folder_without_a_sweep_is_an_error(tmp_path, capsys):
    assert main(["sweep", "--out", str(tmp_path / "none")]) == 2
    assert "holds no sweep" in capsys.readouterr().err
    with pytest.raises(PrefalignError, match="needs losses"):
        arms(None, [])


def test_the_folder_of_an_older_sweep_and_a_damaged_study_are_errors(tmp_path, capsys):
    for name, file, message in (("old", "plan.json", "of an older prefalign"), ("bad", "study.db", "cannot be opened")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}" * 1000)
        assert main(["sweep", "--out", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err


def test_a_single_structure_has_no_lattice():
    (arm,) = arms(None, ["cpo"])
    row = Row(arm, {"margin": (1.0,)}, {}, {}, ())
    assert draw_lattices([row], METRICS[1]) == []
