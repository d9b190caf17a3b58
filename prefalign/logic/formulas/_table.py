"""Truth tables as text and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..._errors import SpecError

MAX_SHOWN = 8


def text_table(head: Sequence[str], last: Sequence[str]) -> str:
    """A truth table as text.

    Args:
        head: The atoms as they are printed, then the title of the last column.
        last: The last column's cells, row by row; the first atom varies slowest, true before false.
    """
    rows = [list(head), *_body(len(head) - 1, last)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def html_table(head: Sequence[str], last: Sequence[str]) -> str:
    """A truth table as an HTML table; the arguments are those of `text_table`."""
    lines = [
        "<table>",
        "<thead><tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr></thead>",
        "<tbody>",
    ]
    body = _body(len(head) - 1, last)
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return "\n".join([*lines, "</tbody>", "</table>"])


def check_atoms(atoms: Sequence[str]) -> None:
    """Refuse a table that is too long to read.

    Raises:
        SpecError: There are more than 8 atoms.
    """
    if len(atoms) > MAX_SHOWN:
        raise SpecError(
            f"a table can be printed over at most {MAX_SHOWN} atoms (got {len(atoms)}: 2^{len(atoms)} rows)."
        )


def _body(count: int, last: Sequence[str]) -> list[list[str]]:
    return [
        [*("F" if row >> (count - 1 - place) & 1 else "T" for place in range(count)), cell]
        for row, cell in enumerate(last)
    ]
