"""The page of a sweep: a table with intervals over seeds, what theory says, curves and lattices."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from .._files import write_json
from ..diagnose import Interval, interval, write_atomically
from ._arms import Arm
from ._curves import Picture, draw_curves, draw_lattices
from ._plan import METRICS, Metric, Plan
from ._results import Row, collect
from ._study import Queue

PAGE_FILE, TABLE_FILE = "sweep.html", "sweep.json"


def write_page(queue: Queue, sort_by: str | None = None) -> Path:
    """Write `sweep.html`, `sweep.json` and the pictures; also of a sweep that is not finished.

    Args:
        queue: The sweep.
        sort_by: Key of the metric that orders the table and colours the lattice: "gold", "margin", "chosen",
            "rejected" or "displacement". Default: "gold" where there is one, else "margin".

    Returns:
        The page.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    rows, metric = _sorted(queue, sort_by)
    pictures = [*draw_lattices(rows, metric), *draw_curves(rows)]
    for picture in pictures:
        write_atomically(queue.folder / "sweep" / f"{picture.name}.png", picture.png)
    write_json(queue.folder / TABLE_FILE, {"sorted_by": metric.key, "arms": [_as_json(row) for row in rows]})
    page = queue.folder / PAGE_FILE
    write_atomically(page, _render(queue.plan, queue.folder, rows, metric, pictures).encode("utf-8", "replace"))
    return page


def _sorted(queue: Queue, sort_by: str | None) -> tuple[list[Row], Metric]:
    """The rows, the best first and those that were stopped last, the latest of them first."""
    rows = collect(queue)
    metric = _metric(rows, sort_by)
    rows.sort(key=lambda row: (_rank(row, metric), -(row.stopped or 0)))
    return rows, metric


def table(rows: Sequence[Row], metric: Metric) -> str:
    """The table as text, for the terminal."""
    shown = _shown(rows)
    lines = [["loss", "seeds", *(m.title + (" *" if m is metric else "") for m in shown)]]
    for row in rows:
        cells = [_cell(row, m) for m in shown]
        lines.append([row.arm.name, _seeds(row), *cells])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    text = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(text)


def _cell(row: Row, metric: Metric) -> str:
    found = row.interval(metric.key)
    if found is None:
        return "-"
    return str(found) if len(row.values[metric.key]) > 1 else f"{found.mean:.3g}"  # one seed has no interval


def summary(queue: Queue, sort_by: str | None = None) -> str:
    """The table of what there is, in the page's order, and why runs failed."""
    rows, metric = _sorted(queue, sort_by)
    failures = [f"{row.arm.name}, seed {seed}: {reason}" for row in rows for seed, reason in row.failures.items()]
    told = f"\n\n{len(failures)} runs failed. {failures[0]}" if failures else ""
    return table(rows, metric) + told


def _metric(rows: Sequence[Row], sort_by: str | None) -> Metric:
    known = {metric.key: metric for metric in METRICS}
    if sort_by is not None:
        return known[sort_by]
    return known["gold" if any("gold" in row.values for row in rows) else "margin"]


def _shown(rows: Sequence[Row]) -> list[Metric]:
    return [metric for metric in METRICS if any(metric.key in row.values for row in rows)]


def _rank(row: Row, metric: Metric) -> float:
    found = row.interval(metric.key)
    return float("inf") if found is None else -found.mean if metric.up else found.mean


def _seeds(row: Row) -> str:
    if row.stopped is not None:
        return f"stopped at {row.stopped}"
    done = max((len(values) for values in row.values.values()), default=0)
    return f"{done}/{done + len(row.failures) + len(row.missing)}"


def _as_json(row: Row) -> dict[str, Any]:
    found = {key: row.interval(key) for key in row.values}
    return {
        "name": row.arm.name,
        "kind": row.arm.kind,
        "loss": row.arm.loss,
        "rows": row.arm.rows or None,
        "results": {
            key: {"mean": one.mean, "low": one.low, "high": one.high, "values": list(row.values[key])}
            for key, one in found.items()
            if one is not None
        },
        "failures": {str(seed): reason for seed, reason in row.failures.items()},
        "missing": list(row.missing),
        "stopped": row.stopped,
        "theory": theory(row.arm),
    }


def theory(arm: Arm) -> dict[str, Any]:
    """What follows from an arm's structure, without its SFT term; empty for a loss that is not one structure."""
    from ..logic import Behaviour

    structure = arm.structure
    if structure is None:
        return {}
    facts = Behaviour(structure)
    return {
        "limit": str(facts.limit),
        "may_collapse": facts.rewards_collapse,
        "summed": facts.summed,
        "can_be_displaced": facts.displacement is not None,
    }


def _render(plan: Plan, folder: Path, rows: Sequence[Row], metric: Metric, pictures: Sequence[Picture]) -> str:
    import jinja2

    source = files(__package__).joinpath("sweep.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    going = [row for row in rows if row.stopped is None]
    done = sum(len(plan.seeds) - len(row.missing) - len(row.failures) for row in going)
    page: str = environment.from_string(source).render(
        name=folder.resolve().name,
        plan=plan,
        metric=metric,
        metrics=_shown(rows),
        done=done,
        total=len(plan.seeds) * len(going),
        rows=[{"row": row, "seeds": _seeds(row), "theory": theory(row.arm), **_cells(row)} for row in going],
        stopped=[(row, *_judged(row, plan.judge_by)) for row in rows if row.stopped is not None],
        rungs=sorted({step for arm in plan.arms for step in plan.rungs(arm)}),
        failures=[(row.arm.name, seed, reason) for row in rows for seed, reason in row.failures.items()],
        pictures=[(picture, base64.b64encode(picture.png).decode("ascii")) for picture in pictures],
        base=[(name, json.dumps(value, ensure_ascii=False)) for name, value in plan.base.items()],
        command=f"prefalign sweep --out {folder.name}",
    )
    return page


def _judged(row: Row, key: str) -> tuple[int, Interval | None]:
    """How many seeds of a loss were judged where it was stopped, and what they had shown."""
    values = [dict(zip(*curve, strict=True)).get(row.stopped or 0) for curve in row.curves.get(key, ())]
    known = [value for value in values if value is not None]
    return len(known), interval(known) if known else None


def _cells(row: Row) -> dict[str, Any]:
    return {"cells": {metric.key: row.interval(metric.key) for metric in METRICS}, "one": not _several(row.values)}


def _several(values: Mapping[str, Sequence[float]]) -> bool:
    """Whether there is more than one seed: of one there is no interval."""
    return any(len(found) > 1 for found in values.values())
