"""Which of TRL's layouts a table of pairs has, read off its column names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from .._errors import DataError, did_you_mean

# explicit: prompt, chosen, rejected. implicit: chosen and rejected, each beginning with the prompt.
# winners: prompt and one good completion, for losses that make the other one themselves (SePPO).
Layout = Literal["explicit", "implicit", "winners"]

TEXT_COLUMNS = ("prompt", "chosen", "rejected", "completion")


def find_layout(columns: Iterable[str], *, winners_only: bool | None = None) -> Layout:
    """The layout of a table with these columns.

    Args:
        columns: The column names.
        winners_only: True where the loss makes its own second completion, False where it needs two, None if either
            will do.

    Raises:
        DataError: The columns are no layout of pairs, or not the one that is asked for.

    Example:
        >>> find_layout(["prompt", "chosen", "rejected", "score"])
        'explicit'
        >>> find_layout(["prompt", "completion"])
        'winners'
    """
    names = list(columns)
    have = set(names)
    if {"chosen", "rejected"} <= have:
        return "explicit" if "prompt" in have else "implicit"
    came = f"(got {', '.join(f'`{name}`' for name in names) or 'no columns'})"
    if "label" in have and "completion" in have:
        raise DataError(
            f"Pairs need the columns `chosen` and `rejected` {came}. One completion with a `label` is unpaired "
            "feedback: join the good and the bad completion of each prompt into one row."
        )
    if "prompt" in have and have & {"chosen", "completion"}:
        if winners_only is not False:
            return "winners"
        raise DataError(
            f"Pairs need the column `rejected` {came}.{_near('rejected', have)} Chosen completions alone "
            "are enough for `sft`, which needs no others, and for `seppo`, whose others are generated."
        )
    missing = [name for name in ("prompt", "chosen", "rejected") if name not in have]
    hints = "".join(_near(name, have) for name in missing)
    remedy = hints or " Rename the columns that hold them."
    raise DataError(f"Pairs need the columns `prompt`, `chosen` and `rejected` {came}.{remedy}")


def completion_columns(layout: Layout, columns: Iterable[str]) -> tuple[str, ...]:
    """The columns that hold completions, the chosen one first."""
    if layout != "winners":
        return ("chosen", "rejected")
    return ("chosen",) if "chosen" in set(columns) else ("completion",)


def _near(missing: str, have: set[str]) -> str:
    """A hint that one of the columns is `missing` misspelt, or nothing."""
    strangers = sorted(have - set(TEXT_COLUMNS))
    hint = did_you_mean(missing, strangers).partition("`")[2].partition("`")[0]
    return f" Is `{hint}` meant to be `{missing}`?" if hint else ""
