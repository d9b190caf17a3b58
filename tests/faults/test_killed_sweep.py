"""Sweeps whose workers are killed at random moments, and estimates of noise that are stopped and gone on with."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# `PREFALIGN_FAULTS=20` stops everything at twenty moments; the default keeps `make test` short.
ASKED = int(os.environ.get("PREFALIGN_FAULTS", "0"))


def inject(what, folder, moments, *more):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    words = ["-m", "tests.faults.kill_sweep", what, str(folder), "0", str(moments), *more]
    run = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])


def tell(capsys, text):
    with capsys.disabled():
        print(f"\n{text}")


@pytest.fixture(scope="module")
def postgres():
    """The URL of a real server, which is started here."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs or importlib.util.find_spec("psycopg") is None:
        pytest.skip("needs PostgreSQL (Debian's package `postgresql`) and psycopg")
    folder = Path(tempfile.mkdtemp(prefix="prefalign-pg-", dir="/tmp"))
    # PostgreSQL does not run as root, and the temporary folders of pytest are closed to others.
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(program, *words):
        path = programs[-1].with_name(program)
        subprocess.run([*user, path, *words], cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    data = str(folder / "data")
    call("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    call("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    call("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    shutil.rmtree(folder)


def check(found, what, storage, capsys):
    killed, lost = (sum(time[key] for time in found) for key in ("killed", "lost"))
    equal = all(all(time["equal"].values()) for time in found)
    tell(
        capsys,
        f"{len(found)} sweeps of three workers ({what} runs, {storage}), of which {killed} were killed: {lost} losses "
        f"were taken over; what was found {'is' if equal else 'IS NOT'} what a sweep without stops finds",
    )
    assert equal, found
    assert all(time["survivor"] for time in found), found
    assert all(count == 1 for time in found for count in time["runs"].values()), found
    assert killed >= len(found), found  # else most came too late to show anything
    assert lost > 0, found
    # Gone on with, not begun again, and never by two at once: a step is repeated only where a kill cut it off.
    for steps in (steps for time in found for steps in time["steps"]):
        assert sorted(set(steps)) == list(range(1, 9))
        assert all(later - earlier in (0, 1) for earlier, later in pairwise(steps)), steps
    assert what == "played" or all(time["weights"] == 3 for time in found), found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "storage", "times"), [("played", "sqlite", 2), ("played", "journal", 2), ("real", "sqlite", 1)]
)
def test_three_workers_of_which_two_are_killed_find_what_one_finds(tmp_path, capsys, what, storage, times):
    check(inject(what, tmp_path, ASKED or times, storage), what, storage, capsys)


@pytest.mark.slow
def test_a_database_tells_the_dead_by_their_heartbeats(tmp_path, capsys, postgres):
    check(inject("played", tmp_path, ASKED or 1, postgres), "played", "PostgreSQL", capsys)


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
