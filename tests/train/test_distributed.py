"""Two processes on the CPU train as one process at the same global batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.tiny import tiny_pairs
from tests.train.distributed import CASES, train
from tests.train.runs import history, weights

ROOT = Path(__file__).parents[2]


# Of a pair that is computed twice, for the sake of even batches, TRL counts the tokens twice.
OF_TOKENS = ("eval_entropy", "eval_logits", "eval_mean_token_accuracy")


def launch(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in two processes."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *words]
    return subprocess.run(torchrun, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_two_processes_train_as_one(checkpoint, other_checkpoint, tmp_path):
    run = launch(str(ROOT / "tests" / "train" / "distributed.py"), str(tmp_path / "two"), checkpoint, other_checkpoint)
    assert run.returncode == 0, run.stderr[-4000:]
    for case in CASES:
        one = train(case, tmp_path / "one", checkpoint, other_checkpoint, processes=1)
        two = json.loads((tmp_path / "two" / f"{case}.json").read_text())
        assert len(two) == len(history(one)), case
        for mine, theirs in zip(history(one), two, strict=True):
            assert mine.keys() == theirs.keys(), case
            for key, value in mine.items():
                # TRL counts the tokens of a pair that is computed twice for the sake of even batches.
                of_tokens = case == "uneven evaluation" and key.startswith(
                    ("eval_entropy", "eval_logits", "eval_mean_")
                )
                if key != "total_flos" and not of_tokens:
                    assert theirs[key] == pytest.approx(value, rel=1e-4, abs=1e-4), (case, key)
        saved = load_file(tmp_path / "two" / f"{case}.safetensors")
        for name, value in weights(one).items():
            # Adam's steps are as long for tiny gradients, whose rounding differs, as for others: 9 steps of up to 1e-2.
            assert (saved[name] - value).abs().max() < 3e-4, (case, name)


@pytest.mark.slow
def test_prefalign_train_runs_in_two_processes(checkpoint, tmp_path):
    tiny_pairs().to_json(tmp_path / "pairs.jsonl")
    config = {
        "model_name_or_path": checkpoint,
        "dataset_name": str(tmp_path / "pairs.jsonl"),
        "output_dir": str(tmp_path / "run"),
        "loss": "dpo(beta=0.1)",
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "report_to": "none",
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    run = launch("-m", "prefalign", "train", "--config", str(tmp_path / "config.yaml"))
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.count("Model:") == run.stdout.count("Loss: DPO(beta=0.1)") == 1
    assert json.loads((tmp_path / "run" / "prefalign_run.json").read_text())["options"]["processes"] == 2
