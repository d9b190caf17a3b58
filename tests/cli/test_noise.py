"""The files of `prefalign noise`: what it refuses to write over, and what it refuses before any weights load."""

from __future__ import annotations

import json
import os

import pytest

from prefalign._errors import DataError
from prefalign.cli import main
from prefalign.diagnose import check_review
from tests.tiny import save_tiny


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def data(tmp_path):
    """Sixty pairs; the model is nowhere, so that whatever is said is said before weights load."""
    rows = [{"prompt": f"{index}:", "chosen": "a" * (1 + index % 7), "rejected": "b"} for index in range(60)]
    return write(tmp_path / "pairs.jsonl", rows)


def noise(data, *options, model="nowhere"):
    return main(["noise", str(data), "--model", str(model), *map(str, options)])


@pytest.mark.parametrize("target", ["--out", "--drop", "--downweight"])
@pytest.mark.parametrize("decision", ["drop", ""])
def test_a_review_is_not_written_over_by_what_is_made_of_it(data, tmp_path, capsys, target, decision):
    review = write(tmp_path / "r.jsonl", [{"row": 1, "decision": decision}])
    other = ["--drop", tmp_path / "other.jsonl"] if target == "--out" else []
    assert noise(data, "--reviewed", review, target, review, *other) == 2
    assert f"`{target}` must not be the file of `--reviewed`" in capsys.readouterr().err
    assert json.loads(review.read_text("utf-8"))["decision"] == decision


@pytest.mark.parametrize("target", ["--out", "--drop", "--downweight"])
def test_another_review_with_decisions_is_not_written_over(data, tmp_path, capsys, target):
    review = write(tmp_path / "r.jsonl", [{"row": 1, "decision": "drop"}])
    assert noise(data, target, review) == 2
    assert "which holds decisions (1)" in capsys.readouterr().err


def test_a_review_with_a_slip_of_the_pen_is_not_written_over(data, tmp_path, capsys):
    review = write(tmp_path / "r.jsonl", [{"row": 1, "decision": "drop"}, {"row": 2, "decision": "dorp"}])
    review.write_text(review.read_text("utf-8") + '{"row": 3, "decision": "keep"', "utf-8")
    assert noise(data, "--out", review) == 2
    assert "decisions (3)" in capsys.readouterr().err


def test_the_word_decision_in_a_text_is_no_decision(data, tmp_path, capsys):
    said = json.dumps({"row": 1, "decision": "drop"})
    assert noise(data, "--out", write(tmp_path / "r.jsonl", [{"row": 1, "decision": "", "prompt": said}])) == 2
    assert "`model`" in capsys.readouterr().err  # it came as far as the model


@pytest.mark.parametrize(
    ("first", "second"), [("--out", "--drop"), ("--out", "--downweight"), ("--drop", "--downweight")]
)
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_written_goes_to_different_files(data, tmp_path, capsys, first, second, linked):
    one = other = tmp_path / "one.jsonl"
    if linked:  # neither is there yet
        other = tmp_path / "link.jsonl"
        other.symlink_to(one)
    assert noise(data, first, one, second, other) == 2
    assert f"`{second}` must not be the file of `{first}`" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["--out", "--drop", "--downweight"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_the_data_are_not_written_over(data, tmp_path, capsys, target, link):
    link(data, tmp_path / "link.jsonl")
    assert noise(data, target, tmp_path / "link.jsonl") == 2
    assert "the data itself" in capsys.readouterr().err


def test_nothing_is_written_into_a_saved_data_set_or_over_a_folder(tmp_path, capsys):
    folder = tmp_path / "saved"
    folder.mkdir()
    assert noise(folder, "--out", folder / "state.json") == 2
    assert "must not lie in the folder of the data" in capsys.readouterr().err
    assert noise(folder, "--out", tmp_path) == 2
    assert "must be a file" in capsys.readouterr().err


def test_a_review_of_other_data_is_refused_before_the_model_loads(data, tmp_path, capsys):
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    for name, other in (("prompt", "another"), ("chosen", rows[3]["rejected"]), ("rejected", None)):
        suspect = {"row": 3, **rows[3], name: other, "decision": "swap"}
        review = write(tmp_path / "r.jsonl", [{"row": 2, **rows[2], "decision": "keep"}, suspect])
        assert noise(data, "--reviewed", review, "--drop", tmp_path / "clean.jsonl") == 2
        assert f"other data: as `{name}` of row 3 it has {other!r}" in capsys.readouterr().err


def test_a_review_of_a_row_that_is_not_there_is_refused_before_the_model_loads(data, tmp_path, capsys):
    review = write(tmp_path / "r.jsonl", [{"row": 60, "decision": "drop"}])
    assert noise(data, "--reviewed", review, "--drop", tmp_path / "clean.jsonl") == 2
    assert "speaks of row 60" in capsys.readouterr().err


def test_a_review_of_conversations_is_known_again():
    def say(role, text, **more):
        return [{"role": role, "content": text, **more}]

    pair = {"prompt": say("user", "Hi \ud800"), "chosen": say("assistant", "a"), "rejected": say("assistant", "b")}
    seen = {**pair, "prompt": say("user", "Hi ?"), "chosen": say("assistant", "a", tool_calls=None)}
    check_review({7: {"row": 7, "decision": "drop", **seen}}, [pair], rows=[7])
    with pytest.raises(DataError, match="`chosen` of row 7"):
        check_review({7: {"row": 7, "decision": "drop", **seen, "chosen": pair["rejected"]}}, [pair], rows=[7])


@pytest.mark.parametrize("kind", [bool, int])
def test_a_swapped_pair_is_flipped_no_more(data, tmp_path, kind):
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    rows = [{**row, "flipped": kind(index in (3, 4))} for index, row in enumerate(rows)]
    review = write(tmp_path / "r.jsonl", [{"row": row, **rows[row], "decision": "swap"} for row in (3, 5)])
    options = ("--reviewed", review, "--downweight", tmp_path / "out.jsonl", "--cache", tmp_path / "cache")
    noise(write(data, rows), *options, model=save_tiny(tmp_path / "model"))
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [index for index, row in enumerate(written) if row["flipped"]] == [4, 5]
    assert {type(row["flipped"]) for row in written} == {kind}
    assert written[3]["chosen"] == rows[3]["rejected"]
