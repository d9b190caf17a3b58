"""Two processes deal the baseline's completions, and weigh the pairs, as one does."""

from __future__ import annotations

import json

import pytest

from tests.train.distributed_baseline import CASES, train
from tests.train.runs import history
from tests.train.test_distributed import ROOT, launch


@pytest.mark.slow
def test_two_processes_train_on_the_baseline_as_one(checkpoint, tmp_path):
    (tmp_path / "two").mkdir()
    run = launch(str(ROOT / "tests" / "train" / "distributed_baseline.py"), str(tmp_path / "two"), checkpoint)
    assert run.returncode == 0, run.stderr[-4000:]
    for case in CASES:
        one = history(train(case, tmp_path / "one", checkpoint, processes=1))
        two = json.loads((tmp_path / "two" / f"{case}.json").read_text("utf-8"))
        for mine, theirs in zip(one, two, strict=True):
            for key in {"loss", "eta", "logps/baseline", "loss/sft", "train_loss"} & mine.keys():
                assert theirs[key] == pytest.approx(mine[key], rel=1e-3, abs=1e-4), (case, key)
