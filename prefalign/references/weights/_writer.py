"""Safetensors files written as streams, and folders that appear whole or not at all."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..._files import write_file
from ._safetensors import DTYPES, INDEX, SINGLE

MAX_SHARD = 5_000_000_000
_SENT_AT_ONCE = 1 << 24

# (name, dtype, shape) of a tensor to be written.
Planned = tuple[str, str, tuple[int, ...]]


class ShardWriter:
    """One safetensors file: the header at once, then the tensors, in the order given, in pieces that may come in any.

    Args:
        file: A path that does not exist yet.
        tensors: (name, dtype, shape) of every tensor, in the order in which their bytes lie.
    """

    def __init__(self, file: Path, tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        position = 0
        for name, dtype, shape in tensors:
            end = position + math.prod(shape) * DTYPES[dtype].itemsize
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
            position = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8, as the format asks
        self._file = file.open("xb", buffering=0)
        self._start, self._end = 8 + len(text), 8 + len(text) + position
        self._sent = 0
        self.write_at(-self._start, struct.pack("<Q", len(text)) + text)

    def write_at(self, position: int, data: bytes | memoryview) -> None:
        """Write bytes to a place, counted from the first tensor's; threads may do so at once."""
        view = memoryview(data)
        while len(view):
            count = os.pwrite(self._file.fileno(), view, self._start + position)
            position += count
            view = view[count:]

    def send_until(self, position: int) -> None:
        """Let the disk begin with what lies before a place, all of it written, so that it need not wait for the end.

        On Linux this advice begins to write the pages that were changed and does not wait; elsewhere nothing happens.
        """
        if position - self._sent >= _SENT_AT_ONCE:
            with suppress(AttributeError, OSError):  # advice may be unknown here, or refused; nothing depends on it
                place, size = self._start + self._sent, position - self._sent
                os.posix_fadvise(self._file.fileno(), place, size, os.POSIX_FADV_DONTNEED)
            self._sent = position

    def close(self) -> None:
        """Bring the file to the disk."""
        size = os.fstat(self._file.fileno()).st_size
        assert size == self._end, f"{self._end - size} bytes of the file were never written"
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close without a promise."""
        self._file.close()


@contextmanager
def fresh_file(file: Path, tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> Iterator[ShardWriter]:
    """A `ShardWriter` that is closed whatever happens."""
    writer = ShardWriter(file, tensors)
    try:
        yield writer
    except BaseException:
        writer.abandon()
        raise
    writer.close()


def plan_shards(tensors: Iterable[Planned], limit: int = MAX_SHARD) -> dict[str, list[Planned]]:
    """File names with the tensors that go into each, at most `limit` bytes a file unless one tensor is larger."""
    shards: list[list[Planned]] = [[]]
    filled = 0
    # Wide types first, so that every tensor is aligned to its element; then by name, like other writers.
    for tensor in sorted(tensors, key=lambda tensor: (-DTYPES[tensor[1]].itemsize, tensor[0])):
        size = tensor_bytes(tensor)
        if filled and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += size
    if len(shards) == 1:
        return {SINGLE: shards[0]}
    return {f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, 1)}


def write_index(folder: Path, shards: dict[str, list[Planned]]) -> None:
    """The index that sharded checkpoints need; nothing for a single file."""
    if SINGLE in shards:
        return
    total = sum(tensor_bytes(tensor) for shard in shards.values() for tensor in shard)
    weight_map = {tensor[0]: file for file, shard in shards.items() for tensor in shard}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_file(folder / INDEX, json.dumps(index, indent=2) + "\n")


def tensor_bytes(tensor: Planned) -> int:
    """The size of a planned tensor."""
    return math.prod(tensor[2]) * DTYPES[tensor[1]].itemsize
