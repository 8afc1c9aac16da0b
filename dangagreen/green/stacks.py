"""Where parked tasks stand: the frames that a suspended greenlet holds, from the innermost out.

Rules: a frame is looked at, never kept. What does not belong here: how a stack is printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType

from dangagreen.frames import line_of, program_frames
from dangagreen.green.waiters import Waiter
from dangagreen.places import place_of, place_of_instruction


def frames(task: Waiter) -> Iterator[FrameType]:
    """The frames of a parked task, innermost first; none of one that runs, has not started, or has ended."""
    worker = task.worker
    frame = None if worker is None else worker.gr_frame
    while frame is not None:
        yield frame
        frame = frame.f_back


def program_places(task: Waiter) -> Iterator[str]:
    """ "file:line" of the program's own frames of a parked task, innermost first."""
    return map(line_of, program_frames(frames(task)))


def last_run(task: Waiter) -> tuple[str, str]:
    """(words, "file:line") of a task that has just run: where it waits now, or the function that has ended.

    Where none of the program's code waits, the place is that of its function too; of a task whose function is not known
    any more, that of its spawn; "?" where there is none.
    """
    if task.wait is not None:
        until, place = f"it waited in {task.wait.name}", next(program_places(task), None)
    else:
        until, place = "it ended", None
    return f"{task.in_words()}, before {until},", place or _own_place(task)


def _own_place(task: Waiter) -> str:
    if (function := task.function()) is not None:
        return place_of(function)
    return place_of_instruction(*task.origin) if task.origin is not None else "?"
