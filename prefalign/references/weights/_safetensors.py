"""Safetensors checkpoints as streams: headers are read and checked, tensors are read and written in pieces.

The files are read with plain reads rather than mapped: pages of a mapping count as the process's memory, and the
promise of `soup` is that memory does not grow with the model.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeAlias

import torch
from tqdm import tqdm

from ..._errors import CheckpointError
from ..._files import check_regular, exists, explain, read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
AVERAGED = ("F64", "F32", "F16", "BF16")
_MAX_HEADER = 100_000_000  # the limit of the format's own library
_OPEN_FILES = 4
Bar: TypeAlias = "tqdm[NoReturn]"


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored tensor: its name, type ("F32"), shape, and the bytes of `file` that hold it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    size: int

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return DTYPES[self.dtype].itemsize

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_header(file: Path) -> dict[str, Entry]:
    """The tensors of one safetensors file, by name, after a check of everything that the header promises.

    Raises:
        CheckpointError: The file cannot be opened, is no safetensors file, or is cut short.
    """
    check_regular(file)
    try:
        total = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
            fits = 0 < length <= min(_MAX_HEADER, total - 8)
            header = _parse_header(stream.read(length)) if fits else None
    except OSError as error:
        raise CheckpointError(f"Cannot read `{file}`: {explain(error)}.") from None
    if header is None:
        raise CheckpointError(f"`{file}` is not a readable safetensors file: {_what_it_is(file, head, total)}.")
    header.pop("__metadata__", None)
    entries = {name: _entry(file, name, described, 8 + length) for name, described in header.items()}
    position = 8 + length
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.size)):
        if entry.start != position:
            raise CheckpointError(f"`{file}` is damaged: the bytes of tensor `{entry.name}` overlap or leave a gap.")
        position += entry.size
    if position != total:
        raise CheckpointError(
            f"`{file}` is truncated or damaged: its header promises {position} bytes and it has {total}. "
            "Copy or download it again."
        )
    return entries


class Weights:
    """The tensors of a checkpoint folder, in one file or in shards; nothing but headers is read until asked for.

    Args:
        folder: Holds `model.safetensors`, or `model.safetensors.index.json` and its shards.
        entries: The tensors, where they are known already.

    Raises:
        CheckpointError: There are no such files, or they are damaged or do not belong together.
    """

    def __init__(self, folder: Path, entries: dict[str, Entry] | None = None) -> None:
        self.folder = folder
        self._open: OrderedDict[Path, BinaryIO] = OrderedDict()
        self.entries = _find(folder) if entries is None else entries
        if not self.entries:
            raise CheckpointError(f"The weights in `{folder}` hold no tensor at all.")

    def read_into(self, entry: Entry, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `entry` from byte `offset` on."""
        fill(self._file(entry.file), entry.start + offset, buffer, entry.file)

    def expect(self, entry: Entry, offset: int, size: int) -> None:
        """Let the system fetch bytes of `entry` that will soon be asked for; this does not wait for them."""
        with suppress(AttributeError, OSError):  # advice may be unknown here, or refused; nothing depends on it
            descriptor = self._file(entry.file).fileno()
            os.posix_fadvise(descriptor, entry.start + offset, size, os.POSIX_FADV_WILLNEED)

    def read(self, entry: Entry) -> torch.Tensor:
        """The whole tensor."""
        buffer = bytearray(entry.size)
        self.read_into(entry, 0, memoryview(buffer))
        return as_tensor(buffer, entry.dtype).reshape(entry.shape)

    def close(self) -> None:
        """Close the files that are open."""
        while self._open:
            self._open.popitem()[1].close()

    def __del__(self) -> None:
        # Reading may stop anywhere, by an error or because the rest is not needed; the files close with the object.
        if hasattr(self, "_open"):
            self.close()

    def _file(self, path: Path) -> BinaryIO:
        stream = self._open.get(path)
        if stream is None:
            while len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            try:
                stream = self._open[path] = path.open("rb", buffering=0)
            except OSError as error:
                raise CheckpointError(f"Cannot read `{path}`: {explain(error)}.") from None
        assert stream is not None
        return stream


def as_tensor(buffer: bytearray | memoryview, dtype: str) -> torch.Tensor:
    """The elements of `buffer`, without a copy."""
    if len(buffer) == 0:
        return torch.empty(0, dtype=DTYPES[dtype])
    return torch.frombuffer(buffer, dtype=DTYPES[dtype])


