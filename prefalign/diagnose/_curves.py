"""The report's pictures: one panel per question, training as lines, evaluation as points."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._errors import ConfigError
from ._run import Run, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#1f2733", "#6b7686", "#e6e9ef"
# Colours that also people with colour-blindness tell apart (Okabe and Ito).
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#8a5aa8", "#56b4e9"
_MOST_POINTS = 2000
PROXY = "rewards/margins"


@dataclass(frozen=True)
class Panel:
    """A picture: its file name, title, what its axis counts, and its metrics with label and colour."""

    name: str
    title: str
    unit: str
    caption: str
    lines: tuple[tuple[str, str, str], ...]
    level: float | None = None
    share: bool = False


PANELS = (
    Panel("loss", "Loss", "loss, mean over pairs", "What is minimised.", (("loss", "loss", BLUE),)),
    Panel(
        "margins",
        "Reward margin",
        "chosen minus rejected",
        "Implicit reward of the chosen completion minus that of the rejected one; above zero, the policy prefers the "
        "chosen one more than its reference does.",
        (("rewards/margins", "margin", GREEN),),
        level=0.0,
    ),
    Panel(
        "accuracies",
        "Pair accuracy",
        "share of pairs",
        "How often that margin is positive, by the labels as they stand: with flipped labels, 100 % is memorising.",
        (("rewards/accuracies", "accuracy", PURPLE),),
        level=0.5,
        share=True,
    ),
    Panel(
        "logps",
        "Log-probability since the start",
        "nats, sum over tokens",
        "Mean change of each side. Both falling together is displacement.",
        (("logps/chosen_change", "chosen", BLUE), ("logps/rejected_change", "rejected", ORANGE)),
        level=0.0,
    ),
    Panel(
        "displacement",
        "Displacement",
        "share of pairs",
        "Pairs whose chosen completion is less likely than at the start.",
        (("displacement", "displaced", ORANGE),),
        level=0.5,
        share=True,
    ),
    Panel(
        "kl",
        "Distance to the reference",
        "nats per token",
        "Estimated Kullback-Leibler divergence of the next-token distributions, on the data's own tokens.",
        (("kl", "KL", SKY),),
    ),
)


@dataclass(frozen=True)
class Picture:
    """A drawn panel."""

    name: str
    title: str
    caption: str
    png: bytes


def draw(run: Run) -> list[Picture]:
    """Draw every panel whose metrics were logged.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure
    except ImportError:
        raise ConfigError("The report's curves need matplotlib: `pip install matplotlib`.") from None
    assert matplotlib.figure is not None
    panels = [panel for panel in (*PANELS, *_terms(run)) if any(_has(run, metric) for metric, _, _ in panel.lines)]
    pictures = [Picture(panel.name, panel.title, panel.caption, _panel(run, panel)) for panel in panels]
    return pictures + [picture for picture in (_gold_over_distance(run), _gold_of_samples(run)) if picture is not None]


def _terms(run: Run) -> tuple[Panel, ...]:
    """A panel of the loss's terms, where it has several."""
    names = sorted(name for name in run.train if name.startswith("loss/"))
    colors = (BLUE, ORANGE, GREEN, PURPLE, SKY)
    lines = tuple((name, name.removeprefix("loss/"), colors[i % 5]) for i, name in enumerate(names))
    return (Panel("terms", "Terms of the loss", "mean over pairs", "Each term without its weight.", lines),)


def _has(run: Run, metric: str) -> bool:
    return metric in run.train or metric in run.evaluation


def _panel(run: Run, panel: Panel) -> bytes:
    figure, axes = _figure()
    if panel.level is not None:
        axes.axhline(panel.level, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for metric, label, color in panel.lines:
        if metric in run.train:
            _line(axes, run.train[metric], label, color)
        if metric in run.evaluation:
            series = run.evaluation[metric]
            axes.plot(
                series.steps,
                series.values,
                linestyle=":",
                linewidth=1.3,
                marker="o",
                markersize=5.5,
                color=color,
                markeredgecolor="white",
                markeredgewidth=1.1,
                label=f"{label}, evaluation",
                zorder=4,
            )
    if panel.share:
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(panel.unit)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK, handlelength=1.8)
    return _png(figure)


