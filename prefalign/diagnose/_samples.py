"""Texts of a model before and after training, as the file `samples.jsonl` of a run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .._errors import DataError
from ._write import write_atomically

SAMPLES_FILE = "samples.jsonl"


@dataclass(frozen=True)
class Sample:
    """One prompt with the completions before and after training, and their gold rewards where they are known."""

    prompt: str
    before: str
    after: str
    gold_before: float | None = None
    gold_after: float | None = None


def write_samples(
    run: str | os.PathLike[str],
    prompts: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    gold_before: Sequence[float] | None = None,
    gold_after: Sequence[float] | None = None,
) -> Path:
    """Write `samples.jsonl` into the folder of a run, for `prefalign report`.

    Args:
        run: The run's folder (`output_dir`); made if it is missing.
        prompts: One per sample; several samples of one prompt repeat it.
        before: Completions of the model before training.
        after: Completions after training, from the same prompts in the same order.
        gold_before: The reward that training did not see, of each completion in `before`; finite.
        gold_after: Likewise of `after`.

    Returns:
        Path of the file, which replaces an earlier one in one step.

    Raises:
        DataError: The sequences differ in length, or hold something else.
    """
    columns = {"prompts": prompts, "before": before, "after": after}
    golds = {"gold_before": gold_before, "gold_after": gold_after}
    sizes = {name: len(column) for name, column in {**columns, **golds}.items() if column is not None}
    if len(set(sizes.values())) > 1:
        raise DataError(f"The columns must be of one length (got {', '.join(f'{n}: {s}' for n, s in sizes.items())}).")
    if (gold_before is None) != (gold_after is None):
        raise DataError("`gold_before` and `gold_after` must be given both or neither.")
    none = [None] * len(prompts)
    lines = []
    for index, values in enumerate(
        zip(
            prompts,
            before,
            after,
            none if gold_before is None else gold_before,
            none if gold_after is None else gold_after,
            strict=True,
        )
    ):
        prompt, old, new, *gold = values
        row: dict[str, object] = {"prompt": prompt, "before": old, "after": new}
        if gold_before is not None:
            row |= {"gold_before": _number(gold[0], index), "gold_after": _number(gold[1], index)}
        lines.append(json.dumps(asdict(_sample(row, f"sample {index}")), ensure_ascii=False) + "\n")
    path = Path(run) / SAMPLES_FILE
    write_atomically(path, "".join(lines).encode("utf-8", "replace"))
    return path


def read_samples(path: str | os.PathLike[str]) -> list[Sample]:
    """Read what `write_samples` wrote.

    Raises:
        DataError: The file cannot be read, or a line is no sample; the line is named.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
    samples = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: malformed JSON: {error}. Is the file complete?") from None
        samples.append(_sample(row, f"{path}, line {number}"))
    return samples


def _sample(row: object, where: str) -> Sample:
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in ("prompt", "before", "after")):
        raise DataError(f"{where}: a sample needs the texts `prompt`, `before` and `after`.")
    gold = [row.get("gold_before"), row.get("gold_after")]
    for value in gold:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and math.isfinite(value)):
            raise DataError(f"{where}: gold rewards must be finite numbers (got {value!r}).")
    if None in gold:
        gold = [None, None]
    return Sample(row["prompt"], row["before"], row["after"], gold[0], gold[1])


def _number(value: object, index: int) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # also NumPy's and torch's scalars
    except (TypeError, ValueError):
        raise DataError(f"sample {index}: gold rewards must be finite numbers (got {value!r}).") from None
