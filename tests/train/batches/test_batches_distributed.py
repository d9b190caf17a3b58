"""Two processes that divide their pairs into micro-batches by tokens train as one process with the plain batch."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from tests.train.batches.test_batches import NOT_COMPARED
from tests.train.distributed_batches import CASES, train
from tests.train.runs import history, weights
from tests.train.test_distributed import ROOT, launch


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_by_tokens_train_as_one_plain_process(kind, checkpoint, tmp_path):
    run = launch(str(ROOT / "tests" / "train" / "distributed_batches.py"), str(tmp_path / "two"), checkpoint, kind)
    assert run.returncode == 0, run.stderr[-4000:]
    for case in CASES:
        one = train(case, tmp_path / "one", checkpoint, processes=1)
        ranks = [json.loads((tmp_path / "two" / f"{case}.{rank}.json").read_text()) for rank in (0, 1)]
        assert ranks[0]["bins"] != ranks[1]["bins"], "the processes must differ for the test to say anything"
        for mine, theirs in zip(ranks[0]["history"], history(one), strict=True):
            for key, value in theirs.items():
                if key.removeprefix("eval_") not in NOT_COMPARED:
                    assert mine[key] == pytest.approx(value, rel=1e-4, abs=1e-5), (case, key)
        saved = load_file(tmp_path / "two" / f"{case}.safetensors")
        for name, value in weights(one).items():
            assert (saved[name] - value).abs().max() < 1e-6, (case, name)
