"""A disk that is full, and folders that may not be written to: one error, and the last checkpoint is whole."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from prefalign._errors import TrainingError
from prefalign.references import _state, check_files
from prefalign.train import find_checkpoint
from tests.faults.hostile import refuse_command, snapshot
from tests.tiny import save_tiny, tiny_pairs
from tests.train.runs import COMMON, ours

SAVING = {"loss": "dpo(beta=0.1)", "save_strategy": "steps", "save_steps": 1, "max_steps": 4}


class At(TrainerCallback):
    """Does something before the checkpoint of a step."""

    def __init__(self, step, do):
        self.step, self.do = step, do

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.do()


@pytest.fixture
def small_files():
    """A function after whose call no file can grow beyond 20 kB: the system itself refuses the write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fails_after_two(trainer, reason):
    with pytest.raises(TrainingError, match=reason) as caught:
        trainer.train()
    last = find_checkpoint(True, trainer.args.output_dir)
    assert last == str(Path(trainer.args.output_dir) / "checkpoint-2")
    assert f"{last!r} is whole" in str(caught.value)
    assert not Path(trainer.args.output_dir, "checkpoint-3").exists()  # its room is needed
    check_files(last)
    return last


def test_a_write_that_the_system_refuses_leaves_the_last_checkpoint_whole(checkpoint, tmp_path, small_files):
    trainer = ours(tmp_path, checkpoint, {"callbacks": [At(3, small_files)]}, save_total_limit=1, **SAVING)
    fails_after_two(trainer, "could not write")


def test_a_disk_that_fills_up_at_the_last_file_leaves_the_last_checkpoint_whole(checkpoint, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "prefalign_watch.json")

    fill = At(3, lambda: monkeypatch.setattr(_state, "write_json", full))
    trainer = ours(tmp_path, checkpoint, {"callbacks": [fill]}, save_total_limit=1, **SAVING)
    fails_after_two(trainer, "No space left on device")


FILES = [
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json", "generation_config.json"),
    *("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "training_args.bin"),
]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device whose every write fails is needed")
@pytest.mark.parametrize("name", FILES)
def test_a_disk_that_is_full_for_any_one_file_leaves_the_last_checkpoint_whole(name, checkpoint, tmp_path):
    def fill():
        folder = tmp_path / "ours" / "checkpoint-3"
        folder.mkdir()
        (folder / name).symlink_to("/dev/full")

    trainer = ours(tmp_path, checkpoint, {"callbacks": [At(3, fill)]}, save_total_limit=1, **SAVING)
    fails_after_two(trainer, "could not write")


@pytest.fixture
def locked(ordinary_user):
    """A folder that may be read but not written to, with a file in it."""
    folder = Path("locked")
    folder.mkdir()
    (folder / "kept").write_text("kept")
    folder.chmod(0o555)
    yield str(folder)
    folder.chmod(0o755)


@pytest.mark.parametrize("name", ["locked", "locked/new/run", "locked/kept"])
def test_an_output_folder_that_is_read_only_is_one_error_before_training(name, locked, checkpoint, capsys):
    tiny_pairs(8).to_json("pairs.jsonl")
    options = {"model_name_or_path": checkpoint, "dataset_name": "pairs.jsonl", "output_dir": name}
    Path("config.yaml").write_text(json.dumps({**COMMON, **options, "loss": "dpo(beta=0.1)"}))
    before = snapshot(".")
    assert "`output_dir`" in refuse_command(["train", "--config", "config.yaml"], capsys)
    assert snapshot(".") == before


def test_other_commands_refuse_a_folder_that_is_read_only(locked, checkpoint, capsys):
    Path("run").mkdir()
    log = [{"step": step, "loss": 0.7 - step / 10, "rewards/margins": step / 10} for step in (1, 2, 3)]
    Path("run/trainer_state.json").write_text(json.dumps({"log_history": log, "global_step": 3, "max_steps": 3}))
    before = snapshot(".")
    for words in (
        ["report", "run", "--out", f"{locked}/page.html"],
        ["soup", checkpoint, checkpoint, "-o", f"{locked}/soup"],
        ["lattice", "cpo", "orpo", "-o", f"{locked}/lattice.svg"],
    ):
        assert "Permission denied" in refuse_command(words, capsys)
    assert snapshot(".") == before


@pytest.mark.slow
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk can be mounted by root only")
    try:
        model = str(save_tiny(tmp_path / "model"))
        with pytest.raises(TrainingError, match=r"No space left|could not write") as caught:
            ours(disk, model, **{**SAVING, "max_steps": 9}).train()
        last = find_checkpoint(True, str(disk / "ours"))
        assert f"{last!r} is whole" in str(caught.value)
        check_files(last)
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        resumed, whole = (ours(folder, model, **{**SAVING, "max_steps": 9}) for folder in (disk, tmp_path))
        resumed.train(resume_from_checkpoint=True)
        resumed.save_model(str(disk / "end"))
        whole.train()
        whole.save_model(str(tmp_path / "end"))
        ends = [load_file(folder / "end" / "model.safetensors") for folder in (disk, tmp_path)]
        assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # mapped files may still be open
