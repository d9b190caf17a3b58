"""Run as a script: stops sweeps and estimates of noise at random moments, goes on, and says what was left.

`python -m tests.faults.kill_sweep WHAT FOLDER SEED TIMES [STORAGE]`, with WHAT one of `played`, `real`, `noise`.
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
from prefalign.sweep import _page, _work, open_queue
from prefalign.train import PrefTrainer
from tests.tiny import save_tiny, tiny_pairs

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

# A run of eight steps of 20 ms that goes on from its last one, ends with its worker, and notes every step that it does.
PLAYED = """
import json, os, pathlib, sys, threading, time
from filelock import FileLock
folder = pathlib.Path(sys.argv[1])
threading.Thread(target=lambda: (os.read(0, 1), os._exit(75)), daemon=True).start()
with FileLock(folder / "run.lock"):
    at = folder / "at"
    step = int(at.read_text()) if at.exists() else 0
    gain = sum(map(ord, folder.name)) % 17
    while step < 8:
        time.sleep(0.02)
        step += 1
        with open(folder / "steps", "a") as file:
            file.write(f"{step} ")
        (folder / "at.new").write_text(str(step))
        os.replace(folder / "at.new", at)
    sides = "eval_logps/chosen_change", "eval_logps/rejected_change"
    log = [{"step": n, sides[0]: gain * n / 7, sides[1]: -1.0} for n in range(0, step + 1, 2)]
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "new").write_text(json.dumps({"global_step": step, "max_steps": 8, "log_history": log}))
    os.replace(folder / "run" / "new", folder / "run" / "trainer_state.json")
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


def write_base(base: Path, model: str) -> None:
    """What all runs share."""
    tiny_pairs(8).to_json(base / "pairs.jsonl")
    content = {
        "model_name_or_path": model,
        "dataset_name": str(base / "pairs.jsonl"),
        "eval_dataset_name": str(base / "pairs.jsonl"),
        "eval_strategy": "steps",
        "eval_steps": 2,
        "max_steps": 8,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 1,
        "learning_rate": 1e-2,
        "use_cpu": True,
    }
    (base / "base.yaml").write_text(yaml.safe_dump(content))


def serve(folder: Path, words: list[str]) -> None:
    """`prefalign sweep`, less the pictures."""
    torch.set_num_threads(1)
    _page.draw_curves = lambda rows: []
    _page.draw_lattices = lambda rows, metric: []
    base = str(folder.parent / "base.yaml")
    assert main(["sweep", "--config", base, *words, "--out", str(folder)]) == 0


def shown(folder: Path, storage: str) -> dict[str, Any]:
    """Everything that a sweep found; each loss with the states of the trials that it has had."""
    queue = open_queue(folder, storage)
    trials: dict[str, list[Any]] = {}
    for trial in queue.study.trials:
        trials.setdefault(trial.user_attrs["name"], []).append(trial)
    weights = {
        str(file.relative_to(folder)): {name: value.tobytes() for name, value in load_file(file).items()}
        for file in folder.glob("runs/*/run/model.safetensors")
    }
    return {
        "results": {name: [t.user_attrs["runs"] for t in tried if t.state.name == "COMPLETE"]
                    for name, tried in trials.items()},
        "curves": {name: tried[-1].intermediate_values for name, tried in trials.items()},
        "weights": weights,
        "lost": sum(trial.state.name == "FAIL" for trial in queue.study.trials),
        "steps": [list(map(int, file.read_text().split())) for file in sorted(folder.glob("runs/*/steps"))],
    }  # fmt: skip


def kill_fleets(base: Path, times: int, words: list[str], storage: str, lasts: float) -> list[dict[str, Any]]:
    """The same sweep once without a break by one worker; then by three, of which two are killed at random moments."""
    assert ended(fork(lambda: serve(base / "whole", words)))
    whole = shown(base / "whole", "sqlite")
    told = []
    for number in range(times):
        folder = base / f"killed-{number}"
        fleet = [*words, "--storage", storage, *(["--stale-after", "5"] if "://" in storage else [])]
        workers = [fork(lambda folder=folder, fleet=fleet: serve(folder, fleet)) for _ in range(3)]
        # Half the moments are counted from the start, half from the first run on.
        while number % 2 == 0 and not list(folder.glob("runs/*/log.txt")):
            time.sleep(0.01)
        moments = sorted(random.uniform(0, lasts + 4 * (number % 2)) for _ in range(2))
        began, victims = time.monotonic(), random.sample(workers, 2)
        for victim, moment in zip(victims, moments, strict=True):
            time.sleep(max(0.0, moment - (time.monotonic() - began)))
            os.kill(victim, signal.SIGKILL)
        ends = {worker: ended(worker) for worker in workers}
        found = shown(folder, storage)
        told.append(
            {
                "killed": sum(not ends[victim] for victim in victims),
                "survivor": next(ends[worker] for worker in workers if worker not in victims),
                "equal": {key: found[key] == whole[key] for key in ("results", "curves", "weights")},
                "lost": found["lost"],
                "runs": {name: len(results) for name, results in found["results"].items()},
                "weights": len(found["weights"]),
                "steps": found["steps"],
            }
        )
        shutil.rmtree(folder)
    return told


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
    assert noise_command.run, PrefTrainer  # imported before the first fork, like all the rest
    what, place, seed, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    random.seed(seed)
    if what == "noise":
        found: Any = kill_noise(place, count)
    elif what == "played":
        (place / "played.py").write_text(PLAYED)
        _work.COMMAND = [sys.executable, str(place / "played.py")]
        _work._PATIENCE = 0.05
        write_base(place, "nowhere")
        many = ["--spec", "between cpo and unCPO", "--baselines", "orpo", "--seeds", "0", "1"]
        found = kill_fleets(place, count, many, sys.argv[5], 0.5)
    else:
        write_base(place, str(save_tiny(place / "model")))
        few = ["--baselines", "cpo", "orpo", "vvxo", "--seeds", "0"]
        found = kill_fleets(place, count, few, sys.argv[5], 8.0)
    print(json.dumps(found))
