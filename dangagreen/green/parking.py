"""no_parking: a block of code that must not wait; and whose code runs.

Rules: it costs nothing where it is not used: for as long as it lasts the loop has no current task, as in a callback, so
that every call that may park takes its longer way, and there is refused. What does not belong here: the mark of such a
function, and the refusal (that is sched).
"""

from __future__ import annotations

import sys

from dangagreen.core.loop import Loop, current_loop
from dangagreen.green.sched import Waiter, scheduler


class NoParking:
    """What `no_parking()` gives. Attributes: `task`, who has entered it, and `caller`, the name of its function."""

    __slots__ = ("_before", "_loop", "_outer", "caller", "task")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        loop, sched = self._loop, scheduler(self._loop)
        loop.check_thread("no_parking")
        self.caller = sys._getframe(1).f_code.co_qualname
        self.task: Waiter | None = current_waiter(loop)
        self._before: Waiter | None = loop.current
        self._outer: NoParking | None = sched.no_parking
        sched.no_parking = self
        loop.current = None  # every call that may park now looks closer

    def __exit__(self, *_error: object) -> None:
        loop, sched = self._loop, scheduler(self._loop)
        if sched.no_parking is not self:
            raise RuntimeError("no_parking() blocks are left in the reverse order of entering")
        sched.no_parking = self._outer
        if loop.current is not None:
            raise RuntimeError("no_parking() was left in another task. Does a generator yield inside the block?")
        if self._before is not None and not self._before.done:
            loop.current = self._before


def no_parking() -> NoParking:
    """A block in which every call that may park raises CannotParkError, also where it would not have had to wait.

    So nothing else of this loop runs between its beginning and its end, whatever is called in it.
    """
    return NoParking(current_loop())


def current_waiter(loop: Loop) -> Waiter | None:
    """Whose code this is; None in a callback."""
    task: Waiter | None = loop.current
    if task is None:
        sched = scheduler(loop)
        if sched.no_parking is not None:
            task = sched.no_parking.task
        if (task is None or task.done) and not loop.running:
            task = sched.top_level
    return task
