"""Waiting for a file descriptor of another library, which reads and writes itself, and has a hook for the wait.

Rules: nothing is read or written; one task at most waits for each direction of an fd; the poller knows the fd only
while a task waits, so that its owner may close it at any other time. What does not belong here: sockets of this
library.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from operator import index
from typing import Protocol

from dangagreen import checks
from dangagreen.errors import BusyError
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.handlers import FdHandler, Handler
from dangagreen.loop.loop import Loop, current_loop
from dangagreen.loop.pollers import ERR, HUP, READ, WRITE
from dangagreen.parks import parks

_DIRECTIONS = {READ: "readable", WRITE: "writable"}


class HasFileno(Protocol):
    """What has a file descriptor: a socket, a file, a connection of a database driver."""

    def fileno(self) -> int:
        """The number of the file descriptor; -1 once it is closed."""
        raise NotImplementedError


class WaitedFor(FdHandler):
    """An fd for which tasks wait. It is in the map for as long as one does."""

    __slots__ = {"waiters": "READ, WRITE: the task that is parked until the fd is ready in that direction."}

    def __init__(self, loop: Loop, fd: int, task: Waiter, bit: int) -> None:
        self.waiters = {bit: task}
        FdHandler.__init__(self, loop, fd, _nothing, bit)

    def join(self, task: Waiter, bit: int) -> None:
        """Have the task woken too. Raises OSError if the poller refuses."""
        self.watch(sum(self.waiters) | bit)
        self.waiters[bit] = task

    def leave(self, bit: int) -> None:
        """Forget the task of this direction; the last one takes the fd out of the poller, and out of the map."""
        del self.waiters[bit]
        if not self.waiters:
            FdHandler.close(self)
        else:
            with suppress(OSError, KeyError):  # less interest was refused, or the fd was closed: no harm
                self.watch(sum(self.waiters))

    def is_stale(self) -> bool:
        """Whether the file was closed while a task waits: the fd, or another file of its number, is not watched."""
        try:
            self.loop.poller.remove(self.fd)
            self.loop.poller.add(self.fd, sum(self.waiters))
        except (OSError, KeyError):
            return True
        return False

    def _events(self, mask: int) -> None:
        if mask & (ERR | HUP):
            if self.is_stale():
                return self.close(_closed_error(self.fd))
            mask |= READ | WRITE
        for bit, task in list(self.waiters.items()):
            if mask & bit:
                wake(task)
        return None

    def close(self, reason: object = None) -> None:
        """Wake the tasks that wait, with an error: the reason, or that the loop gives the fd up."""
        error = OSError(errno.ECANCELED, f"the wait for fd {self.fd} was given up: {reason}")
        for task in list(self.waiters.values()):
            wake(task, reason if isinstance(reason, OSError) else error)

    _abandon = close

    def __repr__(self) -> str:
        return f"<fd {self.fd}>"


def _nothing(_mask: int) -> None:
    """The callback of an fd whose events go to tasks."""


@parks
def wait_readable(fd: int | HasFileno) -> None:
    """Parks until there is something to read from the fd, or its end, or an error.

    `fd` is an int, or an object with `fileno()`. A regular file is always ready. Raises OSError for a closed fd, as far
    as the operating system tells also when it is closed meanwhile; BusyError if another task waits for the same;
    ValueError for a socket of this library or its fd, or one of `add_other_fds`.
    """
    _wait(fd, READ, _READABLE)


@parks
def wait_writable(fd: int | HasFileno) -> None:
    """Parks until something can be written to the fd, or there is an error: see `wait_readable`.

    Another task may be in `wait_readable` for the same fd.
    """
    _wait(fd, WRITE, _WRITABLE)


def _wait(fd: int | HasFileno, bit: int, kind: WaitKind) -> None:
    loop = current_loop()
    task = checkpoint(loop, kind.name)
    number = _number(kind.name, fd)
    waited_for = loop.handlers.get(number)
    if isinstance(waited_for, WaitedFor) and waited_for.is_stale():
        waited_for.close(_closed_error(number))
        waited_for = None
    if not isinstance(waited_for, WaitedFor):
        try:
            waited_for = WaitedFor(loop, number, task, bit)
        except PermissionError:  # EPERM of epoll: a file that is always ready
            return
    elif bit in waited_for.waiters:
        other = waited_for.waiters[bit].name
        raise BusyError(f"{task.name!r} cannot wait until fd {number} is {_DIRECTIONS[bit]}: {other!r} does already")
    else:
        waited_for.join(task, bit)
    park(task, kind, waited_for)


def _number(call: str, fd: int | HasFileno) -> int:
    """The number of an open fd. Raises TypeError for what has none, ValueError for a socket of this library, OSError
    (EBADF) if it is closed."""
    if isinstance(fd, Handler):
        raise ValueError(
            f"{call} is for fds of other libraries, and {fd!r} is of this one: use its own calls, or select(...)"
        )
    if hasattr(fd, "fileno"):
        fd = fd.fileno()
    try:
        number = index(fd)
    except TypeError:
        raise TypeError(f"{call} needs an fd, or an object with fileno(), not {checks.shown(fd)}") from None
    if number < 0:  # the fileno() of a closed socket
        raise _closed_error(number)
    return number


def _closed_error(fd: int) -> OSError:
    return OSError(errno.EBADF, f"fd {fd} is closed")


_READABLE = WaitKind("wait_readable", lambda waited_for, _task: waited_for.leave(READ))
_WRITABLE = WaitKind("wait_writable", lambda waited_for, _task: waited_for.leave(WRITE))
