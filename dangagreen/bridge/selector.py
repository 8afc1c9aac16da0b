"""A selector of asyncio's whose `select` parks, so that an asyncio loop waits as a task does.

Rules: asyncio keeps its own selector, and our poller watches that selector's descriptor; it parks where asyncio would
block, yields where only asyncio has something to do, and is woken by what others put on asyncio's schedule. What does
not belong here: the asyncio loop.
"""

from __future__ import annotations

import contextlib
import selectors
from collections.abc import Callable
from typing import Any

from dangagreen.bridge.host import Host
from dangagreen.green.parking import GIVING_WAY, come_last
from dangagreen.green.sched import LoopReset
from dangagreen.green.waiters import WaitKind, wake
from dangagreen.loop.handlers import FdHandler
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import READ

_PASSES = 16  # of asyncio in a row, before others have their turn,
_SHARE = 0.001  # and seconds
_UNASKED = 3  # of each four passes that have something to do already leave the kernel unasked


class AsyncioSelector(FdHandler):
    """asyncio's selector, as our poller sees it."""

    __slots__ = {"selector": "Whose descriptor it is."}

    def __init__(self, loop: Loop, selector: ParkingSelector) -> None:
        self.selector = selector
        super().__init__(loop, selector.fileno(), lambda _mask: selector.wake())

    def _can_hang_up(self) -> bool:
        return False

    def _interest(self) -> int:
        """asyncio's own wake-up pipe is nobody who might wake us."""
        return READ if len(self.selector.get_map()) > 1 else 0

    def forget(self) -> None:
        """In a forked process: it is the parent's."""
        self.closed = True
        self.loop.unregister(self.fd)
        with contextlib.suppress(OSError, KeyError):
            self.loop.poller.remove(self.fd)


class ParkingSelector(selectors.DefaultSelector):
    """A selector whose `select` parks the host instead of blocking the thread."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._look: Callable[[float | None], list[tuple[selectors.SelectorKey, int]]] = super().select
        if not hasattr(self, "fileno"):
            raise RuntimeError(f"{type(self).__mro__[1].__name__} has no descriptor that could be watched: use epoll")
        self.loop = loop
        self.host: Host | None = None  # who runs the asyncio loop now, and can be borrowed while it is parked
        self.aio: Any = None
        self.call_soon: Any = None  # the loop's own, in whose place stands, while it is parked, this:
        self.kick_and_call_soon: Any = None
        self.handler = AsyncioSelector(loop, self)
        self._passes = 0
        self._since = 0.0
        self._busy = False  # it had events when it was asked last
        self._parked = False
        self._kicked = False  # it was woken for what is on asyncio's schedule, not for events
        self.forked = False

    def begin(self, host: Host | None) -> None:
        """The loop begins to run: its first pass asks the kernel, so that running it briefly serves what there is."""
        self.host = host
        self._passes = -1

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Park until there are events, `timeout` seconds have passed, or `wake` is called; give way now and then."""
        host, loop = self.host, self.loop
        if self.forked:
            self._refuse()
        if host is None:
            return self._select_without_waiting(timeout)
        if timeout is not None and timeout <= 0:
            if self._is_others_turn():
                host.rest(GIVING_WAY, come_last(host))
                self._passes, self._since = 0, loop.now
            elif self._passes & _UNASKED:
                return []
        elif not self._busy or self._is_others_turn() or not (events := self._look(0)):
            timer = None if timeout is None else loop.timers.add(loop.clock() + timeout, host.resume)
            self._parked, self._kicked = True, False
            self.aio.call_soon = self.kick_and_call_soon
            try:
                host.rest(_SELECT, timer)
            finally:
                self._parked = False
                self.aio.call_soon = self.call_soon
                self._passes, self._since = 0, loop.now
            if self._kicked:
                return []
        else:
            return events
        if self.forked:
            self._refuse()
        events = self._look(0)
        self._busy = bool(events)
        return events

    def _select_without_waiting(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Our loop is being reset: there is a pass for whatever need not wait."""
        if not (events := self._look(0)) and timeout != 0:
            raise LoopReset
        return events

    def _is_others_turn(self) -> bool:
        self._passes += 1
        if self.loop.runnable or self.loop.ready:
            return True
        return not self._passes & _UNASKED and (self._passes >= _PASSES or self.loop.clock() - self._since > _SHARE)

    def _refuse(self) -> None:
        raise RuntimeError("a forked process cannot go on with the asyncio loop of its parent: make another one")

    def wake(self) -> None:
        """There are events."""
        if self._parked:
            wake(self.host)  # type: ignore[arg-type]

    def kick(self) -> None:
        """Other code than asyncio's has given asyncio something to do."""
        if self._parked:
            self._parked, self._kicked = False, True
            host: Any = self.host
            if host.subject is None and host.wait is not None:  # `wake`, with no timer to undo
                host.wait = None
                host.loop.runnable.append(host.resume)
            else:
                wake(host)

    def close(self) -> None:
        self.handler.close()
        super().close()


_SELECT = WaitKind("select", lambda timer, _task: timer is None or timer.cancel(), "asyncio's events")
