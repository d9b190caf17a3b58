"""The policy's own past as the reference: snapshots of it, one of which generates and scores (SePPO, SPIN)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..._errors import CheckpointError
from ..._numbers import check_number
from .._parse import register_reference
from ._own_past import OwnPast

Choose = Literal["random", "latest", "initial"]
Redraw = Literal["round", "batch"]


@register_reference("past")
@dataclass
class PastCheckpoints(OwnPast):
    """One of the policy's own snapshots, which both scores the pairs and, where data hold winners alone, generates.

    A snapshot is taken before the first optimizer step and then every `every` steps: snapshots 0 ... k-1 after
    (k-1)*every steps. They hold what is trained (with LoRA the adapter alone), lie in `prefalign_past` in the output
    folder, and belong to every checkpoint. In memory there is one extra model, with LoRA one extra adapter, which the
    drawn snapshot is loaded into.

    Args:
        keep: How many of the latest snapshots `choose="random"` draws from, 1 or more; older ones are deleted.
        every: Optimizer steps from one snapshot to the next, 1 or more.
        choose: "random": each of the last `keep` snapshots with the same probability (SePPO); "latest" (SPIN);
            "initial": always the first.
        redraw: With "random", draw once for each "round", when a snapshot was taken, or before each optimizer step
            ("batch"), which loads a snapshot and generates for every single step.
        seed: Of the draws, 0 or more.

    Raises:
        CheckpointError: An argument is out of range or would have no effect; later: a snapshot cannot be written, or
            is damaged.

    Example:
        >>> PastCheckpoints(keep=7, every=30).expression
        "past(keep=7, every=30, choose='random', redraw='round', seed=0)"

    Source: Zhang et al. 2024, arXiv:2410.05255 (7 snapshots, one per 30 updates). Departure: there the number of
    snapshots is the length of the training; here training goes on, and older ones are forgotten.
    """

    keep: int = 7
    every: int = 30
    choose: Choose = "random"
    redraw: Redraw = "round"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("keep", 1), ("every", 1), ("seed", 0)):
            check_number(name, getattr(self, name), CheckpointError, least, whole=True)
        for name, words in (("choose", get_args(Choose)), ("redraw", get_args(Redraw))):
            if getattr(self, name) not in words:
                known = ", ".join(map(repr, words))
                raise CheckpointError(f"`{name}` must be one of {known} (got {getattr(self, name)!r}).")
        if self.redraw == "batch" and self.choose != "random":
            raise CheckpointError(
                f"`redraw='batch'` would have no effect with `choose={self.choose!r}`, which never draws. Leave it out."
            )

    @property
    def identity(self) -> str:
        if self.choose == "initial":
            return "past: the policy's first snapshot, taken before the first step"
        often = f"taken every {self.every} steps"
        if self.choose == "latest":
            return f"past: the policy's latest snapshot, {often}"
        when = "each round of these" if self.redraw == "round" else "each step"
        return f"past: one of the policy's last {self.keep} snapshots, {often}, drawn for {when} (seed {self.seed})"

    def _takes(self, step: int) -> bool:
        return step % self.every == 0 and self.choose != "initial"

    def _kept(self, steps: list[int]) -> list[int]:
        return steps[-(self.keep if self.choose == "random" else 1) :]

    def _draw(self, step: int) -> int:
        steps = self._store.steps
        if self.choose != "random":
            return steps[-1]
        # Each draw has a generator of its own, so that no state has to be kept.
        number = step if self.redraw == "batch" else step // self.every
        return steps[int(np.random.default_rng([self.seed, number]).integers(len(steps)))]

    def next_change(self, step: int) -> int | None:
        if self.choose == "initial":
            return None
        return step + 1 if self.redraw == "batch" else (step // self.every + 1) * self.every

    def metrics(self) -> dict[str, float]:
        return {"reference/staleness": float(self.host.state.global_step - self.version)}
