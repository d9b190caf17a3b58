"""The errors that prefalign raises on purpose: each names the argument, what is required, what came, and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PrefalignError(ValueError):
    """Base of every error that prefalign raises on purpose; the command line prints it and exits with code 2.

    Messages quote what came, which may be hostile: control characters and halves of surrogate pairs are escaped.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(_printable(each) if isinstance(each, str) else each for each in args))


class LossError(PrefalignError):
    """A loss was given a hyperparameter out of range, or a batch that lacks what it needs."""


class ConfigError(PrefalignError):
    """A training option is unknown, misspelt, contradictory, or would have no effect."""


class DataError(PrefalignError):
    """A data set cannot be trained on."""


class CheckpointError(PrefalignError):
    """Weights, a tokenizer or a saved state cannot be read, or do not fit together."""


class DerivationError(PrefalignError):
    """A loss has no reading as a preference structure; the message says why and what would have one."""


class UnknownLossError(PrefalignError, KeyError):
    """No loss has that name; a KeyError too, as looking a name up in a mapping raises."""

    __str__ = BaseException.__str__  # a KeyError would put quotes around the message


class SpecError(PrefalignError):
    """A specification contradicts itself or asks for what cannot be decided."""


class TrainingError(PrefalignError):
    """A run had to stop; the message says where the last good state lies."""


class ParseError(PrefalignError):
    """Text is not in the grammar; the message quotes it with a caret under the wrong place.

    Args:
        message: What is wrong and the remedy, without the text.
        text: The whole text that the user gave.
        position: Index of the first wrong character, 0 to len(text).
    """

    def __init__(self, message: str, text: str, position: int) -> None:
        super().__init__(f"{message}\n{_pointer(text, position)}")
        self.text = text
        self.position = position


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known word, or nothing.

    Example:
        >>> did_you_mean("betta", ["beta", "gamma"])
        ' Did you mean `beta`?'
        >>> did_you_mean("zzz", ["beta", "gamma"])
        ''
    """
    # A word much longer than any known one is no misspelling, and difflib is quadratic.
    names = list(known)
    if not names or len(word) > 3 * max(map(len, names)):
        return ""
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not near:
        near = [name for name in names if name.lower() == word.lower()]
    return f" Did you mean `{near[0]}`?" if near else ""


def _printable(text: str) -> str:
    """`text` with what a terminal would obey, or could not print, written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def _pointer(text: str, position: int, width: int = 100) -> str:
    """The line of `text` that holds `position`, cut to `width`, with a caret below."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    line = text[start : end if end != -1 else len(text)]
    column = position - start
    first = max(0, min(column - width // 2, len(line) - width))
    shown = line[first : first + width]
    # A tab or a control character would move the caret; a lone surrogate could not be printed.
    shown = "".join(c if c.isprintable() and not "\ud800" <= c <= "\udfff" else "?" for c in shown)
    return f"    {shown}\n    {' ' * (column - first)}^"
