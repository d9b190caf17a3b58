"""What a run leaves behind about itself: `prefalign_run.json`, and a section of the model card."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...data import DataReport
from ...references import write_json
from ..config import Objective

RUN_FILE = "prefalign_run.json"
_LIBRARIES = ("prefalign", "trl", "transformers", "torch", "accelerate", "peft", "datasets")
_MARK = "### Framework versions"
_TRAINED = re.compile(r"This model was trained with DPO, a method introduced in \[[^\]]*\]\([^)]*\)\.")
_CITATION = re.compile(r"Cite DPO as:\s*```bibtex\n.*?```\s*", re.DOTALL)


def versions() -> dict[str, str]:
    """Versions of Python, prefalign and the libraries under it; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def run_record(
    trainer: Any, objective: Objective, reports: Mapping[str, DataReport], noise: float | None
) -> dict[str, Any]:
    """The content of `prefalign_run.json`, format 1 (docs/metrics.md describes the keys)."""
    args, reference = trainer.args, objective.reference
    return {
        "format": 1,
        "loss": {
            "expression": objective.expression,
            "formula": objective.formula,
            "beta": objective.beta,
        },
        "reference": {"expression": reference.expression, "identity": reference.identity},
        "model": getattr(trainer.model.config, "_name_or_path", None) or None,
        "adapter": sorted(getattr(trainer.model, "peft_config", {})),
        "data": {name: report.to_json() for name, report in reports.items()},
        "generation": None if trainer.self_play is None else dataclasses.asdict(trainer.self_play.sampling),
        "noise_rate": noise,
        "options": {
            "learning_rate": args.learning_rate,
            "num_train_epochs": args.num_train_epochs,
            "max_steps": trainer.state.max_steps,
            "per_device_train_batch_size": args.per_device_train_batch_size,
            "gradient_accumulation_steps": args.gradient_accumulation_steps,
            "processes": args.world_size,
            "max_length": args.max_length,
            "score": getattr(args, "score", "completion"),
            "seed": args.seed,
            "mixed_precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "no",
            "gradient_checkpointing": args.gradient_checkpointing,
        },
        "versions": versions(),
    }


def write_run(output_dir: str, record: Mapping[str, Any]) -> Path:
    """Write the record into `output_dir`, atomically, and return its path."""
    path = Path(output_dir) / RUN_FILE
    write_json(path, record)
    return path


def extend_card(path: Path, objective: Objective, noise: float | None, model: str | None) -> None:
    """Put the loss's formula, the reference's identity and the noise rate into a model card that TRL wrote.

    What TRL's template says of every run, and is not so of this one, is put right: a base model that is no hub id is
    its "None", and its method is DPO whatever the loss.

    Args:
        path: The card.
        objective: What was trained.
        noise: Share of the training labels that were flipped on purpose, if known.
        model: Where the policy came from; None for a model built in memory.
    """
    known = "not known" if noise is None else f"{noise:.1%} of the labels were flipped on purpose"
    section = (
        "### Objective\n\n"
        f"```text\n{objective.formula}\n```\n\n"
        + (f"- Loss, as an expression: `{objective.expression}`\n" if objective.expression else "")
        + f"- Reference: {objective.reference.identity}\n"
        f"- Label noise: {known}\n"
        f"- Trained with prefalign {versions().get('prefalign', '')}\n\n"
    )
    card = path.read_text("utf-8")
    base = f"`{Path(model).name}`, a local model" if model else "a model built in memory"
    card = card.replace("[None](https://huggingface.co/None)", base)
    card = card.replace('model="None"', f'model="{path.parent.resolve().name}"')
    if objective.own and "dpo(" not in (objective.expression or ""):
        card = _TRAINED.sub("This model was trained with the objective below, by TRL's DPO trainer.", card)
        card = _CITATION.sub("", card)
    before, mark, after = card.partition(_MARK)
    path.write_text(before + section + mark + after if mark else f"{card}\n{section}", "utf-8")
