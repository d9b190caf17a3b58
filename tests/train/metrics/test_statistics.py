"""When TRL's statistics are computed, and that what is logged stays TRL's."""

from __future__ import annotations

import pytest
from trl import DPOTrainer

from prefalign import PrefConfig
from prefalign._errors import ConfigError
from prefalign.train import PrefTrainer
from tests.tiny import tiny_pairs
from tests.train.runs import COMMON, history, largest_difference, lora, ours, theirs

OVER_VOCABULARY = {"entropy", "logits/chosen", "logits/rejected", "mean_token_accuracy"}
EVERY_STEP = {"statistics": "every_step"}


@pytest.fixture
def calls(monkeypatch):
    """The optimizer steps in which TRL's `_compute_loss` ran, and what the head was asked for in each call."""
    from trl.trainer import utils

    from prefalign.train import _trl

    steps, outputs = [], []
    original, head = DPOTrainer._compute_loss, utils._ChunkedLogProbFunction

    def spy(self, *args, **kwargs):
        steps.append(self.state.global_step + 1)
        return original(self, *args, **kwargs)

    class Head(head):
        @staticmethod
        def forward(ctx, *args):
            outputs.append(args[-1])
            return head.forward(ctx, *args)

    monkeypatch.setattr(DPOTrainer, "_compute_loss", spy)
    with _trl.head(Head):
        yield steps, outputs


def keys(trainer):
    return [set(entry) for entry in history(trainer)]


def test_between_logs_only_log_probabilities_are_computed(checkpoint, tmp_path, calls):
    steps, outputs = calls
    ours(tmp_path, checkpoint, loss="simpo(beta=2.0, gamma=1.0)", logging_steps=4).train()
    assert steps == [4, 8, 9]  # the last one, for the summary
    full = ("log_probs", "entropy", "mean_logits", "is_top1")
    assert outputs == [full if step in (4, 8, 9) else ("log_probs",) for step in range(1, 10)]


def test_every_micro_batch_of_a_step_that_logs_counts(checkpoint, tmp_path, calls):
    steps, _ = calls
    ours(tmp_path, checkpoint, max_steps=6, logging_steps=3, gradient_accumulation_steps=2).train()
    assert steps == [3, 3, 6, 6]


def test_the_first_step_is_computed_where_it_is_logged(checkpoint, tmp_path, calls):
    steps, _ = calls
    ours(tmp_path, checkpoint, max_steps=4, logging_steps=10, logging_first_step=True).train()
    assert steps == [1, 4]


def test_with_logs_at_the_end_of_an_epoch_its_last_step_is_computed(checkpoint, tmp_path, calls):
    steps, _ = calls
    epochs = {"max_steps": -1, "num_train_epochs": 2, "logging_strategy": "epoch"}
    mine = ours(tmp_path, checkpoint, {"train_dataset": tiny_pairs(10)}, **epochs)
    mine.train()
    assert steps == [3, 6]
    assert all(logged >= OVER_VOCABULARY for logged in keys(mine)[:2])


def test_what_only_trl_computes_is_computed_in_every_step(checkpoint, tmp_path, calls):
    steps, _ = calls
    ours(tmp_path, checkpoint, loss_type="sigmoid", ld_alpha=0.5, max_steps=3, logging_steps=3).train()
    assert steps == [1, 2, 3]


@pytest.mark.parametrize(
    "options",
    [
        {"logging_steps": 4},
        {"logging_steps": 3, "gradient_accumulation_steps": 2},
        {"logging_steps": 5, "eval_strategy": "steps", "eval_steps": 3},
        {"logging_steps": 2, "logging_first_step": True},
    ],
    ids=str,
)
def test_keys_are_trls_and_so_are_all_values_but_those_over_the_vocabulary(options, checkpoint, tmp_path):
    data = {"eval_dataset": tiny_pairs(8)}
    mine, trl = ours(tmp_path, checkpoint, data, **options), theirs(tmp_path, checkpoint, data, **options)
    mine.train()
    trl.train()
    added = {"logps/chosen_change", "logps/rejected_change", "displacement", "kl"}
    assert [logged - added - {f"eval_{name}" for name in added} for logged in keys(mine)] == keys(trl)
    for my_entry, trl_entry in zip(history(mine), history(trl), strict=True):
        exact = trl_entry.keys() - OVER_VOCABULARY
        assert {key: my_entry[key] for key in exact} == {key: trl_entry[key] for key in exact}


def test_values_over_the_vocabulary_are_those_of_the_steps_that_log(checkpoint, tmp_path):
    """With one log per step TRL logs each step alone: there its values of the logged steps can be read off."""
    mine = ours(tmp_path, checkpoint, logging_steps=3)
    mine.train()
    trl = theirs(tmp_path, checkpoint, logging_steps=1)
    trl.train()
    each = {entry["step"]: entry for entry in history(trl) if "loss" in entry}
    logged = [entry for entry in history(mine) if "loss" in entry]
    assert [entry["step"] for entry in logged] == [3, 6, 9]
    for entry in logged:
        for name in OVER_VOCABULARY:
            assert entry[name] == each[entry["step"]][name]
        assert entry["num_tokens"] == each[entry["step"]]["num_tokens"]


@pytest.mark.parametrize("trainer", [{}, {"peft_config": lora()}], ids=["full", "lora"])
def test_every_step_brings_trls_means_back(trainer, checkpoint, tmp_path):
    options = {"logging_steps": 4, "gradient_accumulation_steps": 2}
    mine, trl = (
        ours(tmp_path, checkpoint, trainer, **options, **EVERY_STEP),
        theirs(tmp_path, checkpoint, trainer, **options),
    )
    mine.train()
    trl.train()
    assert largest_difference(mine, trl) == 0.0


def test_trls_own_arguments_log_as_in_trl(checkpoint, tmp_path):
    from trl import DPOConfig

    settings = {**COMMON, "logging_steps": 4, "bf16": False, "gradient_checkpointing": False}
    mine = PrefTrainer(checkpoint, args=DPOConfig(str(tmp_path / "ours"), **settings), train_dataset=tiny_pairs())
    trl = theirs(tmp_path, checkpoint, logging_steps=4)
    mine.train()
    trl.train()
    assert largest_difference(mine, trl) == 0.0


def test_the_weights_do_not_depend_on_when_statistics_are_computed(checkpoint, tmp_path):
    """Bit for bit, also with the shared prefix, whose head is another one."""
    for shared in (False, True):
        options = {"logging_steps": 4, "shared_prefix": shared}
        some = ours(tmp_path, checkpoint, **options)
        every = ours(tmp_path, checkpoint, **options, **EVERY_STEP)
        some.train()
        every.train()
        same = every.model.state_dict()
        assert all((value == same[name]).all() for name, value in some.model.state_dict().items())


def test_another_word_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="`statistics` must be 'logged_steps' or 'every_step' \\(got 'sometimes'\\)"):
        PrefConfig(str(tmp_path), statistics="sometimes", use_cpu=True)
