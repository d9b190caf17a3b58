"""Trainings that FSDP2 in two CPU processes and one plain process must agree on; `torchrun` runs this file.

Accelerate shards on accelerators only: its state asks for the kind of process group before it looks at FSDP. Here
gloo's processes pass for GPUs, so that TRL's and this package's own code meet real FSDP2 modules and DTensors.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from prefalign.train import PrefTrainer
from tests.tiny import tiny_pairs
from tests.train.runs import history, leave, lora, ours

GLOBAL_BATCH = 4
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
PAST = {"loss": "dpo(beta=0.1)", "reference": "past(keep=2, every=3)"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "initial": ({"loss": "dpo(beta=0.1) + 0.1*sft(reduction='sum')", "eval_strategy": "steps", "eval_steps": 3}, {}),
    "lora": ({"loss": "robust(dpo(beta=0.1), flip_rate=0.2)"}, {"peft_config": lora()}),
    "none": ({"loss": "simpo(beta=2.0, gamma=1.0)"}, {}),
    "compiled": ({"loss": "logic('M(l) >> M(w)', given='M(w) | M(l)', beta=0.1, mean=True)"}, {}),
    "checkpoint": ({"loss": "ipo(beta=0.1)", "reference": "checkpoint('OTHER')"}, {}),
    "soup": ({"loss": "dpo(beta=0.1)", "reference": "soup('MODEL', 'OTHER')"}, {}),
    "soup lora": ({"loss": "dpo(beta=0.1)", "reference": "soup('MODEL', 'OTHER')"}, {"peft_config": lora()}),
    "bema": ({"loss": "dpo(beta=0.1)", "reference": "bema(every=2, after=1)"}, {}),
    "moving average": ({"loss": "dpo(beta=0.1)", "reference": "moving_average(alpha=0.5, every=2)"}, {}),
    "past": ({**PAST, "eval_strategy": "steps", "eval_steps": 2}, {}),
    # What a forward pass has put together stays so: what follows the policy must change the shards, and be seen to.
    "past, left whole": ({**PAST, "eval_strategy": "steps", "eval_steps": 2}, {}),
    "moving average, left whole": ({"loss": "dpo(beta=0.1)", "reference": "moving_average(alpha=0.5, every=2)"}, {}),
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
    "resumed": ({"loss": "dpo(beta=0.1)", "reference": "moving_average(alpha=0.5, every=2)"}, {}),
    "cached": ({"loss": "dpo(beta=0.1)", "reference_cache": "CACHE"}, {}),
    "cached lora": ({"loss": "dpo(beta=0.1)", "reference_cache": "CACHE", "max_steps": 12}, {"peft_config": lora()}),
    "precomputed": ({"loss": "ipo(beta=0.1)", "precompute_ref_log_probs": True}, {}),
    "shared prefix": ({"loss": "dpo(beta=0.1)", "shared_prefix": True, "gradient_checkpointing": True}, {}),
    "shared prefix, lora": ({"loss": "dpo(beta=0.1)", "shared_prefix": True}, {"peft_config": lora()}),
}


def train(case: str, folder: Path, model: str, other: str, processes: int) -> PrefTrainer:
    """Train one case; "resumed" is saved after five steps and trained to its end from there."""
    options, arguments = CASES[case]
    options = {
        key: value.replace("MODEL", model).replace("OTHER", other) if key == "reference" else value
        for key, value in options.items()
    }
    if "reference_cache" in options:
        options = {**options, "reference_cache": str(folder / case / "cache")}
    sizes = {"per_device_train_batch_size": GLOBAL_BATCH // processes, "per_device_eval_batch_size": 8 // processes}
    resumes: list[str | None] = [None]
    if case == "resumed":
        options |= {"save_strategy": "steps", "save_steps": 5}
        resumes.append(str(folder / case / "ours" / "checkpoint-5"))
    for resume in resumes:
        trainer = ours(folder / case, model, {"eval_dataset": tiny_pairs(8), **arguments}, **options, **sizes)
        trainer.train(resume)
    return trainer


def whole(trainer: PrefTrainer) -> dict[str, torch.Tensor]:
    """The trained weights, gathered; every process must call this."""
    found = {}
    for name, value in trainer.accelerator.get_state_dict(trainer.model_wrapped).items():
        found[name] = value.full_tensor() if isinstance(value, DTensor) else value
    return {name: value.detach().clone().contiguous() for name, value in found.items()}


def pass_for_gpus() -> None:
    """Let Accelerate take the processes of this run for GPUs."""
    from accelerate import state

    start = state.PartialState.__init__

    def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        if self.distributed_type == state.DistributedType.MULTI_CPU:
            self.distributed_type = state.DistributedType.MULTI_GPU

    state.PartialState.__init__ = begin


def main(folder: Path, model: str, other: str, cases: list[str]) -> None:
    """Train the cases and leave history and weights of each in `folder`."""
    os.environ.update(FSDP2)
    pass_for_gpus()
    for case in cases or CASES:
        whole_after = "left whole" in case
        os.environ["FSDP_RESHARD_AFTER_FORWARD"] = str(not whole_after).lower()
        trainer = train(case, folder, model, other, processes=2)
        assert trainer.accelerator.is_fsdp2
        if "shared prefix" in case:
            assert trainer.shared_prefix is not None
            assert trainer.shared_prefix.active
            assert trainer.shared_prefix.packed_tokens > 0
        if CASES[case][1] == {} and trainer.ref_model is not None:
            assert any(isinstance(value, DTensor) for value in trainer.ref_model.parameters()) != whole_after, case
        if case == "cached":
            assert trainer.ref_model is None
            assert trainer.reference_cache.computed > 0
        weights = whole(trainer)
        if trainer.is_world_process_zero():
            save_file(weights, folder / f"{case}.safetensors")
            (folder / f"{case}.json").write_text(json.dumps(history(trainer)))
            print("done:", case, flush=True)
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
