"""The one table of faults: name, severity, what is wrong and what to do."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from ._report import Finding, Severity

# Tokenising takes some 140 bytes of memory for each character.
MOST_CHARACTERS = 10_000_000
MOST_MESSAGES = 10_000

KINDS: dict[str, tuple[Severity, str]] = {
    # Rows that training cannot use.
    "missing_value": ("drop", "a text is missing, or is neither a string nor a list of messages"),
    "bad_messages": ("drop", "a conversation is empty, or one of its messages lacks `role` or `content`"),
    "too_long": (
        "drop",
        f"a row has more than {MOST_CHARACTERS:,} characters, as written or by the chat template, or more than "
        f"{MOST_MESSAGES:,} messages",
    ),
    "empty_completion": ("drop", "a completion is empty or only white space"),
    "identical": ("drop", "chosen equals rejected: no preference to learn from"),
    "bad_template_options": (
        "drop",
        "the chat template's arguments cannot be read: `tools` must be a list or JSON, and `chat_template_kwargs` an "
        "object in every row, `{}` where there is nothing to say",
    ),
    "bad_images": ("drop", "a row must have as many images as its prompt has places for, and its completions none"),
    "template_error": ("drop", "the chat template refuses the conversation"),
    "no_completion_tokens": ("drop", "a completion has no tokens of its own"),
    "emptied_by_truncation": ("drop", "the prompt alone fills max_length, so truncation leaves no completion"),
    "same_tokens": ("drop", "chosen and rejected are the same tokens once tokenised and cut to max_length"),
    # Rows that train, but perhaps not on what was meant.
    "boundary": (
        "warn",
        "the prompt tokenises differently before its completion: the last prompt tokens are left out of the training "
        "sequence; end the prompt on a token boundary (move a trailing space to the completion)",
    ),
    "double_bos": ("warn", "two BOS tokens at the start: the text has one already; take it out of the text"),
    "double_eos": ("warn", "two EOS tokens in a row in a completion: take them out of the text, TRL adds one itself"),
    "prompt_cut_in_word": (
        "warn",
        "TRL finds the implicit prompt as the common beginning of both texts, and here it ends inside a word; give the "
        "prompt its own column",
    ),
    "prompt_repeated": ("warn", "both completions begin with the whole prompt, which will then stand there twice"),
    "later_turns": (
        "warn",
        "a completion holds messages of others than the assistant, which are trained on as its own words; put them "
        "into the prompt, or end the completion before them",
    ),
    "empty_prompt": ("warn", "the prompt is empty or only white space"),
    "no_context": ("warn", "no token stands before the completion, so its first token is not trained on"),
    "prompt_lost": ("warn", "truncation keeps the end and cuts off the whole prompt"),
    "differs_in_space": ("warn", "chosen and rejected differ only by white space at their ends"),
    "duplicate": ("warn", "the same pair stands in an earlier row: it counts more than once"),
    "contradiction": ("warn", "the same pair stands elsewhere with chosen and rejected exchanged: label noise"),
    "truncated": ("note", "longer than max_length, so the end (or beginning) is cut off"),
}


class Tally:
    """Counts of faults by kind with the first rows of each, and all rows to drop."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._counts = dict.fromkeys(KINDS, 0)
        self._rows: dict[str, list[int]] = {kind: [] for kind in KINDS}
        self._details: dict[str, str] = {}
        self._bad = array("q")

    def add(self, kind: str, row: int, detail: str = "") -> None:
        """Note that `row` has the fault `kind`; a row may have one fault of severity "drop" at most."""
        self._counts[kind] += 1
        if len(self._rows[kind]) < self._keep:
            self._rows[kind].append(row)
        if detail and kind not in self._details:
            self._details[kind] = f" ({detail} in row {row})"
        if KINDS[kind][0] == "drop":
            self._bad.append(row)

    def add_all(self, kind: str, rows: Iterable[int]) -> None:
        """Note that each of `rows` has the fault `kind`."""
        for row in rows:
            self.add(kind, int(row))

    @property
    def bad_rows(self) -> np.ndarray:
        """Indexes of the rows to drop, in order."""
        return np.unique(np.frombuffer(self._bad, dtype=np.int64)) if self._bad else np.empty(0, dtype=np.int64)

    def findings(self) -> list[Finding]:
        """What was found, in the order of the table."""
        return [
            Finding(kind, severity, self._counts[kind], tuple(self._rows[kind]), text + self._details.get(kind, ""))
            for kind, (severity, text) in KINDS.items()
            if self._counts[kind]
        ]
