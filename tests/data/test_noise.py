"""Flipped labels: the exact number, the same rows again, and nothing but chosen and rejected changed."""

from __future__ import annotations

import math

import pytest
from datasets import Dataset

from prefalign._errors import DataError
from prefalign.data import check_pairs, flip_labels


def _pairs(count):
    return Dataset.from_dict(
        {
            "prompt": [f"p{i}" for i in range(count)],
            "chosen": [f"good {i}" for i in range(count)],
            "rejected": [f"bad {i}" for i in range(count)],
            "chosen_score": [1.0] * count,
            "rejected_score": [0.0] * count,
            "gold": [float(i) for i in range(count)],
        }
    )


@pytest.mark.parametrize(("rows", "rate", "flipped"), [(1000, 0.3, 300), (7, 0.3, 2), (10, 0.0, 0), (9, 0.49, 4)])
def test_exactly_the_rounded_share_is_flipped(rows, rate, flipped):
    noisy = flip_labels(_pairs(rows), rate, seed=1)
    assert sum(noisy["flipped"]) == flipped
    assert sum(text.startswith("bad") for text in noisy["chosen"]) == flipped


def test_every_row_keeps_its_texts_and_scores_follow_them():
    for i, row in enumerate(flip_labels(_pairs(50), 0.4, seed=2)):
        good, bad = ("rejected", "chosen") if row["flipped"] else ("chosen", "rejected")
        assert (row["prompt"], row[good], row[bad]) == (f"p{i}", f"good {i}", f"bad {i}")
        assert (row[f"{good}_score"], row[f"{bad}_score"], row["gold"]) == (1.0, 0.0, float(i))


def test_bernoulli_flips_scatter_about_the_rate():
    counts = [sum(flip_labels(_pairs(400), 0.3, seed, mode="bernoulli")["flipped"]) for seed in range(8)]
    assert len(set(counts)) > 1
    # The mean of 8 binomial(400, 0.3) counts has standard deviation sqrt(400 * 0.3 * 0.7 / 8).
    assert abs(sum(counts) / 8 - 120) < 4 * math.sqrt(400 * 0.3 * 0.7 / 8)


def test_the_seed_decides_which_rows():
    first, again, other = (flip_labels(_pairs(60), 0.3, seed)["flipped"][:] for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_flipping_twice_keeps_the_truth():
    twice = flip_labels(flip_labels(_pairs(200), 0.4, seed=0), 0.4, seed=1)
    truth = [text.startswith("bad") for text in twice["chosen"]]
    assert twice["flipped"][:] == truth
    # Two draws of 80 rows coincide in some, and those stand as they began.
    assert 0 < sum(truth) < 160


def test_flipping_duplicates_makes_the_contradictions_that_the_check_reports():
    pairs = Dataset.from_dict({"prompt": ["p"] * 4, "chosen": ["a"] * 4, "rejected": ["b"] * 4})
    assert check_pairs(pairs).count("contradiction") == 0
    assert check_pairs(flip_labels(pairs, 0.25, seed=0)).count("contradiction") == 4


def test_conversations_and_a_set_format_are_kept():
    pairs = Dataset.from_dict(
        {
            "chosen": [[{"role": "user", "content": "x"}]] * 2,
            "rejected": [[{"role": "user", "content": "y"}]] * 2,
        }
    )
    noisy = flip_labels(pairs, 0.49, seed=0)
    assert sorted(noisy["flipped"]) == [False, True]
    assert noisy.features["chosen"] == pairs.features["chosen"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate": 0.5}, r"`rate` must be a number in \[0, 0.5\) \(got 0.5\)"),
        ({"rate": 30}, "`rate`"),
        ({"rate": -0.1}, "`rate`"),
        ({"rate": float("nan")}, "`rate`"),
        ({"rate": True}, "`rate`"),
        ({"rate": "0.3"}, "`rate`"),
        ({"seed": -1}, "`seed`"),
        ({"seed": 0.5}, "`seed`"),
        ({"mode": "all"}, "`mode` must be 'exact' or 'bernoulli'"),
        ({"dataset": [{"chosen": "a"}]}, "`datasets.Dataset`"),
        ({"dataset": Dataset.from_dict({"prompt": ["a"], "chosen": ["b"]})}, "`rejected` is missing"),
        ({"dataset": Dataset.from_dict({"text": ["a"]})}, "Pairs need the columns"),
    ],
)
def test_what_cannot_be_flipped_is_refused(change, said):
    with pytest.raises(DataError, match=said):
        flip_labels(**{"dataset": _pairs(4), "rate": 0.3, "seed": 0, **change})
