"""A state of tensors and JSON values on disk: safetensors and JSON, each file replaced atomically."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .._errors import CheckpointError
from .._files import new_file, write_json
from ._base import State


def save_state(folder: Path, name: str, state: State) -> None:
    """Write `state` to `NAME.safetensors` (its tensors, if any) and `NAME.json` (the rest) in `folder`."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items() if torch.is_tensor(value)}
    folder.mkdir(parents=True, exist_ok=True)
    if tensors:
        with new_file(folder / f"{name}.safetensors") as partial:
            save_file(tensors, partial)
    rest = {key: value for key, value in state.items() if key not in tensors}
    # The JSON file comes last and lists the tensors: a state without it was not written to the end.
    write_json(folder / f"{name}.json", {"tensors": sorted(tensors), "values": rest})


def load_state(folder: Path, name: str) -> State | None:
    """The state that `save_state` wrote, on the CPU; None if there is none.

    Raises:
        CheckpointError: The state is incomplete.
    """
    described = folder / f"{name}.json"
    if not described.is_file():
        return None
    try:
        content = json.loads(described.read_text("utf-8"))
        tensors = load_file(folder / f"{name}.safetensors") if content["tensors"] else {}
        if not isinstance(content["values"], dict) or not isinstance(content["tensors"], list):
            raise TypeError("it has another form")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(
            f"The state `{name}` in {str(folder)!r} cannot be read ({error}). Resume from an earlier checkpoint."
        ) from error
    missing = set(content["tensors"]) - set(tensors)
    if missing:
        raise CheckpointError(
            f"The state `{name}` in {str(folder)!r} lacks {sorted(missing)}. Resume from an earlier checkpoint."
        )
    return {**content["values"], **tensors}
