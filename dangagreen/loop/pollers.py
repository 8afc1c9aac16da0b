"""epoll, kqueue, poll and select behind the same five methods: add modify remove wait close.

Rules: a poller knows file descriptors and bits, nothing else. It is level-triggered. Masks are made of READ and
WRITE; events of READ, WRITE, ERR and HUP, whose values are those of epoll and poll, so that the best pollers need no
translation. A FIN alone is no HUP. What does not belong here: sockets, callbacks, time.
"""

from __future__ import annotations

import math
import os
import select
import sys
from collections.abc import Callable
from typing import Any, Protocol

from dangagreen import checks
from dangagreen.system_calls import waiting

READ, WRITE, ERR, HUP = 1, 4, 8, 16
LONGEST_WAIT = 86400.0  # seconds: epoll and poll take at most 24 days; a wake-up without need does no harm
_INVALID = 32  # POLLNVAL: the fd was closed without being removed

Events = list[tuple[int, int]]


class Poller(Protocol):
    """The five methods that a loop needs to wait for events of file descriptors.

    `wait` takes seconds, or None for no limit, returns a new list of (fd, events), and without an event never returns
    earlier. `add` of an fd that is known or closed, and `modify` or `remove` of one that is not known, raise OSError or
    KeyError.
    """

    @property
    def add(self) -> Callable[[int, int], object]: ...
    @property
    def modify(self) -> Callable[[int, int], object]: ...
    @property
    def remove(self) -> Callable[[int], object]: ...
    @property
    def wait(self) -> Callable[[float | None], Events]: ...
    @property
    def close(self) -> Callable[[], object]: ...


if sys.platform == "linux":

    class EpollPoller:
        """epoll(7), of Linux. The five methods are the epoll object's own: no Python code between loop and kernel."""

        __slots__ = {
            "add": "register of the epoll object.",
            "close": "close of the epoll object.",
            "fileno": "fileno of the epoll object: a descriptor that is readable while there are events.",
            "modify": "modify of the epoll object.",
            "remove": "unregister of the epoll object.",
            "wait": "poll of the epoll object, or a shorter way.",
        }

        def __init__(self) -> None:
            epoll = select.epoll()
            self.add: Callable[[int, int], object] = epoll.register
            self.modify: Callable[[int, int], object] = epoll.modify
            self.remove: Callable[[int], object] = epoll.unregister
            self.wait: Callable[[float | None], Events] = waiting(epoll)
            self.close: Callable[[], object] = epoll.close
            self.fileno: Callable[[], int] = epoll.fileno


class KqueuePoller:
    """kqueue(2), of the BSDs and macOS. READ and WRITE are two filters there; EOF is a flag on the event of either.

    An fd that is watched for neither reports no hang-up.
    """

    __slots__ = {"_kqueue": "The kqueue object.", "_masks": "fd to the mask that it is watched with."}

    def __init__(self) -> None:
        self._kqueue = select.kqueue()  # type: ignore[attr-defined, unused-ignore]
        self._masks: dict[int, int] = {}

    def fileno(self) -> int:
        """A descriptor that is readable while there are events."""
        return self._kqueue.fileno()  # type: ignore[no-any-return]

    def add(self, fd: int, mask: int) -> None:
        if fd in self._masks:
            raise FileExistsError(f"fd {fd} is being watched already")
        self._change(fd, 0, mask)

    def modify(self, fd: int, mask: int) -> None:
        self._change(fd, self._masks[fd], mask)

    def remove(self, fd: int) -> None:
        mask = self._masks.pop(fd)
        try:
            self._change(fd, mask, 0)
        finally:
            self._masks.pop(fd, None)

    def _change(self, fd: int, old: int, new: int) -> None:
        changes = []
        for bit, name in ((READ, "KQ_FILTER_READ"), (WRITE, "KQ_FILTER_WRITE")):
            if (old ^ new) & bit:
                flag = "KQ_EV_ADD" if new & bit else "KQ_EV_DELETE"
                changes.append(select.kevent(fd, getattr(select, name), getattr(select, flag)))  # type: ignore[attr-defined, unused-ignore]
        if changes:
            self._kqueue.control(changes, 0)
        self._masks[fd] = new

    def wait(self, timeout: float | None) -> Events:
        ready: dict[int, int] = {}
        for event in self._kqueue.control(None, 1023, timeout):
            ended = event.flags & select.KQ_EV_EOF  # type: ignore[attr-defined, unused-ignore]
            reading = event.filter == select.KQ_FILTER_READ  # type: ignore[attr-defined, unused-ignore]
            mask = READ if reading else WRITE | HUP if ended else WRITE
            if ended and event.fflags:
                mask |= ERR
            ready[event.ident] = ready.get(event.ident, 0) | mask
        return list(ready.items())

    def close(self) -> None:
        self._kqueue.close()


