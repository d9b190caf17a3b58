"""Draws docs/images/architecture.svg from the package's imports: `python docs/_hooks/architecture.py`.

A box is a part of the package, with its rooms; a line goes down to a part that it imports. What a part reaches through
another one has no line of its own.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "prefalign"
PICTURE = Path(__file__).parents[1] / "images" / "architecture.svg"
WIDTH, GAP_X, GAP_Y, LINE = 168, 26, 46, 15


def parts() -> dict[str, list[str]]:
    """Each part with its rooms."""
    folders = [folder for folder in sorted(PACKAGE.iterdir()) if (folder / "__init__.py").is_file()]
    return {
        folder.name: [room.name for room in sorted(folder.iterdir()) if (room / "__init__.py").is_file()]
        for folder in folders
    }


def imports(names: set[str]) -> dict[str, set[str]]:
    """Which parts each part imports."""
    graph: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for file in (PACKAGE / name).rglob("*.py"):
            depth = len(file.relative_to(PACKAGE).parts)
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level == depth:
                    first = (node.module or "").partition(".")[0]
                    graph[name] |= ({first} if first else {alias.name for alias in node.names}) & names
        graph[name].discard(name)
    return graph


def direct(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no other way already goes."""

    def below(name: str) -> set[str]:
        return graph[name] | {far for near in graph[name] for far in below(near)}

    return {
        name: {target for target in targets if not any(target in below(other) for other in targets - {target})}
        for name, targets in graph.items()
    }


def draw() -> str:
    """The picture as SVG."""
    rooms = parts()
    graph = imports(set(rooms))
    floors: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        floors[name] = 1 + max((floors[target] for target in graph[name]), default=-1)
    rows = [sorted(name for name in floors if floors[name] == floor) for floor in range(max(floors.values()) + 1)][::-1]
    heights = {name: 30 + LINE * len(names) for name, names in rooms.items()}
    widest = max(map(len, rows))
    total = widest * WIDTH + (widest - 1) * GAP_X
    place: dict[str, tuple[float, float]] = {}
    y = 16.0
    for row in rows:
        left = 16 + total - len(row) * WIDTH - (len(row) - 1) * GAP_X  # to the right: arrows pass on the left
        for column, name in enumerate(row):
            place[name] = (left + column * (WIDTH + GAP_X), y)
        y += max(heights[name] for name in row) + GAP_Y
    size = f'width="{total + 32:.0f}" height="{y - GAP_Y + 16:.0f}"'
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {total + 32:.0f} {y - GAP_Y + 16:.0f}" '
        'font-family="DejaVu Sans, sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/><title>The parts of prefalign and what they import</title>',
    ]
    for name, targets in sorted(direct(graph).items()):
        x, top = place[name]
        for target in sorted(targets):
            to_x, to_y = place[target]
            # Down to the end of the row, across in the gap below it, and down again.
            start, gap = x + WIDTH / 2, top + max(heights[other] for other in rows[-1 - floors[name]])
            end, across = to_x + WIDTH / 2, gap + GAP_Y
            svg.append(
                f'<path d="M{start:.0f},{top + heights[name]:.0f} V{gap:.0f} C{start:.0f},{gap + GAP_Y / 2:.0f} '
                f'{end:.0f},{gap + GAP_Y / 2:.0f} {end:.0f},{across:.0f} V{to_y:.0f}" fill="none" stroke="#8a96a3" '
                'stroke-width="1.3"/>'
            )
    for name, (x, top) in sorted(place.items()):
        svg.append(
            f'<rect x="{x:.0f}" y="{top:.0f}" width="{WIDTH}" height="{heights[name]}" rx="6" fill="#eef2f7" '
            'stroke="#5b6775"/>'
        )
        svg.append(f'<text x="{x + 10:.0f}" y="{top + 19:.0f}" font-weight="bold" font-size="13">{escape(name)}</text>')
        svg += [
            f'<text x="{x + 18:.0f}" y="{top + 19 + LINE * line:.0f}" fill="#1f2933">{escape(room)}</text>'
            for line, room in enumerate(rooms[name], 1)
        ]
    return "\n".join([*svg, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), "utf-8")
    print(f"wrote {PICTURE}")
