"""What hostile input must do everywhere: one PrefalignError, soon, with nothing executed."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prefalign._errors import PrefalignError
from prefalign.cli import main

LIMIT = 2.0  # seconds of this process, imports apart; a busy machine's clock would blame the wrong one
LONGEST = 4000  # characters of a message: hostile text is quoted in part only
CANARY = "CANARY"

# What runs code or a program, as Python itself reports it. `exec` and `compile` are reported by imports as well.
_EVENTS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.startfile",
    "subprocess.Popen",
    "pickle.find_class",
    "pty.spawn",
)
_seen: list[str] | None = None


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if _seen is not None and event in _EVENTS:
        _seen.append(f"{event} {arguments!r:.100}")


sys.addaudithook(_listen)


@contextmanager
def nothing_executed() -> Iterator[None]:
    """Fails where anything below starts a program, unpickles an object or leaves the canary behind."""
    global _seen
    _seen = []
    start = time.process_time()
    try:
        yield
        took, seen = time.process_time() - start, _seen
    finally:
        _seen = None
    assert not seen, seen
    assert not Path(CANARY).exists()
    assert took < LIMIT, f"{took:.1f} s"


def refuse(call: Callable[[], object]) -> str:
    """The message of the one error that `call` raises."""
    with nothing_executed(), pytest.raises(PrefalignError) as caught:
        call()
    message = str(caught.value)
    _check_message(message)
    return message


def refuse_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of `prefalign WORDS`, which must print nothing else and exit with code 2."""
    capsys.readouterr()
    with nothing_executed():
        try:
            code = main(words)
        except SystemExit as left:  # argparse
            code = left.code
    out, error = capsys.readouterr()
    assert code == 2, (code, error[-500:])
    assert out == "" or out.startswith("Check of the "), out[:500]  # what was found in data comes before the refusal
    assert "Traceback" not in error
    error = "\n".join(line for line in re.split(r"[\r\n]", error) if not re.search(r"\d+%\|", line))  # progress bars
    _check_message(error)
    usage, _, message = error.rpartition("prefalign " + words[0] + ": ")
    assert not usage.strip() or usage.startswith("usage: "), error[:500]
    return message


def _check_message(message: str) -> None:
    assert message.strip()
    assert len(message) < LONGEST, len(message)
    message.encode("utf-8")  # a lone surrogate could not be printed
    assert not any(sign in message for sign in "\0\x1b\x07\x08"), "control characters would reach the terminal"


def snapshot(folder: str | Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder, with its size and the time of its last change: what must not be touched."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(Path(folder).rglob("*"))
        if not os.path.isdir(path)
    }
