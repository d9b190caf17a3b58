"""Tokens for the small languages of prefalign: formulas, equations, loss expressions, specifications.

Text is scanned and parsed, never evaluated. Each language has its own grammar in its own part; what they share is here:
tokens that know where they stand, errors with a caret, and limits that keep hostile text cheap.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from ._errors import ParseError

MAX_TEXT = 100_000
MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text: its kind (a group name of the language's pattern, or "end"), its characters, where it starts."""

    kind: str
    text: str
    start: int


def compile_pattern(**kinds: str) -> re.Pattern[str]:
    """One pattern out of `kind=regex` pairs, tried in order; white space between tokens is skipped by `TokenStream`."""
    return re.compile("|".join(f"(?P<{kind}>{regex})" for kind, regex in kinds.items()))


class TokenStream:
    """The tokens of `text`, read from left to right.

    Args:
        text: What the user wrote, at most 100 000 characters.
        pattern: From `compile_pattern`.
        what: What the text should be ("a formula"), for error messages.

    Raises:
        ParseError: It is no text, it is too long, or a character is in no token.
    """

    def __init__(self, text: str, pattern: re.Pattern[str], what: str) -> None:
        if not isinstance(text, str):
            raise ParseError(f"A {what} must be text (got {type(text).__name__}).", "", 0)
        if len(text) > MAX_TEXT:
            raise ParseError(f"{what} must have at most {MAX_TEXT} characters (got {len(text)}).", text[:200], 0)
        self.text = text
        self.what = what
        self._tokens = list(_tokens(text, pattern, what))
        self._index = 0
        self._depth = 0

    @property
    def peek(self) -> Token:
        """The next token, of kind "end" where the text is over."""
        return self._tokens[self._index]

    def ahead(self, count: int) -> Token:
        """The token `count` places after the next one."""
        return self._tokens[min(self._index + count, len(self._tokens) - 1)]

    def next(self) -> Token:
        """The next token, taken."""
        token = self._tokens[self._index]
        self._index = min(self._index + 1, len(self._tokens) - 1)
        return token

    def take(self, *texts: str) -> Token | None:
        """The next token, taken, if its characters are one of `texts`."""
        return self.next() if self.peek.kind != "end" and self.peek.text in texts else None

    def expect(self, text: str, why: str) -> Token:
        """The next token, which must be `text`."""
        token = self.take(text)
        if token is None:
            self.fail(f"expected `{text}` {why}")
        return token

    def fail(self, message: str, at: Token | int | None = None) -> NoReturn:
        """Raise a ParseError that points at a token (the next one), quoting the whole text."""
        place = self.peek if at is None else at
        position = place if isinstance(place, int) else place.start
        end = "" if message.endswith("?") else "."
        raise ParseError(f"Malformed {self.what}: {message}{end}", self.text, position)

    @contextmanager
    def nested(self) -> Iterator[None]:
        """Guards one level of nesting: deep text is refused instead of overflowing the stack."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self.fail(f"nested more than {MAX_DEPTH} levels deep")
        try:
            yield
        finally:
            self._depth -= 1


def _tokens(text: str, pattern: re.Pattern[str], what: str) -> Iterator[Token]:
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = pattern.match(text, position)
        if match is None or match.end() == position:
            raise ParseError(f"Malformed {what}: unexpected character {text[position]!a}.", text, position)
        assert match.lastgroup is not None
        yield Token(match.lastgroup, match.group(), position)
        position = match.end()
    yield Token("end", "", len(text))
