"""Tasks that wait for each other: for whom a task waits, and whether that leads back to it.

Rules: only what is known for certain counts: the holder of a lock, a task that is joined, the tasks of a group whose
block is being left. What does not belong here: who is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import FrameType

from dangagreen.green.groups import TaskGroup
from dangagreen.green.parking import park_for
from dangagreen.green.scopes import around
from dangagreen.green.waiters import Waiter
from dangagreen.sync.locks import Mutex

_MOST = 1000  # tasks that are looked at for one circle


def blocker(task: Waiter) -> Waiter | None:
    """The one task that can end this one's wait: it holds the lock, or is joined; None if there is none."""
    if task.wait is None:
        return None
    subject = task.subject
    other = subject.holder if isinstance(subject, Mutex) else subject
    return other if isinstance(other, Waiter) and not other.done else None


def circle(task: Waiter) -> list[Waiter]:
    """Tasks each of which waits for the next one, and the last for the first, which is this one; or an empty list."""
    path = [task]
    ways = [_blockers(task)]
    seen = {task}
    while ways and len(seen) < _MOST:
        other = next(ways[-1], None)
        if other is task:
            return path
        if other is None:
            ways.pop()
            path.pop()
        elif other not in seen:
            seen.add(other)
            path.append(other)
            ways.append(_blockers(other))
    return []


def _blockers(task: Waiter) -> Iterator[Waiter]:
    """Tasks each of which has to go on, or to end, before this one can."""
    if task.wait is not None and isinstance(task.subject, TaskGroup):
        if task.worker is not None:  # otherwise it waits for a place in the group, which any of them may give
            yield from task.subject.tasks
    elif (other := blocker(task)) is not None:
        yield other


def has_limit(task: Waiter, stack: Iterable[FrameType]) -> bool:
    """Whether the wait of a task with this stack has a limit in time: a deadline around it, or a timeout of its own.

    Also where that is not known: top-level code has no stack of its own.
    """
    if task.worker is None or any(scope.deadline is not None for scope in around(task)):
        return True
    return any(frame.f_code is _TIMED and frame.f_locals["timeout"] is not None for frame in stack)


_TIMED = getattr(park_for, "__code__", None)
