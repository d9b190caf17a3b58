"""Which tokens of a batch count: the marks of each row, from its conversation to the batch's `completion_mask`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from trl.data_utils import extract_prompt

from ..._errors import ConfigError, DataError
from ...data import Score, Scored, Scorer, template_options

MARKS = ("chosen_scored", "rejected_scored")
_SIDES = ("chosen", "rejected")
_IDS = ("chosen_ids", "rejected_ids")
_LOOKED_AT = 64  # rows that are marked before weights load; the others are as they are tokenised


def check_scored(args: Any, collator: Any, generates: bool, data: Any, tokenizer: Any) -> None:
    """Refuse `score` where nothing could follow it; the first rows tell whether the data do.

    Args:
        args: The training arguments.
        collator: The user's collator, if any.
        generates: Completions are made during training.
        data: The training pairs.
        tokenizer: The policy's.

    Raises:
        ConfigError: It cannot be combined with another option, or with images.
        DataError: The data are no conversations, or the assistant's turns cannot be found.
    """
    score: Score = getattr(args, "score", "completion")
    if score == "completion":
        return
    reasons = {
        "`precompute_ref_log_probs`: TRL sums the reference's tokens before. `reference_cache` follows it": (
            args.precompute_ref_log_probs
        ),
        "a `data_collator` of your own, which makes the mask": collator is not None,
        "generated completions, which are one turn": generates,
        "images": bool({"image", "images"} & set(getattr(data, "column_names", None) or ())),
    }
    for what, there in reasons.items():
        if there:
            raise ConfigError(f"`score={score!r}` cannot be combined with {what}. Leave one of them out.")
    scorer = Scorer(tokenizer, score)
    for number, row in enumerate(islice(data, _LOOKED_AT)):
        _found(row if "prompt" in row else {**row, **extract_prompt(dict(row))}, number, scorer)


class Marking:
    """Marks the tokens that count, where not all of the completion do.

    Args:
        score: What counts.

    Attributes:
        columns: What is added to a tokenised row.
    """

    def __init__(self, score: Score) -> None:
        self.score = score
        self.columns: tuple[str, ...] = () if score == "completion" else MARKS

    def collator(self, collator: Any) -> Any:
        """TRL's collator, with masks by the rows' marks."""
        return ScoredCollator(collator) if self.columns else collator

    def rows(self, dataset: Any, tokenizer: Any, args: Any, name: str) -> Any:
        """The tokenised data set with `chosen_scored` and `rejected_scored`: 1 for each token that counts, else 0.

        Args:
            dataset: As TRL tokenises it: `prompt`, `chosen`, `rejected`, and the ids of each.
            tokenizer: The tokenizer, or a processor that has one.
            args: The training arguments.
            name: Which data set; completions of a baseline ("sft") are one turn and need no marks.

        Raises:
            DataError: The data are no conversations, or a completion has no token that counts.
        """
        if not self.columns or name == "sft":
            return dataset
        scorer = Scorer(getattr(tokenizer, "tokenizer", tokenizer), self.score)
        keep = slice(-args.max_length, None) if _keeps_end(args) else slice(None, args.max_length)
        options = {"desc": f"Marking what is scored in the {name} data"} if hasattr(dataset, "__len__") else {}
        return dataset.map(partial(_mark, scorer=scorer, keep=keep), with_indices=True, **options)


def _keeps_end(args: Any) -> bool:
    """Whether the end of a sequence that is too long is kept; `args` are those of training, or TRL's collator."""
    return bool(args.max_length) and args.truncation_mode == "keep_end"


def _found(row: Mapping[str, Any], number: int, scorer: Scorer) -> list[Scored]:
    """The marked tokens of both sides."""
    if not isinstance(row["chosen"], list):
        raise DataError(
            f"`score={scorer.score!r}` counts turns, and the data are plain texts, whose completion is one turn. "
            "Leave it out."
        )
    options, found = template_options(row), []
    for side in _SIDES:
        try:
            found.append(scorer.scored(row["prompt"], row[side], options))
        except DataError as error:
            raise DataError(f"row {number}, `{side}`: {error}") from error
    return found


def _mark(row: Mapping[str, Any], number: int, scorer: Scorer, keep: slice) -> dict[str, list[int]]:
    made, prompt = {}, list(row["prompt_ids"])
    for side, ids, marks, found in zip(_SIDES, _IDS, MARKS, _found(row, number, scorer), strict=True):
        where = f"row {number}, `{side}`"
        if found.ids != [*prompt, *row[ids]]:
            raise DataError(f"{where}: the tokens are others than those that are trained on, so its marks are unknown.")
        made[marks] = found.marks[len(prompt) :]
        if not any(([0] * len(prompt) + made[marks])[keep]):
            raise DataError(
                f"{where}: no token counts with `score={scorer.score!r}`, or `max_length` cuts all that do."
            )
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
            kept = ([0] * len(row["prompt_ids"]) + list(row[name]))[keep]
            mask[place, : len(kept)] *= torch.tensor(kept, dtype=mask.dtype)
        return batch

    def __getattr__(self, name: str) -> Any:
        if name == "collator":  # while it is unpickled by a data loader's worker
            raise AttributeError(name)
        return getattr(self.collator, name)
