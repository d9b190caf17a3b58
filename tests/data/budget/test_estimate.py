"""Token counts, the division of steps and the arithmetic of an estimate, worked by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import Dataset

from prefalign.data import Division, ModelShape, Way, estimate, pair_sizes, sample_tokens
from tests.tiny import tiny_tokenizer

# Prompt of two tokens; the completions share their first token: 7 7 | 1 2 3 and 7 7 | 1 4.
SHORT = (2, [7, 7, 1, 2, 3], [7, 7, 1, 4])
# Prompt of one token, nothing else shared: 9 | 1 2 3 4 5 and 9 | 6.
LONG = (1, [9, 1, 2, 3, 4, 5], [9, 6])
SHAPE = ModelShape(
    weights=1000, trained=1000, backbone=600, hidden=10, vocabulary=40, kept=50, layers=2, itemsize=4
)  # fmt: skip


def division(pairs=2, accumulation=1, tokens=None, packed=True):
    return Division(pairs, accumulation, tokens, packed)


def test_sizes_of_two_pairs():
    sizes = pair_sizes([SHORT, LONG], None, "keep_start")
    assert sizes.chosen.tolist() == [5, 6]
    assert sizes.rejected.tolist() == [4, 2]
    assert sizes.shared.tolist() == [3, 1]
    assert sizes.unique.tolist() == [6, 7]
    assert sizes.scored.tolist() == [5, 6]
    assert sizes.scored_once.tolist() == [4, 6]  # the shared first token of the completions is predicted once


def test_what_truncation_cuts_off_is_not_counted():
    sizes = pair_sizes([SHORT, LONG], 3, "keep_start")
    assert sizes.chosen.tolist() == sizes.rejected[:1].tolist() * 2 == [3, 3]
    assert sizes.shared.tolist() == [3, 1]
    assert sizes.scored.tolist() == [2, 3]
    ends = pair_sizes([SHORT], 3, "keep_end")  # 1 2 3 and 7 1 4: nothing shared; 2 3 and 1 4 are predicted
    assert (ends.shared.tolist(), ends.scored.tolist(), ends.scored_once.tolist()) == ([0], [4], [4])


def test_a_completion_without_a_prompt_has_one_token_that_nothing_predicts():
    sizes = pair_sizes([(0, [1, 2], [1, 3, 4])], None, "keep_start")
    assert (sizes.scored.tolist(), sizes.scored_once.tolist()) == ([3], [3])


def test_the_plan_of_a_real_batch_counts_the_same():
    import torch

    from prefalign.train.forward._plan import plan_pairs

    rows = torch.tensor([[7, 7, 1, 2, 3, 0], [9, 1, 2, 3, 4, 5], [7, 7, 1, 4, 0, 0], [9, 6, 0, 0, 0, 0]])
    scored = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0]]).bool()
    plan = plan_pairs(rows, (rows > 0).long(), torch.where(scored, rows, -100))
    sizes = pair_sizes([SHORT, LONG], None, "keep_start")
    assert plan.packed_tokens == sizes.unique.sum()
    assert len(plan.targets) == sizes.scored_once.sum()


def test_tokens_of_an_epoch_are_those_of_the_sample_scaled_to_all_rows():
    sizes = pair_sizes([SHORT, LONG], None, "keep_start")
    made = estimate(20, sizes, Way(division(), packed=True))
    assert made.tokens == {
        "tokens": 170,  # (9 + 8) * 10
        "padded_positions": 240,  # 2 pairs * 2 rows * 6, ten times
        "unique_tokens": 130,
        "scored_tokens": 110,
        "unique_scored_tokens": 100,
    }
    assert made.speedup is None
    assert made.memory is None


def test_without_a_companion_less_is_padded():
    sizes = pair_sizes([SHORT, LONG], None, "keep_start")
    alone = estimate(20, sizes, Way(division(pairs=1, accumulation=2), packed=True))
    assert alone.tokens["padded_positions"] == (2 * 5 + 2 * 6) * 10
    assert alone.micro.per_step == 2
    by_tokens = estimate(20, sizes, Way(division(tokens=13), packed=True))
    assert by_tokens.micro.per_step == 1  # 6 + 7 unique tokens fit
    assert by_tokens.tokens["padded_positions"] == 220  # the plain forward's 24 would not: two micro-batches


def test_work_counts_two_operations_per_weight_token_and_pass():
    sizes = pair_sizes([SHORT, LONG], None, "keep_start")
    made = estimate(2, sizes, Way(division(), packed=True, compact=True), SHAPE)
    # Three passes and the reference's; the head computes its logits twice.
    plain = 2 * 600 * 12 * 4 + 2 * 400 * 5.5 * 5  # 24 positions and 11 scored tokens of two pairs
    packed = 2 * 600 * 6.5 * 4 + 2 * 400 * 5 * 5
    assert made.speedup == pytest.approx(plain / packed)
    everywhere = estimate(2, sizes, Way(division(), packed=True, compact=False, keeps_logits=True), SHAPE)
    plain, packed = 2 * 600 * 12 * 4 + 2 * 400 * 12 * 5, 2 * 600 * 6.5 * 4 + 2 * 400 * 5 * 4
    assert everywhere.speedup == pytest.approx(plain / packed)


def test_an_adapter_needs_no_gradients_of_the_weights_and_a_cache_no_reference():
    from dataclasses import replace

    sizes = pair_sizes([SHORT, LONG], None, "keep_start")
    way = Way(division(), packed=True, reference=False, checkpointing=True)
    made = estimate(2, sizes, way, replace(SHAPE, trained=20))
    plain, packed = 2 * 600 * 12 * 3 + 2 * 400 * 5.5 * 3, 2 * 600 * 6.5 * 3 + 2 * 400 * 5 * 3
    assert made.speedup == pytest.approx(plain / packed)
    assert made.memory["gradients"] == 80
    assert made.memory["optimizer"] == 160


def test_memory_is_weights_and_what_the_largest_micro_batch_keeps():
    sizes = pair_sizes([SHORT, LONG], None, "keep_start")
    memory = estimate(2, sizes, Way(division(), packed=True, reference_weights=1000), SHAPE).memory
    head = 11 * 40 * 2 * 4  # scored tokens, vocabulary, two tables
    assert memory == {
        "weights": 4000, "reference": 4000, "gradients": 4000, "optimizer": 8000,
        "micro_batch": 13 * 50 * 4 + head, "micro_batch_plain": 24 * 50 * 4 + head,
    }  # fmt: skip
    lean = estimate(2, sizes, Way(division(), packed=False, half=True, checkpointing=True, optimizer="sgd"), SHAPE)
    assert lean.memory["optimizer"] == 0
    assert lean.memory["micro_batch"] == 24 * (2 * 10 + 25) * 2 + head  # each layer's input, and one layer


def test_the_block_says_it_all():
    sizes = pair_sizes([SHORT, LONG], None, "keep_start")
    text = str(estimate(2_000_000, sizes, Way(division(), packed=True, reference_weights=1000), SHAPE))
    assert text.splitlines() == [
        "Estimate for 2,000,000 pairs (from a sample of 2), in micro-batches of 2 pairs:",
        "  an epoch: 17 M tokens, 24 M positions with padding, 13 M unique tokens (1.85 positions per unique token)",
        "  expected speed-up of the shared prefix over the plain forward: 1.55x",
        "  memory: weights 0.004 MB, reference 0.004 MB, gradients 0.004 MB, optimizer 0.008 MB; the largest "
        "micro-batch about 0.00612 MB (plain forward: 0.00832 MB)",
    ]
    off = str(estimate(2, sizes, Way(division(tokens=30), packed=False), SHAPE))
    assert "(from all), in micro-batches of at most 30 tokens:" in off
    assert "1.55x; it is off" in off


def test_the_estimate_is_plain_values():
    sizes = pair_sizes([SHORT, LONG], None, "keep_start")
    made = json.loads(json.dumps(estimate(2, sizes, Way(division(), packed=True), SHAPE).to_json()))
    assert made["sampled"] == 2
    assert made["unique_tokens"] == 13
    assert made["micro_batches_per_step"] == 1
    assert made["speedup"] == pytest.approx(1.55, abs=0.01)


def test_a_sample_is_tokenised_as_training_does():
    rows = [{"prompt": f"{i}:", "chosen": " yes", "rejected": " no"} for i in range(10)]
    rows[4]["rejected"] = rows[4]["chosen"]  # cannot be trained on
    tokenizer = tiny_tokenizer()
    sample = sample_tokens(Dataset.from_list(rows), tokenizer, count=5)  # rows 0, 2, 4, 6, 8
    assert [tokenizer.decode(chosen) for _, chosen, _ in sample] == [f"{i}: yes<|im_end|>" for i in (0, 2, 6, 8)]
    assert [tokenizer.decode(rejected) for *_, rejected in sample] == [f"{i}: no<|im_end|>" for i in (0, 2, 6, 8)]
    assert {prompt for prompt, *_ in sample} == {2}


def test_a_sample_smaller_than_a_step_is_drawn_from_more_than_once():
    sizes = pair_sizes([SHORT], None, "keep_start")
    made = estimate(1, sizes, Way(division(pairs=4), packed=True))
    assert made.tokens["padded_positions"] == 10
    assert np.isfinite(made.micro.padded)
