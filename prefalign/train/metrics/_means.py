"""Means over pairs and over tokens, where TRL logs the mean of the batches' means.

Five pairs in batches of four and one: the accuracy of the last pair counts as one fifth here, and as a half in TRL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .. import _trl

Counts = list[int]
# What is counted of a batch, on all processes: its pairs, and the tokens of chosen and rejected completions, with and
# without each one's last.
PAIRS, CHOSEN, REJECTED, BEFORE_END = range(4)
# What a metric is a mean of, if not of pairs.
_TOKEN_MEANS = {
    "entropy": (CHOSEN, REJECTED),
    "logits/chosen": (CHOSEN,),
    "logits/rejected": (REJECTED,),
    "mean_token_accuracy": (CHOSEN,),
    "kl": (BEFORE_END,),
}


def weight_of(name: str, counts: Counts) -> int:
    """How much a batch's value of a metric counts."""
    return sum(counts[column] for column in _TOKEN_MEANS.get(name, (PAIRS,)))


def count_rows(completion_mask: Tensor) -> Tensor:
    """What is counted of each pair, (pairs, 4)."""
    scored = completion_mask[:, 1:].sum(dim=1)
    chosen, rejected = scored.chunk(2)
    before_end = (chosen - 1).clamp(min=0) + (rejected - 1).clamp(min=0)
    return torch.stack([torch.ones_like(chosen), chosen, rejected, before_end], dim=1)


class Means:
    """The weights of what a trainer has logged since its last log.

    Args:
        trainer: The trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self._counts: dict[str, dict[str, list[Counts]]] = {"train": defaultdict(list), "eval": defaultdict(list)}
        self._aside = False

    def absorb(self, mode: str, counts: Counts | Tensor) -> None:
        """Say what the values that were logged since the last call are means of.

        Args:
            mode: "train" or "eval".
            counts: Of all processes; or a batch's `count_rows`, which is gathered.
        """
        if self._aside:
            return
        if isinstance(counts, Tensor):
            counts = [int(each) for each in self.trainer.accelerator.gather(counts).sum(dim=0)]
        for name, values in _trl.logged(self.trainer, mode).items():
            known = self._counts[mode][name]
            known.extend(counts for _ in range(len(values) - len(known)))

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Within, parts of a batch are computed whose values are put together later."""
        self._aside = True
        try:
            yield
        finally:
            self._aside = False

    def settle(self, mode: str) -> None:
        """Put the mean over pairs, or tokens, in the place of the batches' values, wherever the two differ."""
        for name, values in _trl.logged(self.trainer, mode).items():
            # TRL's means over tokens of each batch are weighted by pairs, which gives its own numbers on full batches.
            weights = [weight_of(name, each) if name == "kl" else each[PAIRS] for each in self._counts[mode][name]]
            if len(weights) == len(values) and len(set(weights)) > 1:
                _trl.set_metric(self.trainer, mode, name, [weighted_mean(values, weights)])
        self._counts[mode].clear()


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """The mean of values that count by their weights."""
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def together(logged: Sequence[Mapping[str, Sequence[float]]], counts: Sequence[Counts]) -> dict[str, float]:
    """The means over all parts of a batch of what was logged of each."""
    made = {}
    for name in dict.fromkeys(name for values in logged for name in values):
        parts = [
            (sum(values[name]) / len(values[name]), weight_of(name, count))
            for values, count in zip(logged, counts, strict=True)
            if values.get(name)
        ]
        if any(weight for _, weight in parts):
            made[name] = weighted_mean(*zip(*parts, strict=True))
    return made
