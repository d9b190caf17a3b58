"""Bootstrap intervals: against the normal approximation, with pairs, and with groups that are not independent."""

from __future__ import annotations

import numpy as np
import pytest

from prefalign._errors import DataError
from prefalign.diagnose import interval, paired_interval


def test_an_interval_agrees_with_the_normal_approximation():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    half = 1.96 * values.std() / 20
    found = interval(values, seed=1)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_a_higher_level_is_wider():
    values = np.random.default_rng(0).normal(size=50)
    narrow, wide = interval(values, level=0.5), interval(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_pairing_removes_what_both_sides_share():
    base = np.random.default_rng(0).normal(0.0, 100.0, size=60)
    change = paired_interval(base, base + 0.5)
    assert (change.mean, change.low, change.high) == pytest.approx((0.5, 0.5, 0.5))


def test_copies_of_a_measurement_do_not_narrow_the_interval():
    values = np.random.default_rng(0).normal(size=30)
    copied, groups = np.repeat(values, 10), np.repeat(np.arange(30), 10).tolist()
    grouped, plain = interval(copied, groups=groups), interval(values)
    assert (grouped.mean, grouped.low, grouped.high) == pytest.approx((plain.mean, plain.low, plain.high))
    naive = interval(copied)
    assert naive.high - naive.low < 0.5 * (interval(values).high - interval(values).low)


def test_every_group_counts_once():
    assert interval([0.0, 0.0, 0.0, 1.0], groups=["a", "a", "a", "b"]).mean == 0.5


def test_the_seed_decides():
    values = np.random.default_rng(0).normal(size=30)
    assert interval(values, seed=4) == interval(values, seed=4) != interval(values, seed=5)


def test_many_values_are_resampled_in_portions():
    found = interval(np.arange(3000) % 2.0, seed=0)
    assert found.mean == 0.5
    # The standard error is 0.5 / sqrt(3000) = 0.00913.
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.00913, rel=0.05)


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        ([], {}, "one number or more"),
        ([[1.0]], {}, "one number or more"),
        ([1.0, float("nan")], {}, "value 1 is not"),
        ([1.0], {"level": 1.0}, "`level`"),
        ([1.0, 2.0], {"groups": ["a"]}, "`groups`"),
    ],
)
def test_what_has_no_interval_is_refused(values, options, said):
    with pytest.raises(DataError, match=said):
        interval(values, **options)


def test_sides_of_different_length_are_refused():
    with pytest.raises(DataError, match="of one length"):
        paired_interval([1.0], [1.0, 2.0])
