"""The mark by which other processes see upon which signal this one prints a dump, and with which they ask for it.

Rules: the mark is a file in memory that only a descriptor of the process refers to: /proc shows its name to each
process that may look into this one. It ends as the handler of the signal does, by the end of the process, or by exec; a
forked child has both. Where the system has no such files there is no mark, and who looks for one finds none. What does
not belong here: the handler, and what is printed.
"""

from __future__ import annotations

import contextlib
import os

_NAME = "dangagreen-dump-"  # and the number of the signal
_LINK = f"/memfd:{_NAME}"  # what /proc says
_DIGITS = 18  # of the number that is asked for, at most
_JSON = b" json"  # after it


class Mark:
    """Upon this signal this process prints a dump, until `close()`."""

    __slots__ = {
        "_opened": "The descriptor, -1 without one.",
        "_status": "What it was then: a program that becomes a daemon may close it, and open another of its number.",
    }

    def __init__(self, number: int) -> None:
        self._opened = -1
        with contextlib.suppress(OSError, AttributeError):  # not every system has it, or allows it
            self._opened = os.memfd_create(f"{_NAME}{number}")
            self._status = os.fstat(self._opened)

    def asked(self) -> tuple[int | None, bool]:
        """How many things of each kind who has sent the signal wants to see, or None; and whether as JSON."""
        text = b""
        if (fd := self._fd()) is not None:
            text = os.pread(fd, _DIGITS + len(_JSON), 0)
            os.ftruncate(fd, 0)
        number = text.removesuffix(_JSON)
        return int(number) if number.isdigit() else None, text.endswith(_JSON)

    def close(self) -> None:
        """The process does not print a dump upon this signal any more."""
        if (fd := self._fd()) is not None:
            os.close(fd)
        self._opened = -1

    def _fd(self) -> int | None:
        with contextlib.suppress(OSError):  # EBADF
            if os.path.samestat(os.fstat(self._opened), self._status):
                return self._opened
        return None


def marks_of(pid: int) -> dict[int, str]:
    """The signals upon which another process prints a dump, each with the path of its mark.

    Raises OSError where there is no such process, or it may not be looked into; without /proc as well.
    """
    found = {}
    folder = f"/proc/{pid}/fd"
    for fd in os.listdir(folder):
        path = f"{folder}/{fd}"
        with contextlib.suppress(OSError):  # it was closed meanwhile
            if (number := _number(os.readlink(path))) is not None:
                found[number] = path
    return found


def ask_for(path: str, most: int, as_json: bool = False) -> None:
    """Have the dump after the next signal show so many things of each kind, perhaps as JSON.

    Raises OSError if it cannot be asked.
    """
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if _number(os.readlink(f"/proc/self/fd/{fd}")) is None:  # the process may be another user's, who tricks root
            raise OSError(f"{path} is no mark any more")
        os.write(fd, b"%d%b" % (most, _JSON if as_json else b""))
    finally:
        os.close(fd)


def _number(link: str) -> int | None:
    """The signal of the mark that a link in /proc refers to; None if it is no mark."""
    number = link.removeprefix(_LINK).removesuffix(" (deleted)")
    return int(number) if link.startswith(_LINK) and number.isdecimal() else None
