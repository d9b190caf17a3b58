"""Hasse diagrams with matplotlib, laid out in ranks with few crossings."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import SpecError
from ._polynomial import show
from ._structure import PreferenceStructure

if TYPE_CHECKING:
    from ._lattice import Lattice

_ENDINGS = (".svg", ".png", ".pdf")
_COLOURS = {"v": "#2a9d5c", "x": "#d1495b", "b": "#e0a32e", "o": "#c9ced6"}
_INK, _SOFT, _EDGE, _PAPER = "#1f2933", "#5b6775", "#8a96a3", "#ffffff"
_WIDTH, _HEIGHT = 2.35, 1.06
_GAP_X, _GAP_Y = 0.42, 0.86
_MAX_NODES = 400


def draw_lattice(lattice: Lattice, path: Path, title: str) -> Path:
    """Draw a lattice into a file; see `Lattice.draw`."""
    if path.suffix.lower() not in _ENDINGS:
        raise SpecError(f"`path` must end in .svg, .png or .pdf (got {path.name!r}).")
    if not path.parent.is_dir():
        raise SpecError(f"`path` must lie in a folder that exists (got {str(path)!r}).")
    if len(lattice) > _MAX_NODES:
        raise SpecError(f"at most {_MAX_NODES} structures can be drawn (got {len(lattice)}).")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SpecError("drawing needs matplotlib: pip install 'prefalign[plot]'.") from error
    places = layout(lattice)
    columns = max(x for x, _ in places.values()) - min(x for x, _ in places.values())
    rows = max(y for _, y in places.values())
    width, height = columns + _WIDTH + 0.5, rows + _HEIGHT + 0.9 + (0.35 if title else 0)
    # DejaVu, which comes with matplotlib, has → and ⊕; as paths they look the same on every machine.
    style = {"svg.fonttype": "path", "svg.hashsalt": "prefalign", "font.family": "DejaVu Sans"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        left = min(x for x, _ in places.values()) - (width - columns) / 2
        axes.set_xlim(left, left + width)
        axes.set_ylim(-_HEIGHT / 2 - 0.65, -_HEIGHT / 2 - 0.65 + height)
        for low, high in lattice.edges:
            _edge(axes, places[low], places[high])
        for name, structure in lattice.nodes.items():
            _node(axes, places[name], name, structure)
        _legend(axes, left + width / 2, -_HEIGHT / 2 - 0.36, lattice)
        if title:
            axes.text(left + width / 2, rows + _HEIGHT / 2 + 0.3, title, ha="center", color=_INK, fontsize=13)
        metadata: dict[str, Any] = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, dpi=160, facecolor=_PAPER, metadata=metadata)
    return path


def layout(lattice: Lattice) -> dict[str, tuple[float, float]]:
    """The centre of each node: a row per rank, and in each row the order that sweeps of barycentres leave."""
    highest = max(lattice.ranks.values())
    rows = [[name for name in lattice.nodes if lattice.ranks[name] == rank] for rank in range(highest + 1)]
    neighbours: dict[str, list[str]] = {name: [] for name in lattice.nodes}
    for low, high in lattice.edges:
        neighbours[low].append(high)
        neighbours[high].append(low)
    best = _untangled(rows, neighbours, lattice.edges)
    places: dict[str, tuple[float, float]] = {}
    widest = max(map(len, best))
    for rank, row in enumerate(best):
        # A short row is spread a little, so that its edges fan out.
        step = (_WIDTH + _GAP_X) * (1 + 0.25 * (widest - len(row)) / widest)
        for place, name in enumerate(row):
            places[name] = ((place - (len(row) - 1) / 2) * step, rank * (_HEIGHT + _GAP_Y))
    return places


def _untangled(
    rows: list[list[str]], neighbours: dict[str, list[str]], edges: tuple[tuple[str, str], ...]
) -> list[list[str]]:
    rows = [row[:] for row in rows]
    best, fewest = [row[:] for row in rows], crossings(rows, edges)
    for sweep in range(24):
        order = range(len(rows)) if sweep % 2 == 0 else range(len(rows) - 1, -1, -1)
        for rank in order:
            position = {name: place - (len(row) - 1) / 2 for row in rows for place, name in enumerate(row)}
            side = set(rows[rank - 1] if sweep % 2 == 0 else rows[rank + 1]) if 0 < rank < len(rows) - 1 else None
            rows[rank] = sorted(rows[rank], key=lambda name: _barycentre(name, neighbours, position, side))
        found = crossings(rows, edges)
        if found < fewest:
            best, fewest = [row[:] for row in rows], found
    return _polished(best, edges)


def _barycentre(
    name: str, neighbours: dict[str, list[str]], position: dict[str, float], side: set[str] | None
) -> float:
    near = [position[other] for other in neighbours[name] if side is None or other in side]
    return sum(near) / len(near) if near else position[name]


def _polished(rows: list[list[str]], edges: tuple[tuple[str, str], ...]) -> list[list[str]]:
    """Swap two nodes of a row wherever that leaves fewer crossings, or as many and shorter edges, until none does."""
    if sum(map(len, rows)) > 40:  # every trial counts all crossings
        return rows
    cost = _cost(rows, edges)
    improved = True
    while improved:
        improved = False
        for row in rows:
            for i in range(len(row)):
                for j in range(i):
                    row[i], row[j] = row[j], row[i]
                    trial = _cost(rows, edges)
                    if trial < cost:
                        cost, improved = trial, True
                    else:
                        row[i], row[j] = row[j], row[i]
    return rows


def _cost(rows: list[list[str]], edges: tuple[tuple[str, str], ...]) -> tuple[int, float]:
    position = {name: place - (len(row) - 1) / 2 for row in rows for place, name in enumerate(row)}
    return crossings(rows, edges), sum((position[a] - position[b]) ** 2 for a, b in edges)


def crossings(rows: list[list[str]], edges: tuple[tuple[str, str], ...]) -> int:
    """How many pairs of edges between neighbouring rows cross."""
    place = {name: (rank, i) for rank, row in enumerate(rows) for i, name in enumerate(row)}
    count = 0
    for below, _ in pairwise(range(len(rows))):
        spans = sorted(
            (place[a][1], place[b][1]) for a, b in edges if place[a][0] == below and place[b][0] == below + 1
        )
        count += sum(a[0] < b[0] and a[1] > b[1] for i, a in enumerate(spans) for b in spans[i + 1 :])
    return count


def _edge(axes: Any, low: tuple[float, float], high: tuple[float, float]) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    (x1, y1), (x2, y2) = low, high
    # Edges leave and enter a box near its middle, leaning towards where they go.
    lean = _WIDTH * 0.30
    x1, x2 = x1 + max(-lean, min(lean, (x2 - x1) * 0.12)), x2 - max(-lean, min(lean, (x2 - x1) * 0.12))
    y1, y2 = y1 + _HEIGHT / 2, y2 - _HEIGHT / 2
    middle = (y2 - y1) * 0.42
    curve = Curve([(x1, y1), (x1, y1 + middle), (x2, y2 - middle), (x2, y2)], [1, 4, 4, 4])
    axes.add_patch(PathPatch(curve, fill=False, edgecolor=_EDGE, linewidth=1.1, zorder=1))


def _node(axes: Any, place: tuple[float, float], name: str, structure: PreferenceStructure) -> None:
    from matplotlib.patches import FancyBboxPatch, Rectangle

    x, y = place
    axes.add_patch(
        FancyBboxPatch(
            (x - _WIDTH / 2 + 0.06, y - _HEIGHT / 2 + 0.06),
            _WIDTH - 0.12,
            _HEIGHT - 0.12,
            boxstyle="round,pad=0.06,rounding_size=0.09",
            facecolor=_PAPER,
            edgecolor=_EDGE,
            linewidth=1.0,
            zorder=2,
        )
    )
    _fitted(axes, x, y + 0.33, name, 11, color=_INK, weight="bold")
    _fitted(axes, x, y + 0.10, str(structure.P), 8.5, color=_INK)
    condition = [] if str(structure.P_C) == "⊤" else [f"if {structure.P_C}"]
    both = [] if str(structure.P_A) == "⊥" else [f"also {structure.P_A}"]
    _fitted(axes, x, y - 0.09, ";  ".join(condition + both), 6.8, color=_SOFT)
    if structure.is_degenerate:
        return
    _fitted(axes, x - (0.34 if len(structure.atoms) <= 2 else 0), y - 0.32, show(structure.ratio), 7.2, color=_SOFT)
    if len(structure.atoms) > 2:
        return
    size = 0.15
    for i, letter in enumerate(structure.rows):
        corner = (x + _WIDTH / 2 - 0.12 - size * (len(structure.rows) - i), y - 0.40)
        axes.add_patch(Rectangle(corner, size, size, facecolor=_COLOURS[letter], edgecolor=_PAPER, lw=0.8, zorder=3))


def _fitted(axes: Any, x: float, y: float, text: str, size: float, **style: Any) -> None:
    """Text that shrinks to the box: a character is about 0.6 of its size wide."""
    room = _WIDTH - 0.2
    needed = len(text) * size * 0.58 / 72
    if needed > room:
        size = max(4.0, size * room / needed)
        keep = int(room * 72 / (size * 0.58))
        text = text if len(text) <= keep else text[: keep - 1] + "…"
    axes.text(x, y, text, ha="center", va="center", fontsize=size, zorder=4, **style)


def _legend(axes: Any, x: float, y: float, lattice: Lattice) -> None:
    from matplotlib.patches import Rectangle

    if len(lattice.atoms) > 2:
        axes.text(x, y, "upwards: entailed", ha="center", va="center", fontsize=7.5, color=_SOFT)
        return
    words = {"v": "top", "x": "bottom", "b": "both", "o": "neither"}
    axes.text(x - 2.05, y, "rows TT TF FT FF:", ha="right", va="center", fontsize=7.5, color=_SOFT)
    for i, (letter, word) in enumerate(words.items()):
        start = x - 1.9 + 0.85 * i
        axes.add_patch(Rectangle((start, y - 0.075), 0.15, 0.15, facecolor=_COLOURS[letter], lw=0))
        axes.text(start + 0.22, y, word, ha="left", va="center", fontsize=7.5, color=_SOFT)
    axes.text(x + 1.55, y, "upwards: entailed", ha="left", va="center", fontsize=7.5, color=_SOFT)
