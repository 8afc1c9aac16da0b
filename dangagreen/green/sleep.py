"""Waits for the time to pass: sleep, sleep_until.

Rules: a sleep of no seconds is a yield. What does not belong here: time limits of other waits (deadlines).
"""

from __future__ import annotations

from dangagreen import checks
from dangagreen.green.parking import checkpoint, give_way, park, undo_giving_way
from dangagreen.green.waiters import Waiter, WaitKind
from dangagreen.loop.loop import current_loop
from dangagreen.parks import parks


@parks
def sleep(seconds: float) -> None:
    """Parks until `seconds` have passed; 0, or less, yields: every other task that is ready runs once."""
    loop = current_loop()
    task: Waiter | None = loop.current
    if task is None or task.interrupt is not None:
        task = checkpoint(loop, "sleep")
    if (kind := type(seconds)) is not float and kind is not int:  # a quick test that most pass
        seconds = checks.seconds("the time of sleep", seconds)
    try:
        deadline = loop.clock() + seconds if seconds > 0 else None
    except OverflowError:
        return sleep(checks.seconds("the time of sleep", seconds))
    if deadline is not None:
        return park(task, _SLEEP, loop.timers.add(deadline, task.resume))
    if seconds != seconds:
        checks.seconds("the time of sleep", seconds)
    return give_way(task, _YIELD)


@parks
def sleep_until(deadline: float) -> None:
    """Parks until the loop's clock has reached `deadline`; if it has already, yields as `sleep(0)` does."""
    loop = current_loop()
    task = checkpoint(loop, "sleep_until")
    deadline = checks.seconds("the deadline of sleep_until", deadline)
    if deadline > loop.clock():
        park(task, _SLEEP, loop.timers.add(deadline, task.resume))
    else:
        give_way(task, _YIELD)


_SLEEP = WaitKind("sleep", lambda timer, task: timer.cancel(), "{0} until {1.deadline:.3f}")
_YIELD = WaitKind("sleep(0)", undo_giving_way, "{0}", due=True)
