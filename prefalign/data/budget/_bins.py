"""Best-fit bins: items with costs, under a budget for each bin."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Sequence


def best_fit(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Bins of items whose costs add up to at most `budget`: largest first, each into the fullest bin that takes it.

    An item that costs more than the budget is alone.

    Args:
        costs: Of each item.
        budget: Of each bin.

    Returns:
        The items' numbers, bin by bin.

    Example:
        >>> best_fit([5, 4, 4, 3, 2, 11], budget=9)
        [[5], [0, 1], [2, 3, 4]]
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (left, bin), sorted
    for item in sorted(range(len(costs)), key=lambda each: -costs[each]):
        place = bisect_left(room, (costs[item], -1))
        left, number = room.pop(place) if place < len(room) else (budget, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(item)
        insort(room, (left - costs[item], number))
    return bins


def best_fit_padded(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """The same where a bin is padded to its longest row: every pair of it then costs two rows of that length.

    The longest comes first and sets the cost of all that join it, so that a bin which cannot take the next pair can
    take none that follows: only the last bin is ever open.

    Example:
        >>> best_fit_padded([10, 3, 9, 4], budget=40)
        [[0, 2], [3, 1]]
    """
    bins: list[list[int]] = []
    for item in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        if not bins or 2 * lengths[bins[-1][0]] * (len(bins[-1]) + 1) > budget:
            bins.append([])
        bins[-1].append(item)
    return bins


def split_up(bins: Sequence[Sequence[int]], count: int, costs: Sequence[int]) -> list[list[int]]:
    """The bins, the costliest of several items halved until there are `count`; empty ones where nothing can be halved.

    Every process must run as many forward passes as the one with most.

    Example:
        >>> split_up([[0, 1, 2], [3]], 3, costs=[5, 4, 3, 9])
        [[3], [1, 2], [0]]
    """
    made = [list(one) for one in bins]
    heap = [(-sum(costs[item] for item in one), number) for number, one in enumerate(made) if len(one) > 1]
    heapq.heapify(heap)
    while len(made) < count:
        if not heap:
            made.append([])
            continue
        _, number = heapq.heappop(heap)
        halves: list[list[int]] = [[], []]
        for item in made[number]:  # the costliest first, each to the lighter half
            min(halves, key=lambda half: sum(costs[each] for each in half)).append(item)
        made[number] = halves[0]
        made.append(halves[1])
        for place in (number, len(made) - 1):
            if len(made[place]) > 1:
                heapq.heappush(heap, (-sum(costs[item] for item in made[place]), place))
    return sorted(made, key=lambda one: (-sum(costs[item] for item in one), one))
