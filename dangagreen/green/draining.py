"""How a server ends: what waits is accepted, what is idle is ended, what is at work may finish, the rest is cut off.

Rules: at the end of each turn it looks at what is there and does what is due, and nobody needs to tell it of any
change; the first to ask for a drain begins it, and it goes on whether or not anybody waits for it; every wait for a
peer or a handler is bounded. What does not belong here: signals, and what a program does after its server has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

from dangagreen.core.descriptor import Descriptor
from dangagreen.core.listener import Listener as CoreListener
from dangagreen.core.sock import Socket
from dangagreen.core.timers import Timer
from dangagreen.core.tracebacks import forget_locals
from dangagreen.green.parking import check_seconds, entering, park, parks
from dangagreen.green.sched import Wait, Waiter, scheduler, wake
from dangagreen.green.tasks import Task

log = logging.getLogger("dangagreen")


class Handling(Task[None]):
    """The task of a connection's handler: it calls `serve(sock, handler)`, in the connection's own context.

    Without a `partial`, by which the interpreter would call itself: a seventh of what a parked handler keeps of its
    stack, and copies at each switch.
    """

    __slots__ = ("_handler", "_serve", "sock")

    def __init__(self, sock: Socket, serve: Callable[[Any, Any], None], handler: Callable[[Any], object]) -> None:
        super().__init__(sock.loop, self._handle, sock._context, handler)
        self.sock = sock
        self._serve = serve
        self._handler = handler

    def _handle(self) -> None:
        self._serve(self.sock, self._handler)

    def _forget_locals(self, error: BaseException) -> None:
        forget_locals(error, everybody=True)  # the handler's as well: the connection is over

    def start(self) -> None:
        unserved = self.sock if self.interrupt is not None else None
        super().start()
        if unserved is not None:  # cancelled before it has started: nobody else will close the connection
            self.loop.call(unserved, partial(unserved.close, self._error))


class Listener(CoreListener):
    """Accepts connections, and can end in order: what `serve` and `serve_requests` return.

    Class attributes, in seconds: `newcomer_seconds` (how long a drain waits for a request of a connection from which
    one may be on its way), `linger_seconds` (how long for peers that it has told the end), `clean_up_seconds` (how
    long for handlers that it has cancelled).
    """

    __slots__ = ("_drain", "_end", "_on_failure", "_stops")

    newcomer_seconds: ClassVar[float] = 0.25
    linger_seconds: ClassVar[float] = 1.0
    clean_up_seconds: ClassVar[float] = 5.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._drain: Drain | None = None
        self._end: Callable[[], object] | None = None  # of the serve_forever that it is in
        self._on_failure: Callable[[], object] | None = None  # of that one too: for when it can accept no more
        self._stops = 0  # how often stop() was called while it was in none
        super().__init__(*args, **kwargs)

    @property
    def draining(self) -> bool:
        """Has a drain begun? A handler may tell its peer, as HTTP does by `Connection: close`."""
        return self._drain is not None

    @parks
    def drain(self, grace: float | None = 30.0) -> list[Socket]:
        """Parks until the server has ended; returns the connections that were cut off, closed by now.

        Accepts what is in the kernel's queue and nothing more, ends idle connections and, once they are idle, those
        that are at work. What is left after `grace` seconds (None is no limit) is cut off: its handler is cancelled
        and its clean-up waited for. Once begun it goes on, also if the caller is cancelled; several have the earliest
        of their deadlines and the same result. Raises RuntimeError in a handler of one of its own connections.
        """
        me = entering(self.loop, "drain")
        if isinstance(me, Handling) and me.sock._owner is self:
            raise RuntimeError(f"{me!r} cannot drain {self!r}, which waits for its handlers: spawn(listener.drain)")
        drain = self._begin_drain(grace)
        if not drain.over:
            drain.waiting.append(me)
            park(me, _DRAIN, drain)
        return list(drain.cut_off)

    def stop(self) -> None:
        """End the `serve_forever` that this listener is in, or comes to be in, as a signal does. From any thread."""
        self.loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        else:
            self._stops += 1

    def _let_go(self) -> None:
        super()._let_go()
        if isinstance(self.close_reason, BaseException) and self._on_failure is not None:
            self.loop._ready.append(self._on_failure)

    def _begin_drain(self, grace: float | None) -> Drain:
        check_seconds("drain", grace)
        drain = self._drain
        if drain is None or not (drain.over or drain in self.loop.object_callbacks):  # a reset of the loop forgets it
            drain = self._drain = Drain(self)
        drain.hurry(grace)
        return drain

    def adopt(self, connection: Descriptor) -> None:
        super().adopt(connection)
        if self._drain is not None:
            self._drain.add(connection)


class Drain:
    """One listener's end, under way. `cut_off` are the connections for which it came too early."""

    __slots__ = (
        "_cut_at", "_deadline", "_left", "_linger_until", "_listener", "_loop", "_newcomers", "_reason", "_timer",
        "cut_off", "over", "waiting",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = loop = listener.loop
        self._left: list[Socket] = []
        self._newcomers: dict[Socket, float] = {}  # until when a request may be on its way
        self._deadline: float | None = None
        self._cut_at: float | None = None
        self._linger_until: float | None = None
        self._reason = f"the time of the drain of {listener!r} was up"
        self._timer: Timer | None = None
        self.cut_off: list[Socket] = []
        self.over = False
        self.waiting: list[Waiter] = []
        loop.object_callbacks[self] = self._begin
        loop._ready.append(_do_nothing)  # so that there is a turn, at whose end it begins

    def __repr__(self) -> str:
        return repr(self._listener)

    def hurry(self, grace: float | None) -> None:
        """Let it take no longer than `grace` seconds from now."""
        if grace is not None and not self.over:
            deadline = self._loop.clock() + max(0.0, grace)
            self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
            self._loop._ready.append(_do_nothing)

    def add(self, connection: Descriptor) -> None:
        """One that was accepted meanwhile."""
        assert isinstance(connection, Socket)
        self._left.append(connection)
        self._newcomers[connection] = self._loop.clock() + self._listener.newcomer_seconds

    # -- at the end of each turn

    def _begin(self, *maps: object) -> bool:
        now, patience = self._loop.clock(), self._listener.newcomer_seconds
        handlers = list(self._loop.handlers.values())
        self._left = [sock for sock in handlers if isinstance(sock, Socket) and sock._owner is self._listener]
        for sock in self._left:
            if sock._heard > now - patience and self._is_idle(sock):
                self._newcomers[sock] = now + patience
        self._loop.object_callbacks[self] = self._look
        self._listener._retire()
        return self._look(*maps)

    def _look(self, *_maps: object) -> bool:
        now = self._loop.clock()
        if self._cut_at is None and self._deadline is not None and now >= self._deadline:
            self._cut_at = now
            self._cut()
        if self._cut_at is None:
            self._end_idle(now)
        else:
            self._end_all(self._cut_at, now)
        self._left = [sock for sock in self._left if not sock.closed]
        if all(map(_was_told, self._left)):
            self._linger(now)
        else:
            self._linger_until = None
        if self._listener.closed and not self._left and not self._handlers():
            self._finish()
        if not self.over:
            self._look_again(now)
        return True

    def _end_idle(self, now: float) -> None:
        for sock in self._left:
            if now >= self._newcomers.get(sock, now) and self._is_idle(sock):
                self._loop.call(sock, sock.finish)

    def _linger(self, now: float) -> None:
        """All that are left were told the end. Their late input is discarded for a while: it must not cost them
        the tail of a reply."""
        if self._linger_until is None:
            self._linger_until = now + self._listener.linger_seconds
        if now >= self._linger_until:
            self._close_all("the peer did not end its side")

    def _cut(self) -> None:
        """The time is up. Who is idle, or has only to end its side, loses nothing."""
        self._listener.close(self._reason)
        handlers = self._handlers()
        for sock in self._left:
            if self._is_idle(sock) or (_was_told(sock) and sock not in handlers):
                self._loop.call(sock, partial(sock.close, self._reason))
                handlers.pop(sock, None)
            else:
                self.cut_off.append(sock)
        self.cut_off += [sock for sock in handlers if sock not in self._left]
        for handler in self._handlers().values():
            handler.cancel(self._reason)

    def _end_all(self, since: float, now: float) -> None:
        """Close what no handler cleans up, and in the end what one does."""
        handlers = self._handlers()
        for sock in self._left:
            if sock not in handlers and not sock._finishing:
                self._loop.call(sock, partial(sock.close, self._reason))
        seconds = self._listener.clean_up_seconds
        if now >= since + seconds:
            self._close_all(self._reason)
            for handler in handlers.values():
                log.warning("%r goes on, %s s after it was cancelled: %s", handler, seconds, self._reason)
            self._finish()

    def _finish(self) -> None:
        if not self.over:
            self.over = True
            self._loop.object_callbacks.pop(self, None)
            self._newcomers.clear()
            if self._timer is not None:
                self._timer.cancel()
            for task in list(self.waiting):
                wake(task)

    def _look_again(self, now: float) -> None:
        """Have a turn when there will be something to do."""
        times = [*self._newcomers.values(), self._linger_until]
        times += [self._deadline] if self._cut_at is None else [self._cut_at + self._listener.clean_up_seconds]
        then = min((time for time in times if time is not None and time > now), default=None)
        if self._timer is not None and self._timer.active:
            if self._timer.deadline == then:
                return
            self._timer.cancel()
        if then is not None:
            self._timer = self._loop.timers.add(then, _do_nothing)

    # -- one connection

    def _handlers(self) -> dict[Socket, Handling]:
        """Those at work, also those of connections that are closed already."""
        tasks = scheduler(self._loop).tasks
        return {task.sock: task for task in tasks if isinstance(task, Handling) and task.sock._owner is self._listener}

    def _is_idle(self, sock: Socket) -> bool:
        return not sock.closed and not sock._finishing and bool(self._loop.call(sock, partial(getattr, sock, "idle")))

    def _close_all(self, reason: object) -> None:
        for sock in self._left:
            self._loop.call(sock, partial(sock.close, reason))


def _was_told(sock: Socket) -> bool:
    """Has it been sent everything, the end included?"""
    return sock.closed or (sock._finishing and sock._queue is None)


def _do_nothing() -> None:
    """A turn comes, and with it the look at its end."""


def _stop_waiting(drain: Drain, task: Waiter) -> None:
    with suppress(ValueError):
        drain.waiting.remove(task)


_DRAIN = Wait("drain", _stop_waiting)
