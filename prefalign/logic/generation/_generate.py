"""Structures out of specifications: the simplest first, drawn at random, or nearest to a known loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..._errors import SpecError
from ..._numbers import check_number
from ..named import Readable, as_structure
from ..structures import PreferenceStructure
from ..tables import EXACT_ATOMS, literal_array
from .sets import (
    MAX_KEPT,
    Condition,
    all_members,
    by_literals,
    collect,
    first_of_ratio,
    listable,
    monotone_parts,
    region_size,
    skeleton,
    stream,
)
from .specs import as_spec

if TYPE_CHECKING:
    import numpy as np

    from .sets import Pairs, Region
    from .specs import Specification

# Structures over more than four propositions are minimised one by one: this many at most before the first comes out.
_MAX_MINIMISED = 1 << 17
# Draws for one sample, before the specification is called too rare among what can be drawn.
_MAX_DRAWS = 1 << 24


def generate(spec: Specification | str | Mapping[str, Any]) -> Iterator[PreferenceStructure]:
    """The structures that satisfy a specification, the simplest formulas first; always in the same order.

    Simple means few literals in the shortest P, P_C and P_A together (constants have none, an exclusive or has four);
    between equals the order is that of the masks. Up to four propositions the count of literals is the least possible,
    and large sets come out lazily, literal by literal. With `distinct="ratio"` the simplest of each ratio comes out.

    Args:
        spec: A `Spec` or a combination, its text, or a mapping as from YAML.

    Raises:
        SpecError: The specification contradicts itself, or over five propositions and more allows too many
            structures to be sorted.

    Example:
        >>> [s.rows for s in generate("between orpo and unCPO")]
        ['vvxv', 'vvxo', 'ovxv', 'ovxo']
        >>> from itertools import islice
        >>> [s.rows for s in islice(generate("monotone; nonconstant; survives sum contrast"), 3)]
        ['xvxo', 'vvxo', 'ovxo']
    """
    asked = as_spec(spec)
    return _ordered(asked)


def generate_masks(spec: Specification | str | Mapping[str, Any]) -> Iterator[Pairs]:
    """The structures that satisfy a specification as arrays, millions a second, in no order of simplicity.

    For what is too much to be sorted or held as objects. Row i of the truth table is bit i of a mask (T before F, the
    first atom slowest): `PreferenceStructure(spec.atoms, int(top), int(bottom))` is the structure.

    Args:
        spec: As in `generate`, without `distinct ratio`; over six propositions at most. Nothing limits how many satisfy
            it.

    Yields:
        Tops and bottoms, two uint64 arrays of one length, at least one long.

    Raises:
        SpecError: It asks for distinct ratios, or cannot be listed.

    Example:
        >>> tops, bottoms = next(generate_masks("between orpo and unCPO"))
        >>> sorted(PreferenceStructure(("w", "l"), int(t), int(b)).rows for t, b in zip(tops, bottoms))
        ['ovxo', 'ovxv', 'vvxo', 'vvxv']
    """
    asked = as_spec(spec)
    if asked.distinct == "ratio":
        raise SpecError("`generate_masks` cannot tell ratios apart; leave out `distinct ratio`, or use `generate`.")
    return stream(asked.condition, asked.atoms)


def _ordered(spec: Specification) -> Iterator[PreferenceStructure]:
    for tops, bottoms in _levels(spec):
        for top, bottom in zip(tops.tolist(), bottoms.tolist(), strict=True):
            yield PreferenceStructure(spec.atoms, top, bottom)


def _levels(spec: Specification) -> Iterator[Pairs]:
    """Sorted chunks: everything at once where that can be kept, else literal by literal."""
    import numpy as np

    condition, atoms = spec.condition, spec.atoms
    small = len(atoms) <= EXACT_ATOMS
    if listable(condition, atoms, MAX_KEPT if small else _MAX_MINIMISED) or not small:
        tops, bottoms = collect(all_members(condition, atoms))
        if not small and len(tops) > _MAX_MINIMISED:
            raise SpecError(
                f"{len(tops):,} structures over {len(atoms)} propositions are too many to sort by their formulas "
                f"(at most {_MAX_MINIMISED:,}); narrow the specification, or draw from it with `sample`."
            )
        order = np.lexsort((bottoms, tops, literal_array(len(atoms), tops, bottoms)))
        tops, bottoms = tops[order], bottoms[order]
        if spec.distinct == "ratio":
            first = first_of_ratio(tops, bottoms, atoms)
            tops, bottoms = tops[first], bottoms[first]
        yield tops, bottoms
        return
    seen: Pairs | None = None
    for _, (tops, bottoms) in by_literals(condition, atoms):
        if spec.distinct == "ratio":
            known = 0 if seen is None else len(seen[0])
            seen = collect([(tops, bottoms)] if seen is None else [seen, (tops, bottoms)])
            first = first_of_ratio(*seen, atoms)
            tops, bottoms = seen[0][known:][first[known:]], seen[1][known:][first[known:]]
            seen = seen[0][first], seen[1][first]
        yield tops, bottoms


def sample(spec: Specification | str | Mapping[str, Any], k: int, seed: int) -> list[PreferenceStructure]:
    """`k` different structures of a specification, drawn uniformly; the same for the same seed.

    Args:
        spec: A `Spec` or a combination, its text, or a mapping.
        k: How many, at most as many as there are.
        seed: Any integer >= 0.

    Raises:
        SpecError: There are fewer than `k`, or they are too rare to be drawn.

    Example:
        >>> drawn = sample("atoms w, l, rw, rl; monotone; nonconstant", k=3, seed=0)
        >>> len(set(drawn))
        3
    """
    import numpy as np

    asked = as_spec(spec)
    check_number("k", k, SpecError, 0, whole=True)
    source = np.random.default_rng(seed)
    condition, atoms = asked.condition, asked.atoms
    if listable(condition, atoms, MAX_KEPT):
        tops, bottoms = (
            collect(_level for _level in _levels(asked))
            if asked.distinct == "ratio"
            else collect(all_members(condition, atoms))
        )
        if k > len(tops):
            raise SpecError(f"`k` must be at most {len(tops)}, the number of structures that satisfy it (got {k}).")
        chosen = source.choice(len(tops), size=k, replace=False)
        pairs = list(zip(tops[chosen].tolist(), bottoms[chosen].tolist(), strict=True))
    elif asked.distinct == "ratio":
        raise SpecError(
            f"drawing among distinct ratios needs at most {MAX_KEPT:,} candidates; narrow the specification."
        )
    else:
        pairs = _draw(condition, atoms, k, source)
    return [PreferenceStructure(atoms, top, bottom) for top, bottom in pairs]


def _draw(condition: Condition, atoms: tuple[str, ...], k: int, source: np.random.Generator) -> list[tuple[int, int]]:
    """Uniform draws from a region that holds the condition, kept where they satisfy it."""
    region = skeleton(condition, atoms)
    found: dict[tuple[int, int], None] = {}
    draws, batch = 0, max(64, 2 * k)
    while len(found) < k:
        if draws > _MAX_DRAWS:
            raise SpecError(
                f"only {len(found)} of {k} structures were found in {draws:,} draws: {condition.said()} is too rare "
                "among what factors by row. Narrow the specification until it can be listed."
            )
        for top, bottom in _candidates(region, batch, source):
            if len(found) < k and condition.contains(top, bottom):
                found[top, bottom] = None
        draws += batch
        batch = min(2 * batch, 1 << 16)
    return list(found)


def _candidates(region: Region, size: int, source: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Uniform draws from a region, or from one without its ties between top and bottom."""
    parts = monotone_parts(region) if region.directions and "swap" not in region.symmetric else None
    if parts is not None:
        tops, bottoms = (part[source.integers(len(part), size=size)].tolist() for part in parts)
        yield from zip(tops, bottoms, strict=True)
        return
    digits = region.digits
    chosen = [source.integers(len(options), size=size).tolist() for options in digits]
    for draw in range(size):
        top = bottom = 0
        for options, picks in zip(digits, chosen, strict=True):
            top |= options[picks[draw]][0]
            bottom |= options[picks[draw]][1]
        yield top, bottom


