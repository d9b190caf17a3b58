"""The SALSA example runs from end to end, on a tiny model, and goes on where it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import save_tiny

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_salsa_example_trains_every_arm(tmp_path):
    save_tiny(tmp_path / "base")
    small = ["--sft-steps", "1", "--steps", "1", "--seeds", "1", "--rows", "4", "--out", str(tmp_path / "run")]
    words = [sys.executable, "examples/salsa.py", "--model", str(tmp_path / "base"), *small]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PREFALIGN_CACHE": str(tmp_path / "cache")}
    first, again = (
        subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)
        for _ in range(2)
    )
    assert first.returncode == 0, first.stderr[-4000:]
    table = first.stdout[first.stdout.index("Held out, with") :]
    assert [line.split()[0] for line in table.splitlines()[1::2]] == ["DPO", "SALSA", "control", "SFT2"]
    assert again.stdout.endswith(table)
    assert "Record of the run" not in again.stdout  # nothing was trained again
    assert json.loads((tmp_path / "run" / "soup" / "soup.json").read_text())["weights"] == [0.5, 0.5]
