"""Run as a script: stops sweeps and estimates of noise with signals at random moments, goes on, and says what was left.

`python -m tests.faults.kill_sweep WHAT FOLDER SEED MOMENTS`, with WHAT one of `played`, `real`, `fleet`, `noise`.
Everything is imported once; each worker is a forked child, and its runs are processes of their own, as in earnest.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.numpy import load_file

from prefalign.cli import _noise as noise_command
from prefalign.cli import main
from prefalign.diagnose import _features
from prefalign.sweep import _claims, _work, load_plan, work, write_page
from tests.tiny import save_tiny, tiny_pairs

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

# A run of eight steps of 20 ms that goes on from its last one, dies with its worker, and notes every step that it does.
PLAYED = """
import json, os, pathlib, sys, time
folder, until, parent = pathlib.Path(sys.argv[1]), int(sys.argv[3]) or 8, os.getppid()
at = folder / "at"
step = int(at.read_text()) if at.exists() else 0
gain = sum(map(ord, folder.name)) % 17
with open(folder / "started", "a") as file:
    file.write(f"{os.getpid()} ")
while step < until:
    time.sleep(0.02)
    if os.getppid() != parent:
        os._exit(75)
    step += 1
    with open(folder / "steps", "a") as file:
        file.write(f"{step} ")
    (folder / "at.new").write_text(str(step))
    os.replace(folder / "at.new", at)
sides = "eval_logps/chosen_change", "eval_logps/rejected_change"
log = [{"step": n, sides[0]: gain * n / 7, sides[1]: -1.0} for n in range(0, step + 1, 2)]
place = folder / "run" / ("" if until == 8 else f"checkpoint-{until}")
place.mkdir(parents=True, exist_ok=True)
(place / "new").write_text(json.dumps({"global_step": step, "max_steps": 8, "log_history": log}))
os.replace(place / "new", place / "trainer_state.json")
"""


def fork(work_: Callable[[], object]) -> int:
    """Run `work_` in a child of its own; its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        if not os.environ.get("PREFALIGN_LOUD"):
            os.dup2(silence, 2)
        work_()
        code = 0
    except KeyboardInterrupt:
        code = 130
    finally:
        os._exit(code)


def ended(child: int) -> bool:
    """Wait for a child: whether it ended well."""
    return os.waitpid(child, 0)[1] == 0


def plan_sweep(folder: Path, model: str, words: list[str], steps: int = 8) -> None:
    """Write the plan of a sweep of so many steps, and train nothing."""
    tiny_pairs(8).to_json(folder.parent / "pairs.jsonl")
    content = {
        "model_name_or_path": model,
        "dataset_name": str(folder.parent / "pairs.jsonl"),
        "eval_dataset_name": str(folder.parent / "pairs.jsonl"),
        "eval_strategy": "steps",
        "eval_steps": 2,
        "max_steps": steps,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 1,
        "learning_rate": 1e-2,
        "use_cpu": True,
    }
    base = folder.parent / "base.yaml"
    base.write_text(yaml.safe_dump(content))
    code = main(["sweep", "--config", str(base), *words, "--out", str(folder), "--page-only", "--sort-by", "margin"])
    assert code == 0


def serve(folder: Path, stale_after: float = 300.0) -> None:
    """What `prefalign sweep --out FOLDER` does, less the page."""
    torch.set_num_threads(1)
    work(load_plan(folder), folder, workers=2, stale_after=stale_after)


def shown(folder: Path) -> dict[str, Any]:
    """Everything that a sweep found, without the times that it took."""
    results = {str(file.relative_to(folder)): json.loads(file.read_text()) for file in folder.glob("runs/*/*.json")}
    for result in results.values():
        result.pop("seconds", None)
    rungs = {file.name: file.read_text() for file in folder.glob("rungs/*.json")}
    weights = {
        str(file.relative_to(folder)): {name: value.tobytes() for name, value in load_file(file).items()}
        for file in folder.glob("runs/*/run/model.safetensors")
    }
    write_page(load_plan(folder), folder)
    return {"results": results, "rungs": rungs, "weights": weights, "table": (folder / "sweep.json").read_text()}


def kill_sweeps(base: Path, moments: int, model: str, words: list[str], real: bool) -> dict[str, Any]:
    """The same sweep in base/whole without a break, and in base/killed with stops until it is done."""
    # Between a checkpoint and the stop behind it a few steps of this tiny model go by.
    plan_sweep(base / "whole", model, words, steps=max(8, 4 * moments) if real else 8)
    shutil.copytree(base / "whole", base / "killed")
    began = time.monotonic()
    assert ended(fork(lambda: serve(base / "whole")))
    lasts = time.monotonic() - began
    stops = []
    while len(stops) < moments:
        child = fork(lambda: serve(base / "killed"))
        if real:  # most of a run's time goes by before its first step: the moment is counted from a checkpoint on
            wait_for_step(base / "killed", child)
        time.sleep(random.uniform(0, 0.3) if real else random.uniform(0.05, 3 * lasts / moments))
        kind = random.choice(SIGNALS)
        os.kill(child, kind)
        stops.append({"signal": kind.name, "ended": ended(child)})
    assert ended(fork(lambda: serve(base / "killed")))
    one, other = shown(base / "whole"), shown(base / "killed")
    taken = [len(list((base / "killed" / "claims").glob(f"{run.name}.*"))) for run in (base / "killed/runs").iterdir()]
    return {
        "stops": stops,
        "equal": {key: one[key] == other[key] for key in one},
        "found": {key: len(one[key]) for key in one},
        "taken_over": sum(number > 1 for number in taken),
        "steps": steps(base / "killed"),
    }