def nearest(spec: Specification | str | Mapping[str, Any], to: Readable) -> PreferenceStructure:
    """The structure of a specification that lies nearest to a loss in the lattice of all structures.

    The distance is the number of steps along Hasse edges: the rows in which the tops differ plus those in which the
    bottoms do. Between equally near ones the simplest is taken.

    Args:
        spec: A `Spec` or a combination, its text, or a mapping.
        to: The loss. Where the specification has the reference's propositions and the loss has not, its reference
            form is meant.

    Raises:
        SpecError: Nothing satisfies the specification, or it has too many candidates to be compared.

    Example:
        >>> nearest("survives sum contrast; monotone; nonconstant", to="unCPO").rows
        'vvxo'
    """
    import numpy as np

    asked = as_spec(spec)
    top, bottom = aligned(to, asked.atoms, "to")
    if listable(asked.condition, asked.atoms, MAX_KEPT):
        tops, bottoms = collect(all_members(asked.condition, asked.atoms))
        if not len(tops):
            raise SpecError(f"no structure satisfies {asked}.")
        steps = _ones(tops ^ np.uint64(top)) + _ones(bottoms ^ np.uint64(bottom))
        close = np.flatnonzero(steps == steps.min())
        tops, bottoms = tops[close], bottoms[close]
        best = np.lexsort((bottoms, tops, literal_array(len(asked.atoms), tops, bottoms)))[0]
        return PreferenceStructure(asked.atoms, int(tops[best]), int(bottoms[best]))
    return _nearest_by_rows(asked, top, bottom)


