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


@pytest.fixture
def agent(tmp_path):
    """A conversation with a tool's answer inside, and its tokenizer."""
    turns = [
        {"role": "assistant", "content": "look"},
        {"role": "tool", "content": "it <rains>"},
        {"role": "assistant", "content": "Wet."},
    ]
    row = {"prompt": [{"role": "user", "content": "Weather?"}], "chosen": turns, "rejected": [*turns[:2], turns[0]]}
    path = tmp_path / "agent.jsonl"
    path.write_text(json.dumps(row) + "\n")
    tiny_tokenizer().save_pretrained(tmp_path / "tok")
    return [str(path), "--tokenizer", str(tmp_path / "tok"), "--show", "1"]


def shown(out: str) -> str:
    return out[out.index("Row 0, chosen") :]


def test_show_marks_what_is_scored(agent, capsys):
    assert main(["check", *agent, "--score", "assistant"]) == 0
    out = shown(capsys.readouterr().out)
    # 4 + 2 tokens of each turn of the assistant; between them 6 + 10 + 2 of the tool's, and 11 that open the next turn.
    assert out.startswith("Row 0, chosen: 12 of 41 completion tokens are scored\n<|im_start|>user\nWeather?")
    assert "⟦look<|im_end|>\n⟧<|im_start|>tool\nit <rains><|im_end|>\n<|im_start|>assistant\n⟦Wet.<|im_end|>\n⟧" in out
    assert main(["check", *agent]) == 0
    assert "⟦look<|im_end|>\n<|im_start|>tool\nit <rains>" in shown(capsys.readouterr().out)


def test_show_paints_where_somebody_sees_it(agent, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FORCE_COLOR", "1")
    page = tmp_path / "page.html"
    assert main(["check", *agent, "--score", "last_turn", "--html", str(page)]) == 0
    out = shown(capsys.readouterr().out)
    assert "\x1b[30;42mWet.<|im_end|>\x1b[0m" in out
    assert "\x1b[31mlook<|im_end|>\x1b[0m" in out
    text = page.read_text("utf-8")
    assert '<span style="background:#9fe0b0;color:#000">Wet.&lt;|im_end|&gt;\n</span>' in text
    assert "it &lt;rains&gt;" in text


def test_show_takes_plain_texts(data, tmp_path, capsys):
    tiny_tokenizer().save_pretrained(tmp_path / "tok")
    assert main(["check", data, "--tokenizer", str(tmp_path / "tok"), "--show", "1"]) == 0
    assert "Film 1:⟦ good<|im_end|>⟧\n\nRow 0, rejected" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--score", "assistant"], "Add `--show 3`"),
        (["--show", "1"], "needs a tokenizer"),
        (["--show", "0", "--tokenizer", "TOK"], "must be >= 1"),
        (["--show", "1", "--json", "--tokenizer", "TOK"], "cannot be combined"),
        (["--show", "1", "--score", "assistant", "--tokenizer", "TOK"], "plain texts"),
    ],
)
def test_show_refuses_what_has_no_effect(options, message, data, tmp_path, capsys):
    tiny_tokenizer().save_pretrained(tmp_path / "tok")
    assert main(["check", data, *(str(tmp_path / "tok") if o == "TOK" else o for o in options)]) == 2
    assert message in capsys.readouterr().err
