"""Held-out negative log-likelihood: what the ways of making soups and the paths between checkpoints are judged by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from tqdm import tqdm

from ..._errors import DataError

Row = Mapping[str, Any]
_SCORED = ("chosen", "completion", "text", "messages")


@dataclass(frozen=True)
class Example:
    """A text as tokens; those from `start` on are scored."""

    tokens: tuple[int, ...]
    start: int


class HeldOut:
    """Texts that no ingredient was trained on, tokenised once.

    Args:
        rows: Mappings with `prompt` and `chosen` (or `completion`), as text or as messages, where the completion is
            scored; or with `text` or `messages` alone, where everything is.
        tokenizer: The models' tokenizer.
        max_length: Tokens of a row that are kept, from the start.
        batch_size: Rows in one forward pass.

    Raises:
        DataError: There is no row, or one has no text to score.
    """

    def __init__(self, rows: Iterable[Row], tokenizer: Any, max_length: int = 1024, batch_size: int = 8) -> None:
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        listed = list(rows)
        self.prompts = [_as_text(row["prompt"], tokenizer, True) for row in listed if row.get("prompt")]
        examples = (_tokenise(number, row, tokenizer, max_length) for number, row in enumerate(listed))
        # Rows of like length share a batch, so that little of it is padding.
        self.examples = sorted(
            (example for example in examples if len(example.tokens) > example.start), key=lambda e: len(e.tokens)
        )
        if not self.examples:
            raise DataError(
                f"The held-out data must have at least one row with text to score (got {len(listed)} rows)."
            )

    @property
    def scored(self) -> int:
        """Number of tokens that are scored."""
        return sum(len(example.tokens) - example.start for example in self.examples)

    @torch.no_grad()
    def nll(self, model: torch.nn.Module, progress: bool = False) -> float:
        """Negative log-likelihood in nats, mean over all scored tokens; a model in training goes on in it."""
        training = model.training
        model.eval()
        batches = tqdm(list(self._batches()), desc="Held-out loss", delay=2.0, leave=False, disable=not progress)
        total = sum(float(self._sum(model, batch)) for batch in batches)
        model.train(training)
        return total / self.scored

    def backward(self, model: torch.nn.Module, progress: bool = False) -> float:
        """The same, and its gradient added to the parameters' `grad`."""
        model.eval()
        total = 0.0
        for batch in tqdm(list(self._batches()), desc="Gradient", delay=2.0, leave=False, disable=not progress):
            loss = self._sum(model, batch) / self.scored
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _batches(self) -> Iterator[Sequence[Example]]:
        for first in range(0, len(self.examples), self.batch_size):
            yield self.examples[first : first + self.batch_size]

    def _sum(self, model: torch.nn.Module, batch: Sequence[Example]) -> torch.Tensor:
        device = next(model.parameters()).device
        width = max(len(example.tokens) for example in batch)
        # Padding is masked, so that any token serves.
        tokens_BT = torch.zeros(len(batch), width, dtype=torch.long)
        mask_BT = torch.zeros_like(tokens_BT)
        labels_BT = torch.full_like(tokens_BT, -100)
        for row, example in enumerate(batch):
            tokens = torch.tensor(example.tokens)
            tokens_BT[row, : len(tokens)] = tokens
            mask_BT[row, : len(tokens)] = 1
            labels_BT[row, example.start : len(tokens)] = tokens[example.start :]
        tokens_BT, mask_BT, labels_BT = (tensor.to(device) for tensor in (tokens_BT, mask_BT, labels_BT))
        logits_BTV = model(input_ids=tokens_BT, attention_mask=mask_BT, use_cache=False).logits[:, :-1].float()
        return functional.cross_entropy(
            logits_BTV.flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=-100, reduction="sum"
        )


def _tokenise(number: int, row: Row, tokenizer: Any, max_length: int) -> Example:
    key = next((key for key in _SCORED if row.get(key)), None)
    if key is None:
        raise DataError(f"Row {number} of the held-out data must have one of {list(_SCORED)} (got {sorted(row)}).")
    prompt, scored = row.get("prompt"), row[key]
    if isinstance(scored, str):
        before = _as_text(prompt, tokenizer, True) if prompt else ""
        eos = tokenizer.eos_token or ""
        whole = before + scored + ("" if scored.endswith(eos) else eos)
    else:
        before = _as_text(prompt, tokenizer, True) if prompt else ""
        whole = _as_text([*(prompt or []), *scored], tokenizer, False)
    special = isinstance(scored, str)
    tokens = tokenizer(whole, add_special_tokens=special)["input_ids"][:max_length]
    start = 0
    if before:
        prefix = tokenizer(before, add_special_tokens=special)["input_ids"]
        start = next((i for i, (a, b) in enumerate(zip(prefix, tokens, strict=False)) if a != b), len(prefix))
    return Example(tuple(tokens), max(start, 1))  # the first token is never predicted


def _as_text(prompt: Any, tokenizer: Any, ask: bool) -> str:
    if isinstance(prompt, str):
        return prompt
    return str(tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=ask))
