"""Successive halving in a plain directory: who goes on is decided once, from files, and written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ._arms import Arm
from ._plan import Job, Plan, job_folder, write_once
from ._results import FAILED_FILE, METRICS, RESULT_FILE, read_json, rung_file


@dataclass(frozen=True)
class Leg:
    """A run up to a rung.

    Args:
        job: The run.
        until: Step of the rung; 0 for the end.
    """

    job: Job
    until: int = 0

    def is_done(self, folder: Path) -> bool:
        """Whether it has a result, or has failed."""
        here = job_folder(folder, self.job)
        result = rung_file(folder, self.job, self.until) if self.until else here / RESULT_FILE
        return result.is_file() or (here / FAILED_FILE).is_file()


@dataclass(frozen=True)
class Decision:
    """What happened at a rung.

    Args:
        step: The rung.
        values: For each loss that was judged, the best first, its seeds' values; none where all its runs had failed.
        kept: Names of those that went on.
    """

    step: int
    values: Mapping[str, tuple[float, ...]]
    kept: tuple[str, ...]

    @property
    def stopped(self) -> tuple[str, ...]:
        """Names of those that were stopped."""
        return tuple(name for name in self.values if name not in self.kept)


def open_legs(plan: Plan, folder: Path) -> list[Leg]:
    """What is left to be trained and may be begun now, in the plan's order; a rung that is complete is decided."""
    going = {arm.name for arm in plan.arms if plan.halving is not None and plan.halving.judges(arm)}
    ahead = {arm.name: 0 for arm in plan.arms if arm.name not in going}  # nothing stands in these runs' way
    for step in plan.halving.rungs if plan.halving is not None else ():
        here = [Leg(job, step) for job in plan.jobs if job.arm.name in going]
        if not all(leg.is_done(folder) for leg in here):
            ahead |= dict.fromkeys(going, step)
            break
        going &= set(_decide(plan, folder, step, [arm for arm in plan.arms if arm.name in going]).kept)
    else:
        ahead |= dict.fromkeys(going, 0)
    legs = [Leg(job, ahead[job.arm.name]) for job in plan.jobs if job.arm.name in ahead]
    return [leg for leg in legs if not leg.is_done(folder)]


def decisions(plan: Plan, folder: Path) -> list[Decision]:
    """What has been decided so far."""
    made = []
    for step in plan.halving.rungs if plan.halving is not None else ():
        found = _read(folder, step)
        if found is None:
            break
        made.append(found)
    return made


def stopped_arms(plan: Plan, folder: Path) -> dict[str, int]:
    """The step at which each loss was stopped that was."""
    return {name: decision.step for decision in decisions(plan, folder) for name in decision.stopped}


def _decide(plan: Plan, folder: Path, step: int, arms: Sequence[Arm]) -> Decision:
    """The decision at a rung that all runs have reached: made by whoever comes first, and the same whoever it is."""
    found = _read(folder, step)
    if found is not None:
        return found
    assert plan.halving is not None, "only halving has rungs"
    metric = next(metric for metric in METRICS if metric.key == plan.halving.by)
    values: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for job in plan.jobs:
        shown = read_json(rung_file(folder, job, step)) if job.arm.name in values else None
        if shown is not None and metric.key in shown["final"]:
            values[job.arm.name].append(shown["final"][metric.key])
    known = [name for name in values if values[name]]
    # The sort is stable: equals stay in the plan's order.
    known.sort(key=lambda name: -fmean(values[name]) if metric.up else fmean(values[name]))
    kept = known[: max(1, -(-len(arms) // plan.halving.factor))]
    ordered = {name: values[name] for name in [*known, *(name for name in values if not values[name])]}
    write_once(_file(folder, step), {"step": step, "by": metric.key, "values": ordered, "kept": kept})
    made = _read(folder, step)
    assert made is not None, "it was just written"
    return made


def _read(folder: Path, step: int) -> Decision | None:
    content = read_json(_file(folder, step))
    if content is None:
        return None
    return Decision(step, {name: tuple(shown) for name, shown in content["values"].items()}, tuple(content["kept"]))


def _file(folder: Path, step: int) -> Path:
    return folder / "rungs" / f"{step}.json"
