"""Limits of time and memory for what may not end by itself: a search of SymPy's, a user's pattern or template."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ._errors import PrefalignError


class _Overtime(BaseException):
    """Not an Exception: what catches strange formulas must not catch this."""


@contextmanager
def time_limit(seconds: float | None, error: PrefalignError) -> Iterator[None]:
    """Within, work is stopped after so many seconds of wall-clock time.

    Only the main thread of a system with interval timers can be stopped; elsewhere there is no limit.

    Args:
        seconds: How long it may take; None for no limit.
        error: What is raised when the time is over.
    """
    can = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not can or signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        raise _Overtime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Overtime:
        raise error from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def memory_limit(more: int) -> Iterator[None]:
    """Within, the process can take `more` bytes beyond what it has; what would take more is a MemoryError.

    Where the system does not say how much it has, or has no such limit, there is none.
    """
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
        wanted = pages * resource.getpagesize() + more
        if before[0] != resource.RLIM_INFINITY and before[0] < wanted:
            raise OSError
        resource.setrlimit(resource.RLIMIT_AS, (wanted, before[1]))
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
