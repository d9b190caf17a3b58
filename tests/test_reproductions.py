"""The page of reproductions is as new as the code, and its scripts draw what they promise."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from prefalign.diagnose import FlipRate
from prefalign.logic import catalogue

ROOT = Path(__file__).parents[1]


def test_the_edges_table_has_a_row_for_every_rule_of_the_catalogue():
    page = (ROOT / "docs" / "reproductions.md").read_text("utf-8")
    table = page.partition("<!-- edges: begin -->")[2].partition("<!-- edges: end -->")[0]
    rows = re.findall(r"^\| ([^|]+?) \| `", table, re.MULTILINE)
    expected = []
    for name in catalogue:
        count = len(catalogue[name].rules.rules)
        expected += [name] if count == 1 else [f"{name}, rule {number}" for number in range(1, count + 1)]
    assert rows == expected
    assert f"{len(list(catalogue))} losses, {len(expected)} rules" in table


@pytest.fixture
def script(monkeypatch):
    """Imports a script of benchmarks/reproduce by its name, for this test only."""
    folder = ROOT / "benchmarks" / "reproduce"
    monkeypatch.syspath_prepend(folder)
    known = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == folder:
            del sys.modules[name]


def _is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_the_flip_rates_are_a_table_and_a_picture(script, tmp_path):
    noise = script("noise")
    found = FlipRate(0.12, 0.05, 0.2, 0.1, 0.0, 0.2, 0.8, 60, np.full(60, 2.0), np.full(60, 0.1))
    tried = {rate: [noise.Draw(found, rate), noise.Draw(found, 2 * rate)] for rate in (0.0, 0.1, 0.4)}
    noise.draw(tried, tmp_path / "noise.png")
    assert _is_picture(tmp_path / "noise.png")
    cells = noise.row(0.1, tried[0.1])
    assert cells[:4] == ["0.1", "0.120 ± 0.000", "2 of 2", "2 of 2"]
    assert cells[-1] == "0.15"  # the mean of 0.1 and 0.2
    assert noise.row(0.0, tried[0.0])[-1] == "–"


def test_the_arms_of_salsa_are_a_table_and_a_picture(script, tmp_path):
    salsa = script("salsa_smollm2")
    path = {"0": [-10.0, -20.0, 0.0, 0.0], "8": [-12.0, -20.0, 0.0, 0.0], "16": [-12.0, -24.0, 0.0, 0.0]}
    found = {arm: [{"path": path, "losses": [0.5], "rewards": []}] * 2 for arm in salsa.ARMS}
    assert "| -1.00, -1.00 | – | -3.00, -3.00 | – |" in salsa.report(found, ["p", "q"])
    salsa.draw(found, 2, tmp_path / "salsa.png")
    assert _is_picture(tmp_path / "salsa.png")
