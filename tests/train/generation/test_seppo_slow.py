"""Two processes; the command line; and the experiment in miniature, in which what the paper saw must appear."""

from __future__ import annotations

import json

import pytest
import yaml

from benchmarks import seppo_miniature
from prefalign.train import RUN_FILE
from tests.tiny import tiny_pairs
from tests.train.distributed_seppo import CASES
from tests.train.test_distributed import ROOT, launch


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_draw_alike_generate_apart_and_resume(checkpoint, tmp_path, kind):
    run = launch(str(ROOT / "tests" / "train" / "distributed_seppo.py"), str(tmp_path), checkpoint, kind)
    assert run.returncode == 0, run.stderr[-4000:]
    for case in CASES:
        shares = sorted(path.name for path in tmp_path.glob(f"whole/{case}/ours/checkpoint-3/*/step-*.safetensors"))
        taken = {"ditto": 2}.get(case.split()[0], 1)  # before the third step
        assert len(shares) == taken * (2 if kind == "fsdp2" else 1)  # each process its own under FSDP2
        both = [json.loads((tmp_path / f"{case}-{rank}.json").read_text()) for rank in range(2)]
        first, second = (seen["batches"] for seen in both)
        assert [row[:2] for row in first] == [row[:2] for row in second]
        assert all(mine[2] != theirs[2] for mine, theirs in zip(first, second, strict=True))
        for seen in both:
            assert seen["same"]
            assert seen["resumed"] == seen["batches"][3:]
        rows = [row for row in both[0]["history"] if "loss" in row]
        if taken == 1:
            assert [row["reference/staleness"] for row in rows][:5] == [0, 1, 2, 3, 0]
        else:
            assert max(row["generated/winners"] for row in rows) > 0
        if case == "early ends":
            assert all(row["generated/ended"] > 0.9 for row in rows)
            assert 1 < max(row["generated/length"] for row in rows) < 5


@pytest.mark.slow
def test_the_command_line_trains_on_winners(checkpoint, tmp_path):
    tiny_pairs(8).remove_columns("rejected").rename_column("chosen", "completion").to_json(tmp_path / "winners.jsonl")
    config = {
        "model_name_or_path": checkpoint,
        "dataset_name": str(tmp_path / "winners.jsonl"),
        "output_dir": str(tmp_path / "run"),
        "loss": "seppo(beta=0.1)",
        "reference": "past(keep=7, every=30)",
        "max_new_tokens": 4,
        "max_steps": 2,
        "use_cpu": True,
        "report_to": "none",
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    run = launch("-m", "prefalign", "train", "--config", str(tmp_path / "config.yaml"), "--temperature", "0.7")
    assert run.returncode == 0, run.stderr[-4000:]
    record = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    assert record["reference"]["expression"] == "past(keep=7, every=30, choose='random', redraw='round', seed=0)"
    assert record["data"]["train"]["layout"] == "winners"


@pytest.mark.slow
def test_the_experiment_in_miniature(tmp_path, capsys):
    """Winners are the best of four; without the flipper their held-out log-probability collapses, with it it rises."""
    seppo_miniature.run(tmp_path, seeds=1)
    (table,) = (json.loads(path.read_text()) for path in tmp_path.glob("out/*/results.json"))
    assert len(table) == 6
    found = {arm: runs[0]["numbers"] for arm, runs in table.items()}
    start = found["sft"]["start"]
    fall = start - found["none, random"]["lowest"]
    assert fall > 4
    for arm in ("sign, random", "indicator, random", "sign, initial", "sign, latest"):
        assert found[arm]["end"] > start - 0.2, arm
        assert 0 < found[arm]["flip rate"] < 1, arm
    assert abs(found["sign, random"]["end"] - found["indicator, random"]["end"]) < 0.1 * fall
    assert len(list(tmp_path.glob("out/*/results.png"))) == 1
    printed = capsys.readouterr().out.split("mean (deviation)")[-1]
    seppo_miniature.run(tmp_path, seeds=1)  # everything is there: nothing is trained
    assert capsys.readouterr().out.split("mean (deviation)")[-1] == printed
