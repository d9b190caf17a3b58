"""Which checkpoints were written to their end, and what to say where one cannot be written."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from transformers.trainer_utils import sort_checkpoints

from ..._errors import CheckpointError, ConfigError, TrainingError
from ...references import check_resumable
from ._binding import check_whole, list_files

_STATE = "trainer_state.json"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENOTDIR)
# What safetensors and torch say when the system refuses a write; neither raises an OSError.
_DISK_WORDS = re.compile(
    r"os error \d+|PytorchStreamWriter failed|inline_container|iostream error|cannot be opened", re.IGNORECASE
)


def find_checkpoint(resume: str | os.PathLike[str] | bool | None, output_dir: str) -> str | None:
    """The checkpoint to resume from; None to start afresh.

    Args:
        resume: A folder, True for the last whole checkpoint in `output_dir`, or None.
        output_dir: The run's folder.

    Raises:
        ConfigError: There is no such checkpoint.
        CheckpointError: It was not written to its end.
    """
    if resume is None or resume is False:
        return None
    if resume is True:
        last = last_whole_checkpoint(output_dir)
        if last is None:
            raise ConfigError(
                f"`resume_from_checkpoint=True` needs a whole checkpoint in {output_dir!r}, and there is none that was "
                "written to its end. Leave it out to start the run."
            )
        check_whole(Path(last))
        return last
    folder = Path(resume)
    if not (folder / _STATE).is_file() and not (folder / UNFINISHED).exists():
        raise ConfigError(
            f"`resume_from_checkpoint` must be a checkpoint's folder, such as {output_dir}/checkpoint-500, or True for "
            f"the last one (got {str(resume)!a:.200}, which holds no {_STATE})."
        )
    if (folder / UNFINISHED).exists():
        last = last_whole_checkpoint(str(folder.parent))
        remedy = f"Resume from {last!r}." if last else "No other one is whole: start the run again."
        raise CheckpointError(f"{str(folder)!r} was not written to its end: the run was stopped meanwhile. {remedy}")
    check_whole(folder)
    check_resumable(folder)
    return str(folder)


@contextmanager
def resume_errors(folder: str | None) -> Iterator[None]:
    """Turns what torch says of an archive that holds more than tensors into one error; it has run nothing of it.

    Raises:
        CheckpointError: A file of the checkpoint holds objects that are never loaded.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        if folder is None:
            raise
        raise CheckpointError(
            f"A file of {folder!r} holds objects of Python, which are never loaded. Resume from a checkpoint that this "
            "trainer, or TRL's, wrote."
        ) from error


def begin(folder: Path) -> None:
    """Mark a checkpoint as unfinished; what a killed run left of it goes."""
    if folder.is_symlink():  # to a place that is not this run's
        folder.unlink()
    elif (folder / UNFINISHED).exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / UNFINISHED).touch()


def finish(folder: Path) -> None:
    """Take the mark away, once everything has reached the disk."""
    list_files(folder)
    for file in folder.iterdir():
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    (folder / UNFINISHED).unlink(missing_ok=True)


def rotate(output_dir: str, limit: int | None, best: str | None) -> None:
    """Delete the oldest checkpoints beyond `limit`; each is marked first, for a deletion that is stopped midway.

    Args:
        output_dir: The run's folder.
        limit: How many stay; None for all.
        best: One that stays.
    """
    if not limit or limit < 0:
        return
    found = sort_checkpoints(output_dir, use_mtime=True)
    kept = {found[-1], *([str(Path(best))] if best else [])} if found else set()
    others = [folder for folder in found if folder not in kept]
    for old in map(Path, others[: max(0, len(found) - max(limit, len(kept)))]):
        if old.is_symlink():
            old.unlink()
            continue
        with suppress(OSError):
            (old / UNFINISHED).touch()
        shutil.rmtree(old, ignore_errors=True)


def check_output_dir(output_dir: str) -> None:
    """Refuse a folder that nothing can be written to, before anything is computed.

    Raises:
        ConfigError: It is no folder, or is read-only.
    """
    if not isinstance(output_dir, str) or not output_dir.strip() or "\0" in output_dir:
        raise ConfigError(f"`output_dir` must name a folder (got {output_dir!a:.200}).")
    try:
        output_dir.encode()
    except UnicodeEncodeError:  # the libraries that write weights and tokenizers take UTF-8 alone
        raise ConfigError(f"`output_dir` must be a name in UTF-8 (got {output_dir!a:.200}).") from None
    path = Path(output_dir).absolute()
    try:
        while not path.exists():
            path = path.parent
        ready = path.is_dir() and os.access(
            path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
        )
    except OSError as error:  # a circle of links, a name too long
        raise ConfigError(f"`output_dir` must name a folder (got {output_dir!a:.200}): {error.strerror}.") from None
    if not ready:
        what = "may not be written to" if path.is_dir() else "is a file"
        raise ConfigError(f"`output_dir` must be a folder that can be written to (got {output_dir!r}: {path} {what}).")


@contextmanager
def disk_errors(output_dir: str) -> Iterator[None]:
    """Turns what the system, torch and safetensors say of a disk that takes no more into one error.

    An unfinished checkpoint is removed, for its room.

    Raises:
        TrainingError: Something could not be written; says which checkpoint is whole.
    """
    try:
        yield
    except Exception as error:  # tokenizers raises the base class
        if not _is_of_the_disk(error):
            raise
        for mark in Path(output_dir).glob(f"checkpoint-*/{UNFINISHED}"):
            shutil.rmtree(mark.parent, ignore_errors=True)
        last = last_whole_checkpoint(output_dir)
        remedy = f"{last!r} is whole: resume from it" if last else "No checkpoint had been saved yet: start again"
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0][:200]
        where = getattr(error, "filename", None) or output_dir
        raise TrainingError(
            f"The run could not write to {str(where)!r}: {reason}. {remedy} once there is room and permission "
            "(`save_total_limit` keeps fewer checkpoints)."
        ) from error


def _is_of_the_disk(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _DISK
    if not isinstance(error, SafetensorError | RuntimeError) and type(error) is not Exception:
        return False
    return bool(_DISK_WORDS.search(str(error)))


# Written last: by this package after everything else, by transformers after the weights and the optimizer.
LAST_FILE = "prefalign_watch.json"


_LAST_FILES = (LAST_FILE, "trainer_state.json")


# There from before a checkpoint's first file until after its last one, which may be an older run's of the same name.
UNFINISHED = "prefalign_unfinished"


def last_whole_checkpoint(output_dir: str | None) -> str | None:
    """The latest checkpoint in `output_dir` that was written to its end; None if there is none.

    One that a killed run left half-written is passed over. Where no checkpoint has this package's own last file, as
    after a run of TRL's trainer, transformers' one counts.
    """
    folder = Path(output_dir or "")
    if output_dir is None or not folder.is_dir():
        return None
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    found = [path for path in found if not (path / UNFINISHED).exists()]
    for name in _LAST_FILES:
        whole = [path for path in found if (path / name).is_file()]
        if whole:
            return str(max(whole, key=lambda path: int(path.name.partition("-")[2])))
    return None


def last_good(output_dir: str | None) -> str:
    """The end of the message: which state to go back to."""
    last = last_whole_checkpoint(output_dir)
    if last is None:
        return "No checkpoint had been saved yet."
    return f"The last good state is {last!r}; resume from it with `resume_from_checkpoint`."
