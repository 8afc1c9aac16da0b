"""A wait queue: a FIFO of waiters; each has a slot, and filling it grants the waiter its turn.

Rules: a turn belongs to its waiter from the moment it is granted, before the task has run again, so that nobody
overtakes and nothing is lost. Joining, leaving and granting cost the same for any length. Granting never parks. What
does not belong here: what is granted (a lock, a permit, a notification).
"""

from __future__ import annotations

from collections import OrderedDict

from dangagreen.green.parking import park_for
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.loop import current_loop


class WaitQueue:
    """The tasks that wait for one thing, in the order in which they came. Base class of events and locks."""

    __slots__ = {
        "__weakref__": "Weak references to it work.",
        "_waiters": "Waiter to slot, in order; a slot is a list, empty until the turn is granted. None: never used.",
        "loop": "The loop whose tasks wait for it.",
    }

    def __init__(self) -> None:
        self.loop = current_loop()
        self._waiters: OrderedDict[Waiter, list[int]] | None = None  # in a dict the first key gets dear to find

    def _join(self, task: Waiter) -> list[int]:
        """Append the task. Returns its slot."""
        if self._waiters is None:
            self._waiters = OrderedDict()
        slot = self._waiters[task] = []
        return slot

    def _leave(self, task: Waiter) -> None:
        """Remove the task; harmless when it is not in the queue."""
        if self._waiters:
            self._waiters.pop(task, None)

    def _wait_turn(self, task: Waiter, wait: WaitKind, timeout: float | None) -> list[int]:
        """Parks until the task's turn is granted. Returns its slot, which is empty after `timeout` seconds.

        The caller has checked the timeout; 0 or less does not wait.
        """
        if timeout is not None and not timeout > 0:
            return []
        slot = self._join(task)
        try:
            park_for(task, wait, self, timeout)
        except BaseException as error:
            if slot:  # granted, and then ended by Ctrl-C in top-level code or by reset() of the loop
                self._grant_next()
                raise
            if timeout is None or not isinstance(error, TimeoutError):
                raise
        return slot

    def _grant(self, number: int = 0) -> Waiter:
        """Grant the first waiter its turn: put `number` into its slot, and wake it. Returns that waiter."""
        task, slot = self._waiters.popitem(last=False)  # type: ignore[union-attr]
        slot.append(number)
        wake(task)
        return task

    def _grant_next(self) -> None:
        """Called when a turn is free again: its owner released it, or ended before using it."""

    def _everybody(self) -> list[Waiter]:
        """All who wait, in order."""
        return list(self._waiters or ())

    @property
    def _waiting(self) -> int:
        """How many tasks wait."""
        return len(self._waiters) if self._waiters else 0

    def _name(self) -> str:
        """The class for a `repr`, as its users import it."""
        return f"dangagreen.{type(self).__qualname__}"
