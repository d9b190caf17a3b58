"""What the runs of a sweep showed: numbers of one run, and of an arm over its seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import CheckpointError
from ..diagnose import Interval, Series, interval, read_run
from ._arms import Arm
from ._job import GOLD_FILE
from ._plan import Job, Plan, job_folder

RESULT_FILE, FAILED_FILE = "result.json", "failed.json"


@dataclass(frozen=True)
class Metric:
    """A number that is compared: its key, what the page calls it, its unit, and whether more is better."""

    key: str
    title: str
    unit: str
    up: bool


METRICS = (
    Metric("gold", "Gold reward", "VADER compound, mean over samples", True),
    Metric("margin", "Margin gained", "nats, sum over tokens", True),
    Metric("chosen", "Chosen, change", "nats, sum over tokens", True),
    Metric("rejected", "Rejected, change", "nats, sum over tokens", False),
    Metric("displacement", "Displacement", "share of pairs", False),
)


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


def measure(folder: Path) -> dict[str, Any]:
    """The numbers of one finished run.

    Returns:
        `final`, the last evaluation by metric, and `curves`, all of them as [steps, values].

    Raises:
        CheckpointError: The run cannot be read, or has no evaluation.
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
    final = {key: values[-1] for key, (_, values) in curves.items()}
    gold = folder / GOLD_FILE
    if gold.is_file():
        final["gold"] = float(np.mean(json.loads(gold.read_text("utf-8"))["rewards"]))
    return {"final": final, "curves": curves}


def _curve(series: Series) -> list[list[float]]:
    return [series.steps.astype(float).tolist(), series.values.astype(float).tolist()]


def collect(plan: Plan, folder: Path, stopped: Mapping[str, int] | None = None) -> list[Row]:
    """The rows of the table, as far as there are results.

    Args:
        plan: What is trained.
        folder: The sweep's directory.
        stopped: For the names of arms that halving stopped, the step; they have curves, and no values.
    """
    rows = []
    for arm in plan.arms:
        step = (stopped or {}).get(arm.name)
        values: dict[str, list[float]] = {}
        curves: dict[str, list[Any]] = {}
        failures, missing = {}, []
        for job in (job for job in plan.jobs if job.arm == arm):
            here = job_folder(folder, job)
            result = read_json(here / RESULT_FILE) if step is None else read_json(rung_file(folder, job, step))
            if result is None:
                failed = read_json(here / FAILED_FILE)
                if failed is None:
                    missing.append(job.seed)
                else:
                    failures[job.seed] = str(failed["reason"])
                continue
            for key, value in result["final"].items() if step is None else ():
                values.setdefault(key, []).append(value)
            for key, (steps, points) in result["curves"].items():
                curves.setdefault(key, []).append((tuple(steps), tuple(points)))
        rows.append(
            Row(
                arm,
                {key: tuple(found) for key, found in values.items()},
                {key: tuple(found) for key, found in curves.items()},
                failures,
                tuple(missing),
                step,
            )
        )
    return rows


def rung_file(folder: Path, job: Job, step: int) -> Path:
    """What a run had shown at a rung."""
    return job_folder(folder, job) / f"rung-{step}.json"


def read_json(file: Path) -> dict[str, Any] | None:
    """The object in a file that one of the sweep's processes wrote; None where there is no such file yet.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}. Remove it, and the run is done again.") from error
    return content
