"""When, where and by which task the handlers of a loop were made: a table in the place of its dict, for who wants that.

Rules: nobody pays before it is put there; a connection that a server has accepted has no place in the program. What
does not belong here: what is made of it (introspect, testing).
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, NamedTuple

from dangagreen.frames import line_of, program_frame
from dangagreen.loop.handlers import Handler


class Birth(NamedTuple):
    """When and by whom a handler was made."""

    time: float  # on the loop's clock
    place: str | None  # "file:line" in the program; None if the loop has made it, as a server's
    task: str | None  # the name of the task


class BirthTable(dict[int, Handler]):
    """The descriptors of a loop, with the birth of each that has come since this table is there."""

    __slots__ = {
        "_births": "fd to the id of its handler, and the fields of its birth.",
        "loop": "The loop.",
    }

    def __init__(self, loop: Any) -> None:
        super().__init__(loop.handlers)
        self.loop = loop
        self._births: dict[int, tuple[int, float, str | None, str | None]] = {}

    def __setitem__(self, fd: int, handler: Handler) -> None:
        if self.get(fd) is handler:  # it is put there again when it is registered with the poller
            return
        dict.__setitem__(self, fd, handler)
        loop = self.loop
        place = None
        if loop.accepting:
            loop.accepting = False  # what its constructor opens is the program's
        else:
            place = _place(sys._getframe(), handler)
        self._births[fd] = (
            id(handler),
            loop.clock(),
            place,
            None if loop.current is None else self.name_of(loop.current),
        )

    def name_of(self, task: Any) -> str | None:
        """What a task is called."""
        return str(task.name)

    def birth(self, handler: Handler) -> Birth | None:
        """When and by whom the handler was made; None if that was before the table was there."""
        found = self._births.get(handler.fd)
        return Birth(*found[1:]) if found is not None and found[0] == id(handler) else None


def _place(inside: FrameType, handler: Handler) -> str | None:
    """ "file:line" of the program where a handler is made, inside this frame: where its class is called."""
    frame = program_frame(inside)
    while frame is not None and _constructs(frame, handler):
        frame = program_frame(frame.f_back)
    return None if frame is None else line_of(frame)


def _constructs(frame: FrameType, handler: Handler) -> bool:
    code = frame.f_code
    return code.co_name == "__init__" and frame.f_locals.get(code.co_varnames[0]) is handler
