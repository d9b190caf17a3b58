"""Weighted sums of checkpoints, streamed: read a piece of each, add in float64, round once, write.

float64 and not float32 holds the sum: where weights of opposite sign nearly cancel, a sum in float32 is off by many
units in the last place of what is stored, and in float64 it is off by at most one. Only the mean of two needs no more
than float32.

Each worker reads, adds and writes pieces of its own: what was read is added while it is in the core's cache, and no
thread waits for another.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from ..._errors import CheckpointError
from ._ingredients import Ingredient
from ._lora import Adapter, Factors
from ._safetensors import AVERAGED, DTYPES, Entry, Weights, bar
from ._writer import MAX_SHARD, Planned, ShardWriter, fresh_file, plan_shards, tensor_bytes, write_index

# Of each ingredient, tensor by tensor.
Coefficients: TypeAlias = Callable[[str], Sequence[float]]
_WORKERS = min(4, os.cpu_count() or 1)
_BLOCK = 1 << 15  # elements that are added in float64 at once: the sum stays in a core's own cache
_CHUNK = 8 * _BLOCK  # elements that are read and written at once
_SHARE = 8 * _CHUNK  # elements that a worker is given at once
# Stored floats that are constants or running statistics, not weights.
_BUFFERS = re.compile(
    r"(^|\.)(inv_freq|original_inv_freq|masked_bias|running_mean|running_var|num_batches_tracked|"
    r"e_score_correction_bias|attn\.bias|attention\.bias|position_ids|cos_cached|sin_cached)$"
)


@dataclass(frozen=True)
class Sum:
    """One tensor of the result: a weighted sum of stored tensors and of adapters' products."""

    out: Planned
    stored: tuple[tuple[float, Weights, Entry], ...]
    products: tuple[tuple[float, Adapter, Factors], ...] = ()

    @property
    def is_copy(self) -> bool:
        """Whether the stored bytes are the result as they are."""
        return not self.products and len(self.stored) == 1 and self.stored[0][0] == 1.0


def plan_tensor(ingredients: Sequence[Ingredient], coefficients: Sequence[float], name: str) -> Sum:
    """How one tensor of the result is made; equal files, such as a base under several adapters, are read once."""
    first = ingredients[0].weights.entries[name]
    out = (name, first.dtype, first.shape)
    if first.dtype not in AVERAGED or _BUFFERS.search(name):
        return Sum(out, ((1.0, ingredients[0].weights, first),))
    parts: dict[tuple[Path, int], tuple[list[float], Weights, Entry]] = {}
    products = []
    for ingredient, coefficient in zip(ingredients, coefficients, strict=True):
        if coefficient == 0:  # not even read: what is not used may hold anything
            continue
        adapter = ingredient.adapter
        weights, entry = ingredient.weights, ingredient.weights.entries[name]
        if adapter is not None and name in adapter.replaced:
            weights, entry = adapter.weights, adapter.replaced[name]
        parts.setdefault((entry.file, entry.start), ([], weights, entry))[0].append(coefficient)
        if adapter is not None and name in adapter.factors:
            products.append((coefficient * adapter.factors[name].scale, adapter, adapter.factors[name]))
    stored = tuple((math.fsum(numbers), weights, entry) for numbers, weights, entry in parts.values())
    return Sum(out, stored, tuple(products))


def write_blend(
    folder: Path,
    ingredients: Sequence[Ingredient],
    coefficients: Coefficients,
    max_shard: int = MAX_SHARD,
    progress: bool = True,
) -> None:
    """Write the weighted sum of `ingredients` as safetensors files into `folder`, with an index if they are several.

    Args:
        folder: Exists; holds no weights yet.
        ingredients: Of one kind, as `find_ingredients` has shown.
        coefficients: Gives the weight of every ingredient for the tensor of a name.
        max_shard: Bytes of tensors in one file at most.
        progress: Whether to show a bar.
    """
    plan: list[Planned] = [(e.name, e.dtype, e.shape) for e in ingredients[0].weights.entries.values()]
    shards = plan_shards(plan, max_shard)
    with bar(sum(map(tensor_bytes, plan)), "Soup", progress) as done:
        for file, tensors in shards.items():
            with fresh_file(folder / file, tensors) as writer:
                sums = (plan_tensor(ingredients, coefficients(name), name) for name, _, _ in tensors)
                for count in _write_all(sums, writer):
                    done.update(count)
    write_index(folder, shards)


