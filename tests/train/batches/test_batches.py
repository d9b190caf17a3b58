"""Micro-batches by tokens: the same pairs in a step, the same gradient, the same numbers in the log."""

from __future__ import annotations

import logging

import pytest
import torch

from prefalign._errors import ConfigError
from prefalign.losses import DPO, SFT, PairLogps, parse_loss
from tests.tiny import tiny_pairs
from tests.train.runs import history, lora, ours, weights

STEP = 8  # pairs
BUDGET = 200  # padded tokens: a few of these pairs
ONE_STEP = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "max_steps": 1, "lr_scheduler_type": "constant"}
WHOLE = {"per_device_train_batch_size": STEP, "per_device_eval_batch_size": STEP}
ACCUMULATED = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "per_device_eval_batch_size": STEP}
BY_TOKENS = {**ACCUMULATED, "tokens_per_batch": BUDGET}
# Ours; transformers' estimate from padded batches; what accumulation rounds the epoch to.
NOT_COMPARED = {"batches/micro_batches", "batches/over_budget", "total_flos", "epoch"}


def logged(trainer):
    """Entries of the log without times and what does not depend on the pairs alone."""
    return [
        {key: value for key, value in entry.items() if key.removeprefix("eval_") not in NOT_COMPARED}
        for entry in history(trainer)
    ]


@pytest.fixture
def sizes(monkeypatch):
    """Pairs of every batch that a loss was computed on."""
    from prefalign.train import PrefTrainer

    seen, original = [], PrefTrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        seen.append(len(inputs["input_ids"]) // 2)
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(PrefTrainer, "compute_loss", spy)
    return seen


def train(folder, checkpoint, trainer=None, **options):
    made = ours(folder, checkpoint, trainer, **options)
    made.train()
    return made


def largest_gap(one, other):
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    return max((mine[name] - theirs[name]).abs().max().item() for name in mine)


SETTINGS = {
    "full": ({"loss": "dpo(beta=0.1)"}, {}),
    "a sum": ({"loss": "simpo(beta=2.0, gamma=1.0) + 0.1*sft(reduction='sequence_mean')"}, {}),
    "lora": ({"loss": "robust(dpo(beta=0.1), flip_rate=0.2)"}, {"peft_config": lora()}),
    "precomputed": ({"loss": "ipo(beta=0.1)", "precompute_ref_log_probs": True}, {}),
    "shared prefix": ({"loss": "dpo(beta=0.1)", "shared_prefix": True, "tokens_per_batch": 120}, {}),
    "checkpointing": ({"loss": "dpo(beta=0.1)", "gradient_checkpointing": True}, {}),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_gradient_of_a_step_is_that_of_the_plain_batch(setting, checkpoint, tmp_path, sizes):
    """With SGD at rate 1 and no clipping, the weights move by the gradient."""
    options, trainer = SETTINGS[setting]
    by_tokens = {**BY_TOKENS, **options}
    options = {name: value for name, value in options.items() if name != "tokens_per_batch"}
    plain = train(tmp_path / "plain", checkpoint, trainer, **options, **ONE_STEP, **WHOLE)
    start = len(sizes)
    mine = train(tmp_path / "mine", checkpoint, trainer, **by_tokens, **ONE_STEP)
    assert sum(sizes[start:]) == STEP
    assert len(set(sizes[start:])) > 1  # uneven: their means alone would not do
    assert largest_gap(plain, mine) < 1e-6
    begun = ours(tmp_path / "start", checkpoint, trainer, **options, **ONE_STEP, **WHOLE)
    assert largest_gap(plain, begun) > 1e-3  # it moved


def test_many_steps_log_what_the_plain_batches_log(checkpoint, tmp_path):
    """Every value, means over pairs and over tokens, in training and evaluation; a short batch ends the epoch."""
    data = {"train_dataset": tiny_pairs(20), "eval_dataset": tiny_pairs(11)}
    options = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "learning_rate": 1e-3}
    plain = train(tmp_path / "plain", checkpoint, data, **options, **WHOLE)
    mine = train(tmp_path / "mine", checkpoint, data, **options, **BY_TOKENS)
    assert [entry.keys() for entry in logged(mine)] == [entry.keys() for entry in logged(plain)]
    for my_entry, entry in zip(logged(mine), logged(plain), strict=True):
        assert my_entry == pytest.approx(entry, rel=1e-4, abs=1e-5)
    assert all(entry["batches/micro_batches"] >= 1 for entry in history(mine) if "loss" in entry)


def test_streamed_pairs_are_divided_step_by_step(checkpoint, tmp_path, sizes):
    stream = {"train_dataset": tiny_pairs(24).to_iterable_dataset()}
    options = {**ONE_STEP, "max_steps": 2, "learning_rate": 0.1}
    plain = train(tmp_path / "plain", checkpoint, stream, **options, **WHOLE)
    assert sizes == [STEP, STEP]
    mine = train(tmp_path / "mine", checkpoint, stream, **options, **BY_TOKENS)
    assert sum(sizes[2:]) == 2 * STEP
    assert largest_gap(plain, mine) < 1e-6


def test_a_run_that_is_resumed_amid_an_epoch_ends_with_the_same_weights(checkpoint, tmp_path):
    options = {**BY_TOKENS, "max_steps": 5, "save_strategy": "steps", "save_steps": 2}
    whole = train(tmp_path, checkpoint, **options)  # three steps make an epoch
    resumed = ours(tmp_path, checkpoint, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "ours" / "checkpoint-2"))
    assert largest_gap(whole, resumed) == 0.0
    assert history(resumed)[-2] == history(whole)[-2]


