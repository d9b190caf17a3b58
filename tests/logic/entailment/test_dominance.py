"""Dominance is decided exactly, and finds what entailment misses."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

from prefalign._errors import SpecError
from prefalign.logic import PreferenceStructure, best_of, dominates, entails
from prefalign.logic.polynomials._cube import count_polynomial, multiply, value
from prefalign.logic.polynomials._signs import negative_point
from tests.logic import brute

W = ("w", "l")
PROPER = [rows for rows in brute.columns(W) if brute.satisfiable(rows)]


def _grid(rows, points):
    """The ratio at every pair of grid values of w and l."""
    w, lo = np.meshgrid(points, points, indexing="ij")
    weights = [w * lo, w * (1 - lo), (1 - w) * lo, (1 - w) * (1 - lo)]
    top, bottom = (
        sum(weight for weight, label in zip(weights, rows, strict=True) if side(label))
        for side in (brute.is_top, brute.is_bottom)
    )
    return top / bottom


POINTS = np.concatenate([[1e-4, 1e-3], np.linspace(0.01, 0.99, 41), [0.999, 0.9999]])
GRIDS = {rows: _grid(rows, POINTS) for rows in PROPER}


def _check(pairs):
    missed = 0
    for a, b in pairs:
        first, second = PreferenceStructure.from_rows(a), PreferenceStructure.from_rows(b)
        found = dominates(first, second)
        assert bool(found) == bool((GRIDS[a] <= GRIDS[b] * (1 + 1e-9)).all()), (a, b)
        if found:
            missed += not entails(first, second)
        else:
            point = found.witness
            assert all(0 < p < 1 for p in point.values())
            counts = [
                brute.weighted_count(rows, side, W, point)
                for rows in (a, b)
                for side in (brute.is_top, brute.is_bottom)
            ]
            assert counts[0] / counts[1] == found.ratios[0] > found.ratios[1] == counts[2] / counts[3]
    return missed


def test_dominance_agrees_with_a_dense_grid_and_finds_pairs_that_entailment_misses():
    source = random.Random(0)
    assert _check([(source.choice(PROPER), source.choice(PROPER)) for _ in range(3000)]) > 100


@pytest.mark.slow
def test_dominance_agrees_with_a_dense_grid_for_all_pairs():
    # Of 225**2 pairs 8951 dominate, 4225 of them by entailment.
    assert _check([(a, b) for a in PROPER for b in PROPER]) == 4726


def test_entailment_implies_dominance_at_three_and_four_atoms():
    source = random.Random(1)
    for atoms in (("w", "l", "rw"), ("w", "l", "rw", "rl")):
        size = 1 << len(atoms)
        for _ in range(100):
            top, bottom = source.getrandbits(1 << len(atoms)), source.getrandbits(size)
            more, less = source.getrandbits(size) & source.getrandbits(size), source.getrandbits(size)
            low = PreferenceStructure(atoms, top, bottom)
            high = PreferenceStructure(atoms, top | more, bottom & less)
            if (top or bottom) and (top | more or bottom & less):
                assert dominates(low, high)


def test_a_pair_worked_by_hand():
    # w/l <= w/(l*(1-w)), though l*(1-w) |= l the wrong way round would be entailment; and ORPO against CPO:
    # (1-l)/(1-w) <= 1 fails where w > l.
    assert dominates("cpo", "ccpo")
    found = dominates("orpo", "cpo")
    assert not found
    assert found.witness["w"] > found.witness["l"]
    # No entailment: top w against top w + l - w*l, bottom 1 against the same; w <= (w+l-wl)/(w+l-wl) = 1.
    assert dominates(PreferenceStructure.from_rows("bbxx"), PreferenceStructure.from_rows("bbbo"))
    assert not entails(PreferenceStructure.from_rows("bbxx"), PreferenceStructure.from_rows("obob"))
    assert dominates(PreferenceStructure.from_rows("bbxx"), PreferenceStructure.from_rows("obob"))


def test_one_sided_structures_compare_as_zero_and_infinity_and_none_is_refused():
    never, always = PreferenceStructure.from_rows("oxxo"), PreferenceStructure.from_rows("vvoo")
    assert dominates(never, "cpo")
    assert dominates("cpo", always)
    assert not dominates(always, "cpo")
    with pytest.raises(SpecError, match="0/0"):
        dominates(PreferenceStructure.from_rows("oooo"), "cpo")


def test_beyond_eight_atoms_corners_and_plain_points_still_decide_or_it_says_so():
    wide = best_of(12)
    assert dominates(wide, wide)
    other = PreferenceStructure.from_formulas("y1 & ~y2", given="y1 ^ y2", atoms=wide.atoms)
    assert not dominates(other, wide)
    with pytest.raises(SpecError, match="up to 8 propositions"):
        dominates(wide, other)


def _polynomial(terms, variables):
    shape = [1 + max(powers[axis] for powers in terms) for axis in range(variables)]
    result = np.full(shape, 0, dtype=object)
    for powers, factor in terms.items():
        result[powers] = factor
    return result


@pytest.mark.parametrize(
    ("terms", "variables"),
    [
        ({(2,): 9, (1,): -6, (0,): 1}, 1),  # (3x - 1)^2 touches zero inside
        ({(2, 0): 1, (1, 1): -1, (0, 2): 1}, 2),  # x^2 - xy + y^2 touches zero in a corner
        ({(2, 0): 1, (1, 1): -2, (0, 2): 1}, 2),  # (x - y)^2 touches zero on the diagonal
        ({(1, 0): 1, (0, 2): 9, (0, 1): -6, (0, 0): 1}, 2),  # x + (3y - 1)^2 touches zero on a face
        ({(2, 2, 0): 1, (1, 1, 1): -2, (0, 0, 2): 1}, 3),  # (xy - z)^2 touches zero on a surface
    ],
)
def test_touching_zero_is_told_from_crossing_it(terms, variables):
    touching = _polynomial(terms, variables)
    assert negative_point(touching) is None
    crossing = touching * 10**6
    crossing[(0,) * variables] -= 1
    point = negative_point(crossing)
    assert point is not None
    assert all(0 < x < 1 for x in point)
    assert value(crossing, point) < 0


def test_a_count_polynomial_has_the_count_as_its_value():
    source = random.Random(4)
    atoms = ("y1", "y2", "y3")
    for _ in range(20):
        rows = "".join(source.choice("vo") for _ in range(8))
        mask = sum(1 << row for row, label in enumerate(rows) if label == "v")
        point = {atom: Fraction(source.randrange(1, 20), 20) for atom in atoms}
        expected = brute.weighted_count(rows, brute.is_top, atoms, point)
        assert value(count_polynomial(mask, 3), tuple(point.values())) == expected
        product = multiply(count_polynomial(mask, 3), count_polynomial(mask, 3))
        assert value(product, tuple(point.values())) == expected**2
