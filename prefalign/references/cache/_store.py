"""Log-probabilities of fixed references on disk, token by token: one folder per reference, in it shards of rows.

    FOLDER/REFERENCE/about.json           what the reference is, for people; nothing is looked up by it
    FOLDER/REFERENCE/NAME.safetensors     a shard: rows that were written together

A shard is written once, under the hash of its content, and never changed: any number of processes write their own and
read all. A row is a text, found by the hash of its tokens, and carries a checksum that every reading tests.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ..._errors import CheckpointError
from ..._files import explain, new_file, write_json
from ._shard import DAMAGED, FORMAT, Shard, Values, open_shard, pack, shard_name

logger = logging.getLogger(__name__)

ABOUT = "about.json"
# A shard is written when it holds this many values, or after this long: an interruption costs no more.
SHARD_VALUES = 1 << 23
SHARD_SECONDS = 60.0
_STALE = 86400.0  # seconds after which what a killed process left half-written is removed


def cache_folder() -> Path:
    """Where reference log-probabilities are kept: `$PREFALIGN_CACHE/reference`, or `~/.cache/prefalign/reference`."""
    root = os.environ.get("PREFALIGN_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "prefalign") / "reference"


class LogpStore:
    """The log-probabilities of one reference.

    Args:
        folder: The reference's folder; made when something is first written.
        about: What the reference is, for `about.json`.

    Attributes:
        full: Why nothing more can be written; None while the disk takes it.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        self.folder, self.about = folder, about
        self._shards: dict[str, Shard] = {}
        self._pending: dict[bytes, Values] = {}
        self._values = 0
        self._written = time.monotonic()
        self.full: str | None = None
        self._index()
        self.refresh()

    def refresh(self) -> None:
        """Find the shards that other processes have written meanwhile; a damaged one is set aside, with a warning."""
        found = {path.stem: path for path in _shards_in(self.folder)}
        self._shards = {name: shard for name, shard in self._shards.items() if name in found}
        for name, path in sorted(found.items()):
            if name not in self._shards:
                try:
                    self._shards[name] = open_shard(path)
                except CheckpointError as error:
                    if path.exists():  # else another process has set it aside
                        self._set_aside(path, str(error))
        self._index()

    def get(self, key: bytes) -> Values | None:
        """The log-probabilities of a row's scored tokens, in nats; None if the row is not here."""
        pending = self._pending.get(key)
        if pending is not None:
            return pending
        start = int.from_bytes(key[:8], "little")
        place = int(np.searchsorted(self._starts, np.uint64(start)))
        while place < len(self._starts) and int(self._starts[place]) == start:
            shard = self._order[int(self._of[place])]
            number = int(self._rows[place])
            if shard.path.stem in self._shards and shard.keys[number].tobytes() == key:
                values = shard.row(number)
                if values is not None:
                    return values
                self._drop(shard)
            place += 1
        return None

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        """How many rows are here; rows that stand in two shards count twice."""
        return len(self._starts) + len(self._pending)

    def add(self, key: bytes, values: Values) -> None:
        """Keep a row; it reaches the disk with its shard. On a disk that takes no more nothing is kept."""
        if key in self._pending or self.full is not None:
            return
        self._pending[key] = np.array(values, dtype=np.float32)
        self._values += len(values)
        if self._values >= SHARD_VALUES or time.monotonic() - self._written >= SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last shard; if the disk takes no more, warn once, and let it go."""
        self._written = time.monotonic()
        if not self._pending:
            return
        content = pack(self._pending, self.folder.name)
        name = shard_name(content)
        try:
            self._begin()
            with new_file(self.folder / f"{name}.safetensors", durable=True) as partial:
                partial.write_bytes(content)
            self._shards[name] = open_shard(self.folder / f"{name}.safetensors")
        except OSError as error:
            self.full = f"nothing more can be written to {str(self.folder)!r}: {explain(error)}"
            logger.warning(
                "reference cache: %s. What was written before is kept; the run goes on, and computes what is missing.",
                self.full,
            )
        self._pending, self._values = {}, 0
        self._index()

    @contextmanager
    def alone(self, wait: bool) -> Iterator[bool]:
        """Within, no other process that asks for it computes the same rows; gives whether that is so.

        Args:
            wait: Wait for another one to end; else go on beside it.
        """
        lock = FileLock(self.folder / ".lock")
        try:
            self._begin()
            lock.acquire(blocking=False)
        except Timeout:
            if wait:
                print("Reference cache: waiting for another run that computes the same reference.", flush=True)
                lock.acquire()
        except OSError:  # read-only: whoever writes there is not us
            pass
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / ABOUT).exists():
            write_json(self.folder / ABOUT, {"format": FORMAT, **(self.about or {})})
        for left in self.folder.glob(".*.tmp"):
            try:
                if time.time() - left.stat().st_mtime > _STALE:
                    left.unlink()
            except OSError:  # another process was faster
                continue

    def _index(self) -> None:
        """Sort the starts of all keys, for `get`."""
        self._order = list(self._shards.values())
        starts = [np.ascontiguousarray(shard.keys[:, :8]).view("<u8").reshape(-1) for shard in self._order]
        flat = np.concatenate(starts) if starts else np.zeros(0, dtype=np.uint64)
        by_start = np.argsort(flat, kind="stable")
        sizes = [len(one) for one in starts]
        of = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        rows = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]) if sizes else of
        self._starts, self._of, self._rows = flat[by_start], of[by_start], rows[by_start]

    def _drop(self, shard: Shard) -> None:
        del self._shards[shard.path.stem]
        self._set_aside(
            shard.path, f"`{shard.path}` is damaged, or another reference's: a row does not match its checksum."
        )

    def _set_aside(self, path: Path, why: str) -> None:
        aside = path.with_name(path.name + DAMAGED)
        try:
            os.replace(path, aside)
            where = f"It now has the name {aside.name!r}"
        except OSError:
            where = "It is left out"
        logger.warning("reference cache: %s %s; its rows are computed again.", why, where)


def stores_in(folder: Path) -> list[Path]:
    """The folders of the references that `folder` holds something of."""
    if not folder.is_dir():
        return []
    return sorted(path.parent for path in folder.glob(f"*/{ABOUT}") if _is_ours(path))


def read_about(store: Path) -> dict[str, Any]:
    """What `about.json` says; nothing if it cannot be read."""
    try:
        content = json.loads((store / ABOUT).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_ours(about: Path) -> bool:
    return read_about(about.parent).get("format") == FORMAT


def _shards_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.safetensors") if not path.name.startswith(".")]
