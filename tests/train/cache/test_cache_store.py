"""The rows of a reference cache on disk: nothing is lost, nothing damaged is read, and processes share them."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from prefalign.references import LogpStore, open_shard, stores_in
from prefalign.references.cache import _store
from prefalign.train.cache._rows import Survey, padded, row_keys, row_values


def key(number):
    return number.to_bytes(16, "little")


def values(number, count=5):
    return np.arange(count, dtype=np.float32) - 10 * number


@pytest.fixture
def store(tmp_path):
    """Three shards of three rows each."""
    made = LogpStore(tmp_path / "store", {"reference": "a test"})
    for number in range(9):
        made.add(key(number), values(number, count=number))
        if number % 3 == 2:
            made.flush()
    return made


def shards(store):
    return sorted(store.folder.glob("*.safetensors"))


def test_rows_come_back_from_memory_and_from_disk(store):
    store.add(key(100), values(100))
    for number in range(9):
        assert store.get(key(number)).tolist() == values(number, count=number).tolist()
    assert store.get(key(100)).tolist() == values(100).tolist()
    assert store.get(key(9)) is None
    again = LogpStore(store.folder)
    assert [len(again.get(key(number))) for number in range(9)] == list(range(9))
    assert again.get(key(100)) is None  # not flushed
    store.flush()
    assert again.get(key(100)) is None
    again.refresh()
    assert again.get(key(100)).tolist() == values(100).tolist()


def test_keys_with_one_beginning_are_told_apart(tmp_path):
    store = LogpStore(tmp_path)
    same = [b"\x01" * 8 + bytes([number] * 8) for number in range(5)]
    for number, one in enumerate(same):
        store.add(one, values(number))
        store.flush()
    assert [store.get(one)[0] for one in same] == [0, -10, -20, -30, -40]
    assert store.get(b"\x01" * 16) is not None
    assert store.get(b"\x01" * 8 + b"\x09" * 8) is None


@pytest.mark.parametrize("part", ["logps", "keys", "checks", "ends"])
def test_a_changed_number_is_found_and_its_shard_set_aside(part, store, caplog):
    path = shards(store)[-1]
    kept = open_shard(path)
    lost = [kept.keys[row].tobytes() for row in range(3) if len(kept.row(row))]
    content = {name: array.copy() for name, array in load_file(path).items()}
    content[part].reshape(-1)[-1] += 1
    save_file(content, path)
    again = LogpStore(store.folder)
    with caplog.at_level(logging.WARNING):
        found = [again.get(one) for one in [*lost, content["keys"][-1].tobytes()]]
        rest = [again.get(key(number)) for number in range(9)]
    assert any(one is None for one in found)
    assert sum(one is not None for one in rest) == 6
    assert "damaged" in caplog.text
    assert len(caplog.records) == 1
    assert path.with_name(path.name + ".damaged").is_file()
    for one in lost:
        again.add(one, np.ones(3, dtype=np.float32))
    again.flush()
    assert all(LogpStore(store.folder).get(one).tolist() == [1, 1, 1] for one in lost)


@pytest.mark.parametrize("damage", ["cut", "empty", "rubbish", "foreign"])
def test_a_file_that_is_no_shard_is_set_aside(damage, store, caplog):
    path = shards(store)[0]
    content = path.read_bytes()
    if damage == "foreign":
        save_file({"weight": np.zeros(3, dtype=np.float32)}, path)
    else:
        path.write_bytes({"cut": content[:-7], "empty": b"", "rubbish": b"\xff" * 300}[damage])
    with caplog.at_level(logging.WARNING):
        again = LogpStore(store.folder)
    assert len(again) == 6
    assert len(shards(store)) == 2
    assert "set aside" in caplog.text or "It now has the name" in caplog.text


def test_a_shard_that_is_cut_short_while_it_is_open_costs_its_rows_alone(store, caplog):
    """A mapped file would end this process with SIGBUS."""
    cut, gone, _ = shards(store)
    lost = {row.tobytes() for path in (cut, gone) for row in open_shard(path).keys}
    os.truncate(cut, 16)
    gone.unlink()
    assert {key(number) for number in range(9) if store.get(key(number)) is None} == lost
    assert len(caplog.records) == 2
    assert cut.with_name(cut.name + ".damaged").exists()


def test_what_a_killed_process_wrote_stays_and_its_last_shard_is_lost(tmp_path):
    child = os.fork()
    if child == 0:  # pragma: no cover - ends itself
        store = LogpStore(tmp_path / "store")
        for number in range(6):
            store.add(key(number), values(number))
            if number == 3:
                store.flush()
        store.folder.joinpath(f".half.{os.getpid()}.tmp").write_bytes(b"half a shard")
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    store = LogpStore(tmp_path / "store")
    assert [key(number) in store for number in range(6)] == [True] * 4 + [False] * 2
    store.add(key(4), values(4))
    store.flush()
    assert len(LogpStore(tmp_path / "store")) == 5


def test_what_was_left_half_written_long_ago_is_removed(store):
    half = store.folder / ".half.1.tmp"
    half.touch()
    store.add(key(50), values(50))
    store.flush()
    assert half.exists()  # it may be another process's
    os.utime(half, (0, 0))
    store.add(key(51), values(51))
    store.flush()
    assert not half.exists()


def test_a_shard_is_written_when_it_is_full_or_has_waited(tmp_path, monkeypatch):
    store = LogpStore(tmp_path)
    monkeypatch.setattr(_store, "SHARD_VALUES", 12)
    for number in range(5):
        store.add(key(number), values(number))
    assert [len(open_shard(path).ends) for path in shards(store)] == [3]
    monkeypatch.setattr(_store, "SHARD_SECONDS", 0.0)
    store.add(key(9), values(9))
    assert len(LogpStore(tmp_path)) == 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_read(store):  # pragma: no cover - not as root
    store.folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    again = LogpStore(store.folder)
    assert len(again) == 9
    again.add(key(20), values(20))
    again.flush()
    assert "Permission denied" in again.full


def test_a_disk_that_takes_no_more_is_one_warning(store, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    store.add(key(20), values(20))
    store.flush()
    store.add(key(21), values(21))
    store.flush()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left on device" in caplog.text
    assert len(shards(store)) == 3
    assert store.get(key(3)).tolist() == values(3, count=3).tolist()
    assert key(21) not in store
    assert not list(store.folder.glob("*.tmp"))


def test_one_of_two_processes_computes(store):
    with store.alone(wait=False) as first, LogpStore(store.folder).alone(wait=False) as second:
        assert (first, second) == (True, False)
    with store.alone(wait=True) as again:
        assert again


def test_the_folder_says_what_it_is(store, tmp_path):
    assert json.loads((store.folder / "about.json").read_text())["reference"] == "a test"
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "about.json").write_text('{"format": "something else"}')
    assert stores_in(tmp_path) == [store.folder]
    assert stores_in(tmp_path / "none") == []


tokens = st.lists(st.integers(0, 5), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=6), st.integers(0, 3))
def test_a_key_is_the_tokens_and_where_the_completion_begins(rows, padding):
    """Padding, its token and the batch around a row do not matter; every token and the border do."""

    def batch(rows, pad, extra):
        width = max(len(p) + len(c) for p, c in rows) + extra
        ids, mask, scored = (torch.full((len(rows), width), fill) for fill in (pad, 0, 0))
        for i, (prompt, completion) in enumerate(rows):
            ids[i, : len(prompt + completion)] = torch.tensor(prompt + completion)
            mask[i, : len(prompt + completion)] = 1
            scored[i, len(prompt) : len(prompt + completion)] = 1
        return {"input_ids": ids, "attention_mask": mask, "completion_mask": scored}

    together = row_keys(batch(rows, 7, padding))
    alone = [row_keys(batch([row], 9, 0))[0] for row in rows]
    assert together == alone
    assert [a == b for a in together for b in together] == [a == b for a in rows for b in rows]
    made = batch(rows, 7, padding)
    logps = torch.randn(made["input_ids"].shape[0], made["input_ids"].shape[1] - 1)
    logps *= made["completion_mask"][:, 1:]
    assert torch.equal(padded(row_values(logps, made["completion_mask"]), made["completion_mask"]), logps)
    assert padded([np.zeros(99, dtype=np.float32)] * len(rows), made["completion_mask"]) is None


def test_batches_hold_pairs_of_like_length_within_the_budget():
    survey = Survey([(key(2 * i), key(2 * i + 1)) for i in range(7)], [10, 50, 20, 21, 49, 3, 400])
    batches = survey.batches(range(7), tokens=200)
    assert batches == [[6], [1, 4], [3, 2, 0, 5]]  # 800 (alone too long), 2*50*2, 2*21*4
    assert survey.batches([5, 0], tokens=6) == [[0], [5]]


def test_a_pair_that_stands_twice_is_missing_once(store):
    survey = Survey([(key(0), key(1)), (key(0), key(77)), (key(0), key(77)), (key(78), key(1))], [5] * 4)
    assert survey.missing(store) == [1, 3]
