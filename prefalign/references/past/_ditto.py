"""DITTO's comparisons: demonstrations over samples of now and of before, and later samples over earlier ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np

from ..._errors import CheckpointError
from ..._numbers import check_number
from .._parse import register_reference
from ._own_past import OwnPast


@register_reference("ditto")
@dataclass
class Ditto(OwnPast):
    """The policy's start scores; its latest and earlier snapshots generate three kinds of pairs (DITTO).

    Each row of the data is drawn to be one of these: "expert", its own completion over a sample of the latest snapshot;
    "replay", its own completion over a sample of an earlier snapshot; "inter-model", a sample of any snapshot but the
    first over one of a snapshot before it. In the first round there is no earlier snapshot, and all are "expert".
    Snapshots, memory and disk are those of `PastCheckpoints`; the first snapshot stays.

    Args:
        keep: How many of the latest snapshots generate, 2 or more.
        every: Optimizer steps from one snapshot to the next, 1 or more.
        mix: Shares of "expert", "replay" and "inter-model", 0 or more, summing to 1.
        seed: Of the draws, 0 or more.

    Raises:
        CheckpointError: An argument is out of range; later: a snapshot cannot be written, or is damaged.

    Example:
        >>> Ditto(every=10).expression
        'ditto(keep=7, every=10, mix=[0.7, 0.2, 0.1], seed=0)'

    Source: Shaikh et al. 2024, arXiv:2406.00888, Algorithm 1 (the ranking D_E >= D_t >= ... >= D_0), and the authors'
    code for the mix and for what is drawn from where. Departures: every use of a row is sampled anew, where there ten
    samples of each prompt and round are kept; only the last `keep` snapshots are sampled, where there all are; a batch
    of the first round is as large as any other, where there it lacks the pairs that cannot be made yet.
    """

    keep: int = 7
    every: int = 30
    mix: Sequence[float] = (0.7, 0.2, 0.1)
    seed: int = 0

    is_start: ClassVar[bool] = True
    generates_winners: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, least in (("keep", 2), ("every", 1), ("seed", 0)):
            check_number(name, getattr(self, name), CheckpointError, least, whole=True)
        given: object = self.mix
        mix = given if isinstance(given, list | tuple) and len(given) == 3 else ()
        numbers = mix and all(isinstance(s, int | float) and not isinstance(s, bool) and s >= 0 for s in mix)
        if not numbers or not math.isclose(sum(mix), 1.0, abs_tol=1e-6):
            raise CheckpointError(
                "`mix` must be three numbers, 0 or more, that sum to 1: the shares of expert, replay and inter-model "
                f"pairs (got {self.mix!r})."
            )
        self.mix = tuple(map(float, mix))

    @property
    def identity(self) -> str:
        shares = ", ".join(f"{share:.3g} {kind}" for share, kind in zip(self.mix, KINDS, strict=True))
        return (
            f"ditto: the policy's start, against samples of its last {self.keep} snapshots, taken every {self.every} "
            f"steps ({shares}; seed {self.seed})"
        )

    def casts(self, rows: int, seed: int) -> Sequence[tuple[int | None, int]]:
        *earlier, latest = self._store.steps[-self.keep :]
        if not earlier:
            return [(None, latest)] * rows
        draw = np.random.default_rng([self.seed, seed])
        before = [(later, step) for step, later in combinations((*earlier, latest), 2)]
        made: list[tuple[int | None, int]] = []
        for kind in draw.choice(len(KINDS), size=rows, p=self.mix):
            if KINDS[kind] == "expert":
                made.append((None, latest))
            elif KINDS[kind] == "replay":
                made.append((None, earlier[draw.integers(len(earlier))]))
            else:
                made.append(before[draw.integers(len(before))])
        return made

    def next_change(self, step: int) -> int | None:
        return (step // self.every + 1) * self.every

    def _takes(self, step: int) -> bool:
        return step % self.every == 0

    def _kept(self, steps: list[int]) -> list[int]:
        return sorted({steps[0], *steps[-self.keep :]})

    def _draw(self, step: int) -> int:
        return self._store.steps[0]


KINDS = ("expert", "replay", "inter-model")
