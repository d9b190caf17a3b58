"""`prefalign check`: what it prints, and its exit codes."""

from __future__ import annotations

import json

import pytest

from prefalign.cli import main
from tests.tiny import tiny_tokenizer


@pytest.fixture
def data(tmp_path):
    rows = [("Film 1:", " good", " bad"), ("Film 2:", "", " bad"), ("Film 3:", " a rather long answer", " short")]
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "".join(json.dumps(dict(zip(("prompt", "chosen", "rejected"), row, strict=True))) + "\n" for row in rows)
    )
    return str(path)


def test_findings_are_printed_and_a_usable_set_exits_with_0(data, capsys):
    assert main(["check", data]) == 0
    out = capsys.readouterr().out
    assert "1  empty_completion: a completion is empty or only white space  (row 1)" in out
    assert "2 rows can be trained on; 1 would be dropped" in out
    assert "characters" in out


def test_with_a_tokenizer_lengths_are_tokens(data, tmp_path, capsys):
    tiny_tokenizer().save_pretrained(tmp_path / "tok")
    assert main(["check", data, "--tokenizer", str(tmp_path / "tok"), "--max-length", "20", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    # "Film 3:" is 7 bytes, " a rather long answer" 21 and EOS 1: 29 tokens, of which 20 are kept.
    assert report["lengths"]["longest"]["longest"] == 29
    assert (report["unit"], report["truncated"], report["dropped"]) == ("tokens", 0.5, 1)


def test_bad_rows_exit_with_2_on_request(data):
    assert main(["check", data, "--on-bad-pairs", "error"]) == 2


def test_an_unusable_set_exits_with_2_and_its_report(tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "chosen": "c", "rejected": "c"}\n')
    assert main(["check", str(path)]) == 2
    assert "this data set cannot be trained on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.jsonl"], "There is no file 'nowhere.jsonl'."),
        (["DATA", "--max-length", "9"], "would have no effect"),
        (["DATA", "--tokenizer", "./nowhere"], "`--tokenizer` must name a folder with a tokenizer"),
        (["DATA", "--limit", "0"], "`limit` must be a whole number >= 1"),
    ],
)
def test_a_wrong_argument_is_one_line_on_stderr(data, words, said, capsys):
    assert main(["check", *[data if word == "DATA" else word for word in words]]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("prefalign check: ")
    assert said in captured.err
    assert captured.err.count("\n") == 1
