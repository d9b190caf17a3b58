"""Which tokens count, and how much: turns of a conversation, steps of an answer, a weight for each token."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from .._errors import DataError, did_you_mean
from .checking import common_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Score = Literal["completion", "assistant", "last_turn"]
SIDES = ("chosen", "rejected")
STEPS = ("chosen_steps", "rejected_steps")
WEIGHTS = ("chosen_token_weights", "rejected_token_weights")
Message = Mapping[str, Any]
Span = tuple[int, int]
_TRAINING = "`trl.chat_template_utils.get_training_chat_template` makes one for many families"


class Scored(NamedTuple):
    """A prompt and a completion as tokens.

    Attributes:
        ids: Token ids of both, one after the other.
        marks: How much each token counts: 1 or 0, or the weight that it was given; as many.
        offsets: Where each token stands in `text`, in characters.
        text: The rendered conversation.
    """

    ids: list[int]
    marks: list[float]
    offsets: list[Span]
    text: str


def check_score(score: object) -> None:
    """Refuse an unknown value of the option `score`.

    Raises:
        DataError: It is none of the three.
    """
    if score not in get_args(Score):
        known = ", ".join(map(repr, get_args(Score)))
        raise DataError(
            f"`score` must be one of {known} (got {score!r:.60}).{did_you_mean(str(score), get_args(Score))}"
        )


def template_options(row: Mapping[str, Any]) -> dict[str, Any]:
    """The chat template's arguments in a row, as TRL reads them."""
    tools = row.get("tools")
    return {"tools": json.loads(tools) if isinstance(tools, str) else tools, **(row.get("chat_template_kwargs") or {})}


class Scorer:
    """Marks the tokens of conversations that count.

    The assistant's turns are found in this order: by the `{% generation %}` marks of the tokenizer's chat template; by
    those of TRL's training variant of it, where that renders the same text; else as what each turn adds to the
    conversation before it, with the prompt that opens the turn.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        score: What counts.

    Raises:
        DataError: The tokenizer cannot tell where a token stands in the text, or has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, score: Score) -> None:
        check_score(score)
        self._tokenizer, self.score = tokenizer, score
        if score == "completion":
            return
        if not getattr(tokenizer, "is_fast", False):
            raise DataError(
                f"`score={score!r}` needs a fast tokenizer, which knows where each token stands in the text."
            )
        template = getattr(tokenizer, "chat_template", None)
        if not isinstance(template, str):
            raise DataError(f"`score={score!r}` needs a tokenizer with one chat template (`tokenizer.chat_template`).")
        self._marked = next((each for each in (template, _training_variant(tokenizer)) if _has_marks(each)), None)

    def scored(self, prompt: Sequence[Message], completion: Sequence[Message], options: Mapping[str, Any]) -> Scored:
        """The tokens of a conversation, and which of its completion's count.

        Args:
            prompt, completion: Messages.
            options: The chat template's arguments.

        Raises:
            DataError: The assistant's turns cannot be found, or none is in the completion.
        """
        messages = [*prompt, *completion]
        text = self._render(messages, options)
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = list(encoded["input_ids"]), [(int(a), int(b)) for a, b in encoded["offset_mapping"]]
        turns = [place for place in range(len(prompt), len(messages)) if messages[place].get("role") == "assistant"]
        if not turns:
            raise DataError(f"`score={self.score!r}` needs a turn of the assistant in every completion.")
        wanted = turns if self.score == "assistant" else turns[-1:]
        spans = self._spans(messages, wanted, text, options)
        return Scored(ids, _inside(offsets, spans), offsets, text)

    def _render(self, messages: Sequence[Message], options: Mapping[str, Any], opened: bool = False) -> str:
        render: Any = self._tokenizer.apply_chat_template
        return str(render(list(messages), tokenize=False, add_generation_prompt=opened, **options))

    def _spans(
        self, messages: Sequence[Message], turns: Sequence[int], text: str, options: Mapping[str, Any]
    ) -> list[Span]:
        """Where these turns of the assistant stand in the text, in characters."""
        if self._marked is not None:
            rendered, spans = self._generated(messages, options)
            if rendered == text:
                found = []
                for turn in turns:
                    first, last = (len(self._generated(messages[:end], options)[1]) for end in (turn, turn + 1))
                    found += spans[first:last]
                return found
        return [self._added(messages, turn, text, options) for turn in turns]

    def _generated(self, messages: Sequence[Message], options: Mapping[str, Any]) -> tuple[str, list[Span]]:
        """What the marked template renders, and what in it stands between its marks."""
        from transformers.utils.chat_template_utils import render_jinja_template

        if not messages:
            return "", []
        clean = [{key: value for key, value in message.items() if value is not None} for message in messages]
        arguments = {**self._tokenizer.special_tokens_map, **options}
        rendered, spans = render_jinja_template(
            conversations=[clean], chat_template=self._marked, return_assistant_tokens_mask=True, **arguments
        )
        return rendered[0], [(int(start), int(end)) for start, end in spans[0]]

    def _added(self, messages: Sequence[Message], turn: int, text: str, options: Mapping[str, Any]) -> Span:
        """What a turn adds to the conversation before it and the prompt that opens it."""
        before = self._render(messages[:turn], options, opened=True)
        after = self._render(messages[: turn + 1], options)
        if not (text.startswith(after) and after.startswith(before)):
            raise DataError(
                f"`score={self.score!r}` cannot find the assistant's turns: the chat template renders a turn in "
                "another way once others follow it, or opens it in another way. Use a template that marks them with "
                f"{{% generation %}} ({_TRAINING})."
            )
        return len(before), len(after)


def scored_pair(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, scorer: Scorer
) -> tuple[int, tuple[Scored, Scored]]:
    """Both sides of a pair as tokens, with how much each token counts; nothing counts in the prompt.

    What `score` marks is multiplied by the columns `chosen_token_weights` and `rejected_token_weights`, a number for
    each token of the completion. `chosen_steps` and `rejected_steps` are spans of characters of a completion that is
    plain text: what lies outside does not count. A side whose column holds nothing counts as it would without.

    Args:
        row: `prompt`, `chosen`, `rejected`, and these columns.
        tokenizer: A fast tokenizer.
        scorer: What counts by turns.

    Returns:
        How many tokens the prompt has, as TRL divides it from the completions, and the two sides.

    Raises:
        DataError: A column does not fit, or the assistant's turns cannot be found.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise DataError("Marking tokens needs a fast tokenizer, which knows where a token stands in the text.")
    options, prompt = template_options(row), row["prompt"]
    conversational = isinstance(row["chosen"], list)
    if conversational:
        start = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **options)
    elif scorer.score == "completion":
        start = prompt
    else:
        raise DataError(
            f"`score={scorer.score!r}` counts turns, and the data are plain texts, whose completion is one turn. "
            "Leave it out."
        )
    alone: list[int] = tokenizer(start, add_special_tokens=not conversational)["input_ids"]
    sides = [_side(row, side, tokenizer, scorer, options) for side in SIDES]
    length = min(common_length(alone, found.ids) for found in sides)
    chosen, rejected = (_weighted(row, side, found, length) for side, found in zip(SIDES, sides, strict=True))
    return length, (chosen, rejected)