class PollPoller:
    """poll(2). Its bits are those of READ, WRITE, ERR and HUP on every platform that has it."""

    __slots__ = {"_known": "The fds that are watched.", "_poll": "The poll object."}

    def __init__(self) -> None:
        self._poll = select.poll()
        self._known: set[int] = set()

    def add(self, fd: int, mask: int) -> None:
        if fd in self._known:  # poll's own register() would silently replace the mask
            raise FileExistsError(f"fd {fd} is being watched already")
        os.fstat(fd)  # poll itself would report a closed one as an event
        self._poll.register(fd, mask)
        self._known.add(fd)

    def modify(self, fd: int, mask: int) -> None:
        self._poll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._known.discard(fd)

    def wait(self, timeout: float | None) -> Events:
        events = self._poll.poll(None if timeout is None else math.ceil(timeout * 1000))
        return [(fd, mask if mask < _INVALID else ERR | HUP) for fd, mask in events]

    def close(self) -> None:
        self._known.clear()


class SelectPoller:
    """select(2): the last resort. It reports no hang-ups, and no fd above 1023 can be watched."""

    __slots__ = {"_masks": "fd to the mask that it is watched with."}

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}

    def add(self, fd: int, mask: int) -> None:
        if fd in self._masks:
            raise FileExistsError(f"fd {fd} is being watched already")
        if fd >= 1024:
            raise ValueError(f"select() cannot watch fd {fd}, only those below 1024: use another poller")
        os.fstat(fd)  # of a closed one `wait` would have to tell
        self._masks[fd] = mask

    def modify(self, fd: int, mask: int) -> None:
        if fd not in self._masks:
            raise KeyError(fd)
        self._masks[fd] = mask

    def remove(self, fd: int) -> None:
        del self._masks[fd]

    def wait(self, timeout: float | None) -> Events:
        readers = [fd for fd, mask in self._masks.items() if mask & READ]
        writers = [fd for fd, mask in self._masks.items() if mask & WRITE]
        try:
            readable, writable, _ = select.select(readers, writers, (), timeout)
        except (OSError, ValueError):
            if closed := self._closed_ones():
                return closed
            raise
        ready = dict.fromkeys(readable, READ)
        for fd in writable:
            ready[fd] = ready.get(fd, 0) | WRITE
        return list(ready.items())

    def _closed_ones(self) -> Events:
        """Events for fds that were closed without being removed: each of them makes select fail as a whole."""
        found: Events = []
        for fd in self._masks:
            try:
                os.fstat(fd)
            except OSError:
                found.append((fd, ERR | HUP))
        return found

    def close(self) -> None:
        self._masks.clear()


def check_poller(call: str, given: Any) -> None:
    """Raise TypeError, in the name of `call`, unless it has the methods of a poller."""
    if isinstance(given, type) or not all(
        hasattr(given, name) for name in ("add", "close", "modify", "remove", "wait")
    ):
        raise TypeError(f"{call} needs a poller, an instance of one of available_pollers(), not {checks.shown(given)}")


def available_pollers() -> list[Callable[[], Poller]]:
    """The classes of the pollers that this platform has, the best one first."""
    found: list[Callable[[], Poller]] = []
    if sys.platform == "linux":
        found.append(EpollPoller)
    if hasattr(select, "kqueue"):
        found.append(KqueuePoller)
    if hasattr(select, "poll"):
        found.append(PollPoller)
    found.append(SelectPoller)
    return found
