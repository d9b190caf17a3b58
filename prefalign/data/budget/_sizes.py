"""How many tokens a data set has, and how many of them are unique, from a sample of its pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ._bins import best_fit, best_fit_padded

SAMPLE = 2000


@dataclass(frozen=True)
class PairSizes:
    """Lengths of sampled pairs, truncated as in training; arrays of integers, (pairs,).

    Args:
        chosen, rejected: Tokens of the two sequences.
        shared: Of these, the tokens of their longest common prefix.
        scored: Completion tokens that are predicted, both sequences together.
        scored_once: The same, those in the common prefix counted once.
    """

    chosen: np.ndarray
    rejected: np.ndarray
    shared: np.ndarray
    scored: np.ndarray
    scored_once: np.ndarray

    @property
    def unique(self) -> np.ndarray:
        """Tokens when the common prefix counts once."""
        made: np.ndarray = self.chosen + self.rejected - self.shared
        return made

    @property
    def longest(self) -> np.ndarray:
        """Tokens of the longer sequence."""
        made: np.ndarray = np.maximum(self.chosen, self.rejected)
        return made


def pair_sizes(
    pairs: Iterable[tuple[int, Sequence[int], Sequence[int]]], max_length: int | None, truncation_mode: str
) -> PairSizes:
    """Measure pairs.

    Args:
        pairs: For each the length of the prompt, and the token ids of prompt and completion: chosen, rejected.
        max_length: Longest sequence that training keeps; None for no limit.
        truncation_mode: Which end of a longer one it keeps, "keep_start" or "keep_end".

    Example:
        >>> sizes = pair_sizes([(2, [5, 6, 7, 8], [5, 6, 7, 9, 9])], None, "keep_start")
        >>> sizes.unique.tolist(), sizes.scored.tolist(), sizes.scored_once.tolist()
        ([6], [5], [4])
    """
    keep = (
        slice(None, max_length) if truncation_mode == "keep_start" or max_length is None else slice(-max_length, None)
    )
    rows = []
    for prompt, *texts in pairs:
        first, second = (np.asarray(text[keep]) for text in texts)
        # The first token of a row has no predictor.
        scored = [np.arange(len(text))[keep][1:] >= prompt for text in texts]
        both = min(len(first), len(second))
        differ = np.flatnonzero(first[:both] != second[:both])
        shared = int(differ[0]) if len(differ) else both
        twice = int((scored[0][: max(shared - 1, 0)] & scored[1][: max(shared - 1, 0)]).sum())
        total = int(scored[0].sum() + scored[1].sum())
        rows.append((len(first), len(second), shared, total, total - twice))
    return PairSizes(*np.array(rows, dtype=np.int64).reshape(-1, 5).T)


@dataclass(frozen=True)
class Division:
    """How the pairs of steps come in micro-batches.

    Args:
        pairs: Of a micro-batch of the plain forward.
        accumulation: Micro-batches of a step.
        tokens: Most tokens of a micro-batch, where steps are divided by tokens; else None.
        packed: Whether tokens are unique ones, without padding.
    """

    pairs: int
    accumulation: int
    tokens: int | None
    packed: bool


@dataclass(frozen=True)
class Micro:
    """What micro-batches hold, drawn at random from the sample.

    Args:
        padded: Positions per pair that the plain forward computes, with padding.
        per_step: Micro-batches of a step.
        largest_padded, largest_unique, largest_scored: The largest micro-batch's positions, unique tokens and scored
            tokens.
    """

    padded: float
    per_step: float
    largest_padded: int
    largest_unique: int
    largest_scored: int


def divide(sizes: PairSizes, division: Division) -> Micro:
    """Draw steps from the sample, once, with a fixed seed, and divide them as training would."""
    order = np.random.default_rng(0).permutation(len(sizes.chosen))
    step = division.pairs * division.accumulation
    if len(order) < step:  # fewer pairs than a step takes: some come twice
        order = np.resize(order, step)
    steps = [order[start : start + step] for start in range(0, len(order) - step + 1, step)]
    bins = [one for each in steps for one in _bins_of(sizes, each, division)]
    plain = [one for each in steps for one in _bins_of(sizes, each, replace(division, packed=False))]
    padded = [2 * len(one) * int(sizes.longest[one].max()) for one in plain]
    return Micro(
        padded=sum(padded) / (len(steps) * step),
        per_step=len(bins) / len(steps),
        largest_padded=max(padded),
        largest_unique=max(int(sizes.unique[one].sum()) for one in bins),
        largest_scored=max(int(sizes.scored[one].sum()) for one in bins),
    )


def _bins_of(sizes: PairSizes, step: np.ndarray, division: Division) -> list[np.ndarray]:
    if division.tokens is None:
        return np.split(step, division.accumulation)
    if division.packed:
        bins = best_fit(sizes.unique[step].tolist(), division.tokens)
    else:
        bins = best_fit_padded(sizes.longest[step].tolist(), division.tokens)
    return [step[one] for one in bins]
