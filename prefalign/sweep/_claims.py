"""Sharing work through a plain directory: claims that exactly one process holds, and that the dead give back."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SUFFIX = ".claim"


@dataclass(frozen=True)
class Claim:
    """A job that this process holds."""

    job: str
    path: Path
    number: int

    @property
    def is_mine(self) -> bool:
        """Whether nobody has taken the job over in the meantime."""
        return not self.path.with_name(f"{self.job}.{self.number + 1}{_SUFFIX}").exists()

    def beat(self) -> None:
        """Say that the holder is alive."""
        os.utime(self.path)

    def release(self) -> None:
        """Give the job back, so that the next one who asks gets it at once."""
        os.utime(self.path, (0, 0))

    @contextmanager
    def beating(self, every: float) -> Iterator[None]:
        """Beat in a thread of its own for as long as the block runs."""
        done = threading.Event()

        def run() -> None:
            while not done.wait(every):
                self.beat()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class Claims:
    """The claims in a directory that several processes, also on several machines, can write to.

    A claim is a numbered file, made with O_EXCL: of all who try, one succeeds. Who finds the latest claim of a job
    stale makes the one with the next number, by the same O_EXCL. No file is ever removed or replaced, so that there is
    no moment at which a slow process could take away what a fast one has just taken.

    Args:
        folder: The directory; made if it is missing.
        stale_after: Seconds without a heartbeat after which a holder counts as dead, by the file system's own clock. A
            dead process of this machine is noticed at once.
    """

    def __init__(self, folder: Path, stale_after: float = 300.0) -> None:
        self.folder = folder
        self.stale_after = stale_after
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, job: str) -> Claim | None:
        """Claim a job; None if someone else holds it."""
        last = self._last(job)
        if last and not self.is_stale(self._path(job, last)):
            return None
        path = self._path(job, last + 1)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return None
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"machine": _machine(), "host": platform.node(), "pid": os.getpid()}, file)
        return Claim(job, path, last + 1)

    def attempts(self, job: str) -> int:
        """How often the job has been claimed."""
        return self._last(job)

    def is_stale(self, path: Path) -> bool:
        """Whether the holder of the claim at `path` is gone."""
        try:
            beaten = path.stat().st_mtime
            text = path.read_text("utf-8")
        except FileNotFoundError:
            return False
        if self._now() - beaten > self.stale_after:
            return True
        try:
            holder = json.loads(text)
        except ValueError:  # its holder is writing it, or died while doing so: then its age tells
            return False
        return holder.get("machine") == _machine() and not _is_alive(int(holder["pid"]))

    def _now(self) -> float:
        """The file system's time: clocks of machines differ, and only this one wrote the other dates."""
        probe = self.folder / f".now-{platform.node()}-{os.getpid()}-{threading.get_ident()}"
        probe.write_bytes(b"")
        os.utime(probe)
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return now

    def _last(self, job: str) -> int:
        numbers = (path.name.removesuffix(_SUFFIX).rpartition(".") for path in self.folder.glob(f"*{_SUFFIX}"))
        return max((int(number) for name, _, number in numbers if name == job), default=0)

    def _path(self, job: str, number: int) -> Path:
        return self.folder / f"{job}.{number}{_SUFFIX}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _machine() -> str:
    """What tells apart the places in which a process id means the same: boots of machines, and containers in them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        # Elsewhere nothing tells it for certain: only the heartbeat counts then.
        return f"{platform.node()} {time.time_ns()}"