def _line(axes: Axes, series: Series, label: str, color: str) -> None:
    """The values as logged, faint, and their running mean."""
    steps, values = _thinned(series)
    if len(values) < 12:
        axes.plot(steps, values, color=color, linewidth=2, marker="o", markersize=3, label=label, zorder=3)
        return
    axes.plot(steps, values, color=color, linewidth=0.9, alpha=0.28, zorder=2)
    axes.plot(steps, running_mean(values, max(3, len(values) // 15)), color=color, linewidth=2.2, label=label, zorder=3)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over a centred window of about `width` values; near the ends the window is what there is.

    Example:
        >>> running_mean(np.array([0.0, 3.0, 6.0, 0.0]), 3).tolist()
        [1.5, 3.0, 3.0, 3.0]
    """
    half = width // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _thinned(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """At most 2000 points, each the mean of its neighbours: more than a picture has columns."""
    parts = min(len(series.values), _MOST_POINTS)
    if parts == len(series.values):
        return series.steps, series.values
    return tuple(
        np.array([part.mean() for part in np.array_split(column, parts)]) for column in (series.steps, series.values)
    )  # type: ignore[return-value]


def _gold_over_distance(run: Run) -> Picture | None:
    """Gold reward against distance, or else the reward margin, which stands for it: a proxy."""
    gold = sorted({name for side in (run.evaluation, run.train) for name in side if "gold" in name})
    found = _over_distance(run, gold)
    if found is not None:
        caption = "Where the gold reward turns down while the distance grows, the labels are being gamed."
        return Picture("gold_kl", "Gold reward over distance", caption, _path(*found, "gold reward"))
    found = _over_distance(run, [PROXY])
    if found is None:
        return None
    caption = "The margin is the loss's own reward: it grows even where the texts get worse. A gold reward tells"
    caption += f"; `{gold[0]}` was logged, but not twice at a step with `kl`." if gold else "."
    return Picture("proxy_kl", "Proxy reward over distance", caption, _path(*found, "reward margin (proxy)"))


def _over_distance(run: Run, names: list[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """Distances, and at the same steps the first of the metrics that has two of them."""
    for side in (run.evaluation, run.train):
        for name in names:
            if name not in side or "kl" not in side:
                continue
            steps, first, second = np.intersect1d(side[name].steps, side["kl"].steps, return_indices=True)
            if len(steps) >= 2:
                return side["kl"].values[second], side[name].values[first]
    return None


def _path(x: np.ndarray, y: np.ndarray, label: str) -> bytes:
    """Points in the order of the steps, from the first colour to the last."""
    figure, axes = _figure()
    axes.plot(x, y, color=SOFT, linewidth=1, zorder=2)
    points = axes.scatter(x, y, c=np.arange(len(x)), cmap="viridis", s=36, zorder=3, edgecolors="white", linewidths=0.8)
    bar = figure.colorbar(points, ax=axes, ticks=[0, len(x) - 1], pad=0.02)
    bar.ax.set_yticklabels(["first", "last"])
    bar.outline.set_visible(False)
    axes.set_xlabel("distance to the reference (nats per token)")
    axes.set_ylabel(label)
    return _png(figure)


def _gold_of_samples(run: Run) -> Picture | None:
    """Gold rewards of the samples, before against after."""
    pairs = [
        (s.gold_before, s.gold_after) for s in run.samples if s.gold_before is not None and s.gold_after is not None
    ]
    if len(pairs) < 2:
        return None
    figure, axes = _figure()
    before, after = np.array(pairs, dtype=float).T
    low, high = float(min(before.min(), after.min())), float(max(before.max(), after.max()))
    pad = 0.06 * (high - low or 1.0)
    ends = [low - pad, high + pad]
    axes.fill_between(ends, ends, ends[1], color=GREEN, alpha=0.06, linewidth=0, zorder=1)
    axes.plot(ends, ends, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.scatter(before, after, s=26, color=GREEN, alpha=0.55, edgecolors="white", linewidths=0.6, zorder=2)
    axes.scatter(
        [before.mean()],
        [after.mean()],
        s=120,
        marker="D",
        color=INK,
        edgecolors="white",
        linewidths=1.4,
        zorder=4,
        label="mean",
    )
    axes.set(xlim=ends, ylim=ends, xlabel="gold reward before", ylabel="gold reward after")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    caption = "Every point is one sampled prompt; above the diagonal the text after training is the better one."
    return Picture("gold", "Gold reward of samples", caption, _png(figure))


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.4), dpi=160, layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    axes.grid(color=GRID, linewidth=0.8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    axes.tick_params(colors=SOFT, labelsize=9, length=0, pad=5)
    axes.xaxis.label.set(color=SOFT, size=9.5)
    axes.yaxis.label.set(color=SOFT, size=9.5)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the date and the library's name, the same run gives the same file.
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
