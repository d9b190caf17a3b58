"""Contradictions name the parts that clash, and what is too large to be counted is refused at once."""

from __future__ import annotations

import pytest

from prefalign._errors import SpecError
from prefalign.logic import Spec, count, parse_spec
from prefalign.logic.generation.sets._monotone import by_dedekind, count_monotone
from prefalign.logic.generation.sets._regions import Region

ROWS = "no label is left for row"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("conditional; rows FF = b", f"`row FF = b` and `conditional` contradict each other: {ROWS} FF"),
        (
            "forall top <-> ~bottom; rows TT = b",
            f"`row TT = b` and `forall top <-> ~bottom` contradict each other: {ROWS}",
        ),
        ("forall w & ~w; satisfiable", "`forall w & ~w` and `satisfiable` contradict each other"),
        ("symmetric swap; above ce", "`above ce` and `symmetric swap` contradict each other"),
        (
            "symmetric swap; rows TF = v, FT = v",
            "`row TF = v`, `row FT = v`, `symmetric swap` together, though any two",
        ),
        ("max literals 0; nontrivial", "`nontrivial` and `max literals 0` contradict each other"),
        (
            "max literals 1; above orpo; below orpo",
            "`above orpo`, `below orpo`, `max literals 1` together, though any two",
        ),
        ("survives sum; rows FF = v", "`row FF = v` and `survives sum` contradict each other"),
        (
            "survives sum contrast; no displacement",
            "`survives sum contrast` and `no displacement` contradict each other",
        ),
        ("between cpo and uncpo and between ce and ce", f"`between ce and ce` contradict each other: {ROWS} FF"),
        ("not (monotone); monotone", "`not (monotone)` and `monotone` contradict each other"),
        ("not (anything)", "`not (anything)` contradicts itself"),
        (
            "(above cpo or above ce); rows TF = x",
            f"`(above cpo) or (above ce)` and `row TF = x` contradict each other: {ROWS} TF",
        ),
        ("reference; above dpo; rows **** = o", f"`above dpo` and `row **** = o` contradict each other: {ROWS} TTTT"),
        ("atoms y1,y2,y3; max literals 0; nontrivial", "`nontrivial` and `max literals 0` contradict each other"),
        # DPO needs more literals, and can be displaced; whether any two of the three can be had was not looked up.
        ("reference; between cpo and cpo; max literals 2", "`between DPO and DPO` and `max literals 2` contradict"),
        ("reference; above dpo; below dpo; no displacement", "`above dpo`, `below dpo`, `no displacement` together."),
    ],
)
def test_a_contradiction_names_its_parts(text, said):
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_dedekinds_numbers_are_what_listing_finds(size):
    atoms = tuple(f"y{place}" for place in range(1, size + 1))
    full = (1 << (1 << size)) - 1
    directions = frozenset((atom, -1 if atom == "y2" else 1) for atom in atoms)
    for allowed in ((full,) * 4, (full, 0, full, 0), (0, full, 0, full), (full, full, 0, 0), (full, 0, 0, 0)):
        region = Region(atoms, *allowed, frozenset(), directions)
        assert by_dedekind(region) == count_monotone(region)


def test_monotone_structures_are_counted_up_to_eight_propositions():
    seven, eight = (tuple(f"y{place}" for place in range(1, size + 1)) for size in (7, 8))
    assert count(Spec(seven, monotone=True)) == 2414682040998**2
    assert count(Spec(eight, monotone=True, nonconstant=True)) == (56130437228687557907788 - 2) ** 2


def test_what_no_diagram_holds_is_refused():
    with pytest.raises(SpecError, match="fits no decision diagram"):
        count(Spec(tuple(f"y{place}" for place in range(1, 21)), monotone=True))


def test_a_proposition_that_stands_twice_is_refused():
    with pytest.raises(SpecError, match="w is there twice"):
        Spec(("w", "l", "w"))
