"""Tasks that wait for each other: for whom a task waits, and whether that leads back to it.

Rules: only what is known for certain counts: the holder of a lock, a task that is joined, the tasks of a group whose
block is being left. What does not belong here: who is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dangagreen.green.groups import TaskGroup
from dangagreen.green.parking import TimeLimit
from dangagreen.green.scopes import around
from dangagreen.green.waiters import Waiter
from dangagreen.loop.loop import Loop
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


def circles(tasks: Iterable[Waiter]) -> Iterator[list[Waiter]]:
    """The circles of which these tasks are, each once; a task that is in several of them is found in one at least."""
    on_path: dict[Waiter, bool] = {}  # each task that was seen: whether it is on the path now
    for start in tasks:
        path: list[Waiter] = []
        ways: list[Iterator[Waiter]] = [iter((start,))]
        while ways:
            other = next(ways[-1], None)
            if other is None:
                ways.pop()
                if path:
                    on_path[path.pop()] = False
            elif other not in on_path:
                on_path[other] = True
                path.append(other)
                ways.append(_blockers(other))
            elif on_path[other]:
                yield path[path.index(other) :]


def without_limit(tasks: Iterable[Waiter]) -> list[Waiter]:
    """The parked tasks among these whose wait has no limit in time: no deadline around it, no timeout of its own.

    Top-level code is none of them: its deadlines are not known.
    """
    left = [task for task in tasks if task.worker is not None and all(scope.deadline is None for scope in around(task))]
    timed = {id(waiter) for loop in {task.loop for task in left} for waiter in _timed(loop)}
    return [task for task in left if id(task) not in timed]


def _timed(loop: Loop) -> Iterator[Waiter]:
    """The waiters of a loop that wait with a timeout."""
    for timer in loop.timers.pending():
        call = timer.callback
        if isinstance(call, TimeLimit):
            yield call.args[0]
