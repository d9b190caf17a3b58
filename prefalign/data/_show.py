"""Rows as training sees them: the prompt, what is scored, and what is not, as text, in colour, or as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ._layout import find_layout
from ._scored import SIDES, Score, Scored, Scorer, scored_pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["prompt", "scored", "unscored"]
_ANSI: dict[Kind, str] = {"prompt": "2", "scored": "30;42", "unscored": "31"}
_STYLE: dict[Kind, str] = {
    "prompt": "opacity:.6",
    "scored": "background:#9fe0b0;color:#000",
    "unscored": "color:#b3261e",
}


class Shown(NamedTuple):
    """A completion with its prompt, in pieces.

    Attributes:
        row: The row's number.
        side: "chosen" or "rejected".
        pieces: (kind, text), in order; joined, the text that is tokenised.
        scored: How many tokens count.
        tokens: How many the completion has.
    """

    row: int
    side: str
    pieces: tuple[tuple[Kind, str], ...]
    scored: int
    tokens: int


def show_pairs(
    pairs: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, score: Score = "completion", count: int = 3
) -> list[Shown]:
    """The first rows as they are trained on, with what is scored.

    Args:
        pairs: Pairs in one of TRL's layouts.
        tokenizer: A fast tokenizer.
        score: What counts.
        count: How many rows.

    Raises:
        DataError: The tokenizer is not fast, the turns cannot be found, or the data hold winners alone.
    """
    scorer = Scorer(tokenizer, score)
    return [shown for number, row in enumerate(islice(pairs, count)) for shown in _row(number, row, tokenizer, scorer)]


def _row(number: int, row: Mapping[str, Any], tokenizer: Any, scorer: Scorer) -> Iterator[Shown]:
    if find_layout(row, winners_only=False) == "implicit":
        from trl.data_utils import extract_prompt

        row = {**row, **extract_prompt(dict(row))}
    length, sides = scored_pair(row, tokenizer, scorer)
    for side, found in zip(SIDES, sides, strict=True):
        scored = sum(mark > 0 for mark in found.marks)
        yield Shown(number, side, tuple(_pieces(found, length)), scored, len(found.ids) - length)


def _pieces(found: Scored, length: int) -> Iterator[tuple[Kind, str]]:
    """The text by kind; a character that several tokens share goes to the first of them."""
    place, kind, begun = 0, None, 0
    for number, (mark, (_, end)) in enumerate(zip(found.marks, found.offsets, strict=True)):
        now: Kind = "prompt" if number < length else "scored" if mark else "unscored"
        if now != kind and kind is not None and place > begun:
            yield kind, found.text[begun:place]
            begun = place
        kind, place = now, max(place, end)
    if kind is not None:
        yield kind, found.text[begun:]


def as_text(rows: Iterable[Shown], colour: bool) -> str:
    """For a terminal: scored text on green, unscored text of the completion in red; else scored text in brackets."""

    def paint(kind: Kind, text: str) -> str:
        if not colour:
            return f"⟦{text}⟧" if kind == "scored" else text
        # A colour ends with its line, or a terminal would paint the margin.
        return "\n".join(f"\x1b[{_ANSI[kind]}m{line}\x1b[0m" if line else "" for line in text.split("\n"))

    return "\n\n".join(f"{_title(row)}\n" + "".join(paint(*piece) for piece in row.pieces) for row in rows)


def as_html(rows: Iterable[Shown]) -> str:
    """A page of its own."""
    parts = ["<!DOCTYPE html><meta charset='utf-8'><title>What is scored</title>"]
    parts.append("<style>pre{white-space:pre-wrap;border:1px solid #ccc;padding:1em}</style>")
    for row in rows:
        pieces = "".join(f'<span style="{_STYLE[kind]}">{html.escape(text)}</span>' for kind, text in row.pieces)
        parts.append(f"<h2>{html.escape(_title(row))}</h2><pre>{pieces}</pre>")
    return "\n".join(parts) + "\n"


def _title(row: Shown) -> str:
    return f"Row {row.row}, {row.side}: {row.scored} of {row.tokens} completion tokens are scored"
