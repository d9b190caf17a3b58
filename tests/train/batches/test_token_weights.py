"""Weights of tokens and steps of answers, as columns."""

from __future__ import annotations

import pytest
import torch

from prefalign import PrefalignError
from prefalign.data import flip_labels
from tests.tiny import tiny_pairs
from tests.train.runs import history, largest_difference, ours


def with_columns(count: int = 8, **columns):
    """Pairs with a column for each keyword, made from the row's chosen or rejected text."""
    data = tiny_pairs(count)
    for name, make in columns.items():
        side = name.partition("_")[0]
        data = data.add_column(name, [make(row[side]) for row in data])
    return data


def tokens_of(text: str) -> int:
    return len(text.encode()) + 1  # bytes, and the end of text


def ones(text):
    return [1.0] * tokens_of(text)


def rising(text):
    return [round(0.1 * place, 1) for place in range(tokens_of(text))]


BOTH = {"chosen_token_weights": rising, "rejected_token_weights": rising}


def test_weights_of_one_train_as_without_them(checkpoint, tmp_path):
    data = with_columns(24, chosen_token_weights=ones, rejected_token_weights=ones)
    runs = [
        ours(tmp_path, checkpoint, {"train_dataset": each}, loss="dpo(beta=0.1, mean=True)", max_steps=4)
        for each in (data, tiny_pairs(24))
    ]
    for run in runs:
        run.train()
    assert largest_difference(*runs) == 0.0


def test_weights_multiply_log_probabilities_of_policy_and_reference(checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, {"train_dataset": with_columns(4, **BOTH)})
    seen = {}
    inner = trainer.objective.loss.term_values

    def spy(pairs):
        seen["pairs"] = pairs
        return inner(pairs)

    object.__setattr__(trainer.objective.loss, "term_values", spy)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    trainer.model.train()
    trainer.compute_loss(trainer.model, dict(batch))
    with torch.no_grad():
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logps = logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    rows = trainer.train_dataset
    texts = [rows[i][side] for side in ("chosen", "rejected") for i in range(4)]
    prompts = [len(rows[i % 4]["prompt_ids"]) for i in range(8)]
    expected, lengths = [], []
    for row, (text, start) in enumerate(zip(texts, prompts, strict=True)):
        numbers = torch.tensor(rising(text.removesuffix("<|im_end|>")))
        expected.append((logps[row, start - 1 : start - 1 + len(numbers)] * numbers).sum())
        lengths.append(numbers.sum())
    pairs = seen["pairs"]
    torch.testing.assert_close(torch.cat([pairs.chosen, pairs.rejected]).detach(), torch.stack(expected))
    torch.testing.assert_close(torch.cat([pairs.ref_chosen, pairs.ref_rejected]), torch.stack(expected))
    torch.testing.assert_close(torch.cat([pairs.chosen_tokens, pairs.rejected_tokens]), torch.stack(lengths))


@pytest.mark.parametrize("loss", ["ld(dpo(beta=0.1), alpha=0.5)", "dpo(beta=0.1) + 0.1*sft(sequence_mean)"])
def test_weights_hold_for_the_shared_prefix_the_cache_and_token_batches(loss, checkpoint, tmp_path):
    runs = []
    cache = {"reference_cache": str(tmp_path / "cache")}
    for way in ({}, *[{"shared_prefix": True, "tokens_per_batch": 200, **cache}] * 2):
        run = ours(tmp_path, checkpoint, {"train_dataset": with_columns(**BOTH)}, loss=loss, max_steps=3, **way)
        run.train()
        runs.append(torch.tensor([entry["loss"] for entry in history(run) if "loss" in entry]))
    for fast in runs[1:]:
        torch.testing.assert_close(fast, runs[0], rtol=1e-4, atol=1e-5)
    other = ours(tmp_path, checkpoint, {"train_dataset": tiny_pairs(8)}, loss=loss, **cache)
    assert other.reference_cache.computed == 8  # what is kept for weighted rows is not theirs


def test_a_step_alone_counts(checkpoint, tmp_path):
    data = with_columns(4, rejected_steps=lambda text: [[1, 4]], chosen_steps=lambda text: [[0, 2], [3, 4]])
    trainer = ours(tmp_path, checkpoint, {"train_dataset": data})
    batch = trainer.data_collator([trainer.train_dataset[0]])
    for side, expected in ((0, "".join(data[0]["chosen"][i] for i in (0, 1, 3))), (1, data[0]["rejected"][1:4])):
        kept = batch["input_ids"][side][batch["completion_mask"][side].bool()]
        assert trainer.processing_class.decode(kept) == expected
    assert "token_weights" not in batch


def test_a_flipped_label_takes_its_weights_along():
    data = with_columns(4, **BOTH)
    flipped = flip_labels(data, 0.49, seed=0)
    assert 0 < sum(flipped["flipped"]) < 4
    for old, new in zip(data, flipped, strict=True):
        side = "rejected" if new["flipped"] else "chosen"
        assert new[f"{side}_token_weights"] == old["chosen_token_weights"]


NO = {"chosen_token_weights": lambda text: [1.0], "rejected_token_weights": rising}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (NO, {}, "row 0: `chosen_token_weights` must hold a finite number >= 0 for each"),
        ({**BOTH, "chosen_token_weights": lambda t: [-1.0] * tokens_of(t)}, {}, "finite number >= 0"),
        ({**BOTH, "chosen_token_weights": lambda t: [0.0] * tokens_of(t)}, {}, "no token counts"),
        (BOTH, {"loss": "wpo(dpo(beta=0.1))"}, "cannot be combined with WPO"),
        (BOTH, {"loss": "tdpo(beta=0.1)"}, "cannot be combined with TDPO"),
        (BOTH, {"precompute_ref_log_probs": True}, "cannot be combined with `precompute_ref_log_probs`"),
        ({"chosen_steps": lambda t: [[0, len(t) + 1]]}, {}, "`chosen_steps` must be a list of"),
        ({"chosen_steps": lambda t: [[2, 2]]}, {}, "`chosen_steps` must be a list of"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns, options, message, checkpoint, tmp_path):
    with pytest.raises(PrefalignError, match=message):
        ours(tmp_path, checkpoint, {"train_dataset": with_columns(**columns)}, **options)
