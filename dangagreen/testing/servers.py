"""Servers for tests: on the loop of the test, or on one that outlives it.

Rules: a server that outlives a test runs in a thread, on a loop of its own, and is shared by all tests that ask for the
same; what its handlers do not handle fails the test that is running then. What does not belong here: pytest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dangagreen.errors import ErrorContext
from dangagreen.green.background import start_in_thread
from dangagreen.green.deadlines import move_on_after
from dangagreen.loop.loop import here
from dangagreen.net.listener import Listener
from dangagreen.sync.threads import in_thread
from dangagreen.testing.idle import wait_until_idle
from dangagreen.testing.leaks import LeakCheck

Result = TypeVar("Result")

_SETTLE_SECONDS = 1.0  # that a server is given to be idle after a test


class ServerThread:
    """A server on a loop in a thread of its own. `start`, which is called there, returns its Listener."""

    def __init__(self, start: Callable[[], Listener]) -> None:
        self._background = start_in_thread()
        try:
            self.listener: Listener = self._call(self._start, start)
        except BaseException:
            self._background.stop()
            raise

    def _start(self, start: Callable[[], Listener]) -> Listener:
        loop = self._background.loop
        loop.slow_seconds = None  # another process may hold up a test
        self._check = LeakCheck(loop)
        return start()

    def take_errors(self) -> list[ErrorContext]:
        """What has reached `on_error` since the last time; the server is given time to come to rest first."""
        self._call(_rest)
        errors, self._check.errors[:] = list(self._check.errors), []
        return errors

    def end(self) -> list[str]:
        """End it. Returns what it leaves behind: connections that nobody has ended, tasks, timers, errors."""
        try:
            return self._call(self._judge)
        finally:
            self._background.stop()

    def _judge(self) -> list[str]:
        self.listener.close()
        _rest()
        return self._check.leaks_of_loop()

    def _call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call it on the server's loop; while this thread's loop runs, without blocking that."""
        if here.loop is not None and here.loop.running:
            result: Result = in_thread(self._background.call, function, *args)
            return result
        return self._background.call(function, *args)


def _rest() -> None:
    with move_on_after(_SETTLE_SECONDS):
        wait_until_idle()
