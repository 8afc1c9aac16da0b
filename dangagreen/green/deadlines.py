"""Blocks with a time limit, and the deadline that code is under.

Rules: what a block does when its time is up is all that it has of its own. What does not belong here: how a deadline
cancels a wait, and which scope catches that (scopes).
"""

from __future__ import annotations

from math import inf

from dangagreen.green.parking import current_waiter
from dangagreen.green.scopes import CancelScope, around
from dangagreen.loop.loop import current_loop


class timeout(CancelScope):  # noqa: N801  a block is written as a call, as those of contextlib are
    """A block with a time limit in seconds: after that its wait is interrupted, and the block raises TimeoutError.

    The time begins with the block. None is no limit. A block that ends without an interrupted wait raises nothing.
    """

    __slots__ = ()
    _what = "timeout"
    _raises = True


class timeout_at(CancelScope):  # noqa: N801
    """A block with a deadline, in seconds of the loop's clock: after that its wait is interrupted, like `timeout`."""

    __slots__ = ()
    _what = "timeout_at"
    _raises = True

    def __init__(self, deadline: float | None) -> None:
        CancelScope.__init__(self, None)
        self.deadline = deadline


class move_on_after(CancelScope):  # noqa: N801
    """A block with a time limit in seconds: after that its wait is interrupted, and the block ends without an error.

    None is no limit. `cancelled_caught` says whether it was ended so.
    """

    __slots__ = ()
    _what = "move_on_after"

    def __init__(self, seconds: float | None = None) -> None:
        CancelScope.__init__(self, seconds)


def current_deadline() -> float | None:
    """The earliest deadline that would interrupt a wait made here; None: there is none; -inf: cancelled already."""
    task = current_waiter(current_loop())
    if task is None:
        return None
    if task.cancel_seen is not None:
        return -inf
    return min((scope.deadline for scope in around(task) if scope.deadline is not None), default=None)
