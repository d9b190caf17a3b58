"""Counting what a specification allows, exactly: by products where it factors, by diagrams or by listing where not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._errors import SpecError
from ._conditions import Condition, MaxLiterals, conjuncts, expand, is_array_test
from ._members import by_literals, listable, members, region_size
from ._minimise import EXACT_ATOMS
from ._ratios import distinct_ratios
from ._regions import Region
from ._spec_text import as_spec

if TYPE_CHECKING:
    from ._members import Pairs
    from ._spec import Specification


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
            total = _sum(terms)
            if total is not None:
                return total
            if not listable(asked.condition, asked.atoms):
                from ._bdd import count_by_diagram

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


def quick_count(condition: Condition, atoms: tuple[str, ...]) -> int | None:
    """The count if it takes no diagrams and no long listing, else None."""
    terms = expand(condition, atoms)
    if terms is not None:
        return _sum(terms)
    # A few tenths of a second at most: tests of arrays are fast, derivations and large formulas are not.
    few = {1: 1 << 8, 2: 1 << 8, 3: 1 << 8}.get(len(atoms), 1 << 4)
    many = {3: 1 << 16, 4: 1 << 8}.get(len(atoms), few)
    if listable(condition, atoms, many if is_array_test(condition) else few):
        return sum(len(tops) for tops, _ in members(condition, atoms))
    return None


def all_members(condition: Condition, atoms: tuple[str, ...]) -> Iterator[Pairs]:
    """Everything that satisfies the condition, in chunks; by literals where listing would not end."""
    limited = any(isinstance(part, MaxLiterals) for part in conjuncts(condition))
    if not listable(condition, atoms) and limited and len(atoms) <= EXACT_ATOMS:
        return (pairs for _, pairs in by_literals(condition, atoms))
    return members(condition, atoms)


def _sum(terms: dict[Region, int]) -> int | None:
    total = 0
    for region, factor in terms.items():
        size = region.row_product() if not (region.symmetric or region.directions) else region_size(region)
        if size is None:
            return None
        total += factor * size
    return total
