"""Snapshots on disk, which of them is drawn, and what happens when one is damaged."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import chisquare

from prefalign._errors import CheckpointError, ParseError
from prefalign.references import PastCheckpoints, parse_reference
from prefalign.references._sharding import trained_weights
from prefalign.references.past import _snapshots as snapshots_module
from prefalign.references.past._own_past import PAST_FOLDER
from prefalign.references.past._snapshots import Snapshots


class OneProcess:
    is_main_process, process_index, num_processes = True, 0, 1

    def unwrap_model(self, model):
        return model

    def wait_for_everyone(self):
        pass


def host(folder, value=0.0):
    """A policy of one number, and a second model."""
    policy, second = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    second.requires_grad_(False)
    with torch.no_grad():
        policy.weight.fill_(value)
    return SimpleNamespace(
        model=policy,
        ref_model=second,
        accelerator=OneProcess(),
        args=SimpleNamespace(output_dir=str(folder)),
        state=SimpleNamespace(global_step=0),
    )


def steps(past, trainer, first, last):
    """Go through steps in which the policy's number is the step's, and give what the reference's was in each."""
    seen = []
    for step in range(first, last):
        trainer.state.global_step = step
        with torch.no_grad():
            trainer.model.weight.fill_(float(step))
        past.on_step_begin(step)
        seen.append(int(trainer.ref_model.weight.item()))
    return seen


def started(past, folder):
    trainer = host(folder)
    past.setup(trainer)
    return trainer


def test_initial_is_always_the_first_snapshot(tmp_path):
    past = PastCheckpoints(every=2, choose="initial")
    assert steps(past, started(past, tmp_path), 0, 7) == [0] * 7


def test_latest_is_the_last_multiple(tmp_path):
    past = PastCheckpoints(every=3, choose="latest")
    assert steps(past, started(past, tmp_path), 0, 8) == [0, 0, 0, 3, 3, 3, 6, 6]


def test_a_round_keeps_its_draw_and_a_batch_has_its_own(tmp_path):
    by_round = PastCheckpoints(keep=50, every=4, seed=3)
    seen = steps(by_round, started(by_round, tmp_path / "a"), 0, 40)
    assert all(len(set(seen[start : start + 4])) == 1 for start in range(0, 40, 4))
    assert len(set(seen)) > 3
    by_batch = PastCheckpoints(keep=50, every=4, redraw="batch", seed=3)
    seen = steps(by_batch, started(by_batch, tmp_path / "b"), 0, 40)
    assert any(len(set(seen[start : start + 4])) > 1 for start in range(0, 40, 4))
    assert all(value % 4 == 0 and value <= step for step, value in enumerate(seen))


@pytest.mark.parametrize(("redraw", "every"), [("batch", 1), ("round", 1)])
def test_random_draws_are_uniform_over_all_that_were_kept(tmp_path, redraw, every):
    past = PastCheckpoints(keep=5, every=every, redraw=redraw, seed=1)
    trainer = started(past, tmp_path)
    ages = [step - value for step, value in enumerate(steps(past, trainer, 0, 804)) if step >= 4]
    counts = [ages.count(age) for age in range(5)]
    assert sum(counts) == 800  # nothing older than the five that are kept
    assert chisquare(counts).pvalue > 0.01


def test_the_draws_of_the_first_rounds_are_uniform_over_what_there_is(tmp_path):
    """With k = 3 snapshots: a chi-square test over the seeds, none of which was chosen."""
    drawn = []
    for seed in range(300):
        past = PastCheckpoints(every=1, seed=seed)
        past._host = host(tmp_path)
        past._store.folder.mkdir(exist_ok=True)
        for step in range(3):
            (past._store.folder / f"step-{step:08d}.json").touch()
        drawn.append(past._draw(2))
    assert chisquare([drawn.count(step) for step in range(3)]).pvalue > 0.01


