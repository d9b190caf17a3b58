"""Two trainings in one folder would mix their checkpoints: the second is refused, and a dead one is forgotten."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from prefalign._errors import ConfigError
from prefalign.train.checkpoints import alone_in, check_alone
from tests.train.runs import ours

HOLD = """
import sys, time
from prefalign.train.checkpoints import alone_in
with alone_in(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that trains in the folder `ours`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "ours")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_training_is_refused_by_the_name_of_the_first(other, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", lambda *_, **__: pytest.fail("weights loaded"))
    said = rf"process {other.pid} on {re.escape(socket.gethostname())}, since \d{{4}}-\d\d-\d\dT"
    with pytest.raises(ConfigError, match=said):
        ours(tmp_path, checkpoint)
    with pytest.raises(ConfigError, match=said), alone_in(str(tmp_path / "ours")):
        pass


def test_what_a_killed_training_held_is_taken_over(other, checkpoint, tmp_path):
    trainer = ours(tmp_path / "elsewhere", checkpoint, max_steps=1)
    trainer.args.output_dir = str(tmp_path / "ours")
    other.send_signal(signal.SIGKILL)
    other.wait()
    trainer.train()
    assert trainer.state.global_step == 1
    assert not [name for name in os.listdir(tmp_path / "ours") if "running" in name]


def test_one_process_may_enter_twice(tmp_path):
    folder = str(tmp_path / "run")
    with alone_in(folder):
        with alone_in(folder):
            pass
        check_alone(folder)
        assert "prefalign_running.json" in os.listdir(folder)
    assert not os.path.exists(folder)  # nothing else was written there
