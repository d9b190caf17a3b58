"""Trainings and reports that are stopped at random moments by SIGKILL, SIGTERM and SIGINT, and resumed.

Soups are in tests/references/test_killed.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.kill import SETTINGS
from tests.tiny import save_tiny

ROOT = Path(__file__).parents[2]
# `PREFALIGN_FAULTS=20` stops every setting at twenty moments; the default keeps `make test` short.
ASKED = os.environ.get("PREFALIGN_FAULTS")
FEW = ("plain", "moving average", "precomputed", "seppo")
MOMENTS, CHOSEN = (int(ASKED), tuple(SETTINGS)) if ASKED else (3, FEW)


@pytest.mark.slow
def test_what_is_stopped_at_any_moment_ends_as_if_it_had_not_been(tmp_path, capsys):
    for seed, name in enumerate("ab"):
        save_tiny(tmp_path / name, seed)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    words = ["-m", "tests.faults.kill", str(tmp_path), "0", str(MOMENTS), ",".join(CHOSEN)]
    run = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    found = json.loads(run.stdout.splitlines()[-1])
    stops = [stop for each in found["trainings"].values() for stop in each["stops"]]
    injected = [stop for stop in stops if not stop["ended"]]
    survived = sum(all(each[key] for key in ("weights", "losses", "state")) for each in found["trainings"].values())
    with capsys.disabled():
        print(
            f"\n{len(injected)} stops of {len(found['trainings'])} trainings, {survived} of which ended bit for bit as "
            f"without; {len(found['reports'])} stops of a report, after which no page was half-written"
        )
    assert survived == len(found["trainings"]), found
    assert len(injected) >= len(found["trainings"]), found  # else the stops came too late to show anything
    assert any(0 < stop["step"] < 6 for stop in injected), found
    assert all(each["old"] or each["whole"] for each in found["reports"]), found
