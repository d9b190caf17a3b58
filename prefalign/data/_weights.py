"""The column `weight`: how much each pair counts in training."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from .._errors import DataError

WEIGHT = "weight"


def has_weights(dataset: Any) -> bool:
    """Whether the pairs carry weights."""
    return WEIGHT in (getattr(dataset, "column_names", None) or ())


def pair_weights(dataset: Any) -> np.ndarray | None:
    """The pairs' weights; None where there is no column `weight`.

    Args:
        dataset: A `datasets.Dataset` of pairs.

    Returns:
        (pairs,), each finite and >= 0, not all 0.

    Raises:
        DataError: A weight is missing, no number, negative or not finite, or all are 0; the first such row is named.

    Example:
        >>> from datasets import Dataset
        >>> pair_weights(Dataset.from_dict({"weight": [1, 0.25]})).tolist()
        [1.0, 0.25]
    """
    if not has_weights(dataset):
        return None
    if not hasattr(dataset, "__len__"):
        raise DataError("The column `weight` of a stream is not read. Load the data without streaming, or remove it.")
    column = dataset.with_format(None)[WEIGHT][:]
    for row, value in enumerate(column):
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise DataError(
                f"The column `weight` must hold finite numbers >= 0 (got {value!r:.60} in row {row}). 0 leaves a pair "
                "out, 1 counts it in full; remove the column to count all alike."
            )
    weights = np.asarray(column, dtype=float)
    if len(weights) and not weights.any():
        raise DataError("The column `weight` must not be 0 in every row: nothing would be trained.")
    return weights
