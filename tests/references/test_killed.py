"""Soups and runs that are killed, and the memory and speed of a soup, seen from outside the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from prefalign.references.weights._safetensors import weights_fingerprint
from tests.references.models import CONFIG
from tests.tiny import save_tiny

ROOT = Path(__file__).parents[2]
MB = 1 << 20
SOUPS = os.environ.get("PREFALIGN_FAULTS", "12")  # by SIGKILL, SIGTERM and SIGINT in turn


def python(*words: str) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=900
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return run.stdout


def sparse_model(folder: Path, tensors: int, each: int) -> Path:
    """A checkpoint of zeros that takes no room on the disk."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    header = {
        f"layer.{number}.weight": {
            "dtype": "F32",
            "shape": [each // 4096, 1024],
            "data_offsets": [number * each, (number + 1) * each],
        }
        for number in range(tensors)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + tensors * each)
    return folder


@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(tmp_path):
    # 160 MB in tensors of 4 MB: held whole, one model alone would break the bound.
    folders = [str(sparse_model(tmp_path / name, 40, 4 * MB)) for name in "ab"]
    # Not `ru_maxrss`, which a new process takes over from the one that started it. What the libraries take, which is
    # most of it, differs from one installation to another: what the soup adds is measured.
    code = (
        "import re, sys; from prefalign.references import soup;"
        r"peak = lambda: int(re.search(r'VmHWM:\s+(\d+) kB', open('/proc/self/status').read())[1]);"
        "before = peak(); soup(sys.argv[1:3], out=sys.argv[3]); print(peak() - before)"
    )
    added = 1024 * int(python("-c", code, *folders, str(tmp_path / "soup")))
    assert added < 4 * MB * (2 + 2) + 40 * 10**6


@pytest.mark.slow
def test_a_soup_killed_at_any_moment_leaves_nothing_half_made(tmp_path, capsys):
    for name in "ab":
        sparse_model(tmp_path / name, 12, 4 * MB)
    left = json.loads(python("-m", "tests.references.kill", "soups", str(tmp_path), "0", SOUPS))
    soups = tmp_path / "soups"
    with capsys.disabled():
        stopped = sum(not kill["there"] for kill in left)
        print(f"\n{len(left)} stops of a soup: {stopped} before it was there, {len(left) - stopped} after")
    assert sum(not kill["there"] for kill in left) >= 3, left  # else the kills came too late to show anything
    assert all(kill["loadable"] == 0 for kill in left), left
    whole = weights_fingerprint(soups / "whole")
    assert all(weights_fingerprint(soups / f"soup{number}") == whole for number in range(len(left)))
    assert all((soups / f"soup{number}" / "config.json").is_file() for number in range(len(left)))
    assert [path for path in soups.iterdir() if path.name.startswith(".")] == []  # the next soup swept up


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["average", "seppo"])
def test_a_run_survives_being_killed(tmp_path, capsys, kind):
    """The end is that of the run that was not killed, and so is every batch on the way, token by token."""
    save_tiny(tmp_path / "a")
    kills = json.loads(python("-m", "tests.references.kill", kind, str(tmp_path), "1", "10").splitlines()[-1])
    assert not kills[0]["done"], kills
    end, whole = (load_file(tmp_path / name / "end" / "model.safetensors") for name in ("killed", "whole"))
    assert all((end[name] == value).all() for name, value in whole.items())
    once, again = (batches(tmp_path / name / "batches.jsonl") for name in ("whole", "killed"))
    assert [len(seen) for seen in once.values()] == [1] * 12  # the run that was not killed scores each batch once
    assert {step: seen[-1:] for step, seen in again.items()} == once  # no step more, though killed after the last one
    assert all(batch == seen[0] for seen in again.values() for batch in seen)  # nor does a repeated step differ
    if kind == "average":
        state = "prefalign_reference.safetensors"
        mine, theirs = (load_file(tmp_path / name / "ours" / "checkpoint-12" / state) for name in ("killed", "whole"))
        assert mine.keys() == theirs.keys()
        assert all((mine[name] == value).all() for name, value in theirs.items())
    with capsys.disabled():
        stopped = sum(not kill["done"] for kill in kills)
        print(f"\n{stopped} kills of a run ({kind}), which ended bit for bit as without")


def batches(path: Path) -> dict[int, list[object]]:
    """What was scored in each step, as often as it was; a line that a kill cut short is left out."""
    found: dict[int, list[object]] = {}
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n") and line.startswith("["):
            step, *seen = json.loads(line)
            found.setdefault(step, []).append(seen)
    return found
