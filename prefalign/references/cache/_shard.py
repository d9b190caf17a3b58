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
from ..weights import Entry, read_header

DAMAGED = ".damaged"


KEY_BYTES = 16


FORMAT = "prefalign reference cache 2"


_TENSORS = {"keys": "U8", "ends": "I64", "checks": "I64", "logps": "F32"}


Values: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shard:
    """One file of rows, mapped into memory.

    Attributes:
        path: The file; its stem is the start of the SHA-256 of its content.
        keys: (rows, 16) hashes of the rows' tokens.
        ends: (rows,) where each row's values end among all.
        checks: (rows,) CRC-32 of the reference's key, which is the folder's name, the row's key and its values: a shard
            that was put into another reference's folder holds no row that is valid there.
        logps: (values,) log-probabilities in nats.
    """

    path: Path
    keys: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]
    checks: npt.NDArray[np.int64]
    logps: Values

    def row(self, number: int) -> Values | None:
        """The values of one row; None if they are not what was written."""
        start = int(self.ends[number - 1]) if number else 0
        end = int(self.ends[number])
        if not 0 <= start <= end <= len(self.logps):
            return None
        values: Values = self.logps[start:end]
        good = _check(self.path.parent.name, self.keys[number].tobytes(), values) == int(self.checks[number])
        return values if good else None

    def whole(self) -> bool:
        """Whether the file's content is what its name says."""
        return shard_name(self.path.read_bytes()) == self.path.stem


def open_shard(path: Path) -> Shard:
    """Map a shard, after a check of its header.

    Raises:
        CheckpointError: It is damaged, or no shard.
    """
    entries = read_header(path)
    if {name: entry.dtype for name, entry in entries.items()} != _TENSORS:
        raise CheckpointError(f"`{path}` is no shard of a reference cache.")
    shard = Shard(path, *(_map(entries[name]) for name in _TENSORS))
    rows = len(shard.ends)
    if shard.keys.shape != (rows, KEY_BYTES) or shard.checks.shape != (rows,) or shard.logps.ndim != 1:
        raise CheckpointError(f"`{path}` is damaged: its parts are of different lengths.")
    return shard


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


def _map(entry: Entry) -> npt.NDArray[Any]:
    kinds = {"U8": np.uint8, "I64": np.int64, "F32": np.float32}
    if entry.size == 0:  # nothing to map
        return np.zeros(entry.shape, dtype=kinds[entry.dtype])
    try:
        return np.memmap(entry.file, dtype=kinds[entry.dtype], mode="r", offset=entry.start, shape=entry.shape)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"Cannot read `{entry.file}`: {error}.") from None
