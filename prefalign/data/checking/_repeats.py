"""Finding pairs that stand in several rows: copies, contradictions, and labels that were given twice."""

from __future__ import annotations

from array import array

import numpy as np

from ._agreement import Agreement
from ._kinds import Tally
from ._text import Pair


class RepeatFinder:
    """Finds pairs that stand in several rows, the same way round or reversed, in 17 bytes per row.

    Two different pairs are taken for one if their 64-bit hashes agree: at 10 million rows the chance that this happens
    anywhere is below 1 in 100 000.
    """

    def __init__(self) -> None:
        self._keys = array("q")
        self._rows = array("q")
        self._reversed = array("b")

    def add(self, pair: Pair) -> None:
        """Remember one row."""
        texts = [completion if isinstance(completion, str) else repr(completion) for completion in pair.completions]
        prompt = pair.prompt if isinstance(pair.prompt, str) else repr(pair.prompt)
        turned = texts[0] > texts[-1]
        self._keys.append(hash((prompt, texts[-1], texts[0]) if turned else (prompt, texts[0], texts[-1])))
        self._rows.append(pair.row)
        self._reversed.append(turned)

    def report(self, tally: Tally) -> Agreement | None:
        """Put duplicates and contradictions into the tally, and return how labels that were given twice agree.

        Two labels of a pair are one comparison, four are two: every label is compared once, with the next one, so that
        comparisons are independent. None where no pair stands both ways round: copies are no second labels.
        """
        if not self._keys:
            return None
        rows = np.frombuffer(self._rows, dtype=np.int64)
        turned = np.frombuffer(self._reversed, dtype=np.int8).astype(np.int64)
        _, group, sizes = np.unique(np.frombuffer(self._keys, dtype=np.int64), return_inverse=True, return_counts=True)
        ones = np.bincount(group, weights=turned, minlength=len(sizes)).astype(np.int64)
        _, first = np.unique(2 * group + turned, return_index=True)
        later = np.ones(len(rows), dtype=bool)
        later[first] = False
        tally.add_all("duplicate", rows[later])
        both = (ones > 0) & (ones < sizes)
        if not both.any():
            return None
        tally.add_all("contradiction", rows[both[group]])
        order = np.argsort(group, kind="stable")
        place = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        one = np.flatnonzero((place % 2 == 0) & (place + 1 < np.repeat(sizes, sizes)))
        labels = turned[order]
        return Agreement(int((labels[one] == labels[one + 1]).sum()), len(one))
