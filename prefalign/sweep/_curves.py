"""The pictures of a sweep's page: curves of every arm, and the lattice coloured by result."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import ConfigError
from ._plan import METRICS, Metric
from ._results import Row

_INK, _SOFT, _GRID = "#1f2733", "#6b7686", "#e6e9ef"


@dataclass(frozen=True)
class Picture:
    """A drawn picture with its title and what it shows."""

    name: str
    title: str
    caption: str
    png: bytes


def draw_curves(rows: Sequence[Row]) -> list[Picture]:
    """A picture per metric: the mean over seeds of every arm, in one colour with and without an SFT term.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise ConfigError("The page of a sweep needs matplotlib: `pip install matplotlib`.") from None
    families = list(dict.fromkeys(row.arm.family for row in rows))
    palette = mpl.colormaps["tab20" if len(families) > 10 else "tab10"]
    colours = {family: palette(place % palette.N) for place, family in enumerate(families)}
    shown = [metric for metric in METRICS if any(metric.key in row.curves for row in rows)]
    return [_curves(metric, rows, colours) for metric in shown]


def _curves(metric: Metric, rows: Sequence[Row], colours: dict[str, Any]) -> Picture:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    if metric.key != "displacement":
        axes.axhline(0, color=_SOFT, linewidth=0.9)
    for row in rows:
        points = _mean_over_seeds(row, metric.key)
        if points:
            steps, values = zip(*points, strict=True)
            style = {"linestyle": "--" if row.arm.sft else "-", "color": colours[row.arm.family]}
            axes.plot(steps, values, marker="o", markersize=3, linewidth=1.7, label=row.arm.name, **style)
    axes.set_xlabel("optimizer step", color=_SOFT)
    axes.set_ylabel(metric.unit, color=_SOFT)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors=_SOFT, length=0)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, labelcolor=_INK, handlelength=3.2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    caption = f"{metric.unit}; held-out pairs, mean over seeds. Dashed: with an SFT term."
    return Picture(metric.key, metric.title, caption, buffer.getvalue())


def _mean_over_seeds(row: Row, key: str) -> list[tuple[float, float]]:
    """Mean of each step that every seed has."""
    curves = [dict(zip(*curve, strict=True)) for curve in row.curves.get(key, ())]
    shared = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return [(step, float(np.mean([curve[step] for curve in curves]))) for step in shared]


def draw_lattices(rows: Sequence[Row], metric: Metric) -> list[Picture]:
    """The entailment order of the arms' structures, coloured by a metric; a picture for each SFT weight."""
    pictures = []
    for weight in dict.fromkeys(row.arm.sft for row in rows):
        picture = _lattice([row for row in rows if row.arm.sft == weight], metric, weight)
        if picture is not None:
            pictures.append(picture)
    return pictures


def _lattice(rows: Sequence[Row], metric: Metric, weight: float) -> Picture | None:
    from ..logic import Lattice

    placed = [(row, row.arm.structure) for row in rows if row.arm.rows]
    if not placed:
        return None
    atoms = placed[0][0].arm.atoms  # a structure over other propositions is in another order
    named = {row.arm.family: structure for row, structure in placed if row.arm.atoms == atoms and structure is not None}
    lattice = Lattice(named)
    if len(lattice.nodes) < 2:
        return None
    values: dict[str, float] = {}
    for name, structure in lattice.nodes.items():
        numbers = [
            value
            for row, found in placed
            if row.arm.atoms == atoms and found is not None and found.over(lattice.atoms) == structure
            for value in row.values.get(metric.key, ())
        ]
        if numbers:
            values[name] = float(np.mean(numbers))
    if not values:
        return None
    told = f"with {weight:g} sft" if weight else "without an SFT term"
    with tempfile.TemporaryDirectory() as scratch:
        path = lattice.draw(Path(scratch) / "lattice.png", title=f"{metric.title}, {told}", values=values)
        png = path.read_bytes()
    caption = (
        f"Number: {metric.title.lower()} ({metric.unit}), mean over seeds; blue is the highest, orange the lowest, and "
        "white between or not known. Upwards: entailed."
    )
    return Picture(f"lattice-{weight:g}", f"The lattice, {told}", caption, png)
