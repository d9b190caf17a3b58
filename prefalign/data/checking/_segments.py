"""Token ids of many conversations, of which each piece between two control tokens is tokenised once."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Pieces:
    """Cuts rendered conversations before the control tokens of their chat template, and joins the pieces' ids.

    A fast tokenizer takes its added tokens out of a text before it does anything else, and treats what is left of
    them apart: so the ids of a text are those of its pieces, one after another. A prompt, which stands in front of both
    completions and alone, is tokenised once instead of three times, a system prompt once per batch.

    Args:
        tokenizer: A fast tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._engine: Any = tokenizer.backend_tokenizer
        added = self._engine.get_added_tokens_decoder().values()
        # A token that takes the white space before it, or is found in normalised text, has no place to cut at.
        tokens = [token.content for token in added if token.special and not (token.normalized or token.lstrip)]
        tokens = [token for token in tokens if not any(_overlap(each.content, token) for each in added)]
        self._cut = re.compile(f"(?={'|'.join(map(re.escape, tokens))})") if tokens else None

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens around it."""
        if self._cut is None:
            return [encoding.ids for encoding in self._engine.encode_batch_fast(texts, add_special_tokens=False)]
        rows = [self._cut.split(text) for text in texts]
        pieces = list({piece: None for row in rows for piece in row})
        found = self._engine.encode_batch_fast(pieces, add_special_tokens=False)
        ids = {piece: encoding.ids for piece, encoding in zip(pieces, found, strict=True)}
        return [list(chain.from_iterable(map(ids.__getitem__, row))) for row in rows]


def _overlap(one: str, token: str) -> bool:
    """Whether an occurrence of `one` could reach into one of `token` from the left, or around it."""
    if one == token:
        return False
    return token in one or any(one.endswith(token[:size]) for size in range(1, len(token)))
