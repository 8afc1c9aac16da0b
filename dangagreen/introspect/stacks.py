"""Stacks as text: the program's own frames, "file:line function", innermost first.

Rules: a frame is looked at, never kept: what is to be told later, perhaps, is kept as steps; of the stack that runs,
what lies beneath the loop is not the loop's affair. What does not belong here: whose stack it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from types import CodeType, FrameType
from typing import NamedTuple

from dangagreen.frames import LOOPS, is_installed, is_library, is_ours, line_of, program_frames
from dangagreen.places import place_of_instruction

_KEPT = 8  # steps of a stack
_SHOWN = 4  # of them in one line


class Step(NamedTuple):
    """What is kept of a frame."""

    code: CodeType
    instruction: int  # that it runs


def steps(stack: Iterable[FrameType]) -> tuple[Step, ...]:
    """The innermost of the program's frames of a stack, as something that can be kept."""
    return tuple(Step(frame.f_code, frame.f_lasti) for frame in islice(program_frames(stack), _KEPT))


def steps_here() -> tuple[Step, ...]:
    """As `steps` of what runs now, without the generators: it is asked for very often, and then hardly ever told."""
    kept: list[Step] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame not in LOOPS and len(kept) < _KEPT:
        if not is_ours(frame) and not is_library(frame):
            kept.append(Step(frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(kept)


def chain(stack: Sequence[Step]) -> str:
    """ "file:line" of the innermost step; if that is in a function which others have called, by whom.

    As in "file:line in f, called from file:line". Of those others, libraries are left out. "?" if there is no step.
    """
    if not stack:
        return "?"
    first, *others = stack
    shown = [first, *([one for one in others if not is_installed(one.code)] or others)][:_SHOWN]
    places = [place_of_instruction(one.code, one.instruction) for one in shown]
    inner = [f"{place} in {one.code.co_qualname}" for place, one in zip(places[:-1], shown, strict=False)]
    return ", called from ".join([*inner, places[-1]])


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


def raised_at(error: BaseException) -> str | None:
    """ "file:line" of the program's innermost frame that the error has passed; None if there is none."""
    place, step = None, error.__traceback__
    while step is not None:
        if not is_ours(step.tb_frame) and not is_library(step.tb_frame):
            place = f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}"
        step = step.tb_next
    return place


def place_of(stack: Iterable[FrameType]) -> str:
    """ "file:line" of the program's innermost frame; "?" if there is none, as in what the loop does by itself."""
    frame = next(program_frames(stack), None)
    return "?" if frame is None else line_of(frame)
