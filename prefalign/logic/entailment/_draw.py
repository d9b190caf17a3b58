"""Hasse diagrams with matplotlib: a box per structure, entailed structures higher up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..._errors import SpecError
from ..polynomials import show
from ..structures import PreferenceStructure
from ._layout import Slot, rows_of

_ENDINGS = (".svg", ".png", ".pdf")
# "both" is the mixture of "top" and "bottom", and blue and red stay apart for colour-blind eyes.
_COLOURS = {"v": "#2f7fc1", "x": "#d9573f", "b": "#8a5aa8", "o": "#d5dae1"}
_WORDS = {"v": "top", "x": "bottom", "b": "both", "o": "neither"}
_INK, _SOFT, _EDGE, _PAPER = "#1f2933", "#5b6775", "#8a96a3", "#ffffff"
# Inches.
_HEIGHT, _GAP_X, _GAP_Y, _SQUARE, _PASSAGE = 1.42, 0.26, 0.95, 0.19, 0.3
_MAX_NODES = 400


@dataclass(frozen=True)
class Hasse:
    """An order as it is drawn.

    Attributes:
        nodes: The structures by their names.
        edges: Pairs (lower, higher) of neighbours.
        ranks: How far up each name stands.
        atoms: The atoms of all structures.
    """

    nodes: Mapping[str, PreferenceStructure]
    edges: Sequence[tuple[str, str]]
    ranks: Mapping[str, int]
    atoms: tuple[str, ...]


def draw_lattice(
    lattice: Hasse, path: Path, title: str, values: Mapping[str, float] | None = None, shown: str = "{:+.2f}"
) -> Path:
    """Draw a lattice into a file; see `Lattice.draw`."""
    values = values or {}
    strange = [name for name in values if name not in lattice.nodes]
    if strange:
        raise SpecError(f"`values` must be for nodes of the lattice ({strange[0]!r} is none of them).")
    if path.suffix.lower() not in _ENDINGS:
        raise SpecError(f"`path` must end in .svg, .png or .pdf (got {path.name!r}).")
    if not path.parent.is_dir():
        raise SpecError(f"`path` must lie in a folder that exists (got {str(path)!r}).")
    if len(lattice.nodes) > _MAX_NODES:
        raise SpecError(f"at most {_MAX_NODES} structures can be drawn (got {len(lattice.nodes)}).")
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise SpecError("drawing needs matplotlib: `pip install matplotlib`.") from error
    # DejaVu comes with matplotlib and has → and ⊕; as paths its letters look the same on every machine. The salt makes
    # the same drawing the same bytes.
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "prefalign", "font.family": "DejaVu Sans"}):
        figure = _Picture(lattice, title, values, shown).figure
        metadata: dict[str, Any] = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, dpi=160, facecolor=_PAPER, metadata=metadata)
    return path


class _Picture:
    """One drawing; a unit of its axes is an inch."""

    def __init__(self, lattice: Hasse, title: str, values: Mapping[str, float], shown: str) -> None:
        from matplotlib.figure import Figure

        self.fills = tints(values)
        self.notes = {name: shown.format(value) for name, value in values.items()}
        self.small = len(lattice.atoms) <= 2
        self.box = 2.2 if self.small else 3.3
        rows, chains = rows_of(lattice.ranks, lattice.edges)
        self.places = self._places(rows)
        xs = [x for x, _ in self.places.values()]
        half = max(max(xs), -min(xs), 2.6 if self.small else 0) + self.box / 2 + 0.25
        bottom, top = -_HEIGHT / 2 - 0.8, (len(rows) - 1) * (_HEIGHT + _GAP_Y) + _HEIGHT / 2 + (0.6 if title else 0.25)
        self.figure = Figure(figsize=(2 * half, top - bottom))
        self.axes: Any = self.figure.add_axes((0, 0, 1, 1), xlim=(-half, half), ylim=(bottom, top))
        self.axes.set_axis_off()
        for chain in chains:
            for low, high in pairwise(chain):
                self._edge(low, high)
        for name, structure in lattice.nodes.items():
            self._node(name, structure)
        self._legend(bottom + 0.3)
        if title:
            self.axes.text(0, top - 0.3, title, ha="center", va="center", color=_INK, fontsize=15)

    def _places(self, rows: list[list[Slot]]) -> dict[Slot, tuple[float, float]]:
        widest = max(map(len, rows))
        places: dict[Slot, tuple[float, float]] = {}
        for rank, row in enumerate(rows):
            # A short row is spread a little, so that its edges fan out.
            gap = _GAP_X + 0.25 * self.box * (widest - len(row)) / widest
            widths = [self.box if isinstance(slot, str) else _PASSAGE for slot in row]
            x = -(sum(widths) + gap * (len(row) - 1)) / 2
            for slot, width in zip(row, widths, strict=True):
                places[slot] = (x + width / 2, rank * (_HEIGHT + _GAP_Y))
                x += width + gap
        return places

    def _edge(self, low: Slot, high: Slot) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path as Curve

        (x1, y1), (x2, y2) = self.places[low], self.places[high]
        # An edge leaves and enters a box near the middle, leaning towards where it goes.
        lean = max(-0.3 * self.box, min(0.3 * self.box, 0.12 * (x2 - x1)))
        ends = []
        for slot, x, y, side in ((low, x1, y1, 1), (high, x2, y2, -1)):
            shift = lean * side if isinstance(slot, str) else 0.0
            ends.append((x + shift, y + side * _HEIGHT / 2))
            if not isinstance(slot, str) and side > 0:
                self.axes.plot([x, x], [y - _HEIGHT / 2, y + _HEIGHT / 2], color=_EDGE, linewidth=1.1, zorder=1)
        (x1, y1), (x2, y2) = ends
        bend = 0.36 * (y2 - y1)
        curve = Curve([(x1, y1), (x1, y1 + bend), (x2, y2 - bend), (x2, y2)], [1, 4, 4, 4])
        self.axes.add_patch(PathPatch(curve, fill=False, edgecolor=_EDGE, linewidth=1.1, zorder=1))

    def _node(self, name: str, structure: PreferenceStructure) -> None:
        from matplotlib.patches import FancyBboxPatch

        x, y = self.places[name]
        corner, pad = (x - self.box / 2 + 0.06, y - _HEIGHT / 2 + 0.06), "round,pad=0.06,rounding_size=0.09"
        shape = FancyBboxPatch(corner, self.box - 0.12, _HEIGHT - 0.12, boxstyle=pad, edgecolor=_EDGE)
        shape.set_facecolor(self.fills.get(name, _PAPER))
        shape.set_zorder(2)
        self.axes.add_patch(shape)
        left, top, room = x - self.box / 2 + 0.14, y + _HEIGHT / 2, self.box - 0.26
        letters = structure.rows if self.small else ""
        squares = _SQUARE * len(letters)
        for i, letter in enumerate(letters):
            self._square(x + self.box / 2 - 0.12 - squares + _SQUARE * i, top - 0.31, letter)
        self._text(left, top - 0.22, room - squares, name, 13, color=_INK, weight="bold")
        note = self.notes.get(name, "")
        right = {"ha": "right", "va": "center", "fontsize": 13, "weight": "bold", "color": _INK, "zorder": 4}
        self.axes.text(left + room, top - _HEIGHT + 0.2, note, **right)
        self._text(left, top - 0.52, room, str(structure.P), 11.5, color=_INK)
        condition = [] if str(structure.P_C) == "⊤" else [f"if {structure.P_C}"]
        both = [] if str(structure.P_A) == "⊥" else [f"also {structure.P_A}"]
        for line, text in enumerate(condition + both):
            self._text(left, top - 0.76 - 0.21 * line, room, text, 9.2, color=_SOFT)
        if not structure.is_degenerate:
            self._text(left, top - _HEIGHT + 0.17, room - 0.125 * len(note), show(structure.ratio), 9.2, color=_SOFT)

    def _text(self, x: float, y: float, room: float, text: str, size: float, **style: Any) -> None:
        """Text that shrinks to its room, and is cut where it would become unreadable."""
        from matplotlib.textpath import TextPath

        def width(shown: str) -> float:
            return float(TextPath((0, 0), shown, size=size).get_extents().width) / 72 * 1.04 if shown else 0.0

        size = max(6.5, size * min(1.0, room / max(width(text), 0.01)))
        if width(text) > 1.03 * room:  # letters do not scale exactly with the size
            while text and width(text + " …") > room:
                text = text[:-1]
            text += " …"
        self.axes.text(x, y, text, ha="left", va="center", fontsize=size, zorder=4, **style)

    def _square(self, x: float, y: float, letter: str) -> None:
        from matplotlib.patches import Rectangle

        colour = _COLOURS[letter]
        self.axes.add_patch(Rectangle((x, y), _SQUARE, _SQUARE, facecolor=colour, edgecolor=_PAPER, lw=1.0, zorder=3))

    def _legend(self, y: float) -> None:
        style = {"va": "center", "fontsize": 10, "color": _SOFT}
        meaning = "upwards: entailed, and the loss is lower (decreasing links)"
        if not self.small:
            self.axes.text(0, y, meaning, ha="center", **style)
            return
        self.axes.text(-2.9, y + 0.12, "rows TT TF FT FF:", ha="left", **style)
        for i, (letter, word) in enumerate(_WORDS.items()):
            start = -1.3 + 1.08 * i
            self._square(start, y + 0.12 - _SQUARE / 2, letter)
            self.axes.text(start + 0.27, y + 0.12, word, ha="left", **style)
        self.axes.text(0, y - 0.14, meaning, ha="center", **style)


def tints(values: Mapping[str, float]) -> dict[str, str]:
    """A light colour for each value, on which ink is read: orange for the lowest, white, blue for the highest.

    Example:
        >>> tints({"worst": -1.0, "middle": 0.0, "best": 1.0})
        {'worst': '#f4a582', 'middle': '#ffffff', 'best': '#92c5de'}
    """
    low, high = min(values.values(), default=0.0), max(values.values(), default=0.0)
    middle, reach = (low + high) / 2, (high - low) / 2
    found = {}
    for name, value in values.items():
        place = (value - middle) / reach if reach else 0.0
        end = (0x92, 0xC5, 0xDE) if place > 0 else (0xF4, 0xA5, 0x82)
        found[name] = "#" + "".join(f"{round(255 + (channel - 255) * abs(place)):02x}" for channel in end)
    return found
