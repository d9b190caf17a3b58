"""Label noise with a known truth: exchange chosen and rejected in a share of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from .._errors import DataError
from .._numbers import check_number
from ._layout import find_layout

if TYPE_CHECKING:
    from datasets import Dataset

# Fewer rows are flipped within a second or so.
_QUICK = 50_000
_HALF = "Labels of which half or more are wrong cannot be learnt from; to turn every label round, rename the columns."

FlipMode = Literal["exact", "bernoulli"]


def flip_labels(dataset: Dataset, rate: float, seed: int, *, mode: FlipMode = "exact") -> Dataset:
    """Exchange chosen and rejected in a share `rate` of the rows, and remember which in the column `flipped`.

    Every pair of columns whose names differ only by chosen/rejected (`chosen_score` and `rejected_score`) is exchanged
    with the texts, so that each column still describes the completion it is named after. Where `flipped` exists
    already it keeps telling the truth: a row that is flipped twice is not flipped.

    Args:
        dataset: Pairs, with the columns `chosen` and `rejected`.
        rate: Share of the labels that become wrong, 0 <= rate < 1/2: from one half on, the labels say nothing or the
            opposite, and no loss recovers the truth.
        seed: Seed of the draw, a non-negative integer. The same rows, rate, seed and mode give the same flips.
        mode: "exact" flips round(rate * rows) rows, drawn uniformly; "bernoulli" flips each row with probability
            `rate` independently of the others, as the model behind the robust losses assumes, so the share scatters.

    Returns:
        A data set of the same rows in the same order, with the boolean column `flipped`.

    Raises:
        DataError: An argument is out of range, or there is nothing to exchange.

    Example:
        >>> from datasets import Dataset
        >>> pairs = Dataset.from_dict({"prompt": list("abcd"), "chosen": ["yes"] * 4, "rejected": ["no"] * 4})
        >>> noisy = flip_labels(pairs, rate=0.25, seed=0)
        >>> sorted(noisy["chosen"]), sum(noisy["flipped"])
        (['no', 'yes', 'yes', 'yes'], 1)

    Source: the noise model of Chowdhury, Kini, Natarajan 2024, arXiv:2403.00409, Section 2.
    """
    check_number("rate", rate, DataError, 0, 0.5, ends="[)", hint=_HALF)
    check_number("seed", seed, DataError, 0, whole=True)
    if mode not in get_args(FlipMode):
        raise DataError(f"`mode` must be 'exact' or 'bernoulli' (got {mode!r}).")
    columns = _columns_of(dataset)
    if find_layout(columns) == "winners":
        raise DataError("Labels can be flipped only where there are two completions: the column `rejected` is missing.")
    flips = _draw(len(dataset), rate, seed, mode)
    swaps = _twin_columns(columns)

    def exchange(batch: dict[str, list[object]], rows: list[int]) -> dict[str, list[object]]:
        turned = [bool(flips[row]) for row in rows]
        out: dict[str, list[object]] = {}
        for chosen, rejected in swaps:
            pairs = list(zip(batch[chosen], batch[rejected], turned, strict=True))
            out[chosen] = [r if turn else c for c, r, turn in pairs]
            out[rejected] = [c if turn else r for c, r, turn in pairs]
        before = batch.get("flipped", [False] * len(rows))
        out["flipped"] = [bool(old) ^ turn for old, turn in zip(before, turned, strict=True)]
        return out

    from datasets import Json, List, Value

    features = dataset.features.copy()
    features["flipped"] = Value("bool")
    for chosen, rejected in swaps:
        if features[chosen] != features[rejected] and isinstance(features[chosen], List):
            # An answer in a column of others' keys would be given nulls for those that it lacks.
            features[chosen] = features[rejected] = List(Json())
    plain = dataset.with_format(None)
    with _bar_for(len(dataset)):
        return plain.map(exchange, batched=True, with_indices=True, features=features, desc="Flipping labels")


@contextmanager
def _bar_for(rows: int) -> Iterator[None]:
    """Leaves the library's progress bar on only where there is time to see it."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if rows > _QUICK or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _columns_of(dataset: Dataset) -> list[str]:
    names = getattr(dataset, "column_names", None)
    if not isinstance(names, list) or not hasattr(dataset, "__len__"):
        raise DataError(
            f"Labels can be flipped in a `datasets.Dataset` (got {type(dataset).__name__}). "
            "Take one split, and load it without `streaming=True`."
        )
    return names


def _draw(rows: int, rate: float, seed: int, mode: FlipMode) -> np.ndarray:
    """One boolean per row."""
    random = np.random.default_rng(seed)
    if mode == "bernoulli":
        return random.random(rows) < rate
    flips = np.zeros(rows, dtype=bool)
    flips[random.permutation(rows)[: round(rate * rows)]] = True
    return flips


def _twin_columns(columns: list[str]) -> list[tuple[str, str]]:
    """Columns whose names differ only by chosen/rejected."""
    pairs = [(name, name.replace("chosen", "rejected")) for name in columns if "chosen" in name]
    return [(chosen, rejected) for chosen, rejected in pairs if rejected in columns]
