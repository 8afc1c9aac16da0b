"""External wakers: signal handlers and other threads, which might still wake a loop that looks deadlocked.

Rules: when in doubt, it counts: any other thread does, idle or a daemon, Python's or not; so does any signal handler of
the program's own. The interpreter's handler of Ctrl-C, and that of `Interrupts`, do not: they end the program, not the
wait. What does not belong here: what the loop itself waits for, descriptors and timers.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator

from dangagreen.loop.sigint import Interrupts


def external_wakers() -> Iterator[str]:
    """Yield a str for each external waker there is, those that are looked up fastest first."""
    of_ctrl_c = signal.getsignal(signal.SIGINT)
    ends_all = of_ctrl_c is signal.default_int_handler or isinstance(of_ctrl_c, Interrupts)
    if callable(of_ctrl_c) and not ends_all:
        yield "the handler of SIGINT"
    if _threads() > 1:
        here = threading.get_ident()
        names = ", ".join(repr(thread.name) for thread in threading.enumerate() if thread.ident != here)
        yield f"another thread ({names or 'not one of Python'})"
    for number in signal.valid_signals():
        if number != signal.SIGINT and callable(signal.getsignal(number)):
            yield f"the handler of {getattr(number, 'name', number)}"  # real-time signals have no names


def _threads() -> int:
    """How many threads this process has; on systems without /proc only those that Python knows."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return len(sys._current_frames())