def wait_for_step(folder: Path, child: int) -> None:
    """Until a run has written one checkpoint more, or the child is done."""

    def last() -> set[str]:
        return {str(path) for path in folder.glob("runs/*/run/checkpoint-*/trainer_state.json")}

    there = last()
    while not last() - there and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.01)


def steps(folder: Path) -> list[list[int]]:
    """For every run that was played the steps as they were done."""
    return [[int(word) for word in file.read_text().split()] for file in folder.glob("runs/*/steps")]


def share(base: Path, moments: int, words: list[str]) -> dict[str, Any]:
    """Two workers that take each other for other machines; then again, with one of them killed half-way."""
    plan_sweep(base / "shared", "nowhere", words)
    shutil.copytree(base / "shared", base / "bereaved")

    def serve_as(name: str, folder: Path, stale_after: float = 300.0) -> None:
        _claims._machine = lambda: name
        _claims.platform.node = lambda: name
        serve(folder, stale_after)

    both = [fork(lambda name=name: serve_as(name, base / "shared")) for name in ("one", "other")]
    good = [ended(child) for child in both]
    assert all(good), good
    holders = [json.loads(file.read_text())["host"] for file in (base / "shared" / "claims").iterdir()]
    lost = 0
    for moment in range(moments):
        folder = base / f"bereaved-{moment}"
        shutil.copytree(base / "bereaved", folder)
        both = [fork(lambda name=name, folder=folder: serve_as(name, folder, 3.0)) for name in ("one", "other")]
        time.sleep(random.uniform(0.1, 0.6))
        os.kill(both[0], signal.SIGKILL)
        lost += not ended(both[0])
        assert ended(both[1])
        assert shown(folder) == shown(base / "shared")
    return {
        "holders": {name: holders.count(name) for name in ("one", "other")},
        "started": [len(file.read_text().split()) for file in (base / "shared").glob("runs/*/started")],
        "steps": steps(base / "shared"),
        "lost": lost,
    }


def kill_noise(base: Path, moments: int) -> dict[str, Any]:
    """Estimates of noise: files that were written before are old or whole, and the last one ends like the first."""
    model = str(save_tiny(base / "model"))
    _features.BLOCK = 16
    source = np.random.default_rng(0)
    rows = []
    for index in range(160):
        better, worse = sorted(source.permutation(13)[:2], reverse=True)
        if index % 5 == 0:
            better, worse = worse, better
        rows.append({"prompt": "Say:", "chosen": "a" * better + "z" * (12 - better), "rejected": "a" * worse + "z"})
    data = base / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def estimate(name: str) -> None:
        folder = base / name
        words = ["noise", str(data), "--model", model, "--cache", str(folder / "cache"), "--out", str(folder / "out")]
        assert main([*words, "--downweight", str(folder / "kept.jsonl")]) == 0, "the pairs can tell"

    torch.set_num_threads(1)
    estimate("warm")  # imports in this process what every child would import
    began = time.monotonic()
    assert ended(fork(lambda: estimate("whole")))
    lasts = time.monotonic() - began
    wanted = {name: (base / "whole" / name).read_bytes() for name in ("out", "kept.jsonl")}
    blocks = len(list((base / "whole" / "cache").iterdir()))
    (base / "killed").mkdir()
    stops = []
    for moment in range(moments):
        anew = moment % 2 == 0
        if anew:
            shutil.rmtree(base / "killed" / "cache", ignore_errors=True)
        for name in wanted:
            (base / "killed" / name).write_bytes(b"old")
        child = fork(lambda: estimate("killed"))
        if anew:  # while features are read: after so many blocks
            reached, limit = random.randrange(1, blocks), time.monotonic() + 60
            while len(list((base / "killed" / "cache").glob("*.safetensors"))) < reached and time.monotonic() < limit:
                time.sleep(0.002)
        else:
            time.sleep(random.uniform(0, 0.9) * lasts)
        kind = random.choice(SIGNALS)
        os.kill(child, kind)
        done = ended(child)
        whole = all((base / "killed" / name).read_bytes() in (b"old", wanted[name]) for name in wanted)
        cache = [file for file in (base / "killed" / "cache").glob("*.safetensors") if load_file(file)]
        stops.append({"signal": kind.name, "ended": done, "whole": whole, "blocks": len(cache)})
    assert ended(fork(lambda: estimate("killed")))
    equal = all((base / "killed" / name).read_bytes() == wanted[name] for name in wanted)
    return {"stops": stops, "equal": equal, "blocks": blocks}


if __name__ == "__main__":
    assert noise_command.run  # imported before the first fork, like all the rest
    what, place, seed, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    random.seed(seed)
    many = ["--spec", "between cpo and unCPO", "--baselines", "orpo", "--seeds", "0", "1", "--halving", "2"]
    if what in ("played", "fleet"):
        (place / "played.py").write_text(PLAYED)
        _work.COMMAND = [sys.executable, "-S", str(place / "played.py")]
        _work._PATIENCE = 0.05
    if what == "played":
        found = kill_sweeps(place, count, "nowhere", many, real=False)
    elif what == "fleet":
        found = share(place, count, many)
    elif what == "real":
        few = ["--baselines", "cpo", "vvxo", "--seeds", "0"]
        found = kill_sweeps(place, count, str(save_tiny(place / "model")), few, real=True)
    else:
        found = kill_noise(place, count)
    print(json.dumps(found))
