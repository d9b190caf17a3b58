"""What the runs of a sweep showed: numbers of one run, and of an arm over its seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import TrialState

from .._errors import CheckpointError, TrainingError
from .._files import read_json
from ..diagnose import Interval, Series, interval, read_run
from ._arms import Arm
from ._plan import GOLD_FILE
from ._study import FAILURES, RUNS, Queue


@dataclass(frozen=True)
class Row:
    """An arm with what its finished runs showed.

    Args:
        arm: The loss.
        values: For each metric the numbers of its seeds.
        curves: For each metric and seed the steps and values of the evaluations.
        failures: Reasons, by seed.
        missing: Seeds without a result yet.
        stopped: The step at which halving stopped it, up to which the curves go; None if it did not.
    """

    arm: Arm
    values: Mapping[str, tuple[float, ...]]
    curves: Mapping[str, tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]]
    failures: Mapping[int, str]
    missing: tuple[int, ...]
    stopped: int | None = None

    def interval(self, key: str) -> Interval | None:
        """Mean over seeds with its 95 % interval; None without values."""
        values = self.values.get(key, ())
        return interval(values) if values else None


def measure(folder: Path, until: int = 0) -> dict[str, Any]:
    """The numbers of one run.

    Args:
        folder: The run's folder.
        until: The step up to which the evaluations count; 0 for all.

    Returns:
        `final`, the last evaluation by metric, and `curves`, all of them as [steps, values].

    Raises:
        CheckpointError: The run cannot be read, or has no evaluation.
        TrainingError: The last evaluation is not finite.
    """
    run = read_run(folder / "run")
    chosen, rejected = (run.evaluation.get(f"logps/{side}_change") for side in ("chosen", "rejected"))
    if chosen is None or rejected is None:
        raise CheckpointError(f"{folder} has no evaluation after the first: `eval_steps` must not exceed the steps.")
    curves = {"chosen": _curve(chosen), "rejected": _curve(rejected)}
    steps = sorted(set(curves["chosen"][0]) & set(curves["rejected"][0]))
    at = {side: dict(zip(*curves[side], strict=True)) for side in ("chosen", "rejected")}
    curves["margin"] = [steps, [at["chosen"][step] - at["rejected"][step] for step in steps]]
    if "displacement" in run.evaluation:
        curves["displacement"] = _curve(run.evaluation["displacement"])
    if until:
        curves = {key: _up_to(until, *curve) for key, curve in curves.items()}
    final = {key: values[-1] for key, (_, values) in curves.items() if values}
    gold = folder / GOLD_FILE
    if gold.is_file() and not until:
        rewards: Any = read_json(gold)["rewards"]
        final["gold"] = float(np.mean(rewards))
    wrong = next((key for key, value in final.items() if not math.isfinite(value)), None)
    if wrong is not None:
        raise TrainingError(f"The last evaluation is not finite: {wrong} is {final[wrong]}.")
    return {"final": final, "curves": curves}


def _curve(series: Series) -> list[list[float]]:
    return [series.steps.astype(float).tolist(), series.values.astype(float).tolist()]


def _up_to(until: int, steps: list[float], values: list[float]) -> list[list[float]]:
    kept = sum(step <= until for step in steps)
    return [steps[:kept], values[:kept]]


def collect(queue: Queue) -> list[Row]:
    """The rows of the table, as far as there are results."""
    rows = []
    latest = queue.latest()
    for arm in queue.plan.arms:
        trial = latest.get(arm.name)
        runs = {} if trial is None else trial.user_attrs.get(RUNS, {})
        failures = {} if trial is None else trial.user_attrs.get(FAILURES, {})
        stopped = trial.last_step if trial is not None and trial.state == TrialState.PRUNED else None
        values: dict[str, list[float]] = {}
        curves: dict[str, list[Any]] = {}
        for run in runs.values():
            for key, value in run["final"].items() if stopped is None else ():
                values.setdefault(key, []).append(value)
            for key, (steps, points) in run["curves"].items():
                curves.setdefault(key, []).append((tuple(steps), tuple(points)))
        rows.append(
            Row(
                arm,
                {key: tuple(found) for key, found in values.items()},
                {key: tuple(found) for key, found in curves.items()},
                {int(seed): reason for seed, reason in failures.items()},
                tuple(seed for seed in queue.plan.seeds if str(seed) not in {**runs, **failures}),
                stopped,
            )
        )
    return rows
