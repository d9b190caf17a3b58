"""The demo's picture: rewards before and after, the training, and every held-out pair."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ._measurement import Measurement

BEFORE, AFTER, INK, FAINT = "#8a8f98", "#3b5bdb", "#22262b", "#d5d9e0"
_WINDOW = 5  # steps of the running mean; single batches of 8 pairs are noise


def draw(
    file: Path, before: Measurement, after: Measurement, result: dict[str, Any], history: list[dict[str, float]]
) -> None:
    """Draw the picture into `file` (the suffix says which format).

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("the picture needs matplotlib: `pip install matplotlib`.") from error
    figure = Figure(figsize=(13.5, 4.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    rewards, training, pairs = figure.subplots(1, 3, width_ratios=[1.15, 1, 1])
    _rewards(rewards, before.gold, after.gold, result)
    _training(training, history)
    _pairs(pairs, np.subtract(after.chosen, before.chosen), np.subtract(after.rejected, before.rejected), result)
    for axes in (rewards, training, pairs):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(colors=INK, color=FAINT)
    partial = file.with_name(f".{file.name}")
    figure.savefig(partial, format=file.suffix[1:])
    partial.replace(file)


def _title(axes: Axes, title: str, below: str) -> None:
    axes.set_title(f"{title}\n", loc="left", fontsize=11.5, fontweight="bold", color=INK)
    axes.text(0, 1.02, below, transform=axes.transAxes, fontsize=9.5, color=INK, va="bottom")


def _rewards(axes: Axes, before: list[float], after: list[float], result: dict[str, Any]) -> None:
    bins = np.linspace(-1, 1, 17).tolist()
    axes.hist(before, bins, color=BEFORE, alpha=0.55, label="before")
    axes.hist(after, bins, histtype="step", linewidth=2, color=AFTER, label="after")
    for values, colour in ((before, BEFORE), (after, AFTER)):
        axes.axvline(float(np.mean(values)), color=colour, linestyle=(0, (4, 2)), linewidth=1.6)
    change = result["gold_change"]
    _title(
        axes,
        "Gold reward of samples on held-out prompts",
        f"mean {np.mean(before):+.2f} → {np.mean(after):+.2f}: "
        f"change {change['mean']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}]",
    )
    axes.set_xlabel("VADER compound score (dashed: means)")
    axes.set_ylabel("samples")
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.legend(frameon=False, loc="upper left")


def _training(axes: Axes, history: list[dict[str, float]]) -> None:
    rows = [row for row in history if "rewards/margins" in row]
    for key, label, colour in (
        ("logps/chosen_change", "labelled better", AFTER),
        ("logps/rejected_change", "labelled worse", "#c2410c"),
    ):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            steps, values = np.array(points).T
            axes.plot(steps, values, color=colour, alpha=0.2, linewidth=1)
            axes.plot(steps, _smooth(values), color=colour, linewidth=2, label=label)
    axes.axhline(0, color=FAINT, linewidth=1, zorder=0)
    _title(axes, "Training, on noisy labels", f"log-probability less its start; running mean of {_WINDOW} steps")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("nats, sum over tokens")
    if rows:
        axes.legend(frameon=False, loc="lower left")


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean of the last `_WINDOW` values at each place, of fewer at the start."""
    sums = np.cumsum(np.concatenate([np.zeros(1), values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - _WINDOW, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def _pairs(axes: Axes, chosen: np.ndarray, rejected: np.ndarray, result: dict[str, Any]) -> None:
    right = chosen > rejected
    # One scale for both axes, so that the diagonal parts the pairs; zero always in sight.
    changes = np.concatenate([chosen, rejected, np.zeros(1)])
    pad = 0.06 * float(np.ptp(changes)) + 1e-3
    low, high = float(changes.min()) - pad, float(changes.max()) + pad
    axes.fill_between([low, high], [low, high], low, color=AFTER, alpha=0.06, linewidth=0)
    axes.plot([low, high], [low, high], color=FAINT, linewidth=1)
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.scatter(
        chosen[right], rejected[right], s=22, color=AFTER, alpha=0.75, linewidths=0, label="sides with the truth"
    )
    axes.scatter(chosen[~right], rejected[~right], s=22, color=BEFORE, linewidths=0, label="does not")
    axes.set(xlim=(low, high), ylim=(low, high))
    _title(
        axes,
        "Held-out pairs, true labels",
        f"{100 * result['accuracy']['mean']:.0f} % side with the truth; "
        f"the better one fell in {100 * result['displaced']['mean']:.0f} %",
    )
    axes.set_xlabel("better completion: change of log-probability, nats")
    axes.set_ylabel("worse completion: likewise")
    axes.legend(frameon=False, loc="upper left", fontsize=9)