def test_a_pair_that_is_longer_than_the_budget_is_alone_and_counted(checkpoint, tmp_path, sizes, caplog):
    with caplog.at_level(logging.WARNING):
        options = {**BY_TOKENS, "tokens_per_batch": 1, "max_steps": 2}
        mine = train(tmp_path, checkpoint, **options)
    assert sizes == [1] * (2 * STEP)
    assert [entry["batches/over_budget"] for entry in history(mine) if "loss" in entry] == [STEP, STEP]
    assert [r.message for r in caplog.records if "over_budget" in r.message] == [
        "tokens_per_batch=1: 8 pairs of this step are longer, and each is a micro-batch of its own "
        "(the metric batches/over_budget counts them)."
    ]


def test_a_large_budget_makes_one_batch_of_a_step(checkpoint, tmp_path, sizes):
    train(tmp_path, checkpoint, **{**BY_TOKENS, "tokens_per_batch": 100_000, "max_steps": 2})
    assert sizes == [STEP, STEP]


def test_no_micro_batch_exceeds_the_budget(checkpoint, tmp_path, monkeypatch):
    from prefalign.train import PrefTrainer

    padded, original = [], PrefTrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        padded.append(inputs["input_ids"].numel())
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(PrefTrainer, "compute_loss", spy)
    train(tmp_path, checkpoint, **{**BY_TOKENS, "max_steps": 3})
    assert max(padded) <= BUDGET
    assert len(padded) > 3


def test_the_start_of_a_run_says_what_is_random_and_what_is_not(checkpoint, tmp_path, capsys):
    train(tmp_path, checkpoint, **{**BY_TOKENS, "max_steps": 1})
    assert (
        "Batches: the 8 pairs of a step (and process) are drawn as ever and computed in micro-batches of at most 200 "
        "padded tokens; only this division is by length, so a step's gradient is that of the plain batch."
    ) in capsys.readouterr().out


COUPLED = {
    "dr_dpo(beta=0.1)": {"loss": "dr_dpo(beta=0.1)"},
    "aot": {"loss_type": ["aot"]},
    "aot_unpaired": {"loss_type": ["sigmoid", "aot_unpaired"]},
    "token_mean": {"loss": "dpo(beta=0.1) + sft(reduction='token_mean')"},
}


@pytest.mark.parametrize("name", COUPLED)
def test_losses_that_couple_pairs_are_refused_by_name(name, checkpoint, tmp_path):
    titles = {"dr_dpo(beta=0.1)": "DrDPO", "aot": "AOT", "aot_unpaired": "AOTUnpaired", "token_mean": "SFT"}
    with pytest.raises(ConfigError, match=f"`tokens_per_batch=200` cannot be combined with the loss {titles[name]}\\("):
        ours(tmp_path, checkpoint, **COUPLED[name], **BY_TOKENS)


def found_to_couple(loss):
    """Whether a pair's value depends on the other pairs of its batch, as in `dr_dpo`: tried on fixed numbers."""
    numbers = torch.Generator().manual_seed(0)
    pairs = 5
    reference = -20 - 40 * torch.rand(2, pairs, generator=numbers, dtype=torch.float64)
    policy = reference + 4 * torch.randn(2, pairs, generator=numbers, dtype=torch.float64)
    tokens = torch.randint(60, 120, (2, pairs), generator=numbers).double()
    columns = [*policy.clamp(max=-1), *reference, *tokens]
    more = {"baseline": columns[0], "baseline_tokens": columns[4]}

    def some(rows):
        return PairLogps(*(column[rows] for column in columns), **{name: value[rows] for name, value in more.items()})

    together = loss(some(slice(None)))
    alone = torch.cat([loss(some(slice(i, i + 1))) for i in range(pairs)])
    return not torch.allclose(together, alone, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "coupled"),
    [
        *((text, False) for text in (
            "dpo(beta=0.1)", "ipo(beta=0.1)", "slic(beta=0.1)", "simpo(beta=2.0, gamma=1.0)",
            "odds_ratio(beta=0.1)", "dpop(beta=0.1, penalty=5.0)", "exo(beta=0.1, label_smoothing=0.1)",
            "nca(beta=0.1)",
            "bco(beta=0.1)", "sppo(beta=0.1)", "apo_zero(beta=0.1)", "apo_down(beta=0.1)", "discopop(beta=0.1)",
            "rpo(beta=0.1, eta=0.005, reduction='sum')", "robust(dpo(beta=0.1), flip_rate=0.2)",
            "holder_dpo(beta=0.1)", "sft(reduction='sum')", "sft(reduction='sum', baseline='reference')",
            "sft(reduction='sequence_mean')",
        )),
        ("dr_dpo(beta=0.1)", True), ("dr_dpo(beta=0.001, beta_prime=50.0)", True), ("aot(beta=0.1)", True),
        ("aot_unpaired(beta=0.1)", True), ("sft(reduction='token_mean')", True),
        ("sft(reduction='token_mean', baseline='reference')", True),
        ("cpo(beta=0.1)", True), ("orpo(beta=0.1)", True),  # theirs is a mean over the tokens of a batch
    ],
)  # fmt: skip
def test_which_losses_couple_pairs(text, coupled):
    terms = [term for _, term in parse_loss(text).terms]
    assert [term.couples_pairs for term in terms] == [found_to_couple(term) for term in terms]
    assert [term.couples_pairs for term in terms].count(True) == coupled


def test_a_sum_of_losses_per_pair_is_one():
    loss = DPO(beta=0.1) + 0.5 * SFT(reduction="sum")
    assert not loss.couples_pairs
    assert not found_to_couple(loss)


@pytest.mark.parametrize("value", [0, -3, 1.5, float("nan")])
def test_a_budget_is_a_whole_number_of_tokens(value, checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="`tokens_per_batch` must be a whole number >= 1"):
        ours(tmp_path, checkpoint, tokens_per_batch=value)
