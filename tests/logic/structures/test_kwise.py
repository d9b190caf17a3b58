"""Preferences among K answers: cardinalities, winners and rankings."""

from __future__ import annotations

import math
from itertools import product

import pytest

from prefalign._errors import SpecError
from prefalign.logic import (
    PreferenceStructure,
    at_least,
    at_most,
    best_of,
    entails,
    equivalent,
    exactly_one,
    only,
    plackett_luce,
    ranking,
)


def _rows(k):
    return list(product((True, False), repeat=k))


def _mask(k, holds):
    return sum(1 << row for row, values in enumerate(_rows(k)) if holds(values))


@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_cardinalities_count_the_valid_answers(k):
    atoms = [f"y{place}" for place in range(1, k + 1)]
    assert exactly_one(k).mask(atoms) == _mask(k, lambda values: sum(values) == 1)
    for m in range(k + 1):
        assert at_least(m, k).mask(atoms) == _mask(k, lambda values, m=m: sum(values) >= m)
        assert at_most(m, k).mask(atoms) == _mask(k, lambda values, m=m: sum(values) <= m)
    for i in range(1, k + 1):
        assert only(i, k).mask(atoms) == _mask(k, lambda values, i=i: sum(values) == 1 and values[i - 1])


def test_a_ranking_lets_no_answer_be_valid_without_those_above_it():
    assert ranking(4).mask() == _mask(4, lambda values: list(values) == sorted(values, reverse=True))


def test_the_best_of_two_is_orpo():
    renamed = PreferenceStructure.from_formulas("y1 & ~y2", given="y1 ^ y2")
    assert equivalent(best_of(2), renamed)
    assert best_of(2).rows == "ovxo"


def test_plackett_luce_is_the_likelihood_of_a_ranking_by_odds():
    probabilities = {"y1": 0.5, "y2": 0.7, "y3": 0.2, "y4": 0.4}
    odds = [p / (1 - p) for p in probabilities.values()]
    expected = -sum(math.log(odds[i] / sum(odds[i:])) for i in range(3))
    loss = 0.0
    for rule in plackett_luce(4):
        rho = math.log(rule.structure.ratio.subs(probabilities))
        loss += float(rule.link.expression.subs("rho", rho))
    assert loss == pytest.approx(expected, rel=1e-12)


def test_twenty_answers_are_compared_quickly():
    winner, looser = best_of(20), PreferenceStructure.from_formulas("y1", given=at_least(1, 20))
    assert entails(winner, PreferenceStructure(winner.atoms, looser.top_mask, winner.bottom_mask))
    assert exactly_one(20).mask().bit_count() == 20
    assert ranking(20).mask().bit_count() == 21


@pytest.mark.parametrize(
    "call", [lambda: exactly_one(21), lambda: only(4, 3), lambda: at_least(10, 20), lambda: best_of(1)]
)
def test_what_is_too_large_or_out_of_range_is_refused(call):
    with pytest.raises(SpecError, match=r"must be|terms"):
        call()
