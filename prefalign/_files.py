"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ._errors import CheckpointError


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` so that a reader sees the old file or the whole new one.

    Args:
        path: The file; its folder is made if it is missing.
        value: What JSON can hold.
    """
    with new_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


@contextmanager
def new_file(path: Path, durable: bool = False) -> Iterator[Path]:
    """A file beside `path` to write into, which becomes `path` in one step when the block ends; it goes if that fails.

    Args:
        path: The file, new or to be replaced; its folder is made if it is missing.
        durable: Bring the content to the disk first, so that the file is whole after a power cut too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
        _make_public(partial, 0o666)
        if durable:
            sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _make_public(path: Path, mode: int) -> None:
    # What `tempfile` makes is private; what is published follows the umask like any other file.
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(mode & ~mask)


def exists(path: Path) -> bool:
    """Whether there is something at `path`; links that run in a circle are an error, not an absence."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            return False
        raise CheckpointError(f"Cannot read `{path}`: {explain(error)}.") from None
    except ValueError:  # a NUL character
        raise CheckpointError(f"There can be no file `{path}`.") from None
    return True


def check_regular(path: Path) -> None:
    """Refuse pipes and devices: whoever reads from a pipe that nobody writes to waits for ever.

    Args:
        path: A file, or a folder whose files are looked at too.

    Raises:
        CheckpointError: It is a pipe, a socket or a device, or holds one.
    """
    try:
        inside = sorted(path.iterdir()) if exists(path) and path.is_dir() else []
    except OSError as error:
        raise CheckpointError(f"Cannot read `{path}`: {explain(error)}.") from None
    for each in (path, *inside):
        if exists(each) and not (each.is_file() or each.is_dir()):
            raise CheckpointError(f"`{each}` is a pipe or a device. Put a file in its place.")


def read_json(file: Path) -> dict[str, object]:
    """A JSON object."""
    check_regular(file)
    try:
        value = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"Cannot read `{file}`: {explain(error)}.") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"`{file}` is not valid JSON.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"`{file}` must hold a JSON object (got a {type(value).__name__}).")
    return value


def explain(error: OSError) -> str:
    """What the operating system said, in words."""
    if error.errno == errno.ELOOP:
        return "symbolic links that run in a circle"
    return error.strerror or str(error)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` in one step when the block ends, and vanishes when it fails.

    A process that is killed leaves a hidden `.NAME.*.partial` beside `out`; the next one that writes `out` removes it.

    Raises:
        CheckpointError: `out` exists and is not an empty folder, or cannot be written.
    """
    out = Path(os.path.abspath(out))
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise CheckpointError(f"`out` must be a new folder, but `{out}` exists. Choose another one or delete it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for stale in out.parent.glob(f".{out.name}.*.partial"):
            _remove_if_abandoned(stale)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise CheckpointError(f"Cannot write `{out}`: {explain(error)}.") from None
    lock = _lock(partial)
    try:
        yield partial
        (partial / _LOCK).unlink(missing_ok=True)
        _make_public(partial, 0o777)
        sync(partial)
        os.rename(partial, out)
        sync(out.parent)
    except OSError as error:
        raise CheckpointError(f"Cannot write `{out}`: {explain(error)}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if lock is not None:
            lock.release()


def write_file(file: Path, text: str) -> None:
    """Write a small file and bring it to the disk."""
    with file.open("x", encoding="utf-8") as stream:
        stream.write(text)
    sync(file)


def copy_file(source: Path, target: Path) -> None:
    """Copy a small file and bring it to the disk."""
    with source.open("rb") as old, target.open("xb") as new:
        shutil.copyfileobj(old, new)
    sync(target)


def sync(path: Path) -> None:
    """Bring the content of a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_LOCK = ".lock"


def _lock(folder: Path) -> FileLock | None:
    """A lock that the system drops when this process ends, however it ends; None where the disk has no locks."""
    lock = FileLock(folder / _LOCK, blocking=False)
    try:
        lock.acquire()
    except (OSError, Timeout):
        return None
    return lock


def _remove_if_abandoned(partial: Path) -> None:
    with suppress(OSError):  # it vanished meanwhile, or is not ours to remove
        lock = _lock(partial)
        if lock is not None:
            shutil.rmtree(partial, ignore_errors=True)
            lock.release()
