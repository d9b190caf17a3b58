"""Trainings that two processes and one process must agree on; `torchrun` runs this file, the test imports it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from prefalign.train import PrefTrainer
from tests.tiny import tiny_pairs
from tests.train.runs import history, leave, lora, ours, weights

GLOBAL_BATCH = 4
SIMPO = "simpo(beta=2.0, gamma=1.0)"
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({"loss": "dpo(beta=0.1) + 0.1*sft(reduction='sum')", "eval_strategy": "steps", "eval_steps": 3}, {}),
    "lora": ({"loss": "robust(dpo(beta=0.1), flip_rate=0.2)"}, {"peft_config": lora()}),
    "no reference": ({"loss": SIMPO, "max_steps": 12}, {}),
    "soup": ({"loss": "dpo(beta=0.1)", "reference": "soup('MODEL', 'OTHER')"}, {}),
    "soup lora": ({"loss": "dpo(beta=0.1)", "reference": "soup('MODEL', 'OTHER')"}, {"peft_config": lora()}),
    "checkpoint": ({"loss": "ipo(beta=0.1)", "reference": "checkpoint('OTHER')"}, {}),
    "compiled": ({"loss": "logic('M(l) >> M(w)', given='M(w) | M(l)', beta=0.1, mean=True)"}, {}),
    "bema": ({"loss": "dpo(beta=0.1)", "reference": "bema(every=2, after=1)"}, {}),
    "past": ({"loss": "dpo(beta=0.1)", "reference": "past(keep=2, every=3)"}, {}),
    "moving average": ({"loss": "dpo(beta=0.1)", "reference": "moving_average(alpha=0.5, every=2)"}, {}),
    # The likeliest tokens of the latest snapshot above those of the one before: nothing is drawn by each process alone.
    "ditto": (
        {
            "loss": "seppo(beta=0.1, flipper=none)",
            "reference": "ditto(keep=2, every=3, mix=[0, 0, 1])",
            "temperature": 0.0,
            "max_new_tokens": 5,
        },
        {"train_dataset": tiny_pairs().remove_columns("rejected"), "eval_dataset": None},
    ),
    "cached": ({"loss": "ipo(beta=0.1)", "eval_strategy": "steps", "eval_steps": 3}, {}),
    "precomputed": ({"loss": "ipo(beta=0.1)", "precompute_ref_log_probs": True}, {}),
    "resumed": ({"loss": "dpo(beta=0.1)", "reference": "moving_average(alpha=0.5, every=2)"}, {}),
    # Seven pairs on two processes: one is computed twice, and counts once.
    "uneven evaluation": (
        {"loss": "dpo(beta=0.1)", "eval_strategy": "steps", "eval_steps": 3},
        {"eval_dataset": tiny_pairs(7)},
    ),
    "shared prefix": ({"loss": "dpo(beta=0.1)", "shared_prefix": True}, {}),
}


def train(case: str, folder: Path, model: str, other: str, processes: int) -> PrefTrainer:
    """Train one case; "resumed" is saved after five steps and trained to its end from there."""
    options, arguments = CASES[case]
    options = {
        key: value.replace("MODEL", model).replace("OTHER", other) if key == "reference" else value
        for key, value in options.items()
    }
    sizes = {"per_device_train_batch_size": GLOBAL_BATCH // processes, "per_device_eval_batch_size": 8 // processes}
    arguments = {"eval_dataset": tiny_pairs(8), **arguments}
    if case == "cached":
        options = {**options, "reference_cache": str(folder / "cache")}
    if case != "resumed":
        trainer = ours(folder / case, model, arguments, **options, **sizes)
        trainer.train()
        return trainer
    for resume in (None, str(folder / case / "ours" / "checkpoint-5")):
        saving = {"save_strategy": "steps", "save_steps": 5}
        trainer = ours(folder / case, model, arguments, **options, **sizes, **saving)
        trainer.train(resume)
    return trainer


def main(folder: Path, model: str, other: str, cases: list[str]) -> None:
    """Train the cases and leave history and weights of each in `folder`."""
    for case in cases or CASES:
        trainer = train(case, folder, model, other, processes=2)
        assert trainer.accelerator.num_processes == 2
        assert trainer.accelerator.distributed_type == "MULTI_CPU"
        assert isinstance(trainer.model_wrapped, torch.nn.parallel.DistributedDataParallel)
        if case == "cached":  # each process computed a part of the 32 pairs, and has let the reference go
            assert trainer.ref_model is None
            assert 0 < trainer.reference_cache.computed < 32
        if case == "shared prefix":
            assert trainer.shared_prefix is not None
            assert trainer.shared_prefix.active
            assert trainer.shared_prefix.packed_tokens > 0
        if trainer.is_world_process_zero():
            save_file({k: v.contiguous() for k, v in weights(trainer).items()}, folder / f"{case}.safetensors")
            (folder / f"{case}.json").write_text(json.dumps(history(trainer)))
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
