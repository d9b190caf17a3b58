"""What a checkpoint belongs to, and what it consists of: held against the run that resumes from it.

Two runs in one folder leave checkpoints of the same names. Going on from the other's, or from one that has lost a file,
would train on, to other weights, without a word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..._errors import CheckpointError
from ..._files import read_json, write_json

FILES = "prefalign_files.json"  # the checkpoint's files and their sizes, written last
_LEFT_OUT = {FILES, "prefalign_unfinished", "README.md"}
_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids", "chosen_scored", "rejected_scored")
_BATCH = 1000


def binding_of(trainer: Any) -> dict[str, Any]:
    """What decides how a run goes on: data, seed, step and schedule; equal for a run that is resumed."""
    args = trainer.args
    return {
        "data": fingerprint_of(trainer.train_dataset),
        "seed": args.seed,
        "data_seed": args.data_seed,
        "pairs_per_step": args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "learning_rate": args.learning_rate,
        "lr_scheduler_type": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
        "warmup_steps": float(args.warmup_steps),
        "optim": str(getattr(args.optim, "value", args.optim)),
        "weight_decay": args.weight_decay,
        "max_grad_norm": args.max_grad_norm,
        "max_length": args.max_length,
    }


def check_binding(folder: Path, saved: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Refuse to go on from another run's checkpoint.

    Args:
        folder: The checkpoint.
        saved: What `binding_of` gave when it was written; None for a checkpoint that does not say.
        now: What it gives.

    Raises:
        CheckpointError: They differ.
    """
    if saved is None:
        return
    for name, value in now.items():
        if name in saved and saved[name] != value:
            what = {
                "data": "on other data",
                "pairs_per_step": f"with {saved[name]} pairs a step (processes included)",
            }.get(name, f"with `{name}={saved[name]!r}`")
            got = "" if name == "data" else f" (got {value!r})"
            raise CheckpointError(
                f"The run in {str(folder)!r} was trained {what}{got}. Resume it as it was, give this run another "
                "`output_dir`, or start a new run from those weights: give the folder as the model."
            )


def fingerprint_of(dataset: Any) -> str | None:
    """A hash of a data set's tokens and of what counts of them, row by row; None for a stream, or without tokens."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "with_format"):
        return None
    columns = [name for name in _COLUMNS if name in dataset.column_names]
    if not columns:
        return None
    digest = hashlib.blake2b(digest_size=16)
    arrow = dataset.select_columns(columns).with_format("arrow")
    for batch in arrow.iter(_BATCH):
        for name in columns:
            rows = batch.column(name).combine_chunks()
            digest.update(rows.value_lengths().to_numpy(zero_copy_only=False).tobytes())
            numbers = rows.flatten().to_numpy(zero_copy_only=False)
            digest.update(numbers.astype("float64" if numbers.dtype.kind == "f" else "int64").tobytes())
    return digest.hexdigest()


def files_of(folder: Path) -> dict[str, int]:
    """The files of a checkpoint with their sizes in bytes."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in _LEFT_OUT
    }


def list_files(folder: Path) -> None:
    """Write down what a checkpoint consists of, once all of it is there."""
    write_json(folder / FILES, files_of(folder))


def check_whole(folder: Path) -> None:
    """Refuse a checkpoint that has lost a file, or a part of one, since it was written.

    Raises:
        CheckpointError: A file is missing, or has another size.
    """
    if not (folder / FILES).is_file():  # an older one, or TRL's
        return
    for name, size in read_json(folder / FILES).items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(
                f"The checkpoint {str(folder)!r} has lost {name!r}. Resume from another one: without that file the run "
                "would go on to other weights."
            )
        if path.stat().st_size != size:
            raise CheckpointError(
                f"{name!r} in the checkpoint {str(folder)!r} has {path.stat().st_size} bytes, and had {size} when it "
                "was written. Resume from another one."
            )
