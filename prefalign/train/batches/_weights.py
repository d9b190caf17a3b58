"""Weighs the pairs of a batch by the data's column `weight`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._errors import ConfigError
from ...data import pair_weights
from .._rows import PAIR_INDEX, SPLIT
from ..config import Objective


class PairWeights:
    """The weights of all pairs, by their numbers.

    Args:
        sets: For each data set the numbers of its rows and their weights; without weights, every pair counts 1.
    """

    def __init__(self, sets: Mapping[int, np.ndarray]) -> None:
        self._sets = sets

    def mean(self, value: Tensor, numbers: Tensor | None) -> Tensor:
        """The mean over the pairs of weight * value: sums are divided by the number of pairs, not of weights.

        So a batch's gradient is that of its pairs, each scaled by its own weight, however a step is divided into
        micro-batches and processes; and pairs of weight 1 count as they do without a column.

        Args:
            value: A term of the loss, (pairs,).
            numbers: The pairs' numbers, (pairs,).
        """
        if numbers is None:
            return value.mean()
        weights = [self._weight(int(number)) for number in numbers.tolist()]
        return (value * torch.tensor(weights, dtype=value.dtype, device=value.device)).mean()

    def _weight(self, number: int) -> float:
        split, row = divmod(number, SPLIT)
        return float(self._sets[split][row]) if split in self._sets else 1.0


def read_weights(train: Any, evaluation: Any, objective: Objective, args: Any) -> PairWeights | None:
    """The weights of the data sets; None if none has any.

    Args:
        train: The training pairs, with their numbers.
        evaluation: Pairs for evaluation: None, one data set, or a dict of them.
        objective: What is trained.
        args: The training arguments.

    Raises:
        ConfigError: The loss couples pairs, or TRL computes it, so that a pair has no value that could be weighed.
        DataError: A weight is no weight.
    """
    sets: dict[int, np.ndarray] = {}
    for dataset in [train, *(evaluation.values() if isinstance(evaluation, Mapping) else [evaluation])]:
        weights = None if dataset is None else pair_weights(dataset)
        if weights is not None:
            numbers = np.asarray(dataset[PAIR_INDEX][:])
            by_row = np.ones(int(numbers.max() % SPLIT) + 1)
            by_row[numbers % SPLIT] = weights
            sets[int(numbers[0] // SPLIT)] = by_row
    if not sets:
        return None
    remedy = "Use a loss with one value per pair, or remove the column."
    coupled = [term for _, term in objective.loss.terms if term.couples_pairs]
    if coupled:
        raise ConfigError(
            f"The column `weight` cannot be combined with {coupled[0].title}: its value is one of the whole batch. "
            + remedy
        )
    if args.process_index == 0 and 0 in sets:
        weights = np.asarray(pair_weights(train))
        print(
            f"Weights: the column `weight` multiplies each pair's loss; its mean is {weights.mean():.3f}, "
            f"{int((weights == 0).sum())} of {len(weights)} pairs have 0.",
            flush=True,
        )
    return PairWeights(sets)
