"""Stacks as text: the program's own frames, "file:line function", innermost first.

Rules: a frame is looked at, never kept; of the stack that runs, what lies beneath the loop is not the loop's affair.
What does not belong here: whose stack it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import FrameType

from dangagreen.frames import LOOPS, line_of, program_frames


def in_words(stack: Iterable[FrameType]) -> tuple[str, ...]:
    """The program's frames of a stack, as text."""
    return tuple(map(with_function, program_frames(stack)))


def with_function(frame: FrameType) -> str:
    """ "file:line function" of a frame."""
    return f"{line_of(frame)} {frame.f_code.co_qualname}"


def outward(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those around it, up to that of the loop."""
    while frame is not None and frame not in LOOPS:
        yield frame
        frame = frame.f_back


def running() -> Iterator[FrameType]:
    """The frames that run now, from the caller's on."""
    return outward(sys._getframe())


def place_of(stack: Iterable[FrameType]) -> str:
    """ "file:line" of the program's innermost frame; "?" if there is none, as in what the loop does by itself."""
    frame = next(program_frames(stack), None)
    return "?" if frame is None else line_of(frame)
