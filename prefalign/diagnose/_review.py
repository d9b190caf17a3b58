"""What a person decided on suspicious pairs.

The list of suspects is JSON Lines: a person may write "keep", "drop" or "swap" into `decision`, and it is honoured.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._errors import DataError

DECISIONS = ("", "keep", "drop", "swap")
_TEXTS = ("prompt", "chosen", "rejected")


def read_review(path: str | os.PathLike[str]) -> dict[int, dict[str, Any]]:
    """The lines in which a person decided, by row, each with its `decision` in lower case.

    Raises:
        DataError: The file cannot be read, or a line is no suspect; the line is named.
    """
    try:
        lines = Path(path).read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    review = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            suspect = json.loads(line)
            row, decision = suspect["row"], str(suspect.get("decision") or "").strip().lower()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise DataError(f"{path}, line {number} is no suspect: an object with `row` and `decision`.") from None
        if isinstance(row, bool) or not isinstance(row, int) or row < 0 or decision not in DECISIONS:
            raise DataError(
                f'{path}, line {number}: `decision` must be "keep", "drop", "swap" or empty, and `row` a row number '
                f"(got {decision!r}, {row!r})."
            )
        if decision:
            review[row] = {**suspect, "decision": decision}
    return review


def read_decisions(path: str | os.PathLike[str]) -> dict[int, str]:
    """What a person decided, by row; rows without a decision are left out.

    Raises:
        DataError: The file cannot be read, or a line is no suspect; the line is named.
    """
    return {row: suspect["decision"] for row, suspect in read_review(path).items()}


def check_review(review: Mapping[int, Mapping[str, Any]], pairs: Any, rows: Sequence[int] | None = None) -> None:
    """Refuse a review of other data: each row must be there, with the texts that the person saw.

    Args:
        review: What `read_review` gave. A line that holds none of the texts is taken at its row's word.
        pairs: The data that are to be changed.
        rows: Where each pair stands in the user's data; None: in order.

    Raises:
        DataError: A row is not among `rows`, or another text stands there; the row is named.
    """
    places = {row: place for place, row in enumerate(rows if rows is not None else range(len(pairs)))}
    for row, suspect in sorted(review.items()):
        if row not in places:
            raise DataError(
                f"The review speaks of row {row}, which the data do not have or which cannot be trained on. "
                "Is it of other data?"
            )
        pair = pairs[places[row]]
        for name in _TEXTS:
            if name not in suspect:
                continue
            seen, there = _as_read(suspect[name]), _as_read(pair.get(name))
            if seen != there:
                raise DataError(
                    f"The review is of other data: as `{name}` of row {row} it has {_short(seen)}, and the data have "
                    f"{_short(there)}. List the suspects of these data with `--out`, and review those."
                )


def _as_read(value: Any) -> Any:
    """A text or conversation as it comes back from a list: lone surrogates replaced, empty fields left out."""
    written = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace")
    return json.loads(written, object_hook=lambda one: {key: kept for key, kept in one.items() if kept is not None})


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
