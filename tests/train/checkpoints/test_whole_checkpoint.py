"""Which checkpoint a killed run resumes from: the latest that was written to its end."""

from __future__ import annotations

import os
import shutil

import pytest
from transformers.trainer_utils import rotate_checkpoints

from prefalign.train.checkpoints._whole import UNFINISHED, begin, last_whole_checkpoint, rotate

WHOLE = ("model.safetensors", "trainer_state.json", "prefalign_watch.json")


def make(folder, step, *files):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    for name in files:
        (path / name).write_text("{}")
    return str(path)


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    whole = make(tmp_path, 100, "model.safetensors", "trainer_state.json", "prefalign_watch.json")
    make(tmp_path, 110, "model.safetensors", "trainer_state.json")  # the reference's state was still missing
    make(tmp_path, 120, "model.safetensors")
    make(tmp_path, 130, "trainer_state.json", "prefalign_watch.json", UNFINISHED)  # of a run before, overwritten
    make(tmp_path, 90, "trainer_state.json", "prefalign_watch.json")  # older, though "90" sorts behind "100"
    assert last_whole_checkpoint(str(tmp_path)) == whole


def test_a_run_of_trls_trainer_can_be_resumed(tmp_path):
    whole = make(tmp_path, 2, "trainer_state.json")
    make(tmp_path, 4, "model.safetensors")
    assert last_whole_checkpoint(str(tmp_path)) == whole


def test_where_nothing_is_whole_there_is_nothing(tmp_path):
    make(tmp_path, 4, "model.safetensors")
    (tmp_path / "checkpoint-x").mkdir()
    assert last_whole_checkpoint(str(tmp_path)) is None
    assert last_whole_checkpoint(str(tmp_path / "absent")) is None
    assert last_whole_checkpoint(None) is None


def aged(folder, *steps):
    """Whole checkpoints, the first one the oldest."""
    for age, step in enumerate(steps):
        os.utime(make(folder, step, *WHOLE), (1000 + age, 1000 + age))


@pytest.mark.parametrize("limit", [None, 1, 2, 3, 9])
@pytest.mark.parametrize("best", [None, 2, 4, 8])
def test_rotation_keeps_what_transformers_keeps(limit, best, tmp_path):
    left = []
    for name, rotated in (("ours", rotate), ("theirs", rotate_checkpoints)):
        folder = tmp_path / name
        folder.mkdir()
        aged(folder, 2, 4, 6, 8)
        best_folder = None if best is None else str(folder / f"checkpoint-{best}")
        if rotated is rotate:
            rotate(str(folder), limit, best_folder)
        else:
            rotated(str(folder), limit, best_folder, use_mtime=True)
        left.append(sorted(path.name for path in folder.iterdir()))
    assert left[0] == left[1]


def test_a_checkpoint_whose_deletion_was_stopped_midway_is_not_whole(tmp_path, monkeypatch):
    aged(tmp_path, 2, 4)

    def stopped(folder, **_):
        os.unlink(os.path.join(folder, "model.safetensors"))
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", stopped)
    with pytest.raises(KeyboardInterrupt):
        rotate(str(tmp_path), 1, None)
    assert (tmp_path / "checkpoint-2" / UNFINISHED).exists()
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "checkpoint-4")
    assert last_whole_checkpoint(str(tmp_path)) is None


def test_a_checkpoint_that_is_a_link_is_replaced_and_its_target_stays(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    make(other, 5, *WHOLE)
    (other / "checkpoint-5" / UNFINISHED).touch()
    link = tmp_path / "checkpoint-5"
    link.symlink_to(other / "checkpoint-5")
    begin(link)
    assert not link.is_symlink()
    assert [path.name for path in link.iterdir()] == [UNFINISHED]
    assert (other / "checkpoint-5" / "model.safetensors").exists()


def test_a_link_to_a_checkpoint_is_rotated_without_its_target(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    aged(other, 2)
    (tmp_path / "checkpoint-2").symlink_to(other / "checkpoint-2")
    make(tmp_path, 6, *WHOLE)
    rotate(str(tmp_path), 1, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-6", "other"]
    assert sorted(path.name for path in (other / "checkpoint-2").iterdir()) == sorted(WHOLE)
