"""Who, outside the loop, might still wake it: signal handlers and other threads.

Rules: a doubt counts; a thread does, idle or a daemon, Python's or not, and so does the interpreter's own handler of
Ctrl-C. What does not belong here: what the loop itself waits for, descriptors and timers.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator


def who_might_wake() -> Iterator[str]:
    """Each of them in words, what is looked up fastest first."""
    if callable(signal.getsignal(signal.SIGINT)):
        yield "the handler of SIGINT"
    if _threads() > 1:
        here = threading.get_ident()
        names = ", ".join(repr(thread.name) for thread in threading.enumerate() if thread.ident != here)
        yield f"another thread ({names or 'not one of Python'})"
    for number in signal.valid_signals():
        if number != signal.SIGINT and callable(signal.getsignal(number)):
            yield f"the handler of {getattr(number, 'name', number)}"  # real-time signals have no names


def _threads() -> int:
    """How many there are, with those that Python knows nothing of, where the system tells."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return len(sys._current_frames())
