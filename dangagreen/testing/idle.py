"""Waiting until nothing happens any more: what was sent is read, what can run has run. No time passes for it.

Rules: a loop is idle when nothing is left to do without an event from outside, or the end of a timer that is not due;
what other threads and processes do is not looked at. What does not belong here: how long that takes.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from dangagreen.green.parking import checkpoint, give_way, undo_giving_way
from dangagreen.green.waiters import WaitKind
from dangagreen.loop.loop import Loop, current_loop
from dangagreen.parks import parks
from dangagreen.testing.clock import VirtualPoller

_waiting: WeakKeyDictionary[Loop, int] = WeakKeyDictionary()  # how many wait for the loop to be idle


@parks
def wait_until_idle() -> None:
    """Parks until this thread's loop has nothing to do: no task can run, no call is queued, no event has come.

    Timers that are not due, and what other threads do, do not count; on a virtual clock no time passes. Raises
    CannotParkError in a callback.
    """
    loop = current_loop()
    task = checkpoint(loop, "wait_until_idle")
    _waiting[loop] = _waiting.get(loop, 0) + 1
    try:
        while True:
            give_way(task, _IDLE)
            if is_idle(loop):
                return
    finally:
        _waiting[loop] -= 1


def is_idle(loop: Loop) -> bool:
    """Whether a loop has nothing to do, but to resume those that wait for that."""
    queued = len(loop.ready) + len(loop.runnable)
    if loop.running:
        queued -= _waiting.get(loop, 1) - 1  # each of the others stands in one of the queues; the caller does not
    if queued > 0 or loop.pending_reads or loop.to_flush or loop.interest_changed or loop.to_close:
        return False
    deadline = loop.timers.next_deadline()
    if deadline is not None and deadline <= loop.clock():
        return False
    poller = loop.poller
    return not (poller.events() if isinstance(poller, VirtualPoller) else poller.wait(0))


_IDLE = WaitKind("wait_until_idle", undo_giving_way, "{0}", due=True)
