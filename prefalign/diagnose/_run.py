"""What a run left on disk, read with suspicion: runs are stopped half-way and files are damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._errors import CheckpointError
from .._files import check_regular
from ._samples import SAMPLES_FILE, Sample, read_samples

RUN_FILE = "prefalign_run.json"
STATE_FILE = "trainer_state.json"
# Beyond it, sums and axes overflow: such a number is as good as infinite.
_LARGEST = 1e15


@dataclass(frozen=True, eq=False)
class Series:
    """One metric over the optimizer steps at which it was logged; only finite values."""

    steps: np.ndarray
    values: np.ndarray

    def start(self) -> float:
        """Mean of the first tenth of the values."""
        return float(self.values[: self._tenth()].mean())

    def end(self) -> float:
        """Mean of the last tenth of the values."""
        return float(self.values[-self._tenth() :].mean())

    def _tenth(self) -> int:
        return max(1, round(len(self.values) / 10))


@dataclass(frozen=True)
class Run:
    """A run's log, its record and its samples.

    Args:
        folder: Where it lies.
        step: Optimizer steps done.
        max_steps: Optimizer steps planned; 0 where that is not known.
        train: Metrics of training by name.
        evaluation: Metrics of evaluation by name, without the prefix `eval_`.
        record: Content of `prefalign_run.json`; empty where there is none.
        samples: Texts before and after.
        notes: What is odd about the files.
    """

    folder: Path
    step: int
    max_steps: int
    train: Mapping[str, Series]
    evaluation: Mapping[str, Series]
    record: Mapping[str, object]
    samples: tuple[Sample, ...]
    notes: tuple[str, ...]

    def text(self, *keys: str) -> str:
        """The text under `keys` in the record, or an empty string."""
        value = self._get(keys)
        return value if isinstance(value, str) else ""

    def number(self, *keys: str) -> float | None:
        """The finite number under `keys` in the record, or None."""
        value = self._get(keys)
        return _finite(value)

    def table(self, *keys: str) -> Mapping[str, object]:
        """The mapping under `keys` in the record, or an empty one."""
        value = self._get(keys)
        return value if isinstance(value, dict) else {}

    def _get(self, keys: tuple[str, ...]) -> object:
        value: object = self.record
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Read the folder of a run (`output_dir`), or one of its checkpoints.

    The log comes from the `trainer_state.json` that goes furthest; one that is damaged is passed over with a note as
    long as another can be read.

    Raises:
        CheckpointError: There is no run, no state can be read, or the record is damaged.
        DataError: `samples.jsonl` is damaged.
    """
    path = Path(folder)
    try:
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise CheckpointError(f"`RUN` must be the folder of a run, the trainer's `output_dir` ({path} {what}).")
        states = [path / STATE_FILE, *path.glob(f"checkpoint-*/{STATE_FILE}")]
        states = [state for state in states if state.is_file()]
        record_file = next((f for f in (path / RUN_FILE, path.parent / RUN_FILE) if f.is_file()), None)
        samples_file = path / SAMPLES_FILE
        has_samples = samples_file.exists()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!a} cannot be read: {str(error).rstrip('.')}.") from None
    check_regular(path)
    notes: list[str] = []
    step, max_steps, history = _furthest(path, states, notes)
    record = _read_json(record_file) if record_file is not None else {}
    if not isinstance(record, dict):
        raise CheckpointError(f"{record_file} must hold an object. Remove it: the report does without.")
    if record_file is None:
        notes.append(f"There is no {RUN_FILE}, so the loss and the reference are not known.")
    train, evaluation = _series(history, notes)
    samples = tuple(read_samples(samples_file)) if has_samples else ()
    return Run(path, step, max_steps, train, evaluation, record, samples, tuple(notes))


def _furthest(path: Path, states: Iterable[Path], notes: list[str]) -> tuple[int, int, list[object]]:
    """Step, planned steps and log of the state that goes furthest."""
    best: tuple[int, int, list[object]] | None = None
    damaged = []
    for file in sorted(states):
        try:
            state = _read_json(file)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        history = state.get("log_history") if isinstance(state, dict) else None
        if not isinstance(state, dict) or not isinstance(history, list):
            damaged.append(f"{file} holds no `log_history`.")
            continue
        step, planned = _finite(state.get("global_step")), _finite(state.get("max_steps"))
        found = (int(step or 0), int(planned or 0), history)
        if best is None or found[0] > best[0]:
            best = found
    if best is not None:
        notes += damaged
        return best
    if damaged:
        raise CheckpointError(f"The run's log cannot be read: {damaged[-1]} Train again, or name another run.")
    raise CheckpointError(
        f"{path} holds no run: neither {STATE_FILE} nor a checkpoint with one. Name the trainer's `output_dir`; a log "
        "is there once the first checkpoint is saved."
    )


def _series(history: list[object], notes: list[str]) -> tuple[dict[str, Series], dict[str, Series]]:
    """The log as metrics of training and of evaluation."""
    rows: tuple[dict[str, dict[int, float]], dict[str, dict[int, float]]] = ({}, {})
    lost: dict[str, int] = {}
    for row in history:
        step = _finite(row.get("step")) if isinstance(row, dict) else None
        if step is None or not isinstance(row, dict):
            continue
        for name, value in row.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            number = _finite(value)
            if number is None:
                lost[name] = lost.get(name, 0) + 1
                continue
            is_eval = name.startswith("eval_")
            # A resumed run logs a step again: the later value is the one that counts.
            rows[is_eval].setdefault(name.removeprefix("eval_"), {})[int(step)] = number
    notes += [f"{count} values of `{name}` are not finite and are left out." for name, count in lost.items()]
    train, evaluation = (
        {
            name: Series(np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
            for name, points in side.items()
        }
        for side in rows
    )
    return train, _first_set(evaluation, notes)


def _first_set(evaluation: dict[str, Series], notes: list[str]) -> dict[str, Series]:
    """The metrics of the first of several evaluation sets without its name; those of the others keep theirs."""
    known = "rewards/margins"
    sets = [name.removesuffix(f"_{known}") for name in evaluation if name.endswith(f"_{known}")]
    if not sets:
        return evaluation
    first, *others = sets
    if others:
        notes.append(
            f"There are {len(sets)} evaluation sets; what is said of evaluation is said of `{first}`, and not of "
            f"{', '.join(f'`{name}`' for name in others)}."
        )
    prefix = f"{first}_"
    return {name.removeprefix(prefix): series for name, series in evaluation.items()}


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) <= _LARGEST else None  # false for NaN


def _read_json(file: Path) -> object:
    try:
        return json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise CheckpointError(f"{file} is damaged or half-written: {first}.") from None