def one_tensor(ingredient: Ingredient, name: str) -> Iterator[torch.Tensor]:
    """One ingredient's version of a tensor, an adapter's product added, in flat float64 pieces.

    Each piece is overwritten by the next.
    """
    buffers = _Buffers()
    for chunk in _chunks(plan_tensor([ingredient], (1.0,), name), _CHUNK):
        data = _read(chunk, buffers)
        yield _add_block(chunk, data, buffers)


def _write_all(sums: Iterable[Sum], writer: ShardWriter) -> Iterator[int]:
    """Write the results, in the order of the file; the numbers of bytes as they are there."""
    own = threading.local()

    def work(share: _Chunk, start: int) -> int:
        if not hasattr(own, "buffers"):
            own.buffers = _Buffers()
        for chunk in _parts(share, _CHUNK):
            data = _add(chunk, _read(chunk, own.buffers), own.buffers)
            writer.write_at(start + (chunk.first - share.first) * data.element_size(), _bytes(data))
        return (share.last - share.first) * DTYPES[share.made.out[1]].itemsize

    position, reached, waiting = 0, 0, deque[Future[int]]()

    def finished() -> int:
        nonlocal reached
        size = waiting.popleft().result()
        reached += size
        writer.send_until(reached)
        return size

    # The workers are the threads: PyTorch's own, which it would divide each sum among, would wait for each other.
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(_WORKERS, "soup", torch.set_num_threads, (1,)) as workers:
        try:
            for share in (share for made in sums for share in _chunks(made, _SHARE)):
                count = share.last - share.first
                for _, weights, entry in share.made.stored:
                    weights.expect(entry, share.first * entry.itemsize, count * entry.itemsize)
                waiting.append(workers.submit(work, share, position))
                position += count * DTYPES[share.made.out[1]].itemsize
                if len(waiting) > 2 * _WORKERS:
                    yield finished()
            while waiting:
                yield finished()
        finally:
            workers.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


class _Buffers:
    """Memory that is used again: fresh memory costs a page fault every 4 KiB."""

    def __init__(self) -> None:
        self._memory: dict[object, torch.Tensor] = {}
        self._readers: dict[Weights, Weights] = {}

    def reader(self, weights: Weights) -> Weights:
        """These weights with open files of this thread's own: positions in a file are not shared."""
        if weights not in self._readers:
            self._readers[weights] = Weights(weights.folder, weights.entries)
        return self._readers[weights]

    def take(self, use: object, count: int, dtype: torch.dtype) -> torch.Tensor:
        """(count,) elements for a use; what they held is lost."""
        size = count * dtype.itemsize
        if use not in self._memory or len(self._memory[use]) < size:
            self._memory[use] = torch.empty(size, dtype=torch.uint8)
        return self._memory[use][:size].view(dtype)


@dataclass(frozen=True)
class _Chunk:
    """The elements from `first` to before `last` of a result, and the matrices of its products."""

    made: Sum
    first: int
    last: int
    products: tuple[tuple[float, torch.Tensor, torch.Tensor], ...]


def _chunks(made: Sum, size: int) -> Iterator[_Chunk]:
    """A result in pieces of about `size` elements: whole rows where a product is added."""
    products = tuple((scale, *adapter.product(factors)) for scale, adapter, factors in made.products)
    yield from _parts(_Chunk(made, 0, math.prod(made.out[2]), products), size)


