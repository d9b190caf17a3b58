"""docs/seppo.md says what is true: its examples run, its files are read, its tables name every option and key."""

from __future__ import annotations

import argparse
import doctest
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from prefalign.diagnose import gold_rewards
from prefalign.losses import SePPO
from prefalign.references import Ditto, PastCheckpoints
from prefalign.references.past import _checkpoints, _ditto
from prefalign.train import GenerationOptions, _recipe
from prefalign.train._recipe import read_options
from prefalign.train.config._generation import DEFAULTS
from prefalign.train.generation import _sampling
from tests.tiny import tiny_pairs
from tests.train.runs import ours

DOCS = Path(__file__).parents[3] / "docs"
DATA = DOCS.parent / "examples" / "data"
PAGE = (DOCS / "seppo.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("module", [_checkpoints, _ditto, _sampling], ids=lambda module: module.__name__)
def test_the_examples_in_docstrings_run(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_the_examples_of_the_page_run():
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks("python")), {}, "seppo.md", "seppo.md", 0)
    assert len(examples.examples) > 4
    assert doctest.DocTestRunner().run(examples).failed == 0


def test_the_config_files_of_the_page_are_read():
    parser = argparse.ArgumentParser()
    _recipe.add_training_arguments(parser)
    actions = parser.get_default("actions")
    first, spin, ditto = map(yaml.safe_load, blocks("yaml"))
    for values, kind in ((first, PastCheckpoints), ({**first, **ditto}, Ditto), ({**first, **spin}, PastCheckpoints)):
        given = {name: _recipe._read_value(name, value, actions[name]) for name, value in values.items()}
        _, training, _ = read_options(None, {**given, "use_cpu": True}, actions)
        assert isinstance(training.loss_object, SePPO)
        assert isinstance(training.reference_object, kind)
    assert (training.loss_object.flipper, training.reference_object.choose) == ("none", "latest")


def test_the_tables_name_every_option_with_its_default():
    for option in fields(GenerationOptions):
        (row,) = (line for line in PAGE.splitlines() if line.startswith("|") and f"`{option.name}`" in line[:40])
        shown = {None: "all", (): "–"}.get(DEFAULTS[option.name], str(DEFAULTS[option.name]))
        assert shown in row.split("|")[2], option.name
    for option in fields(PastCheckpoints):
        assert f"| `{option.name}={option.default}`" in PAGE


def test_every_key_of_self_play_has_an_entry_in_both_pages(checkpoint, tmp_path):
    data = {"train_dataset": tiny_pairs(8).remove_columns("rejected")}
    trainer = ours(tmp_path, checkpoint, data, loss="seppo(beta=0.1)", reference="past(every=3)", max_steps=1)
    trainer.train()
    metrics = (DOCS / "metrics.md").read_text("utf-8")
    logged = trainer.state.log_history[0]
    keys = [key for key in logged if key.split("/")[0] in ("anchor", "generated", "reference")]
    assert len(keys) == 8
    for key in keys:
        assert f"`{key}`" in PAGE, key
        assert f"`{key}`" in metrics, key


@pytest.mark.parametrize("split", ["train", "heldout", "dev"])
def test_the_committed_winners_are_the_best_of_fewer_samples_than_the_pairs(split):
    pytest.importorskip("vaderSentiment")
    pairs, winners = (
        [json.loads(line) for line in (DATA / f"{name}_{split}.jsonl").read_text("utf-8").splitlines()]
        for name in ("reviews", "winners")
    )
    assert gold_rewards([row["chosen"] for row in winners]) == [row["gold_chosen"] for row in winners]
    assert all(set(row) == {"prompt", "chosen", "gold_chosen"} for row in winners)
    found = {row["prompt"]: row for row in winners}
    assert len(found) == len(winners)
    best_of_six = {}
    for row in pairs:
        best_of_six[row["prompt"]] = max(row["gold_chosen"], best_of_six.get(row["prompt"], -1))
    assert set(best_of_six) <= set(found)
    assert all(found[prompt]["gold_chosen"] <= gold for prompt, gold in best_of_six.items())
    # The best of six is among the first four for two prompts of three.
    assert sum(found[prompt]["gold_chosen"] == gold for prompt, gold in best_of_six.items()) > 0.6 * len(best_of_six)
