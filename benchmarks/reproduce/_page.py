"""Puts a script's result between its two marks in docs/reproductions.md, so that the page says what was run."""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reproductions.md"
IMAGES = ROOT / "docs" / "images"


def put(name: str, text: str) -> None:
    """Replace what stands between the marks of `name`, atomically."""
    page = PAGE.read_text("utf-8")
    start, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if start not in page or end not in page:
        raise SystemExit(f"{PAGE} lacks the marks {start} and {end}.")
    made = re.sub(
        f"{re.escape(start)}.*?{re.escape(end)}", lambda _: f"{start}\n{text.strip()}\n{end}", page, flags=re.S
    )
    partial = PAGE.with_suffix(".partial")
    partial.write_text(made, "utf-8")
    os.replace(partial, PAGE)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first to the right."""
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
