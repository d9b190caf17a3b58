"""`prefalign cache ls | verify | clear`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from prefalign.cli._main import main
from prefalign.references import LogpStore


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of two references: one of three texts in two shards, one of a single text."""
    monkeypatch.setenv("PREFALIGN_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "reference"
    about = {"reference": "checkpoint: sft-a", "dtype": "bfloat16", "autocast": "bf16"}
    for name, count in (("aa11", 3), ("ab22", 1)):
        store = LogpStore(place / name, about)
        for number in range(count):
            store.add(bytes([number]) * 16, np.arange(4, dtype=np.float32))
            if number != 1:
                store.flush()
    (place / "ab22" / "about.json").write_text(
        (place / "ab22" / "about.json").read_text().replace("bf16", "no").replace("sft-a", "sft-b")
    )
    return place


def run(capsys, *words):
    code = main(["cache", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_ls_says_what_is_there(capsys, folder):
    code, out, _ = run(capsys, "ls")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "aa11  checkpoint: sft-a"
    assert lines[1].startswith("  bfloat16, bf16 autocast; 3 texts, 12 tokens in 2 shards, ")
    assert lines[3].startswith("  bfloat16; 1 texts, 4 tokens in 1 shards, ")
    assert lines[4].startswith("2 references, ")
    assert str(folder) in lines[4]


def test_ls_as_json(capsys, folder):
    code, out, _ = run(capsys, "ls", "--json", "aa")
    [reference] = json.loads(out)["references"]
    assert (code, json.loads(out)["folder"]) == (0, str(folder))
    assert reference.pop("bytes") > 48
    assert reference.pop("written").endswith("Z")
    assert reference == {
        "key": "aa11",
        "reference": "checkpoint: sft-a",
        "dtype": "bfloat16",
        "autocast": "bf16",
        "texts": 3,
        "tokens": 12,
        "shards": 2,
        "damaged": [],
    }


def test_ls_of_nothing(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    code, out, _ = run(capsys, "ls", "--folder", str(tmp_path / "empty"))
    assert (code, out.startswith("0 references, 0 B in ")) == (0, True)


@pytest.mark.parametrize("where", ["value", "key", "header", "renamed"])
def test_verify_finds_every_damage(where, capsys, folder):
    code, out, _ = run(capsys, "verify")
    assert code == 0
    assert "shards are sound, none damaged." in out
    path = max((folder / "aa11").glob("*.safetensors"), key=lambda one: one.stat().st_size)
    if where == "renamed":
        path.rename(path.with_name("0" * 32 + ".safetensors"))
    else:
        content = bytearray(path.read_bytes())
        place = {"value": content.rindex(np.float32(3).tobytes()), "key": len(content) - 1, "header": 3}[where]
        content[place] ^= 1
        path.write_bytes(content)
    code, out, _ = run(capsys, "verify")
    assert code == 1
    assert "damaged: " in out
    assert "sound, 1 damaged." in out
    code, out, _ = run(capsys, "verify", "--json", "aa11")
    assert code == 1
    assert len(json.loads(out)["references"][0]["damaged"]) == 1
    assert run(capsys, "verify", "ab22")[0] == 0


def test_clear_removes_what_is_named_and_nothing_else(capsys, folder):
    (folder / "foreign").mkdir()
    code, out, _ = run(capsys, "clear", "aa", "--json")
    assert (code, json.loads(out)["removed"]) == (0, ["aa11"])
    assert sorted(path.name for path in folder.iterdir()) == ["ab22", "foreign"]
    code, out, _ = run(capsys, "clear", "--all")
    assert (code, out.startswith("Removed 1 references, ")) == (0, True)
    assert [path.name for path in folder.iterdir()] == ["foreign"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clear"], "needs either keys"),
        (["clear", "--all", "aa11"], "needs either keys"),
        (["clear", "zz"], "is no key"),
        (["verify", "a"], "begins 2 keys"),
        (["ls", ""], "is no key"),
        (["ls", "--folder", "nowhere"], "must be a folder"),
    ],
)
def test_what_makes_no_sense_is_refused(words, message, capsys, folder):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(list(folder.iterdir())) == 2


def test_a_link_is_not_followed_to_be_removed(capsys, folder, tmp_path):
    (folder / "ab22").rename(tmp_path / "elsewhere")
    (folder / "ab22").symlink_to(tmp_path / "elsewhere")
    assert run(capsys, "clear", "ab22")[0] == 2
    assert (tmp_path / "elsewhere" / "about.json").exists()


@pytest.mark.parametrize("words", [[], ["rm"], ["ls", "--all"]])
def test_unknown_actions_end_with_the_usage(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["cache", *words])
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err
