"""Reading pairs: every kind of file, and the line that each kind of damage is reported on."""

from __future__ import annotations

import json
import os

import pytest
from datasets import Dataset, DatasetDict

from prefalign._errors import DataError
from prefalign.data import load_pairs

ROWS = [
    {"prompt": "Film 1:", "chosen": " good", "rejected": " bad", "score": 0.5},
    {"prompt": "Film 2:", "chosen": " fine, really", "rejected": ' "dull"', "score": 2.0},
]


def _jsonl(path, *lines):
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
    return path


def _row(**changes):
    return json.dumps({"prompt": "p", "chosen": "c", "rejected": "r", **changes})


def _message(*args, **kwargs):
    with pytest.raises(DataError) as caught:
        load_pairs(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.ndjson", "pairs.JSONL", "lines.json"])
def test_json_lines_are_read(tmp_path, name):
    path = _jsonl(tmp_path / name, json.dumps(ROWS[0]), "", json.dumps(ROWS[1]))
    assert load_pairs(path).to_list() == ROWS


def test_a_json_list_is_read(tmp_path):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(ROWS, indent=2))
    assert load_pairs(path).to_list() == ROWS


def test_csv_is_read_with_quotes_line_ends_and_numbers(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes(
        b"\xef\xbb\xbfprompt,chosen,rejected,score,flipped\r\n"
        b'Film:,"a, b\r\nc","say ""no""",0.5,True\r\n1,2,3,4,false\r\n'
    )
    assert load_pairs(path).to_list() == [
        {"prompt": "Film:", "chosen": "a, b\r\nc", "rejected": 'say "no"', "score": 0.5, "flipped": True},
        {"prompt": "1", "chosen": "2", "rejected": "3", "score": 4.0, "flipped": False},
    ]


def test_a_csv_cell_may_be_longer_than_the_csv_module_allows(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(f"prompt,chosen,rejected\np,{'x' * 200_000},r\n")
    assert len(load_pairs(path)[0]["chosen"]) == 200_000


def test_parquet_and_saved_folders_are_read(tmp_path):
    Dataset.from_list(ROWS).to_parquet(tmp_path / "pairs.parquet")
    assert load_pairs(tmp_path / "pairs.parquet").to_list() == ROWS
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    assert load_pairs(tmp_path / "saved").to_list() == ROWS
    DatasetDict(test=Dataset.from_list(ROWS[:1])).save_to_disk(tmp_path / "splits")
    assert load_pairs(tmp_path / "splits", split="test").to_list() == ROWS[:1]
    assert "no split 'tset' (it has 'test'). Did you mean `test`?" in _message(tmp_path / "splits", split="tset")


def test_conversations_are_read_though_their_messages_have_different_fields(tmp_path):
    first = [{"role": "user", "content": "hi"}]
    second = [{"role": "user", "content": "hi", "name": "Ann"}]
    path = _jsonl(
        tmp_path / "c.jsonl",
        _row(prompt=first, chosen=first, rejected=first),
        _row(prompt=second, chosen=first, rejected=first),
    )
    assert load_pairs(path)[1]["prompt"] == second


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "p", "chosen": }', "line 2, column 27: malformed JSON: Expecting value"),
        ('{"prompt": "p"', "line 2, column 15: malformed JSON"),
        (b'{"prompt": "\xff"}', "line 2 is not UTF-8: byte 0xff at column 13"),
        ("[1, 2]", "line 2 must be an object with named texts (got a list)"),
        ("3", "line 2 must be an object with named texts (got a number)"),
        (_row(chosen=5), "line 2: `chosen` must be text or a list of messages (got a number: 5)"),
        (_row(rejected=True), "line 2: `rejected` must be text or a list of messages (got true/false: True)"),
        (_row(chosen={"a": 1}), "line 2: `chosen` must be text or a list of messages (got an object"),
        (_row(chosen=[{"role": "user", "content": "x"}]), "line 2: `chosen` is a list, but text in the rows before"),
        (
            '{"prompt": "p", "choosen": "c", "rejected": "r"}',
            "line 2 has no `chosen`. Is `choosen` meant to be `chosen`?",
        ),
        (r'{"prompt": "p", "chosen": "\ud800", "rejected": "r"}', "line 2: `chosen` holds half of a surrogate pair"),
        (_row(score="many"), "line 2: `score` does not fit its column (got text: 'many')"),
        ("[" * 100_000, "line 2: the JSON is nested too deeply"),
        ('{"prompt": ' + "1" * 5000 + "}", "line 2: malformed JSON"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    path = _jsonl(tmp_path / "pairs.jsonl", _row(score=1), line, _row(score=2))
    message = _message(path)
    assert str(path) in message
    assert said in message
    assert len(message) < 600


def test_a_bad_line_far_into_the_file_is_named(tmp_path):
    lines = [_row(score=1)] * 7000
    lines[6543] = _row(score="many")
    assert "line 6544: `score`" in _message(_jsonl(tmp_path / "pairs.jsonl", *lines))


def test_kinds_that_differ_between_batches_are_refused(tmp_path):
    lines = [_row(score=1)] * 5000 + [_row(score="many")]
    assert "a column mixes kinds of values" in _message(_jsonl(tmp_path / "pairs.jsonl", *lines))


def test_null_is_kept_for_the_check_to_report(tmp_path):
    path = _jsonl(tmp_path / "pairs.jsonl", _row(chosen=None), _row())
    assert load_pairs(path)["chosen"][:] == [None, "c"]


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (
            '{"prompt": "p", "choosen": "c", "rejected": "r"}',
            "line 1: Pairs need the columns `prompt`, `chosen` and `rejected` (got `prompt`, `choosen`, `rejected`). "
            "Is `choosen` meant to be `chosen`?",
        ),
        ('{"prompt": "p", "completion": "c", "label": true}', "unpaired"),
        ("{}", "(got no columns)"),
    ],
)
def test_columns_that_are_no_pairs_are_refused(tmp_path, first, said):
    assert said in _message(_jsonl(tmp_path / "pairs.jsonl", first))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompt,chosen,rejected\na,b,c\na,b\n", "line 3: 2 cells under 3 columns"),
        ('prompt,chosen,rejected\na,b,c\na,"b,c\n', "line 3: malformed CSV"),
        ("prompt,chosen,rejected,chosen\n", "the column `chosen` stands there twice"),
        ("prompt,chosen,rejected\n", "has no rows"),
        ("prompt,chosen\na,b\nc\n", "line 3: 1 cells under 2 columns"),
    ],
)
def test_a_bad_csv_is_refused(tmp_path, text, said):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    assert said in _message(path)


