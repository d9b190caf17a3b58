"""Structures as arrays, millions a second; the strict question of displacement answered for arrays."""

from __future__ import annotations

import time

import pytest

from prefalign._errors import SpecError
from prefalign.logic import PreferenceStructure, Spec, behaviour, count, generate, generate_masks


def test_masks_are_the_structures_that_are_generated():
    text = "atoms w, l, rl; monotone; nonconstant; no displacement joint"
    found = {(int(t), int(b)) for tops, bottoms in generate_masks(text) for t, b in zip(tops, bottoms, strict=True)}
    assert found == {(s.top_mask, s.bottom_mask) for s in generate(text)}
    assert len(found) == count(text)


def test_masks_of_billions_come_at_once():
    tops, bottoms = next(generate_masks("reference"))
    assert len(tops) == len(bottoms) > 10_000
    assert {str(tops.dtype), str(bottoms.dtype)} == {"uint64"}


def test_masks_do_not_tell_ratios_apart():
    with pytest.raises(SpecError, match="cannot tell ratios apart"):
        generate_masks("distinct ratio")


@pytest.mark.parametrize("atoms", [("w", "l"), ("w", "rl"), ("w", "w2"), ("y1", "y2")])
def test_the_strict_question_of_displacement_is_answered_alike_one_by_one_and_for_arrays(atoms):
    everything = [PreferenceStructure(atoms, top, bottom) for top in range(16) for bottom in range(16)]
    one_by_one = {s for s in everything if not s.is_degenerate and behaviour(s).displacement is None}
    assert set(generate(f"atoms {', '.join(atoms)}; no displacement")) == one_by_one


def test_a_strict_count_over_four_propositions_takes_under_a_second():
    start = time.process_time()
    # The ratio may depend on w and the reference alone: tables of w, rw, rl, monotone, on top and bottom, neither
    # constant. Dedekind's number for three is 20, so 18 of each.
    assert count("reference; monotone; nonconstant; no displacement") == 18 * 18
    assert time.process_time() - start < 1.0


def test_specifications_compare_by_value():
    assert Spec(between=("cpo", "unCPO")) == Spec(between=("CPO", "uncpo"))
    assert len({Spec(monotone=True), Spec(monotone=True), Spec()}) == 2
    assert Spec(monotone=True) & Spec(conditional=True) == Spec(monotone=True) & Spec(conditional=True)
