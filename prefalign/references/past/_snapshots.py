"""Snapshots of weights on disk: safetensors, each with its SHA-256, each either whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..._errors import CheckpointError
from ..._files import new_file, write_json

_CHUNK = 1 << 22
_REMEDY = "Resume from an earlier checkpoint, or start a new run."


class Snapshots:
    """The snapshots in one folder, by the optimizer step that they were taken before.

    A snapshot is `step-N.safetensors` with `step-N.json` beside it, which holds the SHA-256 and is written last: what
    lacks it was not written to the end, and does not count.

    Args:
        folder: Made when the first snapshot is written.
        part: Names this process's share where weights are sharded, such as "rank-0-of-2"; empty for whole weights.
    """

    def __init__(self, folder: Path, part: str = "") -> None:
        self.folder = folder
        self._end = f".{part}" if part else ""

    @property
    def steps(self) -> list[int]:
        """The steps of all whole snapshots, ascending."""
        names = self.folder.glob(f"step-*{self._end}.json")
        found = [name.name.removeprefix("step-").removesuffix(f"{self._end}.json") for name in names]
        return sorted(int(step) for step in found if step.isdigit())

    def write(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write a snapshot; one of the same step is replaced.

        Raises:
            CheckpointError: It cannot be written; no half of it counts as a snapshot.
        """
        path = self._path(step)
        try:
            with new_file(path) as partial:
                save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)
                digest = _digest(partial)
                self._manifest(step).unlink(missing_ok=True)
            write_json(self._manifest(step), {"step": step, "sha256": digest})
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"The snapshot of step {step} cannot be written to {str(self.folder)!r}: {error}. The checkpoints of "
                "the run are not touched: free space there, and resume with `resume_from_checkpoint`."
            ) from error

    def read_into(self, step: int, targets: Mapping[str, torch.Tensor]) -> None:
        """Copy a snapshot's tensors into tensors of the same names, one by one.

        Raises:
            CheckpointError: The snapshot is missing, damaged, or was changed; or it is of another model. Nothing is
                copied then.
        """
        path = self._path(step)
        with self._reading(step):
            if _digest(path) != self.sha256(step):
                raise CheckpointError(
                    f"The snapshot {str(path)!r} is damaged or was changed: its SHA-256 is not the one it was written "
                    f"with. {_REMEDY}"
                )
            with safe_open(path, framework="pt", device="cpu") as file:
                shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict
                expected = {name: list(target.shape) for name, target in targets.items()}
                if shapes != expected:
                    odd = sorted(name for name in shapes | expected if shapes.get(name) != expected.get(name))
                    raise CheckpointError(
                        f"The snapshot {str(path)!r} must hold the weights that are trained, but {odd[0]!r} is "
                        f"{shapes.get(odd[0])} there and {expected.get(odd[0])} in the model. Resume with the model, "
                        "the adapter and the number of processes that the run began with."
                    )
                for name, target in targets.items():
                    target.copy_(file.get_tensor(name))

    def sha256(self, step: int) -> str:
        """The SHA-256 (hex) that a snapshot was written with.

        Raises:
            CheckpointError: It cannot be read.
        """
        with self._reading(step):
            return str(json.loads(self._manifest(step).read_text("utf-8"))["sha256"])

    def keep(self, steps: Collection[int]) -> None:
        """Delete all snapshots but those of `steps`, and what was not written to the end."""
        for step in self.steps:
            if step not in steps:
                self._manifest(step).unlink(missing_ok=True)
                self._path(step).unlink(missing_ok=True)
        for left in self.folder.glob(f".step-*{self._end}.safetensors.*.tmp"):
            left.unlink(missing_ok=True)

    def copy_to(self, folder: Path) -> None:
        """Put all snapshots into another folder, in place of those there: as links where the file system has them.

        Raises:
            CheckpointError: They cannot be written there.
        """
        target = Snapshots(folder, self._end.removeprefix("."))
        try:
            target.keep(())
            folder.mkdir(parents=True, exist_ok=True)
            for step in self.steps:
                for source in (self._path(step), self._manifest(step)):
                    _link(source, folder / source.name)
        except OSError as error:
            raise CheckpointError(f"Snapshots cannot be put into {str(folder)!r}: {error}.") from error

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}{self._end}.safetensors"

    def _manifest(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}{self._end}.json"

    def _reading(self, step: int) -> _Reading:
        return _Reading(self._path(step))


class _Reading:
    """Turns what goes wrong while a snapshot is read into one error."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CheckpointError):
            return
        if isinstance(error, OSError | SafetensorError | ValueError | KeyError | TypeError):
            raise CheckpointError(f"The snapshot {str(self.path)!r} cannot be read: {error}. {_REMEDY}") from error


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    for chunk in _chunks(path):
        found.update(chunk)
    return found.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _link(source: Path, target: Path) -> None:
    # A snapshot's file is never written again, so that a link is as good as a copy.
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
