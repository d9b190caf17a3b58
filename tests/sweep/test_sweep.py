"""`prefalign sweep`: plans, claims, interrupts and the page; runs are played by a script that trains nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from prefalign import PrefalignError
from prefalign.cli import main
from prefalign.logic import parse_spec
from prefalign.losses import parse_loss
from prefalign.sweep import Claims, Recipe, _page, _work, make_arms
from tests.tiny import tiny_pairs

# A run whose chosen log-probability changes by seed + 1, and whose rejected one by -2.
PLAYED = """
import json, pathlib, sys, time, yaml
folder = pathlib.Path(sys.argv[1])
config = yaml.safe_load((folder / "config.yaml").read_text())
with open(folder / "started", "a") as file:
    file.write("x")
if (folder.parents[1] / "hang").exists():
    time.sleep(60)
if (folder.parents[1] / "fail").exists():
    sys.exit("SomeError: out of luck")
value = config["seed"] + 1.0
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
    monkeypatch.setattr(_work, "COMMAND", [sys.executable, str(script)])
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


def test_of_many_who_try_one_gets_a_claim(tmp_path):
    barrier, got = threading.Barrier(16), []

    def compete():
        claims = Claims(tmp_path)
        for job in range(20):
            barrier.wait()
            if claims.take(f"job-{job}") is not None:
                got.append(job)

    threads = [threading.Thread(target=compete) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(20))


def test_of_many_who_find_a_claim_stale_one_takes_it_over(tmp_path):
    first = Claims(tmp_path).take("job")
    first.release()
    barrier, got = threading.Barrier(16), []

    def compete():
        barrier.wait()
        got.append(Claims(tmp_path).take("job"))

    threads = [threading.Thread(target=compete) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in got) == 1
    assert not first.is_mine


def test_a_claim_is_held_while_it_beats_and_lost_when_it_stops(tmp_path):
    claims = Claims(tmp_path, stale_after=60)
    held = claims.take("job")
    os.utime(held.path, (time.time() - 50,) * 2)
    assert claims.take("job") is None
    os.utime(held.path, (time.time() - 70,) * 2)
    with held.beating(every=0.01):
        time.sleep(0.1)
    assert claims.take("job") is None
    os.utime(held.path, (time.time() - 70,) * 2)
    assert claims.take("job").number == 2


def test_the_claim_of_a_dead_process_of_this_machine_is_free_at_once(tmp_path):
    # The module is run without the package around it, which would load torch.
    source = Path(_work.__file__).with_name("_claims.py")
    code = (
        f"import runpy, pathlib; g = runpy.run_path({str(source)!r}, run_name='claims'); "
        f"print(g['Claims'](pathlib.Path({str(tmp_path)!r})).take('job') is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
    assert Claims(tmp_path).take("job").number == 2
    assert Claims(tmp_path).take("job") is None  # this process is alive


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


def test_a_fleet_shares_the_runs(config, played, unillustrated, capsys):
    folder = config.parent / "sweep"
    words = ["sweep", "--out", str(folder)]
    assert sweep(config, "--baselines", "cpo", "orpo", "ccpo", "--seeds", "0", "--page-only") == 0
    from prefalign.sweep import load_plan, work

    plan = load_plan(folder)
    threads = [threading.Thread(target=work, args=(plan, folder), kwargs={"workers": 2}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [file.read_text() for file in folder.glob("runs/*/started")] == ["x", "x", "x"]
    assert main(words) == 0


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
