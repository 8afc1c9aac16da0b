"""Ctrl-C, while a loop runs: noted at once, and acted upon when nothing is half done.

Rules: only in the main thread, and only where nobody else handles SIGINT; what was there is put back. A second Ctrl-C
before the first was acted upon raises KeyboardInterrupt where it strikes, so that a program that hangs can be ended.
What does not belong here: other signals.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


class Interrupts:
    """Calls `notify` in the signal handler, once for as long as `pending` is True."""

    __slots__ = ("_notify", "installed", "pending")

    def __init__(self, notify: Callable[[], object]) -> None:
        self._notify = notify
        self.pending = False
        self.installed = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self.installed:
            signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True
        self._notify()

    def restore(self) -> None:
        """Put the interpreter's own handler back, unless the program has installed one of its own meanwhile."""
        if self.installed and signal.getsignal(signal.SIGINT) == self._on_signal:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.installed = False
        self._notify = _interrupt  # what was there keeps whoever was to be told


def _interrupt() -> None:
    """Nobody is there to be told."""
    raise KeyboardInterrupt
