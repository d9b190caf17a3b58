"""Run as a script: stops soups and trainings by signals at random moments, and says what was left each time."""

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

from prefalign.references import soup
from prefalign.references.weights._ingredients import find_ingredients

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def in_a_child(
    work: Callable[[], object], kill_when: Callable[[], bool] | None = None, by: int = signal.SIGKILL
) -> bool:
    """Run `work` in a forked process, stopped by a signal as soon as `kill_when()`: whether it ended well."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    while kill_when is not None:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        if kill_when():
            os.kill(child, by)
            break
        time.sleep(0.0005)
    return os.waitpid(child, 0)[1] == 0


def kill_soups(folder: Path, moments: int) -> list[dict[str, object]]:
    """Stop `moments` soups of folder/a and folder/b; what is at the target and beside it after each."""
    ingredients, soups = [folder / "a", folder / "b"], folder / "soups"
    assert in_a_child(lambda: soup(ingredients, out=soups / "whole", progress=False))
    total = (soups / "whole" / "model.safetensors").stat().st_size
    found = []
    for number in range(moments):
        out, reached = soups / f"soup{number}", random.uniform(0, 1.05) * total

        def beside(out: Path = out) -> list[Path]:
            return [path for path in soups.iterdir() if path.name.startswith(f".{out.name}.")]

        def far_enough(reached: float = reached) -> bool:
            files = [path / "model.safetensors" for path in beside()]
            # Past the whole size: the files are written, and are brought to the disk, or moved.
            return any(file.exists() and file.stat().st_size >= min(reached, total) for file in files)

        in_a_child(lambda out=out: soup(ingredients, out=out, progress=False), far_enough, SIGNALS[number % 3])
        rest = beside()
        found.append({"there": out.exists(), "partial": len(rest), "loadable": sum(map(_is_loadable, rest))})
        if not out.exists():
            assert in_a_child(lambda out=out: soup(ingredients, out=out, progress=False))
    return found


def _is_loadable(folder: Path) -> bool:
    try:
        find_ingredients([folder])
    except ValueError:
        return False
    return True


def kill_trainings(folder: Path, moments: int, options: dict[str, Any], winners: bool) -> list[dict[str, object]]:
    """Train in folder/whole without a break, and in folder/killed with kills and resumes, until it is done.

    Each run's batches, as they were scored, go line by line to `batches.jsonl`.
    """
    from prefalign.train import last_whole_checkpoint
    from tests.tiny import tiny_pairs
    from tests.train.runs import ours

    data = {"train_dataset": tiny_pairs().remove_columns("rejected")} if winners else {}

    def train(name: str) -> None:
        torch.set_num_threads(1)
        saving = {"max_steps": 12, "num_train_epochs": 3, "save_strategy": "steps", "save_steps": 1}
        trainer = ours(folder / name, str(folder / "a"), data, **saving, **options)
        scores = trainer.reference.logps

        def logps(inputs: Any) -> Any:
            line = [trainer.state.global_step, trainer.reference.version, inputs["input_ids"].tolist()]
            with (folder / name / "batches.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            return scores(inputs)

        trainer.reference.logps = logps
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(str(folder / name / "ours")))
        trainer.save_model(str(folder / name / "end"))

    assert in_a_child(lambda: train("whole"))
    run = folder / "killed" / "ours"
    found = []
    for _ in range(moments):
        before = {path.name for path in run.glob("checkpoint-*")}
        # A checkpoint of this model is written in some hundredths of a second.
        wait = random.uniform(0, 0.08)

        def soon(before: set[str] = before, wait: float = wait) -> bool:
            if not {path.name for path in run.glob("checkpoint-*")} - before:
                return False
            time.sleep(wait)
            return True

        done = in_a_child(lambda: train("killed"), soon)
        found.append({"done": done, "last": last_whole_checkpoint(str(run))})
        if done:
            break
    if not found[-1]["done"]:
        assert in_a_child(lambda: train("killed"))
    return found


RUNS: dict[str, tuple[dict[str, Any], bool]] = {
    "average": ({"loss": "dpo(beta=0.1)", "reference": "moving_average(alpha=0.5, every=2)"}, False),
    "bema": ({"loss": "dpo(beta=0.1)", "reference": "bema(every=2)"}, False),
    "seppo": ({"loss": "seppo(beta=0.1)", "reference": "past(keep=3, every=3)", "max_new_tokens": 5}, True),
}

if __name__ == "__main__":
    random.seed(int(sys.argv[3]))
    kind, folder, moments = sys.argv[1], Path(sys.argv[2]), int(sys.argv[4])
    print(json.dumps(kill_soups(folder, moments) if kind == "soups" else kill_trainings(folder, moments, *RUNS[kind])))
