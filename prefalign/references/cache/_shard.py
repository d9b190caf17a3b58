"""One file of the cache: rows of log-probabilities and their keys."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from ..._errors import CheckpointError
from ..._files import explain
from ..weights import Entry, read_header

DAMAGED = ".damaged"


KEY_BYTES = 16


FORMAT = "prefalign reference cache 2"


_TENSORS = {"keys": "U8", "ends": "I64", "checks": "I64", "logps": "F32"}


_KINDS = {"U8": "u1", "I64": "<i8", "F32": "<f4"}


Values: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shard:
    """One file of rows. Log-probabilities are read when they are asked for.

    Nothing is mapped into memory: a mapped file that another process cuts short ends this one with SIGBUS.

    Attributes:
        path: The file; its stem is the start of the SHA-256 of its content.
        keys: (rows, 16) hashes of the rows' tokens.
        ends: (rows,) where each row's values end among all.
        checks: (rows,) CRC-32 of the reference's key, which is the folder's name, the row's key and its values: a shard
            that was put into another reference's folder holds no row that is valid there.
        logps: Where the file holds the (values,) log-probabilities, in nats.
    """

    path: Path
    keys: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]
    checks: npt.NDArray[np.int64]
    logps: Entry

    def row(self, number: int) -> Values | None:
        """The values of one row; None if they are not what was written."""
        start = int(self.ends[number - 1]) if number else 0
        end = int(self.ends[number])
        if not 0 <= start <= end <= self.logps.numel:
            return None
        try:
            values: Values = _read(self.logps, start, end)
        except CheckpointError:  # the file was cut short, or removed
            return None
        good = _check(self.path.parent.name, self.keys[number].tobytes(), values) == int(self.checks[number])
        return values if good else None

    def whole(self) -> bool:
        """Whether the file's content is what its name says."""
        return shard_name(self.path.read_bytes()) == self.path.stem


def open_shard(path: Path) -> Shard:
    """Read a shard's keys, after a check of its header.

    Raises:
        CheckpointError: It is damaged, or no shard.
    """
    entries = read_header(path)
    if {name: entry.dtype for name, entry in entries.items()} != _TENSORS:
        raise CheckpointError(f"`{path}` is no shard of a reference cache.")
    rows = entries["ends"].numel
    shapes = {"keys": (rows, KEY_BYTES), "ends": (rows,), "checks": (rows,), "logps": (entries["logps"].numel,)}
    if {name: entry.shape for name, entry in entries.items()} != shapes:
        raise CheckpointError(f"`{path}` is damaged: its parts are of different lengths.")
    keys, ends, checks = (_read(entries[name], 0, entries[name].numel) for name in ("keys", "ends", "checks"))
    return Shard(path, keys.reshape(rows, KEY_BYTES), ends, checks, entries["logps"])


def pack(rows: Mapping[bytes, Values], reference: str) -> bytes:
    """The content of a shard with these rows of the reference with this key."""
    keys: Sequence[bytes] = sorted(rows)
    values = [rows[key] for key in keys]
    checks = [_check(reference, key, one) for key, one in zip(keys, values, strict=True)]
    content: bytes = save(
        {
            "keys": np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES),
            "ends": np.cumsum([len(one) for one in values], dtype=np.int64),
            "checks": np.array(checks, dtype=np.int64),
            "logps": np.concatenate(values).astype(np.float32, copy=False),
        },
        metadata={"format": FORMAT},
    )
    return content


def _check(reference: str, key: bytes, values: Values) -> int:
    return zlib.crc32(values.tobytes(), zlib.crc32(key, zlib.crc32(reference.encode())))


def shard_name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _read(entry: Entry, start: int, end: int) -> npt.NDArray[Any]:
    """The elements [start, end) of a tensor."""
    kind = np.dtype(_KINDS[entry.dtype])
    try:
        with entry.file.open("rb", buffering=0) as file:
            file.seek(entry.start + start * kind.itemsize)
            content = file.read((end - start) * kind.itemsize)
    except OSError as error:
        raise CheckpointError(f"Cannot read `{entry.file}`: {explain(error)}.") from None
    if len(content) != (end - start) * kind.itemsize:
        raise CheckpointError(f"`{entry.file}` is truncated.")
    return np.frombuffer(content, dtype=kind)
