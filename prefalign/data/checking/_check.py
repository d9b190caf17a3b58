"""The preflight: read every pair once, before any weights load, and say what training would trip over."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from tqdm import tqdm

from ..._errors import DataError
from ..._numbers import check_number
from .._layout import Layout, completion_columns, find_layout
from .._weights import pair_weights
from ._extras import IMAGE_COLUMNS, has_images, read_options, unread_prompt
from ._kinds import Tally
from ._repeats import RepeatFinder
from ._report import DataReport, Finding, Lengths
from ._text import Pair, length, read_pair
from ._tokens import TokenChecks, TruncationMode

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

_BATCH = 1000
OnBadPairs = Literal["drop", "error"]


def check_pairs(
    dataset: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None,
    *,
    max_length: int | None = None,
    truncation_mode: TruncationMode = "keep_start",
    winners_only: bool | None = None,
    limit: int | None = None,
    keep_rows: int = 5,
    progress: bool = True,
) -> DataReport:
    """Check pairs for what training would trip over; nothing is changed.

    Args:
        dataset: Pairs in one of TRL's layouts (docs/data.md). A streaming data set needs `limit`.
        tokenizer: The tokenizer that training will use; without one only the texts are checked.
        max_length: Longest sequence that training keeps (prompt and completion), in tokens, >= 1; None for no limit.
        truncation_mode: Which end of a longer sequence training keeps.
        winners_only: True where the loss makes its own rejected completion, False where it needs the column, None if
            either will do.
        limit: Check only the first so many rows.
        keep_rows: How many row indexes to keep per finding, >= 0.
        progress: Show a progress bar on stderr when it takes more than two seconds.

    Returns:
        The findings. What makes the whole set unusable is in there too: see `DataReport.raise_if_unusable`.

    Raises:
        DataError: An argument is no data set, or out of range.

    Example:
        >>> from datasets import Dataset
        >>> pairs = Dataset.from_dict({"prompt": ["2+2=", "3+3="], "chosen": ["4", "6"], "rejected": ["5", "6"]})
        >>> report = check_pairs(pairs)
        >>> report.count("identical"), report.bad_rows.tolist()
        (1, [1])
    """
    _check_arguments(dataset, max_length, truncation_mode, limit, keep_rows)
    columns = list(dataset.column_names or next(iter(dataset), {}))
    try:
        layout = find_layout(columns, winners_only=winners_only)
    except DataError as error:
        return _unusable("columns", str(error), _size(dataset, limit) or 0, None, max_length)
    try:
        pair_weights(dataset)
    except DataError as error:
        return _unusable("weights", str(error), _size(dataset, limit) or 0, layout, max_length)
    if layout == "implicit" and set(IMAGE_COLUMNS) & set(columns):
        text = "Pairs with images need the column `prompt`: TRL finds no implicit prompt in them."
        return _unusable("columns", text, _size(dataset, limit) or 0, layout, max_length)
    total = _size(dataset, limit)
    run = _Run(layout, completion_columns(layout, columns), columns, tokenizer, max_length, truncation_mode, keep_rows)
    bar = tqdm(total=total, desc="Checking pairs", unit=" rows", delay=2, disable=not progress, leave=False)
    with bar:
        for batch in _batches(dataset, total):
            if run.refusal is not None:
                break
            bar.update(run.read(batch))
    return run.report(total)


def drop_bad(dataset: Dataset, report: DataReport, on_bad_pairs: OnBadPairs = "drop") -> Dataset:
    """The rows of `dataset` that can be trained on.

    Args:
        dataset: What `check_pairs` read.
        report: What it found.
        on_bad_pairs: "drop" leaves bad rows out, "error" refuses a data set that has any.

    Returns:
        `dataset` itself where nothing is to be dropped, else a selection of its rows, in order.

    Raises:
        DataError: The data set is unusable, has bad rows under "error", or is not what the report is about.

    Example:
        >>> from datasets import Dataset
        >>> pairs = Dataset.from_dict({"prompt": ["2+2=", "3+3="], "chosen": ["4", "6"], "rejected": ["5", "6"]})
        >>> drop_bad(pairs, check_pairs(pairs))["prompt"][:]
        ['2+2=']
    """
    if on_bad_pairs not in get_args(OnBadPairs):
        raise DataError(f"`on_bad_pairs` must be 'drop' or 'error' (got {on_bad_pairs!r}).")
    report.raise_if_unusable()
    if not hasattr(dataset, "select") or len(dataset) != report.rows:
        came = f"{len(dataset)} rows" if hasattr(dataset, "select") else "a streaming data set"
        raise DataError(
            f"The report is about {report.rows} rows (got {came}). Check the same data set, without `limit`."
        )
    if not report.dropped:
        return dataset
    if on_bad_pairs == "error":
        found = "; ".join(
            f"{finding.count} x {finding.kind} (row{'s' if len(finding.rows) > 1 else ''} "
            f"{', '.join(map(str, finding.rows))}{', ...' if finding.count > len(finding.rows) else ''}): "
            f"{finding.message}"
            for finding in report.findings
            if finding.severity == "drop"
        )
        raise DataError(
            f"{report.dropped} of {report.rows} pairs cannot be trained on: {found}. "
            "Repair them, or leave them out with `on_bad_pairs='drop'`."
        )
    keep = np.ones(report.rows, dtype=bool)
    keep[report.bad_rows] = False
    return dataset.select(np.flatnonzero(keep))


class _Run:
    """One pass over the rows: text checks, then token checks on what is left, then what only the whole set shows."""

    def __init__(
        self,
        layout: Layout,
        completions: tuple[str, ...],
        columns: Sequence[str],
        tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None,
        max_length: int | None,
        truncation_mode: TruncationMode,
        keep_rows: int,
    ) -> None:
        self.refusal: Finding | None = None
        self._layout = layout
        self._completions = completions
        self._max_length = max_length
        self._mode = truncation_mode
        self._images = bool(set(IMAGE_COLUMNS) & set(columns))
        # A processor tokenises texts by its own tokenizer.
        self._tokenizer = None if self._images else getattr(tokenizer, "tokenizer", tokenizer)
        self._tally = Tally(keep_rows)
        self._repeats = RepeatFinder()
        self._tokens: TokenChecks | None = None
        self.keep: Callable[[int, list[list[int]]], object] | None = None
        self._rows = 0
        self._good = 0
        self._conversational: bool | None = None
        self._unread = ""
        self._characters = (array("q"), array("q"), array("q"))

    def read(self, batch: Mapping[str, list[object]]) -> int:
        """Check one batch of columns and return its number of rows."""
        sides = [batch[name] for name in self._completions]
        count = len(sides[0])
        prompts = batch.get("prompt") if self._layout != "implicit" else None
        if self._conversational is None:
            self._start([*([prompts] if prompts else []), *sides])
            self._unread = unread_prompt(batch) if self._layout == "implicit" else ""
            if self.refusal is not None:
                return count
        pairs, options = [], []
        for index in range(count):
            texts = tuple(side[index] for side in sides)
            pair = read_pair(self._rows + index, prompts[index] if prompts else None, texts, self._layout, self._tally)
            if pair is None or (self._images and not has_images(batch, index, pair, self._tally)):
                continue
            told = read_options(batch, index, pair.row, self._tally)
            if told is not None:
                pairs.append(pair)
                options.append(told)
        if self._tokens is not None:
            pairs = self._tokens.check(pairs, options)
        for pair in pairs:
            self._repeats.add(pair)
            if self._tokens is None:
                self._measure(pair)
        self._rows += count
        self._good += len(pairs)
        return count

    def _note(self) -> list[Finding]:
        """What is to be said of the data set as a whole."""
        notes = []
        if self._unread:
            text = f"TRL reads no column `{self._unread}`; if it holds the prompt, rename it to `prompt`"
            notes.append(Finding("unread_prompt", "warn", self._rows, (), text))
        if self._images:
            text = "with images: only the texts and the number of images were checked, not their tokens"
            notes.append(Finding("images", "note", self._rows, (), text))
        return notes

    def _start(self, columns: Sequence[Sequence[object]]) -> None:
        """Tell from the first values what kind of texts these are, and whether the tokenizer is up to them."""
        kinds = {_kind(column) for column in columns} - {None}
        if kinds == {"text", "messages"}:
            self._refuse(
                "mixed",
                "Some columns hold plain text and others lists of messages; all must be of one kind. Where `chosen` "
                "and `rejected` repeat the whole conversation, remove the column `prompt`.",
            )
        if not kinds:
            return
        self._conversational = kinds == {"messages"}
        if self._tokenizer is None:
            return
        if self._conversational and not getattr(self._tokenizer, "chat_template", None):
            self._refuse(
                "no_chat_template",
                "The pairs are conversations, but the tokenizer has no chat template. Take the tokenizer of an "
                "instruct model, or set `tokenizer.chat_template`.",
            )
        if not self._conversational and self._tokenizer.eos_token is None:
            self._refuse(
                "no_eos",
                "The tokenizer has no EOS token, with which plain completions must end. Set `tokenizer.eos_token`.",
            )
        self._tokens = TokenChecks(self._tokenizer, self._max_length, self._mode, self._conversational, self._tally)
        self._tokens.keep = self.keep

    def _refuse(self, kind: str, message: str) -> None:
        self.refusal = self.refusal or Finding(kind, "unusable", 0, (), message)

    def _measure(self, pair: Pair) -> None:
        for column, text in zip(self._characters, (pair.prompt, *pair.completions), strict=False):
            column.append(length(text))

    def report(self, total: int | None) -> DataReport:
        """What was found, once all of `total` rows are read, or none because the set as a whole is refused."""
        rows = (total or 0) if self.refusal is not None else self._rows
        agreement = self._repeats.report(self._tally)
        findings = self._tally.findings() + self._note()
        if self.refusal is None and not self._good:
            text = "No row can be trained on." if self._rows else "The data set has no rows."
            self._refuse("no_pairs", text + "".join(f" {finding.count} x {finding.message}." for finding in findings))
        lengths = self._lengths() if self._good else {}
        both = "rejected" in self._completions and bool(self._good)
        return DataReport(
            rows=rows,
            layout=self._layout,
            conversational=bool(self._conversational),
            unit="tokens" if self._tokens is not None else "characters",
            max_length=self._max_length,
            findings=((self.refusal,) if self.refusal else ()) + tuple(findings),
            lengths={name: Lengths.of(values) for name, values in lengths.items()},
            truncated=self._tokens.truncated / self._good if self._tokens is not None and self._good else 0.0,
            chosen_longer=float((lengths["chosen"] > lengths["rejected"]).mean()) if both else 0.0,
            agreement=agreement,
            bad_rows=self._tally.bad_rows,
        )

    def _lengths(self) -> dict[str, np.ndarray]:
        columns = self._characters
        if self._tokens is not None:
            columns = (self._tokens.prompt_lengths, *self._tokens.completion_lengths)
        names = ("prompt", *self._completions)
        table = {name: np.frombuffer(column, dtype=np.int64) for name, column in zip(names, columns, strict=False)}
        longest = np.max([table[name] for name in self._completions], axis=0)
        return {**table, "longest": table["prompt"] + longest}


def _check_arguments(
    dataset: object, max_length: object, truncation_mode: object, limit: object, keep_rows: object
) -> None:
    for name, value, least, none in (
        ("max_length", max_length, 1, True),
        ("limit", limit, 1, True),
        ("keep_rows", keep_rows, 0, False),
    ):
        if value is not None or not none:
            check_number(name, value, DataError, least, whole=True)
    if truncation_mode not in get_args(TruncationMode):
        raise DataError(f"`truncation_mode` must be 'keep_start' or 'keep_end' (got {truncation_mode!r}).")
    if isinstance(dataset, dict):
        raise DataError(f"`dataset` must be one split (got the splits {', '.join(map(repr, dataset))}). Choose one.")
    if not hasattr(dataset, "column_names") or not hasattr(dataset, "with_format"):
        raise DataError(
            f"`dataset` must be a `datasets.Dataset` (got {type(dataset).__name__}). "
            "Make one with `Dataset.from_list(rows)`, or read a file with `load_pairs(path)`."
        )
    if limit is None and not hasattr(dataset, "__len__"):
        raise DataError("A streaming data set has no end to check to: set `limit` to a number of rows.")


def _size(dataset: Dataset | IterableDataset, limit: int | None) -> int | None:
    if not hasattr(dataset, "__len__"):
        return limit
    return len(dataset) if limit is None else min(limit, len(dataset))


def _batches(dataset: Dataset | IterableDataset, total: int | None) -> Iterator[Mapping[str, list[object]]]:
    """Columns of plain Python values, a thousand rows at a time."""
    if hasattr(dataset, "__len__"):
        plain = _undecoded(dataset.with_format(None))
        for start in range(0, total or 0, _BATCH):
            yield plain[start : min(start + _BATCH, total or 0)]
        return
    rows = islice(iter(dataset), total)
    while chunk := list(islice(rows, _BATCH)):
        yield {name: [row.get(name) for row in chunk] for name in chunk[0]}


def _undecoded(dataset: Dataset) -> Dataset:
    """The data set with its images as they are stored: decoding them would take longer than all checks."""
    from datasets import Image, List

    features = dataset.features.copy()
    for name in set(IMAGE_COLUMNS) & features.keys():
        if isinstance(features[name], Image):
            features[name] = Image(decode=False)
        elif isinstance(features[name], List) and isinstance(features[name].feature, Image):
            features[name] = List(Image(decode=False))
    return dataset if features == dataset.features else dataset.cast(features)


def _kind(values: Sequence[object]) -> str | None:
    """What the first value is that is there at all; values of other kinds are found row by row."""
    first = next((value for value in values if value is not None), None)
    return "text" if isinstance(first, str) else "messages" if isinstance(first, list) else None


def _unusable(kind: str, message: str, rows: int, layout: Layout | None, max_length: int | None) -> DataReport:
    finding = Finding(kind, "unusable", 0, (), message)
    none = np.empty(0, dtype=np.int64)
    return DataReport(rows, layout, False, "characters", max_length, (finding,), {}, 0.0, 0.0, None, none)


def sample_tokens(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase | ProcessorMixin, count: int
) -> list[tuple[int, list[int], list[int]]]:
    """Token ids of some pairs, evenly spread over the data set, as training tokenises them.

    Args:
        dataset: Pairs in a layout with both completions.
        tokenizer: The tokenizer that training will use.
        count: How many rows to read, at most; those that cannot be trained on are left out.

    Returns:
        For each pair the length of its prompt, and prompt and completion: chosen, rejected. Nothing is truncated.

    Raises:
        DataError: The columns are no layout of pairs with both completions.
    """
    columns = list(dataset.column_names)
    layout = find_layout(columns, winners_only=False)
    step = max(1, len(dataset) // count)
    some = dataset.select(range(0, len(dataset), step)[:count])
    run = _Run(layout, completion_columns(layout, columns), columns, tokenizer, None, "keep_start", 0)
    kept: list[tuple[int, list[int], list[int]]] = []
    run.keep = lambda start, whole: kept.append((start, whole[0], whole[1]))
    for batch in _batches(some, len(some)):
        run.read(batch)
    return kept
