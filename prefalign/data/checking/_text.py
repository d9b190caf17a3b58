"""What can be said about a pair from its texts alone, before any tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .._layout import Layout
from ._kinds import MOST_CHARACTERS, MOST_MESSAGES, Tally

Text = str | list[dict[str, object]]
Options = Mapping[str, object]  # the chat template's arguments
_Sequence = TypeVar("_Sequence", str, list[int], list[dict[str, object]])


@dataclass(frozen=True, slots=True)
class Pair:
    """A row whose texts can be trained on: the prompt, and one or two completions, the chosen one first."""

    row: int
    prompt: Text
    completions: tuple[Text, ...]


def extract_prompt(chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
    """Split off the common beginning of two texts exactly as TRL's `extract_prompt` does, oddities included.

    TRL keeps at least the last character (or message) of the shorter text as its completion, moves one space from the
    prompt to the completions, and looks for that space at the *end* of the chosen text where nothing is common.

    Args:
        chosen: A non-empty text or conversation.
        rejected: Likewise.

    Returns:
        Prompt, chosen completion, rejected completion.

    Example:
        >>> extract_prompt("The sky is blue", "The sky is blue and vast")
        ('The sky is blu', 'e', 'e and vast')

    Source: trl 1.16, `trl.data_utils.extract_prompt`.
    """
    shorter = min(len(chosen), len(rejected))
    index = common_length(chosen, rejected)  # type: ignore[type-var]  # both are of one kind
    if index == shorter:
        index = shorter - 1
    elif chosen[index - 1] == " ":
        index -= 1
    return chosen[:index], chosen[index:], rejected[index:]


def read_pair(row: int, prompt: object, completions: tuple[object, ...], layout: Layout, tally: Tally) -> Pair | None:
    """Check the texts of one row; None where it cannot be trained on (which is then in the tally)."""
    texts = completions if layout == "implicit" else (prompt, *completions)
    if not all(isinstance(text, str) for text in texts) and not all(isinstance(text, list) for text in texts):
        tally.add("missing_value", row)
        return None
    if not isinstance(texts[0], str) and not all(map(_is_conversation, texts)):
        tally.add("bad_messages", row)
        return None
    good: list[Text] = list(texts)  # type: ignore[arg-type]  # checked above
    if is_too_long(good):
        tally.add("too_long", row)
        return None
    answers = good if layout == "implicit" else good[1:]
    if any(is_blank(answer) for answer in answers):
        tally.add("empty_completion", row)
        return None
    if len(answers) == 2 and answers[0] == answers[1]:
        tally.add("identical", row)
        return None
    if layout == "implicit":
        start, *rest = extract_prompt(good[0], good[1])
        return _read_implicit(Pair(row, start, tuple(rest)), tally)
    return _read_explicit(Pair(row, good[0], tuple(good[1:])), tally)


def common_length(one: _Sequence, other: _Sequence) -> int:
    """How many characters, tokens or messages two sequences have in common at their start.

    Example:
        >>> common_length("carpet", "cargo")
        3
    """
    # Bisection on slices, which are compared in C: a loop over characters would dominate the whole check.
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def is_too_long(texts: Sequence[Text]) -> bool:
    """Whether texts of one row are beyond the limits of characters and messages."""
    messages = max(len(text) for text in texts if isinstance(text, list)) if isinstance(texts[0], list) else 0
    return messages > MOST_MESSAGES or max(map(length, texts)) > MOST_CHARACTERS


def is_blank(text: Text) -> bool:
    """Whether a text or conversation says nothing."""
    if isinstance(text, str):
        return not text.strip()
    return not any(message.get("tool_calls") or _content(message).strip() for message in text)


def length(text: Text) -> int:
    """Characters of a text, or of the contents of all messages."""
    return len(text) if isinstance(text, str) else sum(len(_content(message)) for message in text)


def _read_implicit(pair: Pair, tally: Tally) -> Pair | None:
    if isinstance(pair.prompt, list) and not pair.prompt:
        tally.add("bad_messages", pair.row, "nothing in common, so the prompt has no message")
        return None
    if any(is_blank(completion) for completion in pair.completions):
        tally.add("empty_completion", pair.row, "what TRL leaves after the common beginning is white space")
        return None
    if isinstance(pair.prompt, str):
        starts = [str(completion[0]) for completion in pair.completions]
        if pair.prompt[-1:].isalnum() and any(start.isalnum() for start in starts):
            word = pair.prompt[-20:].split()[-1]
            tally.add("prompt_cut_in_word", pair.row, f"the prompt ends in {word!r}")
    return _warn_about(pair, tally)


def _read_explicit(pair: Pair, tally: Tally) -> Pair:
    size = len(pair.prompt)
    if size and all(completion[:size] == pair.prompt for completion in pair.completions):
        tally.add("prompt_repeated", pair.row)
    return _warn_about(pair, tally)


def _warn_about(pair: Pair, tally: Tally) -> Pair:
    if is_blank(pair.prompt):
        tally.add("empty_prompt", pair.row)
    others = {str(message["role"]) for text in pair.completions if isinstance(text, list) for message in text}
    others -= {"assistant"}
    if others:
        tally.add("later_turns", pair.row, f"{', '.join(sorted(others))[:60]}")
    texts = pair.completions
    if len(texts) == 2 and isinstance(texts[0], str) and isinstance(texts[1], str):
        # A stripped copy is made only where the texts begin alike, which is rare.
        if texts[0][:1].isspace() or texts[1][:1].isspace() or texts[0][:1] == texts[1][:1]:
            same = texts[0].strip() == texts[1].strip()
        else:
            same = False
        if same:
            tally.add("differs_in_space", pair.row)
    return pair


def _is_conversation(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_message(message) for message in value)


def _is_message(message: object) -> bool:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return False
    return isinstance(message.get("content"), (str, list)) or bool(message.get("tool_calls"))


def _content(message: dict[str, object]) -> str:
    """The text of a message, whose content may be a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") or part.get("type") for part in content if isinstance(part, dict)]
        return "".join(str(part) for part in parts if part)
    return content if isinstance(content, str) else ""
