"""Nested columns come back as their rows were written, whatever the other rows hold."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from prefalign._errors import DataError
from prefalign.data import flip_labels, load_pairs
from prefalign.data.reading import _files
from prefalign.train.generation import as_pairs


def call(name, **arguments):
    return {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


def row(chosen, rejected, **more):
    return {"prompt": [{"role": "user", "content": "Go."}], "chosen": [chosen], "rejected": [rejected], **more}


ROWS = {
    "arguments that differ": [
        row(call("weather", city="Rome"), call("search", query="Rome", top_k=3)),
        row(call("search", query="cats", top_k=5), call("weather", city="Oslo")),
    ],
    "messages that differ": [
        row(call("weather", city="Rome"), {"role": "assistant", "content": "no"}),
        row({"role": "assistant", "content": "yes"}, {"role": "assistant", "content": "no"}),
    ],
    "content as text and as parts": [
        row({"role": "assistant", "content": "yes"}, {"role": "assistant", "content": "no"}),
        row({"role": "assistant", "content": [{"type": "text", "text": "yes"}]}, {"role": "assistant", "content": "n"}),
    ],
    "whole numbers beside others": [
        row(call("move", by=3), call("move", by=0.5)),
        row(call("move", by=2.5), call("move", by=True)),
    ],
    "a null that was written": [
        row(call("weather", city="Rome", day=None), call("weather", city="Rome", day="today")),
        row(call("weather", city=None, day=None), call("weather", city="Oslo", day=None)),
    ],
    "tools that differ": [
        row({"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, tools=[{"name": "x"}]),
        row({"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}, tools=[{"id": {"n": 1}}]),
    ],
    "empty and nested lists": [
        row(call("plot", points=[]), call("plot", points=[[1, 2], []])),
        row(call("plot", points=[[0]], title="t"), call("plot", points=None)),
    ],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=list(ROWS))
@pytest.mark.parametrize("batch", [1, 5000], ids=["batch by batch", "at once"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_a_row_is_what_was_written(rows, batch, suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_BATCH", batch)
    file = tmp_path / f"pairs{suffix}"
    file.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)))
    loaded = load_pairs(file)
    assert json.dumps(list(loaded)) == json.dumps(rows)  # as text: 1, 1.0 and true are equal in Python
    assert json.dumps(loaded.with_format(None)["chosen"][:]) == json.dumps([each["chosen"] for each in rows])


def test_flipped_labels_keep_each_answer_as_it_was():
    rows = [row(call("weather", city="Rome"), {"role": "assistant", "content": "no"}) for _ in range(4)]
    flipped = flip_labels(Dataset.from_list(rows), 0.4, seed=0)
    assert {json.dumps(each) for each in flipped["chosen"]} | {json.dumps(each) for each in flipped["rejected"]} == {
        json.dumps([call("weather", city="Rome")]),
        json.dumps([{"role": "assistant", "content": "no"}]),
    }


def test_winners_stand_as_they_were_where_the_loser_will_be():
    rows = [row(call("weather", city="Rome"), None), row(call("search", query="x"), None)]
    alone = [{"prompt": each["prompt"], "chosen": each["chosen"]} for each in rows]
    winners = Dataset.from_list(alone, on_mixed_types="use_json")
    made = as_pairs(winners, winners.column_names)
    assert json.dumps(made["rejected"][:]) == json.dumps([each["chosen"] for each in rows])


def test_a_number_that_json_columns_would_round_is_refused(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [row(call("at", x=0.11000673436047537), call("at", y=1)), row(call("at", z=2), call("at", y=1))]
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"pairs\.jsonl, line 1: `chosen` holds a number of more digits"):
        load_pairs(file)
