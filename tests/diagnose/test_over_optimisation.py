"""Over-optimisation: a gold reward that turns, and a model that tells texts apart but writes worse ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from prefalign.diagnose import judge, read_run, write_report, write_samples
from prefalign.losses import parse_loss

TURNED = "The run is over-optimising: the gold reward turned while the policy moved on."
APART = "The policy tells good from bad, but writes worse."


def run(folder, **metrics):
    steps = len(next(iter(metrics.values())))
    log = [
        {"step": 10 * (step + 1), **{name.replace("__", "/"): values[step] for name, values in metrics.items()}}
        for step in range(steps)
    ]
    state = {"global_step": 10 * steps, "max_steps": 10 * steps, "log_history": log}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    (folder / "prefalign_run.json").write_text(json.dumps({"loss": {"expression": "dpo(beta=0.1)", "beta": 0.1}}))
    return folder


def headlines(folder):
    return {remark.headline: remark for remark in judge(read_run(folder))}


def test_a_gold_reward_that_turns_is_over_optimisation(tmp_path):
    folder = run(tmp_path, eval_gold=[0.0, 0.5, 0.9, 0.6, 0.2], eval_kl=[0.0, 0.01, 0.02, 0.04, 0.08])
    remark = headlines(folder)[TURNED]
    assert "step 30 (0.9, 0.02 nats" in remark.detail
    assert "ended at 0.2, 0.08 nats" in remark.detail
    parse_loss(remark.code.removeprefix("loss: "))


@pytest.mark.parametrize(
    ("gold", "kl"),
    [
        ([0.0, 0.5, 0.9], [0.0, 0.1, 0.2]),  # still rising
        ([0.0, 0.9, 0.85], [0.0, 0.1, 0.2]),  # within its noise
        ([0.0, 0.9, 0.2], [0.0, 0.2, 0.1]),  # it came back: something else
        ([0.5, 0.5, 0.5], [0.0, 0.1, 0.2]),
    ],
)
def test_a_gold_reward_that_does_not_turn_is_none(tmp_path, gold, kl):
    assert TURNED not in headlines(run(tmp_path, eval_gold=gold, eval_kl=kl))


def samples(folder, change):
    random = np.random.default_rng(0)
    before = random.normal(size=40)
    after = before + change + 0.1 * random.normal(size=40)
    prompts, texts = [f"p{i}" for i in range(40)], ["x"] * 40
    write_samples(folder, prompts, texts, texts, before.tolist(), after.tolist())


@pytest.mark.parametrize(
    ("accuracy", "change", "headline"),
    [
        (0.8, -0.5, APART),
        (0.5, 0.5, "The policy writes better, though it hardly tells the pairs apart."),
        (0.8, 0.5, "Telling apart and writing, side by side."),
        (0.8, 0.0, "Telling apart and writing, side by side."),
    ],
)
def test_the_two_sides_are_told_apart(tmp_path, accuracy, change, headline):
    folder = run(tmp_path, eval_rewards__accuracies=[0.5, accuracy, accuracy], eval_loss=[0.7, 0.6, 0.5])
    samples(folder, change)
    found = headlines(folder)
    assert headline in found
    assert f"{accuracy:.0%} of the held-out pairs" in found[headline].detail
    assert (APART in found) == (headline == APART)


@pytest.mark.parametrize(
    ("name", "change", "missing"),
    [
        ("eval_rewards__accuracies", None, ["write_samples"]),
        ("rewards__accuracies", 0.5, ["eval_strategy"]),
        ("rewards__accuracies", None, ["eval_strategy", "write_samples"]),
        ("eval_rewards__accuracies", 0.5, []),
    ],
)
def test_what_is_missing_to_compare_the_two_sides_is_named(tmp_path, name, change, missing):
    folder = run(tmp_path, **{name: [0.5, 0.7, 0.8]}, rewards__margins=[0.0, 0.5, 0.9])
    if change is not None:
        samples(folder, change)
    remark = headlines(folder).get("Telling apart and writing are not compared.")
    assert (remark is None) == (not missing)
    for word in ("eval_strategy", "write_samples"):
        assert (remark is not None and word in remark.detail) == (word in missing)


def test_training_pairs_are_no_held_out_pairs(tmp_path):
    folder = run(tmp_path, rewards__accuracies=[0.5, 0.8, 0.9], loss=[0.7, 0.6, 0.5])
    samples(folder, -0.5)
    assert APART not in headlines(folder)


def test_without_a_gold_reward_the_proxy_is_drawn_and_called_so(tmp_path):
    folder = run(tmp_path, rewards__margins=[0.0, 0.5, 0.9], kl=[0.0, 0.1, 0.2], loss=[0.7, 0.6, 0.5])
    page = write_report(folder).page.read_text("utf-8")
    assert "Proxy reward over distance" in page
    assert "Gold reward over distance" not in page


@pytest.mark.parametrize(
    "metrics",
    [
        {"eval_gold": [0.1, 0.2, 0.3], "rewards__margins": [0.0, 0.5, 0.9], "kl": [0.0, 0.1, 0.2]},
        {"gold": [0.1, None, None], "rewards__margins": [0.0, 0.5, 0.9], "kl": [None, 0.1, 0.2]},
    ],
)
def test_a_gold_reward_without_distances_leaves_the_proxy_its_picture(tmp_path, metrics):
    page = write_report(run(tmp_path, **metrics)).page.read_text("utf-8")
    assert "Proxy reward over distance" in page
    assert "was logged, but not twice at a step with `kl`" in page
