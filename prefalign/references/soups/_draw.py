"""Plots of the loss between checkpoints: a curve for two, a triangle for three."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from ..._errors import CheckpointError
from ._landscape import Landscape

_SUFFIXES = (".png", ".svg", ".pdf")


def check_plot(file: str | os.PathLike[str]) -> Path:
    """The path of a plot, refused before any work if it cannot be drawn.

    Raises:
        CheckpointError: The suffix is no format of plots, or matplotlib is not installed.
    """
    path = Path(file)
    if path.suffix.lower() not in _SUFFIXES:
        raise CheckpointError(f"A plot must end in one of {', '.join(_SUFFIXES)} (got `{path}`).")
    try:
        import matplotlib  # noqa: F401 - is it there?
    except ImportError:
        raise CheckpointError("Plots need matplotlib: `pip install matplotlib`.") from None
    return path


def draw_path(landscape: Landscape, file: str | os.PathLike[str]) -> None:
    """Draw what was measured between models.

    Args:
        landscape: From `path`: of two models or three.
        file: A .png, .svg or .pdf file.

    Raises:
        CheckpointError: The file cannot be drawn, or there are neither two nor three models.
    """
    target = check_plot(file)
    if len(landscape.names) not in (2, 3):
        raise CheckpointError(f"Plots are of two or three models (got {len(landscape.names)}).")
    from matplotlib.figure import Figure

    rewarded = all(point.reward is not None for point in landscape.points)
    panels = [("held-out NLL, nats per token", [point.nll for point in landscape.points])]
    if rewarded:
        panels.append(("gold reward", [point.reward or 0.0 for point in landscape.points]))
    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        (_curve if len(landscape.names) == 2 else _triangle)(axes, landscape, title, values)
    figure.suptitle(f"barrier {landscape.barrier:.4f} nats per token", fontsize=10)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=150)


def _curve(axes: Any, landscape: Landscape, title: str, values: list[float]) -> None:
    shares = [point.weights[1] for point in landscape.points]
    pairs = sorted(zip(shares, values, strict=True))
    axes.plot(*zip(*pairs, strict=True), marker="o", color="#1f4e79", label="averages")
    axes.plot([0, 1], [pairs[0][1], pairs[-1][1]], linestyle="--", color="#888888", label="between the ends' values")
    axes.set_xlabel(f"share of {landscape.names[1]}  (0 = {landscape.names[0]})")
    axes.set_ylabel(title)
    axes.legend(frameon=False)


def _triangle(axes: Any, landscape: Landscape, title: str, values: list[float]) -> None:
    height = math.sqrt(3) / 2
    # First model at the lower left, second at the lower right, third on top.
    x = [point.weights[1] + point.weights[2] / 2 for point in landscape.points]
    y = [point.weights[2] * height for point in landscape.points]
    drawn = axes.tricontourf(x, y, values, levels=12, cmap="viridis")
    axes.plot(x, y, ".", color="white", markersize=3)
    axes.figure.colorbar(drawn, ax=axes, label=title)
    for name, place, side in zip(landscape.names, [(0, -0.04), (1, -0.04), (0.5, height + 0.02)], "lrc", strict=True):
        axes.text(
            *place, name, ha={"l": "left", "r": "right", "c": "center"}[side], va="bottom" if side == "c" else "top"
        )
    axes.set_aspect("equal")
    axes.set_axis_off()
