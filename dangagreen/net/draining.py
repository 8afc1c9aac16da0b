"""How a server ends: what waits is accepted, what is idle is ended, what is at work may finish, the rest is cut off.

Rules: at the end of each turn it looks at what is there and does what is due, and nobody needs to tell it of any
change; the first to ask for a drain begins it, and it goes on whether or not anybody waits for it; every wait for a
peer or a handler is bounded. What does not belong here: signals, and what a program does after its server has ended.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from dangagreen import checks
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.sched import Waiter, WaitKind, scheduler, wake
from dangagreen.loop.loop import Loop
from dangagreen.loop.timers import Timer
from dangagreen.net.handler_task import HandlerTask
from dangagreen.parks import parks
from dangagreen.sockets.listener import Acceptor
from dangagreen.sockets.sock import CallbackSocket
from dangagreen.sockets.states import OBSERVED, OWES

log = logging.getLogger("dangagreen")

_EACH_TURN = 6  # connections that a drain looks at in each turn at least,
_ROUND_SECONDS = 0.04  # and within how many seconds at all of them


class Listener(Acceptor):
    """Accepts connections, and can end in order: what `serve` and `serve_requests` return.

    Class attributes, in seconds: `new_connection_grace` (how long a drain waits for a request of a connection from
    which one may be on its way), `linger_seconds` (how long for peers that it has told the end), `clean_up_seconds`
    (how long for handlers that it has cancelled).
    """

    __slots__ = {
        "_drain": "Its graceful shutdown, under way or over; None before one has begun.",
        "_on_failure": "What the `serve_forever` that it is in wants called when it can accept no more.",
        "_on_stop": "What the `serve_forever` that it is in wants called by `stop()`; None while it is in none.",
        "_stops": "How often `stop()` was called while it was in none.",
        "handler": "The function that `serve_requests` was given; None for `serve`.",
    }

    new_connection_grace: ClassVar[float] = 0.25
    linger_seconds: ClassVar[float] = 1.0
    clean_up_seconds: ClassVar[float] = 5.0

    def __init__(
        self,
        sock: Any,
        connected: Callable[[Any, Any], object],
        *,
        max_connections: int | None = None,
        nodelay: bool = True,
        handler: Callable[[Any], object] | None = None,
        loop: Loop | None = None,
    ) -> None:
        for name in ("new_connection_grace", "linger_seconds", "clean_up_seconds"):
            checks.seconds(f"Listener.{name}", getattr(self, name))
        self.handler = handler  # what its connections start when they have input, if anything
        self._drain: Drain | None = None
        self._on_stop: Callable[[], object] | None = None
        self._on_failure: Callable[[], object] | None = None
        self._stops = 0
        Acceptor.__init__(self, sock, connected, max_connections=max_connections, nodelay=nodelay, loop=loop)

    @property
    def draining(self) -> bool:
        """Has a drain begun? A handler may tell its peer, as HTTP does by `Connection: close`."""
        return self._drain is not None

    @parks
    def drain(self, grace: float | None = 30.0) -> list[CallbackSocket]:
        """Parks until the server has ended, in a graceful shutdown; returns the connections that were cut off.

        Accepts what is in the kernel's queue and nothing more, ends idle connections and, once they are idle, those
        that are at work. What is left after `grace` seconds (None is no limit) is cut off: its handler is cancelled
        and its clean-up waited for. Once begun it goes on, also if the caller is cancelled; several have the earliest
        of their deadlines and the same result. Raises RuntimeError in a handler of one of its own connections.
        """
        me = checkpoint(self.loop, "drain")
        if isinstance(me, HandlerTask) and me.sock._listener is self:
            raise RuntimeError(f"{me!r} cannot drain {self!r}, which waits for its handlers: spawn(listener.drain)")
        drain = self._begin_drain(grace)
        if not drain.over:
            drain.waiting[me] = None
            park(me, _DRAIN, drain)
        return list(drain.cut_off)

    def stop(self) -> None:
        """End the `serve_forever` that this listener is in, or comes to be in, as a signal does. From any thread."""
        self.loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._on_stop is not None:
            self._on_stop()
        else:
            self._stops += 1

    def _on_close(self) -> None:
        super()._on_close()
        if isinstance(self.close_reason, BaseException) and self._on_failure is not None:
            self.loop.ready.append(self._on_failure)

    def _begin_drain(self, grace: float | None) -> Drain:
        if grace is not None:
            grace = checks.seconds("the grace of a drain", grace)
        drain = self._drain
        if drain is None or not (drain.over or drain in self.loop.object_callbacks):  # a reset of the loop forgets it
            drain = self._drain = Drain(self)
            self.tell_of_connections(drain.add)
        drain.tighten(grace)
        return drain


class Drain:
    """One listener's end, under way. `cut_off` are the connections for which it came too early."""

    __slots__ = (
        "_cancelled", "_cut_at", "_deadline", "_left", "_linger_until", "_listener", "_loop", "_looked_at", "_reason",
        "_spared", "_still_at_work", "_timer", "_told", "cut_off", "over", "waiting",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = loop = listener.loop
        self._left: deque[CallbackSocket] = deque()  # in the order in which they are looked at; some may have closed
        self._told = 0  # how many in a row were found to have been told the end
        self._looked_at = loop.clock()
        self._spared: dict[CallbackSocket, float] = {}  # until when more of a request may be on its way
        self._deadline: float | None = None
        self._cut_at: float | None = None
        self._cancelled: dict[CallbackSocket, HandlerTask] = {}  # whose time was up
        self._still_at_work: list[HandlerTask] | None = None  # handlers, when all connections have closed
        self._linger_until: float | None = None
        self._reason = f"the time of the drain of {listener!r} was up"
        self._timer: Timer | None = None
        self.cut_off: list[CallbackSocket] = []
        self.over = False
        self.waiting: dict[Waiter, None] = {}
        loop.object_callbacks[self] = self._begin
        loop.ready.append(_do_nothing)  # so that there is a turn, at whose end it begins

    def __repr__(self) -> str:
        return repr(self._listener) if not self.over else "a server that has ended"

    def tighten(self, grace: float | None) -> None:
        """Let it take no longer than `grace` seconds from now."""
        if grace is not None and not self.over:
            deadline = self._loop.clock() + max(0.0, grace)
            self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
            self._loop.ready.append(_do_nothing)

    def add(self, connection: CallbackSocket) -> None:
        """One that was accepted meanwhile."""
        self._left.append(connection)
        self._told = 0
        self._observe(connection)
        self._spared[connection] = self._loop.clock() + self._listener.new_connection_grace

    def _observe(self, sock: CallbackSocket) -> None:
        if not sock._write_closed:
            sock._write_closed = OBSERVED

    # -- at the end of each turn

    def _begin(self, *maps: object) -> bool:
        now, patience = self._loop.clock(), self._listener.new_connection_grace
        for sock in self._loop.handlers.values():
            if isinstance(sock, CallbackSocket) and sock._listener is self._listener:
                self._left.append(sock)
                self._observe(sock)
        for sock in list(self._left):
            if sock._last_activity > now - patience and self._is_idle(sock):
                self._spared[sock] = now + patience
        self._loop.object_callbacks[self] = self._step
        self._listener._stop_accepting()
        return self._step(*maps)

    def _step(self, *_maps: object) -> bool:
        now = self._loop.clock()
        if self._cut_at is None and self._deadline is not None and now >= self._deadline:
            self._cut_at = now
            self._cut()
        self._look_at_some(now)
        if self._told >= len(self._left):
            self._linger(now)
        else:
            self._linger_until = None
        if self._cut_at is not None and now >= self._cut_at + self._listener.clean_up_seconds:
            self._give_up()
        elif self._listener.closed and not self._listener.connections and self._no_handler():
            self._finish()
        if not self.over:
            self._look_again(now)
        return True

    def _look_at_some(self, now: float) -> None:
        """At a few of the connections, and at each of them within 40 ms: so a turn costs little however many there are,
        and whatever ends a connection's work, nobody needs to tell of it."""
        left = self._left
        share = int(len(left) * (now - self._looked_at) / _ROUND_SECONDS)
        self._looked_at = now
        for _ in range(min(len(left), share + _EACH_TURN)):
            sock = left.popleft()
            if self._cut_at is not None:
                self._end(sock)
            elif not sock.closed:
                self._end_if_idle(sock, now)
            if sock.closed:
                self._spared.pop(sock, None)
                continue
            left.append(sock)
            self._told = self._told + 1 if _eof_sent(sock) else 0

    def _end_if_idle(self, sock: CallbackSocket, now: float) -> None:
        if now < self._spared.get(sock, now) or not self._is_idle(sock):
            return
        if sock._write_closed & OWES and sock._sequential == 2:  # it may wait for more of its request
            until = sock._last_activity + self._listener.new_connection_grace
            if now < until:
                self._spared[sock] = until
                return
        self._loop.call(sock, sock.finish)

    def _end(self, sock: CallbackSocket) -> None:
        """Close what no handler cleans up."""
        handler = self._cancelled.get(sock)
        if not sock.closed and not sock._finishing and (handler is None or handler.done):
            self._loop.call(sock, partial(sock.close, self._reason))

    def _linger(self, now: float) -> None:
        """All that are left were told the end. Their late input is discarded for a while: it must not cost them
        the tail of a reply."""
        if self._linger_until is None:
            self._linger_until = now + self._listener.linger_seconds
        if now >= self._linger_until:
            for sock in self._left:  # after a stall their ends may lie in the kernel, and have come in time
                if not sock.closed:
                    self._loop.call(sock, sock._hear_late)
            self._close_all("the peer did not end its side")

    def _cut(self) -> None:
        """The time is up. Who is idle, or has only to end its side, loses nothing."""
        self._listener.close(self._reason)
        handlers = self._handlers()
        for sock in self._left:
            if sock.closed:
                continue
            if self._is_idle(sock) or (_eof_sent(sock) and sock not in handlers):
                self._loop.call(sock, partial(sock.close, self._reason))
                handlers.pop(sock, None)
            else:
                self.cut_off.append(sock)
        left = set(self.cut_off)
        self.cut_off += [sock for sock in handlers if sock not in left]
        self._cancelled = self._handlers()
        for handler in self._cancelled.values():
            handler.cancel(self._reason)

    def _give_up(self) -> None:
        """Close also what a handler still cleans up."""
        self._close_all(self._reason)
        for handler in self._handlers().values():
            log.warning(
                "%r goes on, %s s after it was cancelled: %s", handler, self._listener.clean_up_seconds, self._reason
            )
        self._finish()

    def _finish(self) -> None:
        if not self.over:
            self.over = True
            self._loop.object_callbacks.pop(self, None)
            self._spared.clear()
            self._cancelled.clear()
            self._left.clear()
            self._still_at_work = None
            if self._timer is not None:
                self._timer.cancel()
            for task in list(self.waiting):
                wake(task)
            for sock in self.cut_off:  # they are kept for whoever asks, by this, and this by the listener
                sock._listener = None
            del self._listener

    def _look_again(self, now: float) -> None:
        """Have a turn when there will be something to do."""
        times = [self._linger_until]
        times += [self._deadline] if self._cut_at is None else [self._cut_at + self._listener.clean_up_seconds]
        if len(self._left) > _EACH_TURN:
            times.append(now + _ROUND_SECONDS / 4)
        else:
            times += self._spared.values()
        then = min((time for time in times if time is not None and time > now), default=None)
        if self._timer is not None and self._timer.active:
            if then is not None and now < self._timer.deadline <= then:
                return
            self._timer.cancel()
        if then is not None:
            self._timer = self._loop.timers.add(then, _do_nothing)

    # -- one connection

    def _handlers(self) -> dict[CallbackSocket, HandlerTask]:
        """Those at work, also those of connections that are closed already."""
        tasks = [task for task in scheduler(self._loop).tasks if isinstance(task, HandlerTask)]
        return {task.sock: task for task in tasks if task.sock._listener is self._listener}

    def _no_handler(self) -> bool:
        """Have the handlers ended? To be asked when there are no connections any more, so that none can begin."""
        if self._still_at_work is None:
            self._still_at_work = list(self._handlers().values())
        while self._still_at_work and self._still_at_work[-1].done:
            self._still_at_work.pop()
        return not self._still_at_work

    def _is_idle(self, sock: CallbackSocket) -> bool:
        if sock.closed or sock._finishing:
            return False
        if type(sock).idle is CallbackSocket.idle:  # of which it is known that it raises nothing
            return bool(sock.idle)
        try:  # `Loop.call`, in line: there may be very many
            return bool(sock._context.run(getattr, sock, "idle"))
        except Exception as error:
            self._loop.handler_failed(sock, error)
            return False

    def _close_all(self, reason: object) -> None:
        for sock in self._left:
            self._loop.call(sock, partial(sock.close, reason))


def _eof_sent(sock: CallbackSocket) -> bool:
    """Has it been sent everything, the end included?"""
    return sock.closed or (sock._finishing and sock._queue is None)


def _do_nothing() -> None:
    """A turn comes, and with it the look at its end."""


def _stop_waiting(drain: Drain, task: Waiter) -> None:
    drain.waiting.pop(task, None)


_DRAIN = WaitKind("drain", _stop_waiting)
