"""Soups that are killed, and the memory that one takes, seen from outside the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefalign.references.weights._safetensors import weights_fingerprint
from tests.references.models import CONFIG

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
    left = json.loads(python("-m", "tests.references.kill", str(tmp_path), "0", SOUPS))
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
