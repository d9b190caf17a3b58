"""The pages about training say what is true: their examples run, their files are read, every key has an entry."""

from __future__ import annotations

import argparse
import doctest
import json
import re
from pathlib import Path

import pytest
import yaml

from prefalign.references import _parse
from prefalign.references.fixed import _fixed
from prefalign.train import _recipe
from prefalign.train._recipe import DataArguments, read_options
from prefalign.train.config import _config
from prefalign.train.config._checks import REMOVED
from prefalign.train.metrics import _terms
from tests.tiny import tiny_pairs
from tests.train.runs import history, ours

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page, language):
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("module", [_config, _terms, _fixed, _parse], ids=lambda module: module.__name__)
def test_the_examples_in_docstrings_run(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_the_config_file_is_one():
    (text,) = blocks("from-trl.md", "yaml")
    parser = argparse.ArgumentParser()
    _recipe.add_training_arguments(parser)
    actions = parser.get_default("actions")
    values = yaml.safe_load(text)
    given = {name: _recipe._read_value(name, value, actions[name]) for name, value in values.items()}
    data, training, model = read_options(None, {**given, "use_cpu": True}, actions)
    assert isinstance(data, DataArguments)
    assert (training.learning_rate, model.lora_r) == (1e-5, 16)


def test_every_removed_option_of_the_page_is_known():
    page = (DOCS / "from-trl.md").read_text("utf-8")
    table = page[page.index("| gone | now |") : page.index('```python\n>>> PrefConfig("run", rpo_alpha')]
    for row in table.splitlines()[2:]:
        for name in re.findall(r"`(\w+)=?`", row.split("|")[1] if "|" in row else ""):
            assert name in REMOVED, name


def test_every_key_that_is_logged_has_an_entry(checkpoint, tmp_path):
    loss = "dpo(beta=0.1) + 0.1*sft(reduction='sum')"
    page = (DOCS / "metrics.md").read_text("utf-8")
    trainer = ours(tmp_path, checkpoint, {"eval_dataset": tiny_pairs(4)}, loss=loss, max_steps=2)
    trainer.train()
    trainer.evaluate()
    keys = {key.removeprefix("eval_") for entry in history(trainer) for key in entry}
    for key in keys - {"step", "total_flos", "train_loss"}:
        assert f"`{re.sub('^loss/.*', 'loss/NAME', key)}`" in page, key


def test_the_record_is_described(checkpoint, tmp_path):
    page = (DOCS / "metrics.md").read_text("utf-8")
    trainer = ours(tmp_path, checkpoint, loss="dpo(beta=0.1)", max_steps=1)
    trainer.train()
    for key in json.loads((tmp_path / "ours" / "prefalign_run.json").read_text("utf-8")):
        assert f"`{key}`" in page, key