def _nearest_by_rows(spec: Specification, top: int, bottom: int) -> PreferenceStructure:
    """Walk outwards: in every orbit of rows the nearest allowed labels first."""
    region = skeleton(spec.condition, spec.atoms)
    ranked = []
    for options in region.digits:
        rows = 0
        for option in options:
            rows |= option[0] | option[1]
        here = _here(options, rows, top, bottom)
        ranked.append(sorted(((steps, option) for steps, option in here), key=lambda pair: pair[0]))
    for extra in range(4):
        for found in _within(ranked, extra):
            if spec.condition.contains(*found):
                return PreferenceStructure(spec.atoms, *found)
    size = region_size(region)
    raise SpecError(
        f"nothing within three steps of the nearest candidate satisfies {spec}; narrow it until it can be listed "
        f"({'very many' if size is None else f'{size:,}'} candidates, at most {MAX_KEPT:,})."
    )


def _here(
    options: tuple[tuple[int, int], ...], rows: int, top: int, bottom: int
) -> Iterator[tuple[int, tuple[int, int]]]:
    for option in options:
        steps = ((option[0] ^ top) & rows).bit_count() + ((option[1] ^ bottom) & rows).bit_count()
        yield steps, option


def _within(ranked: list[list[tuple[int, tuple[int, int]]]], extra: int) -> Iterator[tuple[int, int]]:
    """All labellings that take exactly `extra` steps more than the nearest."""

    def go(index: int, left: int, top: int, bottom: int) -> Iterator[tuple[int, int]]:
        if index == len(ranked):
            if not left:
                yield top, bottom
            return
        least = ranked[index][0][0]
        for steps, option in ranked[index]:
            if steps - least <= left:
                yield from go(index + 1, left - (steps - least), top | option[0], bottom | option[1])

    return go(0, extra, 0, 0)


def aligned(loss: Readable, atoms: tuple[str, ...], argument: str) -> tuple[int, int]:
    """The masks of a loss over given atoms, in its reference form where only they have a reference.

    Raises:
        SpecError: The loss has propositions that `atoms` lack.
    """
    structure = as_structure(loss, argument).reduced
    if {"rw", "rl"} <= set(atoms) and not structure.needs_reference and {"w", "l"} & set(structure.atoms):
        structure = structure.with_reference()
    missing = [atom for atom in structure.atoms if atom not in atoms]
    if missing:
        raise SpecError(f"`{argument}` has {missing[0]}, which is not among the atoms {atoms}.")
    wide = structure.over(atoms)
    return wide.top_mask, wide.bottom_mask


def _ones(masks: Any) -> Any:
    """The number of set bits in each 64-bit mask."""
    import numpy as np

    return np.unpackbits(masks.astype("<u8").view(np.uint8).reshape(len(masks), 8), axis=1).sum(axis=1, dtype=np.int64)
