"""The arguments of a specification as conditions, each with the words that a clash is reported in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from ...._errors import ParseError, SpecError
from ...._numbers import check_number
from ...analysis import Summed
from ...formulas import Formula, parse_formula
from ...named import Readable, as_structure, catalogue
from ...structures import PreferenceStructure
from ...tables import atom_mask, full_mask, original
from ..sets import (
    LABELS,
    AllOf,
    BoundedGradient,
    Condition,
    InRegion,
    MaxLiterals,
    MonotoneRatio,
    Named,
    NoDisplacement,
    Not,
    Region,
    SurvivesSum,
    symmetry,
)

# Atoms that stand in a parsed formula for the words `top` and `bottom`; of the same lengths, so that carets fit.
_STAND_INS = {"top": "y98", "bottom": "y99   "}
_GRADIENTS: frozenset[Summed] = frozenset({"contrast", "chosen only", "rejected only", "misdirected"})


def region_parts(
    atoms: tuple[str, ...],
    between: tuple[Readable, Readable] | None,
    above: Readable | None,
    below: Readable | None,
    *,
    reference: bool,
) -> Iterator[Condition]:
    """`between`, `above` and `below`: intervals of the entailment order, which factor by row."""
    if between is not None:
        if isinstance(between, str) or len(between) != 2:
            raise SpecError(f"`between` must be two losses, (a, b) with a below b (got {between!r}).")
        low, high = (_placed(loss, "between", atoms, reference=reference) for loss in between)
        names = [_name(loss, atoms, reference=reference) for loss in between]
        label = f"between {names[0]} and {names[1]}"
        yield InRegion(label, Region.interval(atoms, low, high))
    if above is not None:
        low = _placed(above, "above", atoms, reference=reference)
        yield InRegion(f"above {_name(above, atoms, reference=reference)}", Region.interval(atoms, low, None))
    if below is not None:
        high = _placed(below, "below", atoms, reference=reference)
        yield InRegion(f"below {_name(below, atoms, reference=reference)}", Region.interval(atoms, None, high))


def _placed(loss: Readable, argument: str, atoms: tuple[str, ...], *, reference: bool) -> tuple[int, int]:
    structure = as_structure(loss, argument).reduced
    if reference and _lifts(structure):
        structure = structure.with_reference()
    missing = [atom for atom in structure.atoms if atom not in atoms]
    if missing:
        remedy = " Say `reference=True`." if missing[0].startswith("r") else ""
        raise SpecError(f"`{argument}` depends on {missing[0]}, which is not among the atoms {atoms}.{remedy}")
    wide = structure.over(atoms)
    return wide.top_mask, wide.bottom_mask


def _lifts(structure: PreferenceStructure) -> bool:
    """Whether a loss named where a reference is asked for stands for its reference form."""
    return not structure.needs_reference and bool({"w", "l"} & set(structure.atoms))


def _name(loss: Readable, atoms: tuple[str, ...], *, reference: bool) -> str:
    """The loss in words that `parse_spec` reads as the same structure over the same atoms."""
    structure = as_structure(loss, "loss").reduced
    if reference and _lifts(structure):
        structure = structure.with_reference()
    name = catalogue.name_of(structure)
    if isinstance(loss, str) and loss in catalogue and catalogue[loss].structure.reduced == structure:
        return loss.strip()
    if name is not None:
        return name
    wide = structure.over(atoms)
    return wide.rows if len(atoms) in (2, 4) else f"'{structure.ratio}'"


def row_parts(
    atoms: tuple[str, ...], rows: Mapping[str, str] | None, forall: str | Formula | None, *, conditional: bool
) -> Iterator[Condition]:
    """`rows`, `forall` and `conditional`: labels allowed row by row."""
    if rows is not None:
        if not isinstance(rows, Mapping):
            raise SpecError(f"`rows` must map rows to labels, as in {{'TF': 'v'}} (got {rows!r}).")
        for row, labels in rows.items():
            yield InRegion(f"row {row} = {labels}", _allow(atoms, _rows(row, atoms), _labels(labels, row)))
    if forall is not None:
        yield InRegion(f"forall {forall}", _forall(forall, atoms))
    if conditional:
        yield InRegion("conditional", _allow(atoms, full_mask(len(atoms)), "ovx"))


def _rows(pattern: str, atoms: tuple[str, ...]) -> int:
    if not isinstance(pattern, str) or len(pattern) != len(atoms) or set(pattern.upper()) - set("TF*"):
        raise SpecError(f"`rows` must name rows with one of T, F, * for each of {', '.join(atoms)} (got {pattern!r}).")
    mask = 0
    for values in product(*("TF" if letter == "*" else letter for letter in pattern.upper())):
        mask |= 1 << int("".join("01"[value == "F"] for value in values), 2)
    return mask


def _labels(labels: Any, row: str) -> str:
    if not isinstance(labels, str) or not labels or set(labels) - set(LABELS):
        raise SpecError(f"`rows` must give row {row} one or more of v, x, b and o (got {labels!r}).")
    return labels


def _allow(atoms: tuple[str, ...], rows: int, labels: str) -> Region:
    """Only `labels` in `rows`, anything elsewhere."""
    full = full_mask(len(atoms))
    o, v, x, b = (full if label in labels else full ^ rows for label in "ovxb")
    return Region(atoms, o, v, x, b)


def _forall(formula: str | Formula, atoms: tuple[str, ...]) -> Region:
    parsed = formula if isinstance(formula, Formula) else with_sides(formula)
    sides = {name.strip() for name in _STAND_INS.values()}
    unknown = [atom for atom in parsed.atoms if atom not in atoms and atom not in sides]
    if unknown:
        raise SpecError(f"`forall` mentions {unknown[0]}, which is not among the atoms {atoms}.")
    full = full_mask(len(atoms))
    tables = {atom: atom_mask(place, len(atoms)) for place, atom in enumerate(atoms)}
    allowed = {}
    for label, values in LABELS.items():
        for side, value in zip(sorted(sides), values, strict=True):
            tables[side] = full if value else 0
        allowed[label] = parsed._mask(tables, full)
    if not sides & set(parsed.atoms):
        allowed["o"] = full  # rows that do not count are free
    return Region(atoms, allowed["o"], allowed["v"], allowed["x"], allowed["b"])


def with_sides(text: str) -> Formula:
    import re

    spelled = re.sub(r"\b(top|bottom)\b", lambda word: _STAND_INS[word.group()], text)
    try:
        return parse_formula(spelled)
    except ParseError as error:
        raise ParseError(str(error).partition("\n")[0], text, error.position) from None


def monotone_part(atoms: tuple[str, ...], monotone: bool | str | Mapping[str, int]) -> Iterator[Condition]:
    """`monotone`: P_f rises in some propositions and falls in others, N_f the other way; or the ratio alone does."""
    if monotone is False or monotone is None:
        return
    if monotone == "ratio":
        yield MonotoneRatio("monotone ratio", atoms)
        return
    if monotone is True:
        directions = {atom: 1 if is_wanted(atom) else -1 for atom in atoms}
        label = "monotone"
    elif isinstance(monotone, Mapping) and monotone:
        directions = dict(monotone)
        for atom, direction in directions.items():
            if atom not in atoms or direction not in (1, -1):
                raise SpecError(f"`monotone` must map atoms {atoms} to +1 or -1 (got {{{atom!r}: {direction!r}}}).")
        label = "monotone " + " ".join(f"{atom}{'+' if sign > 0 else '-'}" for atom, sign in directions.items())
    else:
        raise SpecError(f"`monotone` must be True or a dict such as {{'w': +1, 'l': -1}} (got {monotone!r}).")
    full = full_mask(len(atoms))
    yield InRegion(label, Region(atoms, full, full, full, full, frozenset(), frozenset(directions.items())))


def is_wanted(atom: str) -> bool:
    """Whether more of it should mean more reward: w and its copies, rl, y1."""
    return original(atom) in ("w", "rl", "y1")


def symmetric_part(atoms: tuple[str, ...], symmetric: str | None) -> Iterator[Condition]:
    """`symmetric`: rows are tied to their mirror images."""
    if symmetric is None:
        return
    if symmetric not in ("swap", "rejected"):
        raise SpecError(f"`symmetric` must be 'swap' or 'rejected' (got {symmetric!r}).")
    symmetry(symmetric, atoms)
    full = full_mask(len(atoms))
    yield InRegion(f"symmetric {symmetric}", Region(atoms, full, full, full, full, frozenset({symmetric})))


def literal_part(atoms: tuple[str, ...], most: int | None) -> Iterator[Condition]:
    """`max_literals`."""
    if most is None:
        return
    check_number("max_literals", most, SpecError, 0, whole=True)
    yield MaxLiterals(f"max literals {most}", atoms, most)


def quality_parts(
    atoms: tuple[str, ...],
    *,
    satisfiable: bool,
    nontrivial: bool,
    nonconstant: bool,
    survives_sum: bool | str,
    no_displacement: bool | str,
    bounded_loss: bool,
    bounded_gradient: bool,
) -> Iterator[Condition]:
    """What is said of the structure as a whole."""
    full = full_mask(len(atoms))
    no_top, no_bottom = Region(atoms, full, 0, full, 0), Region(atoms, full, full, 0, 0)
    all_top, all_bottom = Region(atoms, 0, full, 0, full), Region(atoms, 0, 0, full, full)
    same = Region(atoms, full, 0, 0, full)
    for asked, label, excluded in (
        (satisfiable, "satisfiable", (no_top, no_bottom)),
        (nontrivial, "nontrivial", (no_top, no_bottom, same)),
        (nonconstant, "nonconstant", (no_top, no_bottom, all_top, all_bottom)),
    ):
        if asked:
            yield Named(label, AllOf(tuple(Not(InRegion(label, region)) for region in excluded)))
    if survives_sum not in (True, False, "contrast"):
        raise SpecError(f"`survives_sum` must be True, False or 'contrast' (got {survives_sum!r}).")
    if survives_sum:
        strict = survives_sum == "contrast"
        kinds: frozenset[Summed] = frozenset({"contrast"}) if strict else _GRADIENTS
        yield SurvivesSum(f"survives sum{' contrast' if strict else ''}", atoms, kinds)
    if no_displacement not in (True, False, "joint"):
        raise SpecError(f"`no_displacement` must be True, False or 'joint' (got {no_displacement!r}).")
    if no_displacement:
        joint = no_displacement == "joint"
        yield NoDisplacement(f"no displacement{' joint' if joint else ''}", atoms, joint)
    if bounded_loss:
        yield InRegion("bounded loss", _allow(atoms, full, "ovb"))
    if bounded_gradient:
        if len(atoms) > 4 or len(set(map(original, atoms))) < len(atoms):
            raise SpecError(
                f"`bounded_gradient` is decided for at most four propositions without copies (got {', '.join(atoms)})."
            )
        yield BoundedGradient("bounded gradient", atoms)
