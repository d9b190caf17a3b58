"""Counting what a specification allows, exactly: by products where it factors, by diagrams or by listing where not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._errors import SpecError
from .sets import Region, all_members, distinct_ratios, listable, total_size
from .specs import as_spec

if TYPE_CHECKING:
    from .specs import Specification


# Decision diagrams over 2·2ⁿ variables: propositions at most, and those in which all must be monotone.
_MAX_DIAGRAM, _MAX_DIRECTED = 8, 5


def count(spec: Specification | str) -> int:
    """How many structures satisfy a specification.

    Exact, and for the most part without listing them: what is said row by row (`between`, `above`, `below`, `rows`,
    `forall`, `conditional`) makes a product over the rows; a symmetry makes one over the orbits of rows; `monotone`
    counts monotone tables, whose numbers are Dedekind's; `&`, `|`, `~`, `satisfiable`, `nontrivial` and `nonconstant`
    are inclusion and exclusion of these. What does not factor goes through decision diagrams (the extra `bdd`).
    `max_literals`, `survives_sum`, `no_displacement` and `distinct="ratio"` are looked up structure by structure,
    among at most 134 million.

    Args:
        spec: A `Spec` or a combination, or its text.

    Raises:
        SpecError: It can be neither factored nor listed; the message says what would help.

    Example:
        >>> count(Spec()), count(Spec(satisfiable=True)), count(Spec(nontrivial=True))
        (256, 225, 210)
        >>> count(Spec(satisfiable=True, distinct="ratio"))
        187
        >>> count("atoms w, l, rw, rl; symmetric swap")
        65536
        >>> count(Spec(reference=True, monotone=True, nonconstant=True)) == 166**2
        True
    """
    asked = as_spec(spec)
    if asked.distinct == "structure":
        terms = asked.terms
        if terms is not None:
            total = total_size(terms)
            if total is not None:
                return total
            if not listable(asked.condition, asked.atoms):
                from .sets import count_by_diagram

                _check_size(asked, terms)
                return count_by_diagram(asked.condition, asked.atoms)
        return sum(len(tops) for tops, _ in all_members(asked.condition, asked.atoms))
    return distinct_ratios(all_members(asked.condition, asked.atoms), asked.atoms)


def _check_size(spec: Specification, terms: dict[Region, int]) -> None:
    """Refuse what no diagram holds: its nodes would be counted in numbers like Dedekind's."""
    directed = max(len(region.directions) for region in terms)
    if len(spec.atoms) > _MAX_DIAGRAM or directed > _MAX_DIRECTED:
        raise SpecError(
            f"this specification does not factor by row, and over {len(spec.atoms)} propositions, {directed} monotone"
            f", it fits no decision diagram (at most {_MAX_DIAGRAM}, {_MAX_DIRECTED} of them monotone): "
            f"{spec.condition.said()}. Narrow it, or draw from it with `sample`."
        )
