"""What a row holds beside its texts: the chat template's arguments, images, and columns that nobody reads."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ._kinds import Tally
from ._text import Options, Pair

IMAGE_COLUMNS = ("image", "images")
_NO_OPTIONS: Options = {"tools": None}
# Arguments of `apply_chat_template` itself, some of which TRL gives.
_RESERVED = frozenset(
    (
        *("conversation", "messages", "tokenize", "add_generation_prompt", "continue_final_message", "return_dict"),
        *("return_tensors", "return_assistant_tokens_mask", "padding", "truncation", "max_length", "tokenizer_kwargs"),
    )
)
# What data sets call the conversation so far.
_PROMPTS = ("messages", "conversation", "conversations", "history", "context", "question", "instruction", "query")
_ROLES = ("system", "user", "assistant", "tool")  # of TRL's `prepare_multimodal_messages`


def read_options(batch: Mapping[str, list[object]], index: int, row: int, tally: Tally) -> Options | None:
    """The chat template's arguments that TRL takes from a row: its tools and its `chat_template_kwargs`.

    TRL reads both in rows of plain text, too, where nothing comes of them.

    Args:
        batch: Columns of rows.
        index: Which of them.
        row: Its number in the data set.
        tally: Where a fault goes.

    Returns:
        The arguments; None where TRL could not read them.
    """
    tools = batch["tools"][index] if "tools" in batch else None
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            tally.add("bad_template_options", row, f"`tools` is no JSON: {tools[:60]!r}")
            return None
    if "chat_template_kwargs" not in batch:
        return {"tools": tools} if tools is not None else _NO_OPTIONS
    more = batch["chat_template_kwargs"][index]
    if not isinstance(more, dict):
        came = "missing" if more is None else f"a {type(more).__name__}"
        tally.add("bad_template_options", row, f"`chat_template_kwargs` is {came}")
        return None
    taken = sorted(_RESERVED & more.keys())
    if taken:
        tally.add("bad_template_options", row, f"`chat_template_kwargs` holds `{taken[0]}`, no variable of a template")
        return None
    return {"tools": tools, **more}


def has_images(batch: Mapping[str, list[object]], index: int, pair: Pair, tally: Tally) -> bool:
    """Whether a row has as many images as its messages say, as far as that can be told without opening them.

    Source: trl 1.16, `trl.data_utils.prepare_multimodal_messages`.
    """
    if "image" in batch:
        images: object = [batch["image"][index]]
    else:
        images = batch["images"][index]
    fault = _image_fault(images, pair)
    if fault:
        tally.add("bad_images", pair.row, fault)
    return not fault


def unread_prompt(batch: Mapping[str, list[object]]) -> str:
    """The column that seems to hold the prompt where there is none of that name; empty if there is none.

    A copy of the chosen conversation, which some data sets have beside it, is no prompt.
    """
    for name in _PROMPTS:
        values = zip(batch.get(name, ()), batch["chosen"], strict=False)
        told, chosen = next(((value, text) for value, text in values if value), (None, None))
        if isinstance(told, str | list) and isinstance(chosen, str | list) and chosen[: len(told)] != told:
            return name
    return ""


def _image_fault(images: object, pair: Pair) -> str:
    if not isinstance(images, list) or any(image is None for image in images):
        return "an image is missing"
    if isinstance(pair.prompt, str):
        return ""
    messages = [message for text in (pair.prompt, *pair.completions) for message in text if isinstance(message, dict)]
    stranger = next((message["role"] for message in messages if message["role"] not in _ROLES), None)
    if stranger is not None:
        return f"the role {str(stranger)[:40]!r} is not known where there are images"
    # The first message of the user that is plain text is given all images.
    plain = any(message["role"] == "user" and isinstance(message.get("content"), str) for message in pair.prompt)
    wanted = _placeholders(pair.prompt) + plain * len(images)
    if wanted != len(images):
        return f"{len(images)} images for {wanted} places in the prompt"
    if any(_placeholders(text) for text in pair.completions if isinstance(text, list)):
        return "a completion has a place for an image"
    return ""


def _placeholders(messages: list[dict[str, object]]) -> int:
    return sum(
        isinstance(part, dict) and part.get("type") == "image" and "image" not in part
        for message in messages
        if message["role"] != "tool" and isinstance(content := message.get("content"), list)
        for part in content
    )
