"""What all lints have in common: telling of a finding once, and looking at what is going on without a trace afterwards.

Rules: one line for each kind and place; functions that are watched are replaced in their class when lints are switched
on, and put back when they are switched off, so that nothing is paid then. What does not belong here: what a finding is.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from dangagreen import checks
from dangagreen.errors import ErrorContext
from dangagreen.frames import LOOPS, is_library, is_ours
from dangagreen.green.stacks import program_places
from dangagreen.green.waiters import Waiter
from dangagreen.loop.loop import Loop
from dangagreen.loop.registry import log

_RECEIVED = 128  # the offset of tcpi_bytes_received in tcp_info
MOST = 256  # findings that are told, of all kinds


class LintReport(NamedTuple):
    """One finding of `lint`: the argument of its `tell`."""

    kind: str  # its name in the reference, such as "eof-loop"
    what: str  # what was found, in words
    place: str  # "file:line" in the program
    subject: object  # the task, the socket, the queue or the callback

    def __str__(self) -> str:
        return f"lint {self.kind}: {self.what}: {self.place}"


class Findings:
    """Tells of each finding, once for its kind and place."""

    def __init__(self, tell: Callable[[LintReport], object] | None) -> None:
        self._tell = tell
        self._told: set[tuple[str, str]] = set()

    def add(self, loop: Loop, report: LintReport) -> None:
        """Tell of this, unless the same was told. What `tell` raises goes to `loop.on_error`; it must not park."""
        key = report.kind, report.place
        if key in self._told or len(self._told) >= MOST:
            return
        self._told.add(key)
        current, loop.current = loop.current, None
        try:
            if self._tell is None:
                log.warning("%s", report)
            elif (result := self._tell(report)) is not None:
                checks.outcome("the tell of introspect.lint", result)
        except Exception as error:
            loop.report(ErrorContext(f"the tell of introspect.lint raised; it was to report: {report}", error))
        finally:
            loop.current = current


class Patches:
    """Functions of classes that were replaced."""

    def __init__(self) -> None:
        self._replaced: list[tuple[type, str, object]] = []

    def put(self, owner: type, name: str, wrap: Callable[[Any], Callable[..., Any]]) -> None:
        """Replace a function of a class by `wrap(function)`."""
        original = vars(owner)[name]
        self._replaced.append((owner, name, original))
        setattr(owner, name, wrap(original))

    def undo(self) -> None:
        """Put back what was there."""
        while self._replaced:
            owner, name, original = self._replaced.pop()
            setattr(owner, name, original)


def running_frames() -> Iterator[FrameType]:
    """The frames of what runs now, innermost first, up to that of the loop."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame not in LOOPS:
        yield frame
        frame = frame.f_back


def place_here() -> str:
    """ "file:line" of the program's own code that has made the call under way; "?" if there is none."""
    for frame in running_frames():
        if not is_ours(frame) and not is_library(frame):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return "?"


def unread_bytes(fd: int) -> int:
    """How many bytes of input the kernel has for an fd (FIONREAD); 0 where it does not tell."""
    try:
        (size,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, struct.pack("i", 0)))
    except OSError:
        return 0
    return int(size)


def bytes_read(fd: int) -> int | None:
    """How many bytes of a TCP connection the program has read so far, by TCP_INFO of Linux; None of anything else."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            return None
        received = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED + 8)[_RECEIVED:]
        return int.from_bytes(received, sys.byteorder) - unread_bytes(fd) if len(received) == 8 else None
    except (OSError, AttributeError):
        return None
    finally:
        sock.detach()


def place_of_wait(task: Waiter) -> str:
    """ "file:line" of where a parked task waits, or else of its spawn."""
    return next(program_places(task), None) or getattr(task, "spawned_at", None) or "?"
