"""Which tokens of a conversation count: all of the completion, the assistant's turns, or its last turn alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from .._errors import DataError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Score = Literal["completion", "assistant", "last_turn"]
Message = Mapping[str, Any]
Span = tuple[int, int]
_TRAINING = "`trl.chat_template_utils.get_training_chat_template` makes one for many families"


class Scored(NamedTuple):
    """A prompt and a completion as tokens.

    Attributes:
        ids: Token ids of both, one after the other.
        marks: 1 at tokens that count, 0 elsewhere; as many.
        offsets: Where each token stands in `text`, in characters.
        text: The rendered conversation.
    """

    ids: list[int]
    marks: list[int]
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
        marks = [int(any(a < end and b > start for start, end in spans)) for a, b in offsets]
        return Scored(ids, marks, offsets, text)

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
