"""Ranking candidates by what matters: formulas, distance from a known loss, behaviour, novelty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from ..._errors import SpecError, did_you_mean
from ..analysis import Behaviour
from ..named import Known, Readable, known_losses
from ..polynomials import MAX_VARIABLES, show
from ..structures import PreferenceStructure
from ..tables import count_literals
from ._generate import aligned, generate
from .specs import Specification


@dataclass(frozen=True)
class Candidate:
    """A structure with what is known about it before training.

    Args:
        structure: The candidate.
        distance: Steps along Hasse edges from the loss that it was compared with; None without one.
    """

    structure: PreferenceStructure
    distance: int | None = None

    @cached_property
    def literals(self) -> int:
        """Literals in the shortest P, P_C and P_A together."""
        structure = self.structure
        return count_literals(len(structure.atoms), structure.top_mask, structure.bottom_mask)

    @cached_property
    def behaviour(self) -> Behaviour:
        """Gradients, limits and displacement."""
        return Behaviour(self.structure)

    @cached_property
    def known(self) -> Known:
        """Names under which the literature has it already, up to the link."""
        return known_losses(self.structure)

    @property
    def can_be_displaced(self) -> bool | None:
        """Whether the chosen probability can fall while the loss falls; None where it is not derived."""
        if self.structure.is_degenerate or len(self.structure.atoms) > MAX_VARIABLES:
            return None
        return self.behaviour.displacement is not None

    def as_dict(self) -> dict[str, object]:
        """Everything as JSON takes it."""
        structure, facts = self.structure, self.behaviour
        return {
            "rows": structure.rows,
            "atoms": list(structure.atoms),
            "P": structure.P.ascii,
            "P_C": structure.P_C.ascii,
            "P_A": structure.P_A.ascii,
            "shortest_P": structure.shortest_P.ascii,
            "ratio": None if not structure.bottom_mask else show(structure.ratio),
            "literals": self.literals,
            "distance": self.distance,
            "summed": facts.summed,
            "limit": facts.limit.kind if facts.limit.kind != "finite" else str(facts.limit),
            "rewards_collapse": facts.rewards_collapse,
            "can_be_displaced": self.can_be_displaced,
            "loss_is_bounded": facts.loss_is_bounded,
            "known": list(self.known.structure),
            "known_ratio": list(self.known.ratio),
        }


# What one can rank by; each puts the better first.
_KEYS: dict[str, Callable[[Candidate], Any]] = {
    "literals": lambda candidate: candidate.literals,
    "distance": lambda candidate: candidate.distance,
    "survives_sum": lambda candidate: not candidate.behaviour.survives_sum,
    "no_collapse": lambda candidate: candidate.behaviour.rewards_collapse,
    "no_displacement": lambda candidate: candidate.can_be_displaced is not False,
    "bounded": lambda candidate: not candidate.behaviour.loss_is_bounded,
    "new": lambda candidate: bool(candidate.known),
}


def rank(
    candidates: Specification | str | Mapping[str, Any] | Iterable[PreferenceStructure],
    *,
    by: Sequence[str] = ("literals",),
    near: Readable | None = None,
    top: int | None = None,
) -> list[Candidate]:
    """Candidates in order of what matters; equals stay in the order of `generate`.

    Args:
        candidates: Structures, or a specification (then all that it allows are looked at).
        by: In order of importance, among "literals" (few), "distance" (near), "survives_sum" (a gradient is left at
            summed log-probabilities), "no_collapse" (the loss does not end as both probabilities go to zero),
            "no_displacement" (the chosen probability cannot fall while the loss falls), "bounded" (no pair's loss
            exceeds a constant), "new" (not in the catalogue, by structure or by ratio).
        near: The loss to measure distances from.
        top: How many to return; all of them by default. By "literals" alone no more than these are generated.

    Raises:
        SpecError: A key is unknown, or "distance" is asked for without `near`.

    Example:
        >>> best = rank("monotone; nonconstant", by=("survives_sum", "no_collapse", "distance"), near="cpo", top=3)
        >>> [(c.structure.rows, c.distance, c.known.name) for c in best]
        [('bvxo', 0, 'CPO'), ('xvxo', 1, 'cUNL'), ('vvxo', 1, 'cCPO')]
    """
    for key in by:
        if key not in _KEYS:
            raise SpecError(f"`by` must be among {', '.join(_KEYS)} (got {key!r}).{did_you_mean(key, _KEYS)}")
    if "distance" in by and near is None:
        raise SpecError("`by='distance'` needs `near`, the loss to measure from.")
    if isinstance(candidates, Specification | str | Mapping):
        structures: Iterable[PreferenceStructure] = generate(candidates)
        if tuple(by) == ("literals",):
            structures = islice(structures, top)
    else:
        structures = candidates
    made = [Candidate(structure, _distance(structure, near)) for structure in structures]
    made.sort(key=lambda candidate: tuple(_KEYS[key](candidate) for key in by))
    return made[:top]


def _distance(structure: PreferenceStructure, near: Readable | None) -> int | None:
    if near is None:
        return None
    top, bottom = aligned(near, structure.atoms, "near")
    return (structure.top_mask ^ top).bit_count() + (structure.bottom_mask ^ bottom).bit_count()
