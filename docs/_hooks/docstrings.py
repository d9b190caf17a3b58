"""Griffe extension: docstrings hold formulas; Markdown must not take their asterisks for emphasis."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Example|Examples|Source|Note)s?:", re.MULTILINE)


class Formulas(griffe.Extension):
    """Sets a paragraph that is a formula as code, and escapes asterisks elsewhere."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every object that is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = tidy(obj.docstring.value)


def tidy(text: str) -> str:
    """The docstring with formulas that Markdown leaves alone."""
    first = _SECTION.search(text)
    head, tail = (text, "") if first is None else (text[: first.start()], text[first.start() :])
    paragraphs = head.split("\n\n")
    head = "\n\n".join(paragraphs[:1] + [_indent(p) if _is_formula(p) else _escape(p) for p in paragraphs[1:]])
    sections = re.split(r"(?m)^(?=\w+:)", tail)
    return head + "".join(_section(section) for section in sections)


def _section(text: str) -> str:
    if text.startswith("Example:"):
        return "Examples:" + text.removeprefix("Example:")  # the word under which Griffe looks for sessions
    return _escape(text)


def _is_formula(paragraph: str) -> bool:
    text = paragraph.strip()
    return bool(text) and not text.endswith((".", ":")) and bool(re.search(r"[*/=|]|log|\(", text))


def _indent(paragraph: str) -> str:
    return "\n".join("    " + line if line.strip() else line for line in paragraph.split("\n"))


def _escape(text: str) -> str:
    # Odd pieces stand between backticks.
    pieces = text.split("`")
    return "`".join(p if i % 2 else p.replace("*", "\\*") for i, p in enumerate(pieces))