def weights_fingerprint(folder: Path, progress: bool = True) -> str:
    """The SHA-256 (hex) of a checkpoint's tensors: names, types, shapes and bytes, however they are sharded."""
    weights = Weights(folder)
    total = sum(entry.size for entry in weights.entries.values())
    try:
        with bar(total, f"Fingerprint of {folder.name}", progress) as done:
            return digest(
                (entry, pieces(weights, entry, done))
                for entry in sorted(weights.entries.values(), key=lambda entry: (str(entry.file), entry.start))
            )
    finally:
        weights.close()


def digest(tensors: Iterable[tuple[Entry, Iterable[memoryview]]]) -> str:
    """The SHA-256 over tensors, independent of the order in which they come."""
    lines = []
    for entry, chunks in tensors:
        content = hashlib.sha256()
        for chunk in chunks:
            content.update(chunk)
        lines.append(json.dumps([entry.name, entry.dtype, list(entry.shape), content.hexdigest()]))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def pieces(weights: Weights, entry: Entry, done: Bar | None = None, size: int = 1 << 20) -> Iterator[memoryview]:
    """The bytes of a tensor, `size` at a time; each piece is overwritten by the next."""
    buffer = memoryview(bytearray(min(size, entry.size)))
    for offset in range(0, entry.size, size):
        piece = buffer[: min(size, entry.size - offset)]
        weights.read_into(entry, offset, piece)
        yield piece
        if done is not None:
            done.update(len(piece))


def bar(total: int, title: str, progress: bool = True) -> Bar:
    """A progress bar over bytes; it shows itself only where the work lasts."""
    return tqdm(total=total, desc=title, unit="B", unit_scale=True, delay=1.0, disable=not progress)


def fill(stream: BinaryIO, position: int, buffer: memoryview, file: Path) -> None:
    """Read exactly `len(buffer)` bytes at `position`."""
    while len(buffer):
        count = os.preadv(stream.fileno(), [buffer], position)
        if count == 0:
            raise CheckpointError(f"`{file}` became shorter while it was read.")
        position += count
        buffer = buffer[count:]


def _parse_header(text: bytes) -> dict[str, object] | None:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def _what_it_is(file: Path, head: bytes, total: int) -> str:
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return (
            "it is a Python pickle under another name, which is never opened because loading one runs code. "
            "Convert it where you trust it, with `save_pretrained(..., safe_serialization=True)`"
        )
    if head.startswith(b"version "):
        return "it is a Git LFS pointer; run `git lfs pull`"
    if total < 8:
        return f"it has {total} bytes. Copy or download it again"
    return "its header does not parse. It is truncated or of another format"


def _entry(file: Path, name: str, described: object, base: int) -> Entry:
    damaged = CheckpointError(f"`{file}` is damaged: the header's description of tensor `{name}` makes no sense.")
    if not isinstance(described, dict):
        raise damaged
    dtype, shape, offsets = described.get("dtype"), described.get("shape"), described.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise damaged
    if not all(type(number) is int and number >= 0 for number in [*shape, *offsets]):
        raise damaged
    if dtype not in DTYPES:
        raise CheckpointError(f"Tensor `{name}` of `{file}` has the type {dtype!r}, which cannot be averaged here.")
    entry = Entry(name, str(dtype), tuple(shape), file, base + offsets[0], offsets[1] - offsets[0])
    if entry.numel * entry.itemsize != entry.size:
        raise damaged
    return entry


def _find(folder: Path) -> dict[str, Entry]:
    if exists(folder / SINGLE):
        return read_header(folder / SINGLE)
    if exists(folder / INDEX):
        return _read_sharded(folder)
    raise CheckpointError(f"`{folder}` holds no `{SINGLE}` and no `{INDEX}`{_instead(folder)}")


def _read_sharded(folder: Path) -> dict[str, Entry]:
    index = folder / INDEX
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"`{index}` must hold a `weight_map` from tensor names to files.")
    shards: dict[str, dict[str, Entry]] = {}
    for shard in dict.fromkeys(weight_map.values()):
        if Path(shard).name != shard:
            raise CheckpointError(f"`{index}` names the file {shard!r}, which is not in the checkpoint's folder.")
        shards[shard] = read_header(folder / shard)
    lost = [name for name, shard in weight_map.items() if name not in shards[shard]]
    if lost:
        raise CheckpointError(f"`{index}` places {len(lost)} tensors in shards without them, such as `{lost[0]}`.")
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def _instead(folder: Path) -> str:
    if any(exists(folder / name) for name in ("pytorch_model.bin", "pytorch_model.bin.index.json")):
        return (
            ". It has a pickle (`pytorch_model.bin`), which is never opened because loading one runs code. "
            "Convert it where you trust it, with `save_pretrained(..., safe_serialization=True)`."
        )
    if exists(folder / "adapter_config.json"):
        return ": it is an adapter, which has no weights of its own."
    return ". Is it a checkpoint's folder?"
