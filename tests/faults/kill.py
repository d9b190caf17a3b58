"""Run as a script: stops trainings and reports with signals at random moments, resumes them, and says what was left.

Everything is imported once; each training is a forked child, so that a stop costs little more than the training.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from prefalign._errors import PrefalignError
from prefalign.diagnose import read_run, write_report
from prefalign.references import check_files
from prefalign.train import find_checkpoint
from tests.tiny import tiny_pairs
from tests.train.runs import history, lora, ours

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "lora": ({}, {"peft_config": lora()}),
    "moving average": ({"reference": "moving_average(alpha=0.5, every=2)"}, {}),
    "past checkpoints": ({"reference": "past(keep=3, every=2)"}, {}),
    "precomputed": ({"precompute_ref_log_probs": True}, {}),
    "soup": ({"reference": "soup({base}/a, {base}/b)"}, {}),
    "seppo": (
        {"loss": "seppo(beta=0.1)", "reference": "past(keep=3, every=2)", "max_new_tokens": 5},
        {"train_dataset": tiny_pairs().remove_columns("rejected")},
    ),
}
STEPS = 6


def train(base: Path, name: str, folder: str) -> None:
    """One training, from the last whole checkpoint if there is one; its end is written to `end`."""
    torch.set_num_threads(1)
    options, trainer = SETTINGS[name]
    options = {key: value.format(base=base) if isinstance(value, str) else value for key, value in options.items()}
    out = base / folder
    common = {"loss": "dpo(beta=0.1)", "max_steps": STEPS, "save_strategy": "steps", "save_steps": 1}
    made = ours(out, str(base / "a"), trainer, **{**common, "save_total_limit": 1, **options})
    try:
        last = find_checkpoint(True, made.args.output_dir)
    except PrefalignError:
        last = None
    made.train(resume_from_checkpoint=last)
    made.save_model(str(out / "end"))
    # The last entry of transformers averages the losses of the resumed part only.
    (out / "losses.json").write_text(json.dumps([entry["loss"] for entry in history(made) if "loss" in entry]))


def fork(
    work: Callable[[], object], wait: float | None = None, kind: int = signal.SIGKILL, first: Path | None = None
) -> tuple[bool, float]:
    """Run `work` in a child that a signal stops `wait` seconds after the file `first` is there.

    Returns:
        Whether it ended well, and after how many seconds.
    """
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for each in (signal.SIGTERM, signal.SIGINT):
                signal.signal(each, signal.SIG_DFL if each == signal.SIGTERM else signal.default_int_handler)
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            if wait is not None:
                os.dup2(silence, 2)
            work()
            code = 0
        finally:
            os._exit(code)
    if wait is not None:
        while first is not None and not first.exists():
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            time.sleep(0.002)
        time.sleep(wait)
        os.kill(child, kind)
    status = os.waitpid(child, 0)[1]
    return status == 0, time.perf_counter() - start


def whole(run: Path) -> bool:
    """Whether the checkpoint that a resume would take can be read; True where there is none yet."""
    try:
        last = find_checkpoint(True, str(run))
    except PrefalignError:
        return True
    check_files(str(last))
    return True


def kill_trainings(base: Path, moments: int, chosen: list[str]) -> dict[str, dict[str, Any]]:
    """Each setting in base/NAME-whole without a break, and in base/NAME with stops until it is done."""
    found = {}
    for name in chosen:
        good, lasts = fork(lambda name=name: train(base, name, f"{name}-whole"))
        assert good, name
        stops = []
        for _ in range(moments):
            kind = random.choice(SIGNALS)
            # Most of a run's time goes by before its first step: the moment is counted from a checkpoint on.
            run = base / name / "ours"
            first = run / f"checkpoint-{random.randint(last_step(run) + 1, STEPS - 1)}" if last_step(run) < 5 else None
            wait = random.uniform(0, 0.3) if first else random.uniform(0.2, 0.6) * lasts
            ended, _ = fork(lambda name=name: train(base, name, name), wait, kind, first)
            assert whole(base / name / "ours")
            stops.append({"signal": kind.name, "ended": ended, "step": last_step(base / name / "ours")})
        assert fork(lambda name=name: train(base, name, name))[0], name
        found[name] = {"stops": stops, **compare(base / f"{name}-whole", base / name)}
    return found


def last_step(run: Path) -> int:
    """The step of the checkpoint that a resume would take; 0 where there is none."""
    try:
        return int(str(find_checkpoint(True, str(run))).rpartition("-")[2])
    except PrefalignError:
        return 0


def compare(one: Path, other: Path) -> dict[str, bool]:
    """Whether the final weights, the reference's state and every loss are equal, bit by bit."""

    def equal(pattern: str) -> bool:
        mine, theirs = ([load_file(file) for file in sorted(folder.glob(pattern))] for folder in (one, other))
        assert len(mine) == len(theirs)
        pairs = list(zip(mine, theirs, strict=True))
        return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs)

    losses = [json.loads((folder / "losses.json").read_text()) for folder in (one, other)]
    assert len(losses[0]) == STEPS
    assert list((one / "end").glob("*.safetensors"))
    state = f"ours/checkpoint-{STEPS}/prefalign_reference*.safetensors"
    return {"weights": equal("end/*.safetensors"), "losses": losses[0] == losses[1], "state": equal(state)}


def kill_reports(base: Path, moments: int) -> list[dict[str, bool]]:
    """Stop reports of the first run: the page is the old one, or whole."""
    run = base / "plain-whole" / "ours"
    page = base / "report" / "report.html"
    _, lasts = fork(lambda: write_report(run, page))
    text = page.read_bytes()
    found = []
    for _ in range(moments):
        page.write_bytes(b"old")
        fork(lambda: write_report(run, page), random.uniform(0.2, 1.1) * lasts, random.choice(SIGNALS))
        now = page.read_bytes()
        found.append({"old": now == b"old", "whole": now[-20:] == text[-20:]})
    read_run(run)
    return found


if __name__ == "__main__":
    random.seed(int(sys.argv[2]))
    place, count, names = Path(sys.argv[1]), int(sys.argv[3]), sys.argv[4].split(",")
    outcome: dict[str, Any] = {"trainings": kill_trainings(place, count, names)}
    if "plain" in names:
        outcome["reports"] = kill_reports(place, 2 * count)
    print(json.dumps(outcome))
