"""A step's batches joined into one, and divided again by pairs.

Shapes: B pairs, L padded length; a batch has 2B rows, chosen rows first, padded on the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..._errors import ConfigError

Batch = dict[str, Any]


def join(batches: Sequence[Mapping[str, Any]], pad_token: int) -> Batch:
    """One batch of the pairs of several, chosen rows first, padded to the longest row.

    Columns that a batch lacks are left out: a cache does not know every row.

    Raises:
        ConfigError: A column of the batch holds neither tokens nor one value per row or pair.
    """
    width = max(batch["input_ids"].size(1) for batch in batches)
    names = [name for name in batches[0] if all(name in batch for batch in batches)]
    return {name: _join_column(name, batches, width, pad_token if name == "input_ids" else 0) for name in names}


def _join_column(name: str, batches: Sequence[Mapping[str, Any]], width: int, fill: int) -> Tensor:
    parts: list[list[Tensor]] = []
    for batch in batches:
        column, (rows, length) = batch[name], batch["input_ids"].shape
        if not isinstance(column, Tensor) or column.dim() == 0 or column.size(0) not in (rows, rows // 2):
            raise ConfigError(
                f"`tokens_per_batch` divides batches by pairs, and the collator's column `{name}` has neither a row "
                "per sequence nor one per pair. Leave `tokens_per_batch` out, or the column."
            )
        if column.size(0) == rows // 2:
            parts.append([column])
            continue
        if column.dim() > 1 and column.size(1) in (length, length - 1):
            missing = width - length
            column = functional.pad(column, (0, 0) * (column.dim() - 2) + (0, missing), value=fill)
        parts.append(list(column.chunk(2)))
    return torch.cat([part for side in zip(*parts, strict=True) for part in side])


def select(batch: Batch, pairs: Sequence[int], multiple: int = 1) -> Batch:
    """The batch of some pairs alone, without columns that are padding in all their rows.

    Args:
        batch: The whole one.
        pairs: Their numbers in it.
        multiple: Of what the length has to be, where padding allows.
    """
    rows, width = batch["input_ids"].shape
    device = batch["input_ids"].device
    number = torch.tensor(list(pairs), device=device)
    both = torch.cat([number, number + rows // 2])
    longest = int(batch["attention_mask"][both].sum(dim=1).max())
    cut = width - min(width, -(-longest // multiple) * multiple)
    made = {}
    for name, column in batch.items():
        if column.size(0) != rows:
            made[name] = column[number]
        elif column.dim() > 1 and column.size(1) in (width, width - 1):
            made[name] = column[both][:, : column.size(1) - cut]
        else:
            made[name] = column[both]
    return made


def measure(batch: Batch) -> tuple[list[int], list[int]]:
    """Of every pair the longer row, and the tokens that are left when the common prefix counts once.

    Raises:
        ConfigError: Rows are not padded on the right.
    """
    mask = batch["attention_mask"].bool()
    lengths = mask.sum(dim=1)
    if not torch.equal(mask, torch.arange(mask.size(1), device=mask.device) < lengths[:, None]):
        raise ConfigError("`tokens_per_batch` needs rows that are padded on the right. Leave it out, or the collator.")
    (chosen, rejected), (of_chosen, of_rejected) = batch["input_ids"].chunk(2), mask.chunk(2)
    shared = ((chosen == rejected) & of_chosen & of_rejected).long().cumprod(dim=1).sum(dim=1)
    first, second = lengths.chunk(2)
    longest, unique = torch.stack([torch.maximum(first, second), first + second - shared]).tolist()
    return longest, unique
