"""A run goes on from its own checkpoint, whole, or not at all."""

from __future__ import annotations

import hashlib
import shutil

import pytest
import torch
from safetensors.torch import load_file

from prefalign._errors import CheckpointError
from tests.tiny import tiny_pairs
from tests.train.runs import ours, weights

SAVING = {"loss": "dpo(beta=0.1)", "save_strategy": "steps", "save_steps": 2, "max_steps": 4}


def weighed(last: float):
    """Pairs whose end of text counts otherwise than the other tokens of the chosen text."""
    data = tiny_pairs(24)
    return data.add_column("chosen_token_weights", [[1.0] * len(text.encode()) + [last] for text in data["chosen"]])


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory):
    """A finished run of four steps, with checkpoints after two and four."""
    folder = tmp_path_factory.mktemp("run")
    trainer = ours(folder, checkpoint, **SAVING)
    trainer.train()
    return folder, weights(trainer)


def copy_of(run, tmp_path):
    shutil.copytree(run[0] / "ours", tmp_path / "ours")
    return tmp_path / "ours" / "checkpoint-2"


@pytest.mark.parametrize(
    ("changed", "data", "said"),
    [
        ({"learning_rate": 5e-3}, None, r"`learning_rate=0\.01` \(got 0\.005\)"),
        ({"seed": 7}, None, r"`seed=42` \(got 7\)"),
        ({}, tiny_pairs(24).select(range(1, 24)), "on other data"),
        ({}, tiny_pairs(24).map(lambda row: {"chosen": row["chosen"] + "!"}), "on other data"),
        ({}, weighed(0.0), "on other data"),
        ({"per_device_train_batch_size": 2}, None, r"with 4 pairs a step \(processes included\) \(got 2\)"),
        ({"lr_scheduler_type": "constant"}, None, "`lr_scheduler_type='linear'`"),
        ({"max_length": 64}, None, "`max_length="),
    ],
)
@pytest.mark.parametrize("resume", [True, "checkpoint-2"])
def test_another_runs_checkpoint_is_refused(changed, data, said, resume, run, checkpoint, tmp_path):
    folder = copy_of(run, tmp_path)
    trainer = ours(tmp_path, checkpoint, {} if data is None else {"train_dataset": data}, **{**SAVING, **changed})
    with pytest.raises(CheckpointError, match=said):
        trainer.train(True if resume is True else str(folder))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "prefalign_reference.json"])
def test_a_checkpoint_that_has_lost_a_file_is_refused_before_weights_load(name, run, checkpoint, tmp_path):
    folder = copy_of(run, tmp_path)
    trainer = ours(tmp_path, checkpoint, **SAVING)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=f"'{name}' in the checkpoint .* has {len(content) - 1} bytes, and had"):
        trainer.train(str(folder))
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"has lost '{name}'"):
        trainer.train(str(folder))


def test_the_own_checkpoint_goes_on_to_the_same_weights(run, checkpoint, tmp_path):
    folder = copy_of(run, tmp_path)
    trainer = ours(tmp_path, checkpoint, **SAVING, logging_first_step=True)
    trainer.train(str(folder))
    assert all(torch.equal(value, run[1][name]) for name, value in weights(trainer).items())
    assert load_file(tmp_path / "ours" / "checkpoint-4" / "model.safetensors").keys()


def test_the_fingerprint_of_data_is_that_of_its_tokens(checkpoint, tmp_path):
    from prefalign.train.checkpoints._binding import fingerprint_of

    trainer = ours(tmp_path, checkpoint, **SAVING)
    rows = trainer.train_dataset
    by_hand = hashlib.blake2b(digest_size=16)
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        columns = rows[name][:]
        by_hand.update(torch.tensor([len(row) for row in columns], dtype=torch.int32).numpy().tobytes())
        by_hand.update(torch.tensor([token for row in columns for token in row]).numpy().tobytes())
    assert fingerprint_of(rows) == by_hand.hexdigest()
    shuffled = rows.shuffle(seed=1)
    assert fingerprint_of(shuffled) != fingerprint_of(rows)
    assert (
        fingerprint_of(shuffled.select(sorted(range(24), key=shuffled["pair_index"].__getitem__)))
        == by_hand.hexdigest()
    )
