"""Which checkpoint a killed run resumes from: the latest that was written to its end."""

from __future__ import annotations

from prefalign.train.checkpoints._whole import last_whole_checkpoint


def make(folder, step, *files):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    for name in files:
        (path / name).write_text("{}")
    return str(path)


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    whole = make(tmp_path, 90, "model.safetensors", "trainer_state.json", "prefalign_watch.json")
    make(tmp_path, 100, "model.safetensors", "trainer_state.json")  # the reference's state was still missing
    make(tmp_path, 110, "model.safetensors")
    make(tmp_path, 9, "trainer_state.json", "prefalign_watch.json")  # older, though "9" sorts behind "90"
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
