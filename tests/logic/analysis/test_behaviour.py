"""Behaviour derived from structures agrees with the table worked out by hand, and with numbers."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise

import mpmath
import pytest

from prefalign._errors import SpecError
from prefalign.logic import PreferenceStructure, behaviour, best_of, catalogue, count, explain, known_losses, rank
from tests.logic import brute

W = ("w", "l")
PROPER = [rows for rows in brute.columns(W) if brute.satisfiable(rows)]

# Row FF decides the limit as both probabilities go to zero with w = k l, and what summed log-probabilities leave.
LIMITS = {"v": "∞", "x": "0", "o": "k", "b": "1"}
SUMMED = {"v": "saturated", "x": "chosen only", "o": "contrast", "b": "dead"}


@pytest.mark.parametrize("entry", catalogue.table, ids=lambda entry: entry.name)
def test_row_ff_decides_the_limit_and_what_summed_log_probabilities_leave(entry):
    facts = behaviour(entry.structure)
    assert str(facts.limit) == LIMITS[entry.column[3]]
    assert facts.summed == SUMMED[entry.column[3]]
    assert facts.survives_sum == (entry.column[3] in "xo")
    assert facts.rewards_collapse == (entry.column[3] == "v")


@pytest.mark.parametrize("entry", catalogue.table, ids=lambda entry: entry.name)
def test_the_sixteen_never_fall_in_w_nor_rise_in_l(entry):
    signs = behaviour(entry.structure).signs
    assert signs["w"].kind in ("zero", "positive")
    assert signs["l"].kind in ("zero", "negative")


def _rho(rows, w, lo):
    point = {"w": w, "l": lo}
    return mpmath.log(
        brute.weighted_count(rows, brute.is_top, W, point) / brute.weighted_count(rows, brute.is_bottom, W, point)
    )


@pytest.mark.parametrize("rows", random.Random(0).sample(PROPER, 40))
def test_gradients_agree_with_differences(rows):
    with mpmath.workdps(40):
        for w, lo in ((0.3, 0.6), (0.8, 0.1)):
            at = {"w": mpmath.mpf(w), "l": mpmath.mpf(lo)}
            for name, expression in behaviour(PreferenceStructure.from_rows(rows)).gradient.items():
                step = mpmath.mpf(10) ** -15
                up, down = ({**at, name: at[name] + sign * step} for sign in (1, -1))
                slope = (_rho(rows, **_named(up)) - _rho(rows, **_named(down))) / (2 * step)
                assert abs(slope - expression.evalf(30, subs=at)) < 1e-12, rows


def _named(point):
    return {"w": point["w"], "lo": point["l"]}


def test_what_summed_log_probabilities_leave_agrees_with_numbers_for_all_225():
    with mpmath.workdps(700):
        tiny = [mpmath.exp(-500), 3 * mpmath.exp(-500)]
        for rows in PROPER:
            rho = _rho(rows, *tiny)
            slopes = []
            for side in (0, 1):
                moved = list(tiny)
                moved[side] *= mpmath.exp(mpmath.mpf(10) ** -100)
                slopes.append((_rho(rows, *moved) - rho) * mpmath.mpf(10) ** 100)
            up, down = ([abs(s) > 1e-6 and (s > 0) == positive for s in slopes] for positive in (True, False))
            if rho > 100:
                expected = "saturated"
            elif not any(up) and not any(down):
                expected = "dead"
            elif down[0] or up[1]:
                expected = "misdirected"
            else:
                expected = "contrast" if up[0] and down[1] else "chosen only" if up[0] else "rejected only"
            assert behaviour(PreferenceStructure.from_rows(rows)).summed == expected, rows


def test_displacement_witnesses_hold_and_its_absence_survives_a_grid_for_all_225():
    points = [Fraction(n, 10) for n in range(1, 10)]
    for rows in PROPER:
        found = behaviour(PreferenceStructure.from_rows(rows)).displacement

        def ratio(point, rows=rows):
            return brute.weighted_count(rows, brute.is_top, W, point) / brute.weighted_count(
                rows, brute.is_bottom, W, point
            )

        if found is not None:
            assert 0 < found.after["w"] < found.before["w"] < 1
            assert ratio(found.after) == found.ratios[1] > found.ratios[0] == ratio(found.before)
            continue
        for lower, upper in pairwise(points):
            highest = max(ratio({"w": lower, "l": lo}) for lo in points)
            assert highest <= min(ratio({"w": upper, "l": lo}) for lo in points), rows


def test_dpo_does_not_notice_a_common_fall_and_dpop_resists_it():
    assert behaviour("dpo").joint.kind == "zero"
    assert behaviour("dpop").joint.kind == "positive"  # its copied w counts twice
    assert str(behaviour("dpop").gradient["w"]) == "2/w"
    assert behaviour("unCPO").joint.kind == "both"


def test_bounds_are_read_off_the_rows():
    one_sided = behaviour(PreferenceStructure.from_rows("bvob"))
    assert one_sided.loss_is_bounded
    assert not one_sided.reward_is_bounded
    assert not behaviour("cpo").loss_is_bounded


def test_a_degenerate_structure_has_no_gradient():
    with pytest.raises(SpecError, match="unsatisfiable"):
        _ = behaviour(PreferenceStructure.from_rows("vvoo")).gradient


def test_twenty_answers_have_a_limit_and_a_contrast():
    facts = behaviour(best_of(20))
    assert facts.summed == "contrast"
    assert facts.limit.kind == "finite"


def test_the_page_says_what_a_person_asks():
    page = str(explain("cpo"))
    for said in ("log( w/l )", "M(l) → M(w)", "∂ρ/∂l = -1/l", "goes to k", "Displacement is possible", "SLiC (hinge)"):
        assert said in page
    assert "Displacement is impossible" in str(explain("ce"))
    assert "rewards collapse" in str(explain("funl"))
    assert "A sum of 2 rules" in str(explain("kto"))
    assert max(map(len, page.splitlines()[3:])) <= 110


def test_the_page_does_not_say_that_a_subtracted_or_turning_rule_orders_losses():
    page = str(explain("rdpo"))
    subtracted = page[page.index("Rule 2") :]
    assert "entailment does not order the losses" in subtracted
    assert "the rule without its weight" in subtracted
    assert "The link turns" in str(explain("ipo"))
    assert "entailment does not" not in str(explain("dpo"))


def test_the_page_as_json_and_markdown():
    said = explain("ovxo").as_dict()["rules"][0]
    assert said["gradient"] == {"w": "1/(w*(1 - w))", "l": "-1/(l*(1 - l))"}
    assert said["signs"] == {"w": "positive", "l": "negative"}
    assert said["known"][0] == "ORPO"
    assert explain("ovxo")._repr_markdown_().startswith("### ovxo\n")


def test_known_losses_are_found_by_structure_and_by_ratio():
    assert known_losses(PreferenceStructure.from_rows("bvxo")).structure[:2] == ("CPO", "SLiC (hinge)")
    # voxo: w*l over (1-w)*l; the common factor l leaves CE's ratio.
    found = known_losses(PreferenceStructure.from_rows("voxo"))
    assert found.structure == ()
    assert found.ratio == ("CE",)
    assert not known_losses(PreferenceStructure.from_rows("bvob"))


def test_ranking_by_distance_counts_hasse_steps():
    found = {candidate.structure.rows: candidate.distance for candidate in rank("monotone; nonconstant", near="cpo")}
    # Row by row the diamond x < o, b < v: one step between neighbours, two across.
    steps = {frozenset("xo"): 1, frozenset("xb"): 1, frozenset("ov"): 1, frozenset("bv"): 1}
    for rows, distance in found.items():
        expected = sum(steps.get(frozenset((a, b)), 0 if a == b else 2) for a, b in zip(rows, "bvxo", strict=True))
        assert distance == expected
    assert len(found) == count("monotone; nonconstant")
    with pytest.raises(SpecError, match="needs `near`"):
        rank("monotone", by=("distance",))