def test_paths_that_are_no_readable_file_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "blank.jsonl").write_bytes(b"\n \n")
    (tmp_path / "pairs.txt").write_text("x")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    (tmp_path / "lost.jsonl").symlink_to("nowhere.jsonl")
    (tmp_path / "noise.parquet").write_bytes(os.urandom(64))
    (tmp_path / "folder").mkdir()
    _jsonl(tmp_path / "folder" / "pairs.jsonl", _row())
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, said in {
        "empty.jsonl": "is empty",
        "blank.jsonl": "has no rows",
        "pairs.txt": "must end in one of .jsonl",
        "loop.jsonl": "Too many levels of symbolic links",
        "lost.jsonl": "is a symbolic link to nowhere.jsonl, which does not exist",
        "noise.parquet": "is no readable Parquet file",
        "folder": "Name a file in it, such as",
        "pipe.jsonl": "neither a file nor a folder",
        "blnk.jsonl": "Did you mean `blank.jsonl`?",
        "x" * 5000: "cannot be opened",
        "nul\0.jsonl": "cannot be opened",
        "empty.jsonl/below.jsonl": "cannot be opened",
    }.items():
        assert said in _message(os.path.join(tmp_path, name)), name


def test_a_damaged_saved_folder_is_refused(tmp_path):
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "data-00000-of-00001.arrow").write_bytes(b"ARROW1")
    assert "cannot be read as a saved data set" in _message(tmp_path / "saved")


def test_parquet_with_numbers_for_text_is_refused(tmp_path):
    Dataset.from_dict({"prompt": ["a"], "chosen": [1], "rejected": ["b"]}).to_parquet(tmp_path / "n.parquet")
    assert "the column `chosen` must hold text or lists of messages (got int64)" in _message(tmp_path / "n.parquet")


def test_what_the_hub_says_is_passed_on(monkeypatch):
    asked = []

    def load_dataset(name, subset, *, split):
        asked.append((name, subset, split))
        if name == "owner/pairs":
            return Dataset.from_list(ROWS)
        raise ConnectionError("no route\nto the Hub")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert len(load_pairs("owner/pairs", split="test", subset="small")) == 2
    assert asked == [("owner/pairs", "small", "test")]
    message = _message("owner/other")
    assert "'owner/other' is no file here" in message
    assert "ConnectionError: no route" in message
