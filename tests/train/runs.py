"""Short trainings whose every number can be compared."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import torch
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer

from prefalign.train import PrefConfig, PrefTrainer
from tests.tiny import tiny_pairs

STEPS = 9
COMMON: dict[str, Any] = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "report_to": "none",
    "use_cpu": True,
    "save_strategy": "no",
    "disable_tqdm": True,
}
# The plain forward equals TRL's to the last bit; the reference's forward passes are counted and compared.
OURS: dict[str, Any] = {"shared_prefix": False, "reference_cache": "off"}
TIMES = ("runtime", "per_second", "generated/seconds")


def lora() -> LoraConfig:
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def ours(folder: Path, model: Any, trainer: dict[str, Any] | None = None, **options: Any) -> PrefTrainer:
    args = PrefConfig(str(folder / "ours"), **{**COMMON, **OURS, **options})
    return PrefTrainer(model, args=args, **{"train_dataset": tiny_pairs(), **(trainer or {})})


def theirs(folder: Path, model: Any, trainer: dict[str, Any] | None = None, **options: Any) -> DPOTrainer:
    settings = {"bf16": False, "gradient_checkpointing": False, **COMMON, **options}
    args = DPOConfig(str(folder / "theirs"), **settings)
    return DPOTrainer(model, args=args, **{"train_dataset": tiny_pairs(), **(trainer or {})})


def history(trainer: DPOTrainer) -> list[dict[str, float]]:
    """Everything that was logged, without times."""
    return [
        {key: value for key, value in entry.items() if not any(word in key for word in TIMES)}
        for entry in trainer.state.log_history
    ]


def weights(trainer: DPOTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}


def largest_difference(mine: DPOTrainer, trl: DPOTrainer) -> float:
    """Over everything that TRL logged, and all trained weights; infinite where ours lacks something."""
    worst = 0.0
    my_history, trl_history = history(mine), history(trl)
    assert len(my_history) == len(trl_history) > 0
    for my_entry, trl_entry in zip(my_history, trl_history, strict=True):
        # Of several evaluation sets each metric bears its set's name here; TRL's share one key, log by log.
        sets = {key.removesuffix("_loss").removeprefix("eval_") for key in trl_entry if key.endswith("_loss")}
        named = {key.replace(f"eval_{name}_", "eval_", 1): key for name in sets for key in my_entry}
        for key, value in trl_entry.items():
            mine_too = my_entry.get(key, my_entry.get(named.get(key, ""), math.inf))
            worst = max(worst, abs(mine_too - value))
    my_weights, trl_weights = weights(mine), weights(trl)
    assert my_weights.keys() == trl_weights.keys()
    for name, value in trl_weights.items():
        worst = max(worst, (my_weights[name] - value).abs().max().item())
    return worst


def leave() -> NoReturn:
    """End one of several processes: torch's threads now and then abort an interpreter that ends in the usual way."""
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
