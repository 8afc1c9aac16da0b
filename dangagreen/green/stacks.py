"""Where parked tasks stand: the frames that a suspended greenlet holds, from the innermost out.

Rules: a frame is looked at, never kept. What does not belong here: how a stack is printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import FrameType

from dangagreen.frames import is_library, is_ours
from dangagreen.green.waiters import Waiter


def frames(task: Waiter) -> Iterator[FrameType]:
    """The frames of a parked task, innermost first; none of one that runs, has not started, or has ended."""
    worker = task.worker
    frame = None if worker is None else worker.gr_frame
    while frame is not None:
        yield frame
        frame = frame.f_back


def program_places(task: Waiter) -> Iterator[str]:
    """ "file:line" of the program's own frames of a parked task, innermost first: neither ours nor the library's."""
    for frame in frames(task):
        if not is_ours(frame) and not is_library(frame):
            yield f"{frame.f_code.co_filename}:{frame.f_lineno}"
