"""`score` in training: what does not count contributes nothing, and all ones change nothing."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from prefalign import PrefalignError
from tests.tiny import tiny_pairs
from tests.train.runs import history, largest_difference, ours


def assistant(text):
    return {"role": "assistant", "content": text}


def agents(observation: str = "it rains") -> Dataset:
    """Completions of an assistant, a tool, and the assistant again."""

    def turns(i, word):
        return [assistant(f"look {i}"), {"role": "tool", "content": observation}, assistant(f"{word} " * (1 + i % 3))]

    rows = [
        {
            "prompt": [{"role": "user", "content": f"Film {i}?"}],
            "chosen": turns(i, "good"),
            "rejected": turns(i + 1, "dull"),
        }
        for i in range(8)
    ]
    return Dataset.from_list(rows)


def single_turns() -> Dataset:
    return agents().map(lambda row: {side: row[side][-1:] for side in ("chosen", "rejected")})


def train(folder, model, data, **options):
    trainer = ours(folder, model, {"train_dataset": data}, **{"loss": "dpo(beta=0.1, mean=True)", **options})
    trainer.train()
    return trainer


@pytest.mark.parametrize("score", ["assistant", "last_turn"])
def test_a_completion_of_one_turn_trains_as_without_the_option(score, checkpoint, tmp_path):
    plain = train(tmp_path, checkpoint, single_turns(), max_steps=4)
    assert largest_difference(train(tmp_path, checkpoint, single_turns(), score=score, max_steps=4), plain) == 0.0


def scored_text(trainer, row: int, side: int) -> list[str]:
    batch = trainer.data_collator([trainer.train_dataset[row]])
    ids, mask = batch["input_ids"][side], batch["completion_mask"][side].bool()
    gaps = torch.cat([mask[:1], mask[1:] & ~mask[:-1]]).cumsum(0)
    tokenizer = trainer.processing_class
    return [tokenizer.decode(ids[mask & (gaps == part)]) for part in range(1, int(gaps.max()) + 1)]


def test_the_batch_counts_the_turns_that_were_asked_for(checkpoint, tmp_path):
    first, last = "look 1<|im_end|>\n", "good good <|im_end|>\n"
    every = ours(tmp_path, checkpoint, {"train_dataset": agents()}, score="assistant")
    assert scored_text(every, 1, 0) == [first, last]
    assert scored_text(every, 1, 1) == ["look 2<|im_end|>\n", "dull dull dull <|im_end|>\n"]
    alone = ours(tmp_path, checkpoint, {"train_dataset": agents()}, score="last_turn")
    assert scored_text(alone, 1, 0) == [last]


def test_a_tools_answer_contributes_exactly_nothing(checkpoint, tmp_path):
    trainer = ours(tmp_path, checkpoint, {"train_dataset": agents()}, score="assistant")
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    kept = {}
    inner = trainer.forward_pass

    def forward(model, inputs):
        outputs = inner(model, inputs)
        if outputs.log_probs.requires_grad:  # the policy's, not the reference's
            kept["outputs"] = outputs
        return outputs

    trainer.forward_pass = forward
    trainer.compute_loss(trainer.model, dict(batch)).backward()
    mask, log_probs = batch["completion_mask"][:, 1:], kept["outputs"].log_probs
    assert (log_probs * (1 - mask)).abs().max() == 0.0
    assert (log_probs != 0).equal(mask.bool())
    whole = ours(tmp_path, checkpoint, {"train_dataset": agents()})
    assert next(iter(whole.get_train_dataloader()))["completion_mask"].sum() > batch["completion_mask"].sum()


def test_the_mask_holds_for_the_shared_prefix_the_cache_and_token_batches(checkpoint, tmp_path):
    ways = ({}, {"shared_prefix": True, "reference_cache": "on", "tokens_per_batch": 300})
    runs = [train(tmp_path, checkpoint, agents(), score="assistant", max_steps=3, **way) for way in ways]
    plain, fast = ([entry["loss"] for entry in history(run) if "loss" in entry] for run in runs)
    torch.testing.assert_close(torch.tensor(fast), torch.tensor(plain), rtol=1e-4, atol=1e-5)


def test_a_stream_is_marked_too(checkpoint, tmp_path):
    table = train(tmp_path, checkpoint, agents(), score="assistant", max_steps=2, dataloader_num_workers=0)
    stream = train(tmp_path, checkpoint, agents().to_iterable_dataset(), score="assistant", max_steps=2)
    assert {e["loss"] for e in history(table) if "loss" in e}
    assert len(history(stream)) == len(history(table))


@pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode is deprecated:FutureWarning")
@pytest.mark.parametrize(("mode", "kept"), [("keep_start", "look 1<|im_end|>"), ("keep_end", "good good <|im_end|>\n")])
def test_truncation_cuts_marks_with_the_tokens(mode, kept, checkpoint, tmp_path):
    options = {"score": "assistant", "max_length": 33 if mode == "keep_start" else 24, "truncation_mode": mode}
    trainer = ours(tmp_path, checkpoint, {"train_dataset": agents()}, **options)
    assert scored_text(trainer, 1, 0)[-1 if mode == "keep_end" else 0] == kept


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (tiny_pairs(4), {"score": "assistant"}, "plain texts"),
        (agents(), {"score": "assistent"}, "Did you mean `assistant`"),
        (agents(), {"score": "assistant", "precompute_ref_log_probs": True}, "cannot be combined with"),
        (agents(), {"score": "last_turn", "max_length": 36}, "row 0, `chosen`: no token counts"),
    ],
)
def test_what_cannot_be_scored_is_refused(data, options, message, checkpoint, tmp_path):
    with pytest.raises(PrefalignError, match=message):
        ours(tmp_path, checkpoint, {"train_dataset": data}, **options)


def test_a_collator_of_ones_own_is_refused(checkpoint, tmp_path):
    with pytest.raises(PrefalignError, match="data_collator"):
        ours(tmp_path, checkpoint, {"train_dataset": agents(), "data_collator": lambda rows: rows}, score="assistant")
