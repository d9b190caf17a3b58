"""Bins under a budget, and batches that are joined and divided by pairs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefalign._errors import ConfigError
from prefalign.data import best_fit, best_fit_padded, split_up
from prefalign.train.batches._join import join, measure, select

costs = st.lists(st.integers(1, 60), min_size=1, max_size=30)


def flat(bins):
    return sorted(item for one in bins for item in one)


@given(costs, st.integers(1, 80))
def test_every_item_is_in_one_bin_and_only_an_item_alone_exceeds_the_budget(sizes, budget):
    bins = best_fit(sizes, budget)
    assert flat(bins) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in one) <= budget or len(one) == 1 for one in bins)


@given(costs, st.integers(1, 80))
def test_no_two_bins_of_best_fit_would_fit_into_one(sizes, budget):
    totals = sorted(sum(sizes[i] for i in one) for one in best_fit(sizes, budget))
    assert len(totals) < 2 or totals[0] + totals[1] > budget


def test_best_fit_takes_the_fullest_bin_that_still_has_room():
    # 6 | 5 | 4: the 4 joins the 6, not the 5; the 3 joins the 5; the 2 has to open a bin of its own.
    assert best_fit([6, 5, 4, 3, 2], budget=10) == [[0, 2], [1, 3, 4]]
    assert best_fit([6, 5, 4, 3, 3], budget=10) == [[0, 2], [1, 3], [4]]


@given(costs, st.integers(1, 200))
def test_padded_bins_count_two_rows_of_the_longest_length_per_pair(lengths, budget):
    bins = best_fit_padded(lengths, budget)
    assert flat(bins) == list(range(len(lengths)))
    assert all(2 * len(one) * max(lengths[i] for i in one) <= budget or len(one) == 1 for one in bins)


@given(costs, st.integers(1, 80), st.integers(0, 12))
def test_bins_are_halved_until_there_are_enough(sizes, budget, more):
    bins = best_fit(sizes, budget)
    made = split_up(bins, len(bins) + more, sizes)
    assert len(made) == len(bins) + more
    assert flat(made) == list(range(len(sizes)))
    empty = sum(not one for one in made)
    assert empty == max(0, len(bins) + more - len(sizes))  # only where there are more bins than items
    totals = [sum(sizes[i] for i in one) for one in made]
    assert totals == sorted(totals, reverse=True)


def batch(*rows, extra=None):
    """(chosen, rejected) token lists, all of them completion but the first token."""
    texts = [chosen for chosen, _ in rows] + [rejected for _, rejected in rows]
    width = max(map(len, texts))
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    made = {"input_ids": ids, "attention_mask": mask, "completion_mask": mask * (torch.arange(width) > 0)}
    made["pair_index"] = torch.tensor([chosen[-1] for chosen, _ in rows])
    made["logps"] = ids[:, 1:].float()  # one column less, as log-probabilities have
    return {**made, **(extra or {})}


FIRST = batch(([1, 2, 3], [1, 4]), ([5, 6], [5, 6, 7, 8]))
SECOND = batch(([9, 10], [11, 12]))


def test_pairs_of_several_batches_stay_together_when_they_are_joined_and_divided():
    whole = join([FIRST, SECOND], pad_token=99)
    assert whole["input_ids"].tolist() == [
        [1, 2, 3, 0], [5, 6, 0, 0], [9, 10, 99, 99], [1, 4, 0, 0], [5, 6, 7, 8], [11, 12, 99, 99],
    ]  # fmt: skip
    assert whole["pair_index"].tolist() == [3, 6, 10]
    part = select(whole, [2, 0])
    assert part["input_ids"].tolist() == [[9, 10, 99], [1, 2, 3], [11, 12, 99], [1, 4, 0]]
    assert part["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 0], [1, 1, 0]]
    assert part["completion_mask"].tolist() == [[0, 1, 0], [0, 1, 1], [0, 1, 0], [0, 1, 0]]
    assert part["logps"].tolist() == [[10, 0], [2, 3], [12, 0], [4, 0]]
    assert part["pair_index"].tolist() == [10, 3]


def test_the_length_stays_a_multiple_where_the_padding_allows_it():
    whole = join([FIRST, SECOND], pad_token=0)
    assert select(whole, [2], multiple=4)["input_ids"].shape == (2, 4)
    assert select(whole, [2], multiple=2)["input_ids"].shape == (2, 2)
    assert select(whole, [0], multiple=8)["input_ids"].shape == (2, 4)


def test_longest_rows_and_unique_tokens_are_counted():
    whole = join([FIRST, SECOND], pad_token=0)
    # (1 2 3 | 1 4): one token shared. (5 6 | 5 6 7 8): two. (9 10 | 11 12): none; their equal padding does not count.
    assert measure(whole) == ([3, 4, 2], [4, 4, 4])
    # Where one row is the beginning of the other, or both are one, only what is there is shared.
    same = join([batch(([5, 6], [5, 6, 0, 7])), batch(([5, 6], [5, 6]))], pad_token=0)
    assert measure(same) == ([4, 2], [4, 2])


def test_a_column_that_not_every_batch_has_is_left_out():
    assert "logps" not in join([FIRST, {k: v for k, v in SECOND.items() if k != "logps"}], pad_token=0)


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(ConfigError, match="column `table` has neither a row per sequence nor one per pair"):
        join([batch(([1, 2], [1, 3]), extra={"table": torch.zeros(3)})], pad_token=0)
    left = {"attention_mask": torch.tensor([[0, 1], [1, 1]])}
    with pytest.raises(ConfigError, match="padded on the right"):
        measure(batch(([1, 2], [1, 3]), extra=left))
