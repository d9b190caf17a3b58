"""A command that a signal stops says so in one line, from its first second on, and ends as signals end processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_pairs
from tests.train.runs import COMMON

ROOT = Path(__file__).parents[2]
ENDS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (-signal.SIGTERM, "terminated by SIGTERM")}


COMMAND = "import os, sys; from prefalign.cli import main; os.close(int(sys.argv.pop(1))); sys.exit(main())"


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    """A command, once it has begun; what Python does before is not ours."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    begun, tell = os.pipe()
    process = subprocess.Popen(
        (sys.executable, "-c", COMMAND, str(tell), *words),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=(tell,),
        **options,
    )
    os.close(tell)
    os.read(begun, 1)  # ends when the other side is closed
    os.close(begun)
    time.sleep(0.01)
    return process


@pytest.mark.parametrize("kind", ENDS, ids=lambda kind: kind.name)
def test_a_stop_while_modules_are_imported_is_one_line(kind):
    tiny_pairs(4).to_json("pairs.jsonl")
    process = start("check", "pairs.jsonl")
    time.sleep(0.1)
    process.send_signal(kind)
    said = process.communicate(timeout=60)[1]
    code, word = ENDS[kind]
    assert process.returncode == code
    assert said == f"prefalign check: {word}\n"


@pytest.mark.slow
def test_a_stop_at_any_moment_of_the_first_seconds_is_no_traceback():
    tiny_pairs(4).to_json("pairs.jsonl")
    random.seed(0)
    stopped = 0
    for _ in range(int(os.environ.get("PREFALIGN_FAULTS", "8"))):
        words = random.choice([["check", "pairs.jsonl"], ["derive", "dpo"], ["train", "nowhere.yaml"]])
        kind = random.choice(list(ENDS))
        process = start(*words)
        time.sleep(random.uniform(0, 2.0))
        process.send_signal(kind)
        said = process.communicate(timeout=60)[1]
        assert "Traceback" not in said, said
        stopped += process.returncode in (ENDS[kind][0], -kind)
    print(f"{stopped} were stopped")
    assert stopped


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENDS, ids=lambda kind: kind.name)
def test_a_training_that_is_stopped_names_its_last_checkpoint(kind, checkpoint):
    tiny_pairs(8).to_json("pairs.jsonl")
    options = {"model_name_or_path": checkpoint, "dataset_name": "pairs.jsonl", "output_dir": "run", "samples": 0}
    options |= {**COMMON, "loss": "dpo(beta=0.1)", "save_strategy": "steps", "save_steps": 5, "max_steps": 100_000}
    Path("config.yaml").write_text(json.dumps({**options, "save_total_limit": 3}))
    process = start("train", "config.yaml")
    while not Path("run/checkpoint-5").exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(kind)
    said = process.communicate(timeout=60)[1]
    code, word = ENDS[kind]
    assert process.returncode == code, said[-2000:]
    assert said.endswith(f"prefalign train: {word}\n")
    assert "The last good state is 'run/checkpoint-" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_an_interruption_that_is_ignored_stays_ignored():
    """As under `nohup`, and behind `&` in scripts."""
    tiny_pairs(4).to_json("pairs.jsonl")
    process = start("check", "pairs.jsonl", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    for _ in range(4):
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0