def _parts(chunk: _Chunk, size: int) -> Iterator[_Chunk]:
    if chunk.products:
        columns = chunk.made.out[2][1]
        size = max(1, min(size, _BLOCK) // columns) * columns
    for first in range(chunk.first, chunk.last, size):
        yield _Chunk(chunk.made, first, min(first + size, chunk.last), chunk.products)


def _read(chunk: _Chunk, buffers: _Buffers) -> list[torch.Tensor]:
    read = []
    for place, (_, weights, entry) in enumerate(chunk.made.stored):
        tensor = buffers.take(place, chunk.last - chunk.first, DTYPES[entry.dtype])
        buffers.reader(weights).read_into(entry, chunk.first * entry.itemsize, _bytes(tensor))
        read.append(tensor)
    return read


def _add(chunk: _Chunk, data: Sequence[torch.Tensor], buffers: _Buffers) -> torch.Tensor:
    made = chunk.made
    if made.is_copy:
        return data[0]
    count = chunk.last - chunk.first
    result = buffers.take("result", count, DTYPES[made.out[1]])
    if _is_mean_of_two(made) and _mean_of_two(data[0], data[1], result):
        return result
    step = count if chunk.products else _BLOCK
    for start in range(0, count, step):
        stop = min(start + step, count)
        total = _add_block(chunk, [tensor[start:stop] for tensor in data], buffers)
        # A sum is NaN where any of its terms is, and costs a tenth of looking at each.
        if not math.isfinite(total.sum().item()) and bool(total.isnan().any()):
            raise CheckpointError(f"Tensor `{made.out[0]}` is not a number (NaN) in some place of the ingredients.")
        result[start:stop].copy_(total)
    return result


def _is_mean_of_two(made: Sum) -> bool:
    """Whether the result is the plain mean of two tensors of its own type, which is float32 or less."""
    stored = made.stored
    simple = len(stored) == 2 and not made.products and all(weight == 0.5 for weight, _, _ in stored)
    return simple and made.out[1] != "F64" and all(entry.dtype == made.out[1] for _, _, entry in stored)


def _mean_of_two(one: torch.Tensor, two: torch.Tensor, into: torch.Tensor) -> bool:
    """Write the mean of two tensors of one type, computed in float32; False where a number is too large for that.

    In float32 a + b is rounded once, and halving is exact. The 16-bit types go through `lerp`, b - (b - a) / 2, one
    pass that computes in float32: b - a is exact where the two are within 2^12 of each other, thus wherever they may
    cancel, and elsewhere off by 2^-24 of the larger one, which the mean is then close to half of.
    """
    if one.dtype == torch.float32:
        torch.add(one, two, out=into).mul_(0.5)
    else:
        torch.lerp(one, two, 0.5, out=into)
    return math.isfinite(into.sum().item())


def _add_block(chunk: _Chunk, data: Sequence[torch.Tensor], buffers: _Buffers) -> torch.Tensor:
    """The float64 sum of a block of the stored tensors, each (elements,), and of the products."""
    count = len(data[0])
    total, term = (buffers.take(use, count, torch.float64) for use in ("total", "term"))
    weights = [weight for weight, _, _ in chunk.made.stored]
    total.copy_(data[0]).mul_(weights[0])
    for weight, block in zip(weights[1:], data[1:], strict=True):
        # Not `add_(block, alpha=weight)`, which may fuse the two roundings: what should cancel to zero would not.
        total.add_(term.copy_(block).mul_(weight))
    if chunk.products:
        columns = chunk.made.out[2][1]
        rows = slice(chunk.first // columns, chunk.last // columns)
        for scale, left, right in chunk.products:
            total.view(-1, columns).addmm_(left[rows], right, alpha=scale)
    elif chunk.made.out[1] == "F64" and len(data) > 1 and math.fsum(weights) == 1.0:
        # The widest type has no digits to spare, so the mean of equal numbers would not always be that number.
        equal = torch.stack([block == data[0] for block in data[1:]]).all(0)
        total = torch.where(equal, data[0].double(), total)
    return total


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.view(torch.uint8).numpy().data