def _side(row: Mapping[str, Any], side: str, tokenizer: Any, scorer: Scorer, options: Mapping[str, Any]) -> Scored:
    """Prompt and completion as tokens, with what `score` and the steps mark."""
    prompt, completion, steps = row["prompt"], row[side], row.get(f"{side}_steps")
    conversational = isinstance(completion, list)
    if scorer.score != "completion":
        found = scorer.scored(prompt, completion, options)
    else:
        if conversational:
            text = tokenizer.apply_chat_template([*prompt, *completion], tokenize=False, **options)
        else:
            text = prompt + (
                completion if completion.endswith(tokenizer.eos_token) else completion + tokenizer.eos_token
            )
        encoded = tokenizer(text, add_special_tokens=not conversational, return_offsets_mapping=True)
        offsets = [(int(a), int(b)) for a, b in encoded["offset_mapping"]]
        found = Scored(list(encoded["input_ids"]), [1] * len(offsets), offsets, text)
    if steps is None:
        return found
    if conversational:
        raise DataError(f"`{side}_steps` counts characters of a plain text, and `{side}` is a conversation.")
    return found._replace(marks=_inside(found.offsets, _spans_of(steps, f"{side}_steps", prompt, completion)))


def _spans_of(steps: object, name: str, prompt: str, completion: str) -> list[Span]:
    """The spans of a column, counted from the prompt's start."""
    spans: list[Span] = []
    each: list[Any] = steps if isinstance(steps, list) else [steps]
    for span in each:
        whole = isinstance(span, list) and len(span) == 2 and all(type(end) is int for end in span)
        if not whole or not 0 <= span[0] < span[1] <= len(completion):
            raise DataError(
                f"`{name}` must be a list of [start, end] with 0 <= start < end <= {len(completion)}, the characters "
                f"of the completion (got {steps!r:.80})."
            )
        spans.append((len(prompt) + span[0], len(prompt) + span[1]))
    return spans


def _weighted(row: Mapping[str, Any], side: str, found: Scored, length: int) -> Scored:
    """What counts in the completion alone, times the weights of the column."""
    marks: list[float] = [0] * length + found.marks[length:]
    name = f"{side}_token_weights"
    weights = row.get(name)
    if weights is not None:
        numbers = isinstance(weights, list) and all(type(w) in (int, float) and 0 <= w < math.inf for w in weights)
        if not numbers or len(weights) != len(marks) - length:
            got = f"{len(weights)} of them" if numbers else f"{weights!r:.80}"
            raise DataError(
                f"`{name}` must hold a finite number >= 0 for each of the completion's {len(marks) - length} tokens, "
                f"its end of text among them (got {got})."
            )
        marks[length:] = [float(mark * weight) for mark, weight in zip(marks[length:], weights, strict=True)]
    return found._replace(marks=marks)


def _inside(offsets: Sequence[Span], spans: Sequence[Span]) -> list[float]:
    """1 for each token that shares a character with a span, else 0."""
    return [int(any(a < end and b > start for start, end in spans)) for a, b in offsets]


def _has_marks(template: str | None) -> bool:
    return template is not None and "generation %}" in template.replace("generation -%}", "generation %}")


def _training_variant(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """TRL's variant of the chat template with `{% generation %}` marks; None where it has none."""
    from trl.chat_template_utils import get_training_chat_template

    try:
        found: str | None = get_training_chat_template(tokenizer)
    except ValueError:  # not one of the templates that it knows
        return None
    return found
