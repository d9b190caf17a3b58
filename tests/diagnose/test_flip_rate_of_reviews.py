"""The demo's own noisy data, measured at the command line with the demo's own model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefalign.cli import main
from prefalign.data import flip_labels, load_pairs

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_demos_flips_are_measured_and_found(smollm2, tmp_path, capsys):
    noisy = flip_labels(load_pairs(ROOT / "examples/data/reviews_train.jsonl"), 0.3, seed=0).to_list()
    data = tmp_path / "noisy.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in noisy), "utf-8")
    # Whether the interval is narrow enough to take a number is another question; docs/reproductions.md has it.
    assert main(["noise", str(data), "--model", smollm2, "--cache", str(tmp_path / "cache"), "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert found["margins"]["rate"] == pytest.approx(0.3, abs=0.07)
    assert found["margins"]["low"] <= 0.3 <= found["margins"]["high"]
    flipped = [noisy[suspect["row"]]["flipped"] for suspect in found["suspects"]]
    assert len(flipped) == 50
    assert sum(flipped) / 50 >= 2 * 0.3
