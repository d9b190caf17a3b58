"""From batches to rows of the reference cache and back.

A row is one text, prompt and completion, as it was truncated. Its key is a hash of its tokens and of which of them are
scored; its values are the log-probabilities of the scored ones. Losers and winners alike: a pair whose labels are
flipped has the same rows.

Shapes: B pairs, L padded length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...references import KEY_BYTES, LogpStore, Values
from .._rows import PAIR_INDEX
from .._trl import TOKEN_WEIGHTS

TOKEN_LOGPS = "prefalign_reference_logps"
_CHUNK = 64
# What a batch may hold beside what `_trl` names: then its rows are decided by their tokens alone.
KNOWN = {"input_ids", "attention_mask", "completion_mask", PAIR_INDEX, TOKEN_WEIGHTS}


def row_keys(batch: Mapping[str, Any]) -> list[bytes]:
    """The keys of a batch's 2B rows, chosen rows first; hashes of tokens, of what is scored, and of weights."""
    ids, mask, scored = (
        batch[name].to("cpu", torch.int32).numpy() for name in ("input_ids", "attention_mask", "completion_mask")
    )
    keys = []
    for row in range(len(ids)):
        real = mask[row] != 0
        digest = hashlib.blake2b(ids[row][real].tobytes(), digest_size=KEY_BYTES)
        digest.update((scored[row][real] != 0).tobytes())
        if TOKEN_WEIGHTS in batch:  # what is kept is weighted
            digest.update(batch[TOKEN_WEIGHTS][row].cpu().numpy()[real].tobytes())
        keys.append(digest.digest())
    return keys


def row_values(token_logps: Tensor, completion_mask: Tensor) -> list[Values]:
    """The scored tokens' log-probabilities of each row, from the padded and shifted (2B, L - 1), in nats."""
    logps = token_logps.detach().float().cpu().numpy()
    scored = completion_mask[:, 1:].cpu().numpy() != 0
    return [logps[row][scored[row]] for row in range(len(logps))]


def padded(values: Sequence[Values], completion_mask: Tensor) -> Tensor | None:
    """The inverse of `row_values`: (2B, L - 1), 0 where nothing is scored; None where lengths do not fit."""
    scored = completion_mask[:, 1:].numpy() != 0
    made = np.zeros(scored.shape, dtype=np.float32)
    for row, one in enumerate(values):
        if len(one) != int(scored[row].sum()):
            return None
        made[row, scored[row]] = one
    return torch.from_numpy(made)


class CachedCollator:
    """A collator that puts the reference's log-probabilities into a batch whose rows are all in the cache.

    Args:
        collator: Makes the batch from the rows.
        store: The log-probabilities.
    """

    def __init__(self, collator: Callable[[list[dict[str, Any]]], dict[str, Any]], store: LogpStore) -> None:
        self.collator, self.store = collator, store

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        found = [self.store.get(key) for key in row_keys(batch)]
        values = [one for one in found if one is not None]
        logps = padded(values, batch["completion_mask"]) if len(values) == len(found) else None
        if logps is not None:
            batch[TOKEN_LOGPS] = logps
        return batch

    def __getattr__(self, name: str) -> Any:
        if name in ("collator", "store"):  # while it is unpickled by a data loader's worker
            raise AttributeError(name)
        return getattr(self.collator, name)


class Replay:
    """Stands for the reference's model where TRL calls it: gives the log-probabilities that are known.

    Args:
        log_probs: (2B, L - 1), in nats.
    """

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = log_probs

    def __call__(self, **_: Any) -> Replay:
        return self


@dataclass
class Survey:
    """The pairs of a data set, by the keys of their rows.

    Attributes:
        keys: Of each pair, (chosen, rejected).
        lengths: Of each pair's longer text, in tokens.
    """

    keys: list[tuple[bytes, bytes]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def missing(self, store: LogpStore) -> list[int]:
        """The pairs that `store` lacks a row of, each once."""
        lacking: dict[tuple[bytes, bytes], int] = {}
        for number, (chosen, rejected) in enumerate(self.keys):
            if chosen not in store or rejected not in store:
                lacking.setdefault((chosen, rejected), number)
        return list(lacking.values())

    def batches(self, numbers: Sequence[int], tokens: int) -> list[list[int]]:
        """Pairs of like length together, the longest first, each batch of at most `tokens` padded tokens."""
        made: list[list[int]] = []
        for number in sorted(numbers, key=lambda each: -self.lengths[each]):
            if not made or 2 * self.lengths[made[-1][0]] * (len(made[-1]) + 1) > tokens:
                made.append([])
            made[-1].append(number)
        return made


def survey(dataset: Any, collate: Callable[[list[dict[str, Any]]], dict[str, Any]], what: str, show: bool) -> Survey:
    """Collate a data set once, for the keys of its rows.

    Args:
        dataset: A data set with a length.
        collate: The trainer's collator, which truncates.
        what: The data set's name, for the bar.
        show: Whether to show one.
    """
    found = Survey()
    bar = tqdm(total=len(dataset), desc=f"Reference cache: {what} data", unit="pair", delay=2.0, disable=not show)
    with bar:
        for start in range(0, len(dataset), _CHUNK):
            batch = collate(rows_of(dataset, range(start, min(start + _CHUNK, len(dataset)))))
            keys, lengths = row_keys(batch), batch["attention_mask"].sum(dim=1).tolist()
            half = len(keys) // 2
            found.keys += zip(keys[:half], keys[half:], strict=True)
            found.lengths += map(max, lengths[:half], lengths[half:])
            bar.update(half)
    return found


def rows_of(dataset: Any, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of a data set."""
    return [dataset[int(number)] for number in numbers]
