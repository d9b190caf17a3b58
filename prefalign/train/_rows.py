"""Rows of a batch: their numbers, the collator that carries them, and how an error names one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

BY_LENGTH = ("group_by_length", "batch_rebalance")  # values of `train_sampling_strategy`
SPLIT = 2**40  # a pair's number is its row plus SPLIT times the number of its data set


def describe_row(
    place: int, inputs: dict[str, Any], numbers: Tensor | None, splits: Sequence[str], tokenizer: Any
) -> str:
    """Which row stands at `place` of a batch, with the start of its text."""
    row = inputs["input_ids"][place][inputs["attention_mask"][place].bool()]
    text = tokenizer.decode(row.tolist())
    start = f"{text[:80]!r}" + "..." * (len(text) > 80)
    if numbers is None:
        return f"a row that begins with {start}"
    split, index = divmod(int(numbers[place]), SPLIT)
    return f"row {index} of the {splits[split]} data, which begins with {start}"


PAIR_INDEX = "pair_index"


class IndexedCollator:
    """A collator that hands the rows' numbers in the data set on, as `pair_index`, (pairs,).

    Args:
        collator: Makes the batch from the rows.
    """

    def __init__(self, collator: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self.collator = collator

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collator([{k: v for k, v in row.items() if k != PAIR_INDEX} for row in rows])
        if all(PAIR_INDEX in row for row in rows):
            batch[PAIR_INDEX] = torch.tensor([row[PAIR_INDEX] for row in rows])
        return batch

    def __getattr__(self, name: str) -> Any:
        if name == "collator":  # while it is unpickled by a data loader's worker
            raise AttributeError(name)
        return getattr(self.collator, name)


def number_rows(dataset: Any, first: int) -> Any:
    """The data set with each row's number, counted from `first`, as `pair_index`."""
    columns = getattr(dataset, "column_names", None)
    if columns is None:  # no data set, or a stream of unknown columns
        return dataset
    if hasattr(dataset, "__len__"):
        kept = dataset.remove_columns(PAIR_INDEX) if PAIR_INDEX in columns else dataset
        return kept.add_column(PAIR_INDEX, [*range(first, first + len(dataset))])
    return dataset.map(lambda row, index: {PAIR_INDEX: first + index}, with_indices=True)


def signature_columns(trainer: Any, columns: Sequence[str] = ()) -> None:
    """Let the rows' numbers and these columns through to the collator, and lengths to a sampler that sorts by them."""
    by_length = trainer.args.train_sampling_strategy in BY_LENGTH
    for name in (PAIR_INDEX, *columns, *([trainer.args.length_column_name] if by_length else [])):
        if name not in trainer._signature_columns:
            trainer._signature_columns.append(name)
