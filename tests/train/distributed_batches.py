"""Trainings by tokens that two processes and one process must agree on; `torchrun` runs this file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from prefalign.train import PrefTrainer
from prefalign.train.batches import _by_tokens
from tests.tiny import tiny_pairs
from tests.train.fsdp import FSDP2, pass_for_gpus, whole
from tests.train.runs import history, leave, lora, ours

PAIRS = 16  # of a step, over all processes
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({"loss": "dpo(beta=0.1)", "eval_strategy": "steps", "eval_steps": 2}, {}),
    "lora": ({"loss": "ipo(beta=0.1)"}, {"peft_config": lora()}),
    "no reference": ({"loss": "simpo(beta=2.0, gamma=1.0)"}, {}),
}


def train(case: str, folder: Path, model: str, processes: int) -> PrefTrainer:
    """Four plain steps in one process, or the same ones in two, by tokens; the second epoch begins with the third."""
    options, arguments = CASES[case]
    sizes: dict[str, Any] = {"per_device_train_batch_size": PAIRS, "per_device_eval_batch_size": PAIRS}
    if processes > 1:
        sizes = {
            "per_device_train_batch_size": PAIRS // processes // 2,
            "gradient_accumulation_steps": 2,
            "per_device_eval_batch_size": PAIRS // processes,
            "tokens_per_batch": 150,
        }
    sgd = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "max_steps": 4}
    data = {"train_dataset": tiny_pairs(2 * PAIRS), "eval_dataset": tiny_pairs(PAIRS)}
    trainer = ours(folder / case, model, {**data, **arguments}, **options, **sizes, **sgd)
    trainer.train()
    return trainer


def main(folder: Path, model: str, sharded: bool) -> None:
    """Train every case; leave histories, weights, and how many bins each process would have made by itself."""
    if sharded:
        os.environ.update(FSDP2)
        pass_for_gpus()
    bins: list[int] = []
    original = _by_tokens.best_fit_padded

    def spy(*arguments: Any) -> Any:
        made = original(*arguments)
        bins.append(len(made))
        return made

    _by_tokens.best_fit_padded = spy
    for case in CASES:
        bins.clear()
        trainer = train(case, folder, model, processes=2)
        assert trainer.accelerator.is_fsdp2 if sharded else trainer.accelerator.distributed_type == "MULTI_CPU"
        state = {name: value.contiguous() for name, value in whole(trainer).items()}
        rank = trainer.accelerator.process_index
        (folder / f"{case}.{rank}.json").write_text(json.dumps({"bins": bins, "history": history(trainer)}))
        if rank == 0:
            save_file(state, folder / f"{case}.safetensors")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "fsdp2")
