"""Which tokens of a batch count: the marks of each row, from its conversation to the batch's `completion_mask`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from trl.data_utils import extract_prompt

from ..._errors import ConfigError, DataError
from ...data import SIDES, STEPS, WEIGHTS, Score, Scorer, scored_pair
from ...losses import Loss
from .. import _trl

MARKS = ("chosen_scored", "rejected_scored")
_IDS = ("chosen_ids", "rejected_ids")
_LOOKED_AT = 64  # rows that are marked before weights load; the others are as they are tokenised


def check_scored(args: Any, loss: Loss, collator: Any, generates: bool, data: Any, tokenizer: Any) -> None:
    """Refuse `score`, steps and token weights where nothing could follow them; the first rows tell whether data do.

    Args:
        args: The training arguments.
        loss: The loss.
        collator: The user's collator, if any.
        generates: Completions are made during training.
        data: The training pairs.
        tokenizer: The policy's.

    Raises:
        ConfigError: It cannot be combined with another option, the loss, or images.
        DataError: A column does not fit the data, or the assistant's turns cannot be found.
    """
    score: Score = getattr(args, "score", "completion")
    columns = _columns(data)
    asked = [f"`score={score!r}`"] * (score != "completion") + [f"The column `{c}`" for c in sorted(columns & _OURS)]
    if not asked:
        return
    reasons = {
        "`precompute_ref_log_probs`: TRL sums the reference's tokens before. `reference_cache` follows it": (
            args.precompute_ref_log_probs
        ),
        "a `data_collator` of your own, which makes the mask": collator is not None,
        "generated completions, which are one turn": generates,
        "images": bool({"image", "images"} & columns),
        f"{loss.title}, which weighs tokens by itself": (
            bool(columns & set(WEIGHTS)) and bool(loss.reads_tokens & {"log_sum_sq_probs", "kl"})
        ),
    }
    for what, there in reasons.items():
        if there:
            raise ConfigError(f"{asked[0]} cannot be combined with {what}. Leave one of them out.")
    scorer = Scorer(tokenizer, score)
    for number, row in enumerate(islice(data, _LOOKED_AT)):
        _found(row if "prompt" in row else {**row, **extract_prompt(dict(row))}, number, tokenizer, scorer)


_OURS = {*STEPS, *WEIGHTS}


def _columns(data: Any) -> set[str]:
    """The columns of a data set; of a stream, its first row's."""
    names = getattr(data, "column_names", None)
    return set(names if names is not None else next(iter(data), {}))


class Marking:
    """Marks the tokens that count, where not all of the completion do.

    Args:
        score: What counts.
    """

    def __init__(self, score: Score) -> None:
        self.score = score

    def rows(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
        """The tokenised data set with how much each token of a completion counts: `chosen_scored`, `rejected_scored`.

        Whole numbers are marks, 1 or 0; where the data have weights, all are floats. Where all tokens count, the data
        stay as they are.

        Args:
            dataset: As TRL tokenises it: `prompt`, `chosen`, `rejected`, and the ids of each.
            tokenizer: The tokenizer, or a processor that has one.
            args: The training arguments.
            name: Which data set; completions of a baseline ("sft") are one turn and need no marks.

        Raises:
            DataError: A column does not fit, or a completion has no token that counts.
        """
        columns = _columns(dataset)
        if name == "sft" or (self.score == "completion" and not columns & _OURS):
            return dataset
        inner = getattr(tokenizer, "tokenizer", tokenizer)
        keep = slice(-args.max_length, None) if _keeps_end(args) else slice(None, args.max_length)
        kind = float if columns & set(WEIGHTS) else int
        mark = partial(_mark, tokenizer=inner, scorer=Scorer(inner, self.score), keep=keep, kind=kind)
        options = {"desc": f"Marking what is scored in the {name} data"} if hasattr(dataset, "__len__") else {}
        return dataset.map(mark, with_indices=True, **options)


def _keeps_end(args: Any) -> bool:
    """Whether the end of a sequence that is too long is kept; `args` are those of training, or TRL's collator."""
    return bool(args.max_length) and args.truncation_mode == "keep_end"


def _found(row: Mapping[str, Any], number: int, tokenizer: Any, scorer: Scorer) -> tuple[int, Any]:
    try:
        return scored_pair(row, tokenizer, scorer)
    except DataError as error:
        raise DataError(f"row {number}: {error}") from error


def _mark(
    row: Mapping[str, Any], number: int, tokenizer: Any, scorer: Scorer, keep: slice, kind: type[float]
) -> dict[str, list[float]]:
    made, prompt = {}, list(row["prompt_ids"])
    for side, ids, marks, found in zip(SIDES, _IDS, MARKS, _found(row, number, tokenizer, scorer)[1], strict=True):
        where = f"row {number}, `{side}`"
        if found.ids != [*prompt, *row[ids]]:
            raise DataError(f"{where}: the tokens are others than those that are trained on, so its marks are unknown.")
        if not any(found.marks[keep]):
            raise DataError(f"{where}: no token counts, or `max_length` cuts all that do.")
        made[marks] = [kind(mark) for mark in found.marks[len(prompt) :]]
    return made


class ScoredCollator:
    """A collator whose `completion_mask` is 1 at the tokens that count alone.

    Args:
        collator: TRL's, which makes the batch from the rows.
    """

    def __init__(self, collator: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self.collator = collator

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collator([{k: v for k, v in row.items() if k not in MARKS} for row in rows])
        if not all(name in row for row in rows for name in MARKS):
            return batch
        inner: Any = self.collator
        keep = slice(-inner.max_length, None) if _keeps_end(inner) else slice(None, inner.max_length)
        mask = batch["completion_mask"]
        for place, (row, name) in enumerate([(row, name) for name in MARKS for row in rows]):
            kept = torch.tensor(([0] * len(row["prompt_ids"]) + list(row[name]))[keep])
            mask[place, : len(kept)] *= (kept > 0).to(mask.dtype)
            if kept.is_floating_point():
                weights = batch.setdefault(_trl.TOKEN_WEIGHTS, torch.zeros(mask.shape))
                weights[place, : len(kept)] = kept
        return batch

    def __getattr__(self, name: str) -> Any:
        if name == "collator":  # while it is unpickled by a data loader's worker
            raise AttributeError(name)
        return getattr(self.collator, name)
