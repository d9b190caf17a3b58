"""Where the nodes of a Hasse diagram go: a row per rank, few crossings, and a way around boxes for long edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

# A node's name, or (lower, upper, rank): where an edge passes a rank that it skips.
Slot = str | tuple[str, str, int]
Edges = Sequence[tuple[Slot, Slot]]
_MAX_POLISHED = 40


def rows_of(ranks: Mapping[str, int], edges: Sequence[tuple[str, str]]) -> tuple[list[list[Slot]], list[list[Slot]]]:
    """The rows of slots from the lowest rank up, and each edge as the slots it passes through."""
    rows: list[list[Slot]] = [[] for _ in range(max(ranks.values()) + 1)]
    for name, rank in ranks.items():
        rows[rank].append(name)
    chains: list[list[Slot]] = []
    for low, high in edges:
        passed: list[Slot] = [(low, high, rank) for rank in range(ranks[low] + 1, ranks[high])]
        for rank, slot in enumerate(passed, ranks[low] + 1):
            rows[rank].append(slot)
        chains.append([low, *passed, high])
    steps = [step for chain in chains for step in pairwise(chain)]
    return _untangled(rows, steps), chains


def crossings(rows: Sequence[Sequence[Slot]], edges: Edges) -> int:
    """How many pairs of edges between neighbouring rows cross."""
    place = {slot: (rank, i) for rank, row in enumerate(rows) for i, slot in enumerate(row)}
    spans: list[list[tuple[int, int]]] = [[] for _ in rows]
    for low, high in edges:
        spans[place[low][0]].append((place[low][1], place[high][1]))
    return sum(a[0] < b[0] and a[1] > b[1] for row in spans for a in row for b in row)


def _untangled(rows: list[list[Slot]], edges: Edges) -> list[list[Slot]]:
    """Sweep up and down, sorting each row by the barycentres of the row before; keep the best, then polish it."""
    below: dict[Slot, list[Slot]] = {slot: [] for row in rows for slot in row}
    above: dict[Slot, list[Slot]] = {slot: [] for row in rows for slot in row}
    for low, high in edges:
        below[high].append(low)
        above[low].append(high)
    best, least = [row[:] for row in rows], _cost(rows, edges)
    for sweep in range(24):
        near = below if sweep % 2 == 0 else above
        for row in rows if sweep % 2 == 0 else reversed(rows):
            position = _positions(rows)
            keys = {
                slot: sum(position[other] for other in near[slot]) / len(near[slot]) if near[slot] else position[slot]
                for slot in row
            }
            row.sort(key=keys.__getitem__)
        cost = _cost(rows, edges)
        if cost < least:
            best, least = [row[:] for row in rows], cost
    return _polished(best, edges)


def _polished(rows: list[list[Slot]], edges: Edges) -> list[list[Slot]]:
    """Swap two slots of a row while that leaves fewer crossings, or as many and shorter edges."""
    if sum(map(len, rows)) > _MAX_POLISHED:  # every trial counts all crossings
        return rows
    least, improved = _cost(rows, edges), True
    while improved:
        improved = False
        for row in rows:
            for i in range(len(row)):
                for j in range(i):
                    row[i], row[j] = row[j], row[i]
                    cost = _cost(rows, edges)
                    if cost < least:
                        least, improved = cost, True
                    else:
                        row[i], row[j] = row[j], row[i]
    return rows


def _cost(rows: Sequence[Sequence[Slot]], edges: Edges) -> tuple[int, float]:
    position = _positions(rows)
    return crossings(rows, edges), sum((position[a] - position[b]) ** 2 for a, b in edges)


def _positions(rows: Sequence[Sequence[Slot]]) -> dict[Slot, float]:
    return {slot: place - (len(row) - 1) / 2 for row in rows for place, slot in enumerate(row)}
