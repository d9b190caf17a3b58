"""What TRL's own tokenisation makes of a pair: where the completion starts, doubled BOS and EOS, truncation."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from ..._deadline import memory_limit, time_limit
from ..._errors import DataError
from ._kinds import Tally
from ._segments import Pieces
from ._text import Options, Pair, Text, common_length, is_too_long

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TruncationMode = Literal["keep_start", "keep_end"]


_TEMPLATE_SECONDS = 10
_TEMPLATE_MEMORY = 1 << 30  # bytes


class _NoEnd(DataError):
    """A template that is still running when its time is over, or fills the memory."""


class TokenChecks:
    """Tokenises pairs as TRL's DPOTrainer does, batch by batch, and puts what it finds into a tally.

    Args:
        tokenizer: With an EOS token, and with a chat template where pairs are conversations.
        max_length: Longest sequence that training keeps, in tokens; None for no limit.
        truncation_mode: Which end of a longer sequence is kept.
        conversational: Whether the texts are lists of messages.
        tally: Where findings go.

    Source: trl 1.16, `DPOTrainer._prepare_dataset` and `DataCollatorForPreference`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None,
        truncation_mode: TruncationMode,
        conversational: bool,
        tally: Tally,
    ) -> None:
        self._tokenizer = tokenizer
        self._limit = max_length
        self._mode = truncation_mode
        self._conversational = conversational
        self._tally = tally
        self._tried = False
        self._rendered = False
        self._fast: Callable[[list[str]], list[list[int]]] | None = None
        self.prompt_lengths = array("q")
        self.completion_lengths = (array("q"), array("q"))
        self.truncated = 0
        self.keep: Callable[[int, list[list[int]]], object] | None = None

    def check(self, pairs: Sequence[Pair], options: Sequence[Options]) -> list[Pair]:
        """Check a batch; `options` are the chat template's arguments, one mapping per pair.

        Returns:
            The pairs that can be trained on.
        """
        if self._conversational:
            pairs, texts = self._render(pairs, options)
        else:
            texts = self._join(pairs)
        if not pairs:
            return []
        flat = [text for row in texts for text in row]
        ids = self._encode(flat)
        width = len(texts[0])
        return [
            pair
            for index, pair in enumerate(pairs)
            if self._check_tokens(pair.row, ids[width * index], ids[width * index + 1 : width * (index + 1)])
        ]

    def _join(self, pairs: Sequence[Pair]) -> list[list[str]]:
        """Prompt, and prompt with each completion, which TRL ends with EOS."""
        eos = str(self._tokenizer.eos_token)
        rows = []
        for pair in pairs:
            prompt = str(pair.prompt)
            ends = [str(text) if str(text).endswith(eos) else str(text) + eos for text in pair.completions]
            rows.append([prompt, *(prompt + end for end in ends)])
        return rows

    def _render(self, pairs: Sequence[Pair], options: Sequence[Options]) -> tuple[Sequence[Pair], list[list[str]]]:
        """The same out of conversations, by the chat template; pairs that it refuses go to the tally."""
        if pairs and not self._rendered:
            self._try_template(pairs[0], options[0])
        if pairs and all(extra == options[0] for extra in options):
            try:
                # One call for many conversations spares the preparations of each.
                prompts = self._apply([pair.prompt for pair in pairs], {**options[0], "add_generation_prompt": True})
                sides = zip(*(pair.completions for pair in pairs), strict=True)
                wholes = [
                    self._apply([pair.prompt + text for pair, text in zip(pairs, side, strict=True)], options[0])
                    for side in sides
                ]
                rows = [list(row) for row in zip(prompts, *wholes, strict=True)]
                if not any(map(is_too_long, rows)):
                    return pairs, rows
            except _NoEnd:
                raise
            except Exception:  # a template is a program of its own and may raise anything: find the rows, one by one
                pass
        kept: list[Pair] = []
        rows = []
        for pair, extra in zip(pairs, options, strict=True):
            try:
                prompt = self._apply([pair.prompt], {**extra, "add_generation_prompt": True})
                whole = self._apply([pair.prompt + text for text in pair.completions], extra)  # type: ignore[operator]
            except _NoEnd:
                raise
            except Exception as error:
                self._tally.add("template_error", pair.row, f"{type(error).__name__}: {str(error)[:200]}")
                continue
            if is_too_long([*prompt, *whole]):
                self._tally.add("too_long", pair.row)
                continue
            kept.append(pair)
            rows.append([*prompt, *whole])
        return kept, rows

    def _try_template(self, pair: Pair, options: Options) -> None:
        """Apply the template to one row, which no template needs long for: it is a program, and might never end."""
        self._rendered = True
        try:
            self._apply([pair.prompt], {**options, "add_generation_prompt": True})
        except _NoEnd:
            raise
        except Exception:
            return  # its row is found, and named, with the others

    def _apply(self, conversations: list[Text], options: Options) -> list[str]:
        render: Callable[..., list[str]] = self._tokenizer.apply_chat_template
        seconds = _TEMPLATE_SECONDS + len(conversations) // 10
        overtime = _NoEnd(
            f"The chat template did not end within {seconds} seconds ({len(conversations)} conversations). It is a "
            "program, which comes with the tokenizer: take another one."
        )
        try:
            with time_limit(seconds, overtime), memory_limit(_TEMPLATE_MEMORY):
                return render(conversations, tokenize=False, **options)
        except MemoryError:
            if len(conversations) > 2:  # of many rows, which are tried one by one next
                raise
            raise _NoEnd(
                f"The chat template takes more than {_TEMPLATE_MEMORY >> 20} MiB for one conversation. It is a "
                "program, which comes with the tokenizer: take another one."
            ) from None

    def _encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, as the tokenizer's own call gives them."""
        if self._fast is not None:
            return self._fast(texts)
        ids: list[list[int]] = self._tokenizer(
            texts,
            add_special_tokens=not self._conversational,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        if not self._tried:
            # The engine below the tokenizer is faster, where it says the same; that call also cleared any padding and
            # truncation which the engine had been left with.
            self._tried = True
            if getattr(self._tokenizer, "is_fast", False):
                self._fast = next((way for way in self._ways() if way(texts) == ids), None)
        return ids

    def _ways(self) -> Iterator[Callable[[list[str]], list[list[int]]]]:
        """Ways past the tokenizer's own call, the fastest first."""
        if self._conversational:
            yield Pieces(self._tokenizer).encode
        yield self._directly

    def _directly(self, texts: list[str]) -> list[list[int]]:
        batch = self._tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=not self._conversational)
        return [encoding.ids for encoding in batch]

    def _check_tokens(self, row: int, prompt: list[int], whole: list[list[int]]) -> bool:
        """Check one row of token ids: the prompt alone, and followed by each completion."""
        start = min(common_length(prompt, ids) for ids in whole)
        if start < len(prompt):
            lost = self._tokenizer.decode(prompt[start:])
            self._tally.add("boundary", row, f"{lost!r} is lost" if len(lost) <= 40 else "")
        self._check_specials(row, start, whole)
        fault = self._fault(start, whole)
        if fault:
            self._tally.add(fault, row)
            return False
        if self.keep is not None:
            self.keep(start, whole)
        lengths = [len(ids) - start for ids in whole]
        self.prompt_lengths.append(start)
        for column, length in zip(self.completion_lengths, lengths, strict=False):
            column.append(length)
        if not start:
            self._tally.add("no_context", row)
        if self._limit is not None and start + max(lengths) > self._limit:
            self.truncated += 1
            self._tally.add("truncated", row)
            if self._mode == "keep_end" and max(lengths) >= self._limit:
                self._tally.add("prompt_lost", row)
        return True

    def _check_specials(self, row: int, start: int, whole: list[list[int]]) -> None:
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        if bos is not None and any(ids[:2] == [bos, bos] for ids in whole):
            self._tally.add("double_bos", row)
        if any(_has_twice(ids, eos, start) for ids in whole):
            self._tally.add("double_eos", row)

    def _fault(self, start: int, whole: list[list[int]]) -> str:
        """Why nothing can be learnt from the row, or an empty string."""
        if any(len(ids) == start for ids in whole):
            return "no_completion_tokens"
        if self._limit is not None and self._mode == "keep_start" and start >= self._limit:
            return "emptied_by_truncation"
        if len(whole) == 2:
            keep = (
                slice(None, self._limit)
                if self._mode == "keep_start" or self._limit is None
                else slice(-self._limit, None)
            )
            if whole[0][keep] == whole[1][keep]:
                return "same_tokens"
        return ""


def _has_twice(ids: list[int], token: int, start: int) -> bool:
    """Whether `token` stands twice in a row from `start` on."""
    try:
        while True:  # `index` searches in C
            start = ids.index(token, start, len(ids) - 1) + 1
            if ids[start] == token:
                return True
    except ValueError:
        return False
