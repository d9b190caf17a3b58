"""Sweeps and estimates of noise that are stopped at random moments by SIGKILL, SIGTERM and SIGINT, and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# `PREFALIGN_FAULTS=20` stops everything at twenty moments; the default keeps `make test` short.
ASKED = int(os.environ.get("PREFALIGN_FAULTS", "0"))


def inject(what, folder, moments):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    words = ["-m", "tests.faults.kill_sweep", what, str(folder), "0", str(moments)]
    run = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])


def tell(capsys, text):
    with capsys.disabled():
        print(f"\n{text}")


@pytest.mark.slow
@pytest.mark.parametrize(("what", "moments"), [("played", ASKED or 20), ("real", ASKED or 2)])
def test_a_sweep_that_is_stopped_finds_what_it_would_have_found(tmp_path, capsys, what, moments):
    found = inject(what, tmp_path, moments)
    injected = [stop for stop in found["stops"] if not stop["ended"]]
    there = "{results} files of results, {rungs} rungs and {weights} models".format(**found["found"])
    tell(
        capsys,
        f"{len(injected)} stops of a sweep ({what} runs): {found['taken_over']} runs were taken over; {there} "
        f"{'are' if all(found['equal'].values()) else 'ARE NOT'} those of a sweep without stops",
    )
    assert all(found["equal"].values()), found
    assert found["taken_over"] > 0, found
    assert len(injected) >= moments / 4, found  # else most stops came too late to show anything
    if what == "played":
        assert found["found"]["rungs"] == 2
        for steps in found["steps"]:  # gone on with, not begun again: a step is done once more where a stop cut it off
            assert sorted(set(steps)) == list(range(1, max(steps) + 1))
            assert all(later - earlier in (0, 1) for earlier, later in pairwise(steps)), steps
    else:
        assert found["found"]["weights"] == 2


@pytest.mark.slow
def test_two_machines_do_no_run_twice_and_one_inherits_from_the_other(tmp_path, capsys):
    found = inject("fleet", tmp_path, ASKED or 3)
    tell(capsys, f"two workers under two names: {found['holders']} claims; {found['lost']} of them killed and replaced")
    assert min(found["holders"].values()) > 0, found
    # Ten runs; four candidates at the first rung, two at the second, one to the end: no leg is begun twice.
    assert sorted(found["started"]) == [1, 1, 1, 1, 1, 1, 2, 2, 3, 3], found
    assert all(steps == list(range(1, len(steps) + 1)) for steps in found["steps"]), found
    assert found["lost"] > 0, found


@pytest.mark.slow
def test_an_estimate_of_noise_that_is_stopped_leaves_no_half_file_and_goes_on(tmp_path, capsys):
    moments = ASKED or 6
    found = inject("noise", tmp_path, moments)
    injected = [stop for stop in found["stops"] if not stop["ended"]]
    tell(capsys, f"{len(injected)} stops of `prefalign noise`, after which no file was half-written")
    assert all(stop["whole"] for stop in found["stops"]), found
    assert found["equal"]
    assert len(injected) >= moments / 4, found
    assert any(0 < stop["blocks"] < found["blocks"] for stop in injected), found
