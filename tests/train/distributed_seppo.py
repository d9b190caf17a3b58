"""A run on winners alone for two processes: `torchrun` runs this file, which leaves what it saw in a folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from prefalign.train import PrefTrainer
from tests.tiny import tiny_pairs, tiny_tokenizer
from tests.train.fsdp import FSDP2, pass_for_gpus, whole
from tests.train.runs import history, leave, lora, ours

DITTO = "ditto(keep=3, every=2, mix=[0.4, 0.3, 0.3])"
_VOCABULARY = sorted(tiny_tokenizer().get_vocab())
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({}, {}),
    "lora": ({}, {"peft_config": lora()}),
    # Three of four tokens end a completion, so that the processes are done after different numbers of passes; and calls
    # of three rows at most.
    "early ends": ({"stop_tokens": [t for i, t in enumerate(_VOCABULARY) if i % 4], "generation_batch_size": 3}, {}),
    # Each process draws versions of its own for its rows.
    "ditto": ({"loss": "seppo(beta=0.1, flipper=none)", "reference": DITTO, "generation_batch_size": 2}, {}),
    "ditto lora": ({"loss": "seppo(beta=0.1, flipper=none)", "reference": DITTO}, {"peft_config": lora()}),
}


def train(case: str, folder: Path, model: str, resume: str | None = None) -> tuple[PrefTrainer, list[Any]]:
    """Eight steps, saved after three, in the middle of what is made ahead; and the batches that were scored."""
    options, arguments = CASES[case]
    settings = {
        "loss": "seppo(beta=0.1)",
        "reference": "past(keep=2, every=4)",
        "max_new_tokens": 5,
        "max_steps": 8,
        "per_device_train_batch_size": 2,
        "save_strategy": "steps",
        "save_steps": 3,
        **options,
    }
    data = {"train_dataset": tiny_pairs(24).remove_columns("rejected"), **arguments}
    trainer = ours(folder / case, model, data, **settings)
    batches: list[Any] = []
    original = trainer.reference.logps

    def logps(inputs: Any) -> Any:
        batches.append([trainer.state.global_step, trainer.reference.version, inputs["input_ids"].tolist()])
        return original(inputs)

    trainer.reference.logps = logps
    trainer.train(resume)
    return trainer, batches


def main(folder: Path, model: str, sharded: bool) -> None:
    """Train every case, once without an interruption and once resumed."""
    if sharded:
        os.environ.update(FSDP2)
        pass_for_gpus()
    for case in CASES:
        first, batches = train(case, folder / "whole", model)
        saved = str(folder / "whole" / case / "ours" / "checkpoint-3")
        resumed, again = train(case, folder / "resumed", model, saved)
        assert first.accelerator.is_fsdp2 if sharded else first.accelerator.distributed_type == "MULTI_CPU"
        now = whole(resumed)
        same = all(torch.equal(value, now[name]) for name, value in whole(first).items())
        seen = {"batches": batches, "resumed": again, "same": same, "history": history(first)}
        rank = first.accelerator.process_index
        (folder / f"{case}-{rank}.json").write_text(json.dumps(seen))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "fsdp2")
