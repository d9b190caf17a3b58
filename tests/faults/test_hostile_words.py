"""Hostile command lines: one message and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefalign.cli import main
from tests.faults.hostile import CANARY, refuse_command, snapshot
from tests.faults.test_hostile_data import BOMB, PICKLE

SYSTEM = f"__import__('os').system('touch {CANARY}')"
WORDS = {
    "derive a system call": ["derive", SYSTEM],
    "derive nothing": ["derive", ""],
    "derive half a surrogate": ["derive", "\udcff"],
    "derive a NUL": ["derive", "w\0"],
    "derive a file that is no Python": ["derive", "data.pkl:loss"],
    "derive from a module": ["derive", "os:system"],
    "derive from nowhere": ["derive", "nowhere.py:loss"],
    "derive a folder": ["derive", "folder.py:loss"],
    "derive a dunder": ["derive", "loss.py:__builtins__"],
    "explain brackets": ["explain", "(" * 100_000],
    "explain a huge power": ["explain", "w**1000000"],
    "compare one": ["compare", "cpo"],
    "compare a system call": ["compare", "cpo", SYSTEM],
    "lattice of nothing": ["lattice"],
    "lattice into a folder": ["lattice", "cpo", "orpo", "-o", "."],
    "lattice into no picture": ["lattice", "cpo", "orpo", "-o", "x.exe"],
    "generate a contradiction": ["generate", "row TF = x; row TF = v"],
    "generate less than nothing": ["generate", "monotone", "--top", "-1"],
    "generate by nothing": ["generate", "monotone", "--by", "__class__"],
    "generate from a bomb": ["generate", "bomb.yaml"],
    "generate from a pickle": ["generate", "pickle.yaml"],
    "generate from a folder": ["generate", "folder.yaml"],
    "generate from a link to itself": ["generate", "circle.yaml"],
    "generate from a NUL": ["generate", "a\0b.yaml"],
    "report of nowhere": ["report", "nowhere"],
    "report of a file": ["report", "data.pkl"],
    "report of a NUL": ["report", "a\0b"],
    "report of a damaged log": ["report", "damaged"],
    "soup of nothing": ["soup", "-o", "out"],
    "soup of files": ["soup", "data.pkl", "data.pkl", "-o", "out"],
    "soup of NULs": ["soup", "a\0b", "c", "-o", "out"],
    "soup with weights of text": ["soup", "a", "b", "--weights", SYSTEM, "-o", "out"],
    "soup with weights that are none": ["soup", "a", "b", "--weights", "nan,inf", "-o", "out"],
    "soup in shards of nothing": ["soup", "a", "b", "--max-shard-size", "nanGB", "-o", "out"],
    "check less than nothing": ["check", "data.pkl", "--limit", "-1"],
    "check with a pickle for a tokenizer": ["check", "pairs.jsonl", "--tokenizer", "data.pkl"],
    "train without anything": ["train"],
    "train with a word too many": ["train", "word"],
    "train with an option of dunders": ["train", "--__class__", "1"],
    "train with half an option": ["train", "--loss"],
}


@pytest.mark.parametrize("name", WORDS)
def test_a_hostile_command_line_is_one_error(name, capsys):
    files = {"data.pkl": PICKLE, "pickle.yaml": PICKLE, "bomb.yaml": BOMB.encode(), "loss.py": b"x = 1\n"}
    files["pairs.jsonl"] = b'{"prompt": "p", "chosen": "c", "rejected": "r"}\n'
    for file, content in files.items():
        Path(file).write_bytes(content)
    for folder in ("folder.py", "folder.yaml", "damaged"):
        os.mkdir(folder)
    Path("damaged/trainer_state.json").write_text('{"log_history": [')
    os.symlink("circle.yaml", "circle.yaml")
    before = snapshot(".")
    refuse_command(WORDS[name], capsys)
    assert snapshot(".") == before


@pytest.mark.parametrize(
    ("word", "nearest"),
    [("trian", " Did you mean `train`?"), ("--x derve", " Did you mean `derive`?"), ("zzz" * 9999, "")],
)
def test_a_command_that_there_is_not_names_the_nearest(word, nearest, capsys):
    with pytest.raises(SystemExit) as left:
        main(word.split())
    assert left.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("prefalign: error: '")
    assert said.endswith(f"is no command.{nearest} `prefalign --help` lists them.")


def test_a_process_of_its_own_says_the_same(tmp_path):
    command = [sys.executable, "-m", "prefalign", "derive", "w.__class__"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("prefalign derive: ")
    assert "Traceback" not in run.stderr
