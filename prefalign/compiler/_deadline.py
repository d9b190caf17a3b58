"""A limit on how long a reading may take: SymPy can search for ever."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .._errors import DerivationError


class _Overtime(BaseException):
    """Not an Exception: what catches strange formulas must not catch this."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Within, work is stopped after so many seconds of wall-clock time.

    Only the main thread of a system with interval timers can be stopped; elsewhere there is no limit.

    Raises:
        DerivationError: The time is over.
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
        raise DerivationError(
            f"No reading was found within {seconds:g} seconds: the formula has more cases than can be sorted out in "
            "that time. Give more with `time_limit=…`, or derive the loss in parts."
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