def test_another_seed_draws_otherwise(tmp_path):
    runs = []
    for seed in (0, 0, 1):
        past = PastCheckpoints(every=1, keep=9, seed=seed)
        runs.append(steps(past, started(past, tmp_path / f"{len(runs)}"), 0, 12))
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(("choose", "left"), [("random", [3, 4, 5]), ("latest", [5]), ("initial", [0])])
def test_only_what_can_be_drawn_stays_on_disk(tmp_path, choose, left):
    past = PastCheckpoints(keep=3, every=1, choose=choose)
    steps(past, started(past, tmp_path), 0, 6)
    assert Snapshots(tmp_path / PAST_FOLDER).steps == left
    assert len(os.listdir(tmp_path / PAST_FOLDER)) == 2 * len(left)


def test_a_resumed_run_draws_like_the_uninterrupted_one(tmp_path):
    past = PastCheckpoints(keep=3, every=2, seed=5)
    trainer = started(past, tmp_path / "whole")
    before = steps(past, trainer, 0, 11)
    checkpoint = tmp_path / "whole" / "checkpoint-11"
    past.save_files(checkpoint)
    state = json.loads(json.dumps(past.state_dict()))
    after = steps(past, trainer, 11, 24)  # deletes the snapshots that the checkpoint needs

    resumed = PastCheckpoints(keep=3, every=2, seed=5)
    other = started(resumed, tmp_path / "elsewhere")
    resumed.load_files(checkpoint)
    resumed.load_state_dict(state)
    assert int(other.ref_model.weight.item()) == before[-1]
    assert steps(resumed, other, 11, 24) == after


def test_a_new_run_forgets_the_snapshots_of_another_one(tmp_path):
    first = PastCheckpoints(every=1)
    steps(first, started(first, tmp_path), 0, 5)
    second = PastCheckpoints(every=1)
    steps(second, started(second, tmp_path), 0, 1)
    assert Snapshots(tmp_path / PAST_FOLDER).steps == [0]


def test_how_far_completions_may_be_made_ahead():
    assert PastCheckpoints(every=30).next_change(0) == 30
    assert PastCheckpoints(every=30).next_change(59) == 60
    assert PastCheckpoints(every=30, redraw="batch").next_change(4) == 5
    assert PastCheckpoints(every=30, choose="initial").next_change(4) is None


def test_staleness_is_the_age_of_what_was_drawn(tmp_path):
    past = PastCheckpoints(every=3, choose="latest")
    steps(past, started(past, tmp_path), 0, 6)
    assert past.metrics() == {"reference/staleness": 2.0}


BAD = [
    {"keep": 0},
    {"keep": True},
    {"every": 0},
    {"every": 2.5},
    {"seed": -1},
    {"choose": "newest"},
    {"redraw": "never"},
    {"choose": "latest", "redraw": "batch"},
]


@pytest.mark.parametrize("options", BAD)
def test_what_is_out_of_range_or_without_effect_is_refused(options):
    with pytest.raises(CheckpointError, match=f"`{list(options)[-1]}"):
        PastCheckpoints(**options)


def test_the_expression_is_read_back():
    past = PastCheckpoints(keep=3, every=5, choose="latest", seed=7)
    assert parse_reference(past.expression) == past
    assert parse_reference("past(keep=7, every=30)") == PastCheckpoints(7, 30)
    with pytest.raises(CheckpointError, match=r"`every`(?s:.*)\^"):
        parse_reference("past(every=0)")
    with pytest.raises(ParseError, match=r"it takes keep, every, choose, redraw, seed.*`every`"):
        parse_reference("past(evry=3)")


def weights(value):
    return {"a": torch.full((3, 2), value), "b": torch.full((4,), -value)}


def test_a_snapshot_comes_back_as_it_was(tmp_path):
    store = Snapshots(tmp_path)
    store.write(5, {"a": torch.tensor([1.5, float("inf"), -0.0]).bfloat16()})
    target = torch.zeros(3, dtype=torch.bfloat16)
    store.read_into(5, {"a": target})
    assert target.tolist() == [1.5, float("inf"), 0.0]
    assert target[2].signbit()


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


