"""Runs with another baseline and with pair weights for two processes: `torchrun` runs this file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset

from prefalign.train import PrefTrainer
from tests.tiny import tiny_pairs
from tests.train.runs import history, leave, lora, ours

BOOKS = Dataset.from_dict(
    {"prompt": [f"Book {i}:" for i in range(7)], "completion": [" " + "nice " * (1 + i % 3) for i in range(7)]}
)
RPO = "rpo(beta=0.1, eta='linear(0.5, 0.1)', reduction='sum', baseline='{}')"
CASES: dict[str, dict[str, Any]] = {
    "sft_dataset": {"loss": RPO.format("sft_dataset"), "sft_dataset": BOOKS},
    "adapter": {"loss": RPO.format("sft_dataset"), "sft_dataset": BOOKS, "peft_config": lora()},
    "reference": {"loss": RPO.format("reference")},
    "weights": {"train_dataset": tiny_pairs(24).add_column("weight", [0.25 * (i % 5) for i in range(24)])},
}


def train(case: str, folder: Path, model: str, processes: int) -> PrefTrainer:
    """Five steps of four pairs, however many processes share them."""
    more = {"max_new_tokens": 5, "generation_batch_size": 5} if case == "reference" else {}
    trainer = ours(
        folder / case,
        model,
        dict(CASES[case]),
        max_steps=5,
        per_device_train_batch_size=4 // processes,
        **more,
    )
    trainer.train()
    return trainer


def main(folder: Path, model: str) -> None:
    """Train every case and leave its log."""
    for case in CASES:
        trainer = train(case, folder, model, processes=2)
        assert trainer.accelerator.num_processes == 2
        if trainer.is_world_process_zero():
            (folder / f"{case}.json").write_text(json.dumps(history(trainer)))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
