"""A line of waiters: first come, first served.

Rules: to serve somebody is to give; what one was given is its own at that moment, whether or not it runs again, so
that nobody overtakes it and nothing is lost. To join, to leave and to serve cost the same for any length. Serving
never parks. What does not belong here: what there is to give.
"""

from __future__ import annotations

from collections import OrderedDict

from dangagreen.green.parking import park_for
from dangagreen.green.sched import Waiter, WaitKind, wake
from dangagreen.loop.loop import current_loop


class WaitQueue:
    """Those who wait for one thing, in order.

    Each has a place, a list, which is empty until something is put into it: then it is that waiter's turn.
    """

    __slots__ = {"__weakref__": None, "_line": None, "loop": "The loop whose tasks wait for it."}

    def __init__(self) -> None:
        self.loop = current_loop()
        self._line: OrderedDict[Waiter, list[int]] | None = None  # in a dict to find the first costs more and more

    def _join(self, task: Waiter) -> list[int]:
        """Give it a place, the last one."""
        if self._line is None:
            self._line = OrderedDict()
        place = self._line[task] = []
        return place

    def _leave(self, task: Waiter) -> None:
        """Harmless when it is not there."""
        if self._line:
            self._line.pop(task, None)

    def _wait_in_line(self, task: Waiter, wait: WaitKind, timeout: float | None) -> list[int]:
        """Parks until it is the task's turn, or `timeout` seconds, which the caller has checked, have passed: then its
        place is empty."""
        if timeout is not None and not timeout > 0:
            return []
        place = self._join(task)
        try:
            park_for(task, wait, self, timeout)
        except BaseException as error:
            if place:  # its turn had come, but something ends it here: Ctrl-C in top-level code, reset() of the loop
                self._pass_on()
                raise
            if timeout is None or not isinstance(error, TimeoutError):
                raise
        return place

    def _serve(self, number: int = 0) -> Waiter:
        """It is the first one's turn. Answers who that is."""
        task, place = self._line.popitem(last=False)  # type: ignore[union-attr]
        place.append(number)
        wake(task)
        return task

    def _pass_on(self) -> None:
        """The one whose turn it was will not use it."""

    @property
    def _waiting(self) -> int:
        return len(self._line) if self._line else 0

    def _name(self) -> str:
        return f"dangagreen.{type(self).__qualname__}"
