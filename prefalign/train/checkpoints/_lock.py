"""One training at a time in a folder: a second one would mix weights, logs and checkpoints with the first's."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..._errors import ConfigError
from ..._files import write_json

LOCK_FILE = "prefalign_running.lock"
_HOLDER = "prefalign_running.json"


@contextmanager
def alone_in(output_dir: str) -> Iterator[None]:
    """Within, this process alone trains in the folder; the system releases what a dead process held.

    Raises:
        ConfigError: Another process trains there; the message says which, and since when.
    """
    folder = Path(output_dir)
    ours = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(_taken(folder)) from None
    except OSError:  # a file system without locks, or a folder that may not be written to, which is said elsewhere
        yield
        return
    holder = folder / _HOLDER
    try:
        if lock.lock_counter == 1:
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            with suppress(OSError):
                write_json(holder, {"host": socket.gethostname(), "pid": os.getpid(), "since": since})
        yield
    finally:
        if lock.lock_counter == 1:
            for file in (holder, folder / LOCK_FILE):
                with suppress(OSError):
                    file.unlink(missing_ok=True)
            if ours:  # what was refused leaves nothing behind
                with suppress(OSError):
                    folder.rmdir()
        lock.release()


def check_alone(output_dir: str) -> None:
    """Refuse a folder that another process trains in, before any weights load.

    Raises:
        ConfigError: One does.
    """
    folder = Path(output_dir)
    if not (folder / LOCK_FILE).exists():
        return
    try:
        with _lock(folder).acquire(blocking=False):
            pass
    except Timeout:
        raise ConfigError(_taken(folder)) from None
    except OSError:
        return


def _lock(folder: Path) -> FileLock:
    # One object per folder and process, which may enter it again: `prefalign train` holds it around `train`.
    return FileLock(str(folder.resolve() / LOCK_FILE), is_singleton=True, thread_local=False)


def _taken(folder: Path) -> str:
    who = ""
    with suppress(OSError, ValueError, KeyError, TypeError):
        holder = json.loads((folder / _HOLDER).read_text("utf-8"))
        who = f": process {holder['pid']!s:.20} on {holder['host']!s:.100}, since {holder['since']!s:.40}"
    return (
        f"Another training is running in {str(folder)!r}{who}. Give this one an `output_dir` of its own, or wait until "
        "the other has ended."
    )