FAULTS = {
    "a bit flipped": (flip_a_bit, "SHA-256"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-4]), "SHA-256"),
    "gone": (lambda path: path.unlink(), "cannot be read"),
    "manifest is no JSON": (lambda path: path.with_suffix(".json").write_text("{"), "cannot be read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_snapshot_is_refused_and_nothing_is_loaded(tmp_path, fault):
    damage, message = FAULTS[fault]
    store = Snapshots(tmp_path)
    store.write(1, weights(2.0))
    damage(tmp_path / "step-00000001.safetensors")
    targets = weights(0.0)
    with pytest.raises(CheckpointError, match=message):
        store.read_into(1, targets)
    assert targets["a"].abs().max() == 0


def test_a_snapshot_of_another_model_is_refused(tmp_path):
    store = Snapshots(tmp_path)
    store.write(1, weights(2.0))
    with pytest.raises(CheckpointError, match="'a' is"):
        store.read_into(1, {"a": torch.zeros(2, 2), "b": torch.zeros(4)})


def test_a_full_disk_leaves_the_earlier_snapshots(tmp_path, monkeypatch):
    store = Snapshots(tmp_path)
    store.write(1, weights(1.0))

    def full(tensors, path):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshots_module, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        store.write(2, weights(2.0))
    assert store.steps == [1]
    assert not list(tmp_path.glob(".*"))
    store.read_into(1, weights(0.0))


# From Python 3.12 on, forking a process with threads warns; the child here does nothing but write a file and die.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("stage", ["save_file", "write_json"])
def test_a_process_killed_in_mid_snapshot_leaves_no_snapshot(tmp_path, stage):
    """In a process of its own that dies as `kill -9` makes it die, before or after the tensors are in place."""
    store = Snapshots(tmp_path)
    store.write(1, weights(1.0))
    child = os.fork()
    if child == 0:

        def die(*arguments):
            (tmp_path / ".step-00000002.safetensors.1.tmp").write_bytes(b"half of it")
            os._exit(9)

        setattr(snapshots_module, stage, die)
        store.write(2, weights(2.0))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert store.steps == [1]
    store.keep([1])
    store.write(2, weights(3.0))
    target = weights(0.0)
    store.read_into(2, target)
    assert target["a"].tolist() == [[3.0, 3.0]] * 3
    assert not list(tmp_path.glob(".*"))


def test_shares_of_a_sharded_model_lie_side_by_side(tmp_path):
    shares = [Snapshots(tmp_path, f"rank-{rank}-of-2") for rank in range(2)]
    for rank, share in enumerate(shares):
        share.write(3, {"a": torch.full((2,), float(rank))})
    assert [share.steps for share in (*shares, Snapshots(tmp_path))] == [[3], [3], []]
    target = torch.zeros(2)
    shares[1].read_into(3, {"a": target})
    assert target.tolist() == [1.0, 1.0]
    shares[0].keep(())
    assert [share.steps for share in shares] == [[], [3]]


def test_a_checkpoint_without_its_snapshots_is_refused(tmp_path):
    past = PastCheckpoints(every=1)
    trainer = started(past, tmp_path)
    steps(past, trainer, 0, 3)
    state = past.state_dict()
    past.load_files(tmp_path / "checkpoint-without-them")
    with pytest.raises(CheckpointError, match="not there"):
        past.load_state_dict(state)


def test_a_checkpoint_with_an_exchanged_snapshot_is_refused(tmp_path):
    past = PastCheckpoints(every=1)
    trainer = started(past, tmp_path)
    steps(past, trainer, 0, 3)
    state = past.state_dict()
    past._store.write(1, {"weight": torch.full((1, 1), 9.0)})  # whole, with a SHA-256 that fits it
    with pytest.raises(CheckpointError, match=r"step 1 .* is not the one"):
        past.load_state_dict(state)


def test_only_what_is_trained_is_kept():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    model[0].requires_grad_(False)
    assert set(trained_weights(model)) == {"1.weight", "1.bias"}
