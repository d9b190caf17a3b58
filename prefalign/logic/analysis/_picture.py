"""Pictures of losses: the loss over the square of two probabilities, the rows' colours, the way of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._errors import SpecError
from ..polynomials import show
from ..structures import AnyRule, PreferenceStructure
from ._field import Field

ENDINGS = (".svg", ".png", ".pdf")
COLOURS = {"v": "#2f7fc1", "x": "#d9573f", "b": "#8a5aa8", "o": "#d5dae1"}
_INK, _SOFT = "#1f2933", "#5b6775"
_MOST = 6


def draw_fields(
    losses: Sequence[tuple[str, AnyRule | PreferenceStructure]],
    path: str | Path,
    at: Mapping[str, float] | None = None,
    start: tuple[float, float] = (0.3, 0.3),
) -> Path:
    """Draw losses side by side into one file; see `Explanation.draw`."""
    file = Path(path)
    if file.suffix.lower() not in ENDINGS:
        raise SpecError(f"`path` must end in .svg, .png or .pdf (got {file.name!r}).")
    if not file.parent.is_dir():
        raise SpecError(f"`path` must lie in a folder that exists (got {str(path)!r}).")
    if len(losses) > _MOST:
        raise SpecError(f"at most {_MOST} rules fit one picture (got {len(losses)}).")
    if not all(0 < p < 1 for p in start):
        raise SpecError(f"`start` must be two probabilities strictly between 0 and 1 (got {start!r}).")
    fields = [Field.of(loss, _known(loss, at)) for _, loss in losses]
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SpecError("drawing needs matplotlib: `pip install matplotlib`.") from error
    # As in the lattice's pictures: letters as paths, and the same drawing is the same bytes.
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "prefalign", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(5.2 * len(fields), 5.6), layout="constrained")
        grid: Any = figure.subplots(1, len(fields), squeeze=False)
        for axes, field, (title, _) in zip(grid[0], fields, losses, strict=True):
            _field(axes, field, title, start)
        metadata: dict[str, Any] = {"Date": None} if file.suffix.lower() == ".svg" else {}
        figure.savefig(file, dpi=130, facecolor="#ffffff", metadata=metadata)
    return file


def _known(loss: AnyRule | PreferenceStructure, at: Mapping[str, float] | None) -> dict[str, float]:
    """Of the values for all losses those that this one has."""
    have = {**Field.of(loss).fixed}
    return {name: value for name, value in (at or {}).items() if name in have}


def _field(axes: Any, field: Field, title: str, start: tuple[float, float]) -> None:
    import numpy as np

    fine = np.linspace(0.01, 0.99, 99)
    w, lost = np.meshgrid(fine, fine)
    with np.errstate(all="ignore"):
        heights = field.loss(w, lost)
    finite = heights[np.isfinite(heights)]
    low, high = (float(np.percentile(finite, q)) for q in (0, 97)) if finite.size else (0.0, 1.0)
    levels = np.linspace(low, high if high > low else low + 1, 13)
    shades = axes.contourf(w, lost, np.clip(heights, low, levels[-1]), levels=levels, cmap="Greys", alpha=0.75)
    axes.figure.colorbar(shades, ax=axes, shrink=0.75, label="loss", format="%.2g")
    coarse = np.linspace(0.06, 0.94, 12)
    w, lost = np.meshgrid(coarse, coarse)
    with np.errstate(all="ignore"):
        right, up = (slope * p * (1 - p) for slope, p in zip(field.slopes(w, lost), (w, lost), strict=True))
    size = np.hypot(right, up)
    size = np.where(np.isfinite(size) & (size > 1e-12), size, np.inf)
    axes.quiver(w, lost, right / size, up / size, color="#1b6a4b", angles="xy", scale=19, width=0.0045, pivot="mid")
    way = np.array(field.path(start))
    axes.plot(*way.T, color="#b8860b", linewidth=2.4)
    axes.plot(*way[0], marker="o", color="#b8860b", markersize=7)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel(f"{field.axes[0]}, the chosen answer's probability", color=_INK)
    axes.set_ylabel(f"{field.axes[1]}, the rejected answer's", color=_INK)
    shown = " and ".join(show(s.ratio) if s.bottom_mask else "infinite" for s in field.rule.structures)
    fixed = ", ".join(f"{name} = {value:g}" for name, value in field.fixed.items())
    axes.set_title(f"{title}\nlog( {shown} )" + (f",  {fixed}" if fixed else ""), fontsize=11, color=_INK)
    if all(len(s.reduced.over(s.atoms).atoms) == 2 for s in field.rule.structures):
        _corners(axes, field.rule.structures[0])


def _corners(axes: Any, structure: PreferenceStructure) -> None:
    """The rows as coloured corners of the square: TT is above right, where both answers are valid."""
    from matplotlib.patches import Rectangle

    for row, (x, y) in enumerate(((1, 1), (1, 0), (0, 1), (0, 0))):
        letter = structure.rows[row]
        corner = (x - 0.05 if x else -0.0, y - 0.05 if y else 0.0)
        axes.add_patch(Rectangle(corner, 0.05, 0.05, facecolor=COLOURS[letter], edgecolor="#ffffff", zorder=4))


def described_field(given: AnyRule | PreferenceStructure, start: tuple[float, float] = (0.3, 0.3)) -> str:
    """What the picture shows, for those who cannot see it.

    Example:
        >>> described_field(PreferenceStructure.from_rows("bvxo"))
        'The loss falls as w rises, and falls as l falls. From w = 0.30, l = 0.30 training leads to w = 0.82, l = 0.00.'
    """
    field = Field.of(given)
    first, second = field.axes
    way = field.path(start)
    end = way[-1]
    import numpy as np

    grid = np.linspace(0.05, 0.95, 19)
    w, lost = np.meshgrid(grid, grid)
    with np.errstate(all="ignore"):
        slopes = field.slopes(w, lost)
    said = []
    for name, slope in zip((first, second), slopes, strict=True):
        slope = slope[np.isfinite(slope)]
        if (np.abs(slope) <= 1e-7).all():
            said.append(f"does not depend on {name}")
        elif (slope >= -1e-7).all():
            said.append(f"falls as {name} rises")
        elif (slope <= 1e-7).all():
            said.append(f"falls as {name} falls")
        else:
            said.append(f"rises and falls with {name}")
    told = f"The loss {said[0]}, and {said[1]}." if said[0] != said[1] else f"The loss {said[0]}."
    leads = f"training leads to {first} = {end[0]:.2f}, {second} = {end[1]:.2f}" if len(way) > 1 else "nothing moves"
    return f"{told} From {first} = {start[0]:.2f}, {second} = {start[1]:.2f} {leads}."
