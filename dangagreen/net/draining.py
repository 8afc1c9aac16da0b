"""Graceful shutdown: accept what the kernel has queued, end idle connections, let the others finish, cut off the rest.

Rules: level-triggered: at the end of each turn a drain looks at its connections and does what is due; nothing has to
notify it. The first call begins it, and it goes on whether or not a task waits for it. Every wait for a peer or a
handler is bounded. What does not belong here: who asks for it (listener), signals (serve_forever).
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

from dangagreen.green.parking import park
from dangagreen.green.sched import scheduler
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.error_log import log
from dangagreen.loop.timers import Timer
from dangagreen.net.handler_task import HandlerTask
from dangagreen.sockets.sock import CallbackSocket

_EACH_TURN = 6  # connections that a drain looks at in each turn, at least
_ROUND_SECONDS = 0.04  # within so many seconds it looks at all of them


class Drain:
    """The graceful shutdown of one listener."""

    __slots__ = {
        "_cancelled": "Connection to handler's task, of the handlers that were cancelled.",
        "_cut_at": "When the grace was over and the rest was cut off; None before.",
        "_grace_ends": "When the grace is over; None is no limit.",
        "_left": "Connections that are to be ended, in the order of the next looks; some may have closed.",
        "_linger_until": "When peers that were all sent a FIN, and have not ended, are closed; None otherwise.",
        "_listener": "The listener; deleted at the end.",
        "_looked_at": "When it last looked at connections.",
        "_loop": "The loop.",
        "_reason": "The close reason of connections that are cut off.",
        "_spared": "Connection to the time until which a request may be on its way: not idle before that.",
        "_still_at_work": "Tasks of handlers that are left when all connections have closed; None before.",
        "_timer": "Makes a turn when something is due next; or None.",
        "_told": "How many connections in a row, of the last looks, had been sent everything and a FIN.",
        "cut_off": "The connections that were cut off.",
        "over": "Whether the server has ended.",
        "waiting": "The tasks that are parked in `drain`.",
    }

    def __init__(self, listener: Any) -> None:
        self._listener = listener
        self._loop = loop = listener.loop
        self._left: deque[CallbackSocket] = deque()
        self._told = 0
        self._looked_at = loop.clock()
        self._spared: dict[CallbackSocket, float] = {}
        self._grace_ends: float | None = None
        self._cut_at: float | None = None
        self._cancelled: dict[CallbackSocket, HandlerTask] = {}
        self._still_at_work: list[HandlerTask] | None = None
        self._linger_until: float | None = None
        self._reason = f"the grace of the drain of {listener!r} was over"
        self._timer: Timer | None = None
        self.cut_off: list[CallbackSocket] = []
        self.over = False
        self.waiting: dict[Waiter, None] = {}
        loop.object_callbacks[self] = self._begin
        loop.ready.append(_do_nothing)  # makes a turn, at whose end it begins

    def __repr__(self) -> str:
        return repr(self._listener) if not self.over else "a server that has ended"

    def wait(self, task: Waiter) -> None:
        """Have the task wait until the server has ended."""
        if not self.over:
            self.waiting[task] = None
            park(task, _DRAIN, self)

    def tighten(self, grace: float | None) -> None:
        """End the grace in `grace` seconds from now, if it would end later; None changes nothing."""
        if grace is not None and not self.over:
            deadline = self._loop.clock() + max(0.0, grace)
            self._grace_ends = deadline if self._grace_ends is None else min(self._grace_ends, deadline)
            self._loop.ready.append(_do_nothing)

    def add(self, connection: object) -> None:
        """A connection was accepted meanwhile: it is to be ended as well, after a grace for its first request."""
        if not isinstance(connection, CallbackSocket):  # it is not open yet
            return
        self._left.append(connection)
        self._told = 0
        connection._observe()
        self._spared[connection] = self._loop.clock() + self._listener.new_connection_grace

    # -- at the end of each turn

    def _begin(self, *maps: object) -> bool:
        """The first turn: collect the connections, and have the listener accept the rest and close."""
        now, patience = self._loop.clock(), self._listener.new_connection_grace
        for sock in self._loop.handlers.values():
            if isinstance(sock, CallbackSocket) and sock._is_of(self._listener):
                self._left.append(sock)
                sock._observe()
        for sock in list(self._left):
            if sock._was_active(patience) > now and self._is_idle(sock):
                self._spared[sock] = now + patience
        self._loop.object_callbacks[self] = self._step
        self._listener.stop_accepting()
        return self._step(*maps)

    def _step(self, *_maps: object) -> bool:
        """Each turn: do what is due. Returns True, as a post-loop callback: the loop goes on."""
        now = self._loop.clock()
        if self._cut_at is None and self._grace_ends is not None and now >= self._grace_ends:
            self._cut_at = now
            self._cut()
        self._look_at_some(now)
        if self._told >= len(self._left):
            self._linger_together(now)
        else:
            self._linger_until = None
        if self._cut_at is not None and now >= self._cut_at + self._listener.clean_up_seconds:
            self._give_up()
        elif self._listener.closed and not self._listener.connections and self._no_handler():
            self._conclude()
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
                self._cut_off(sock)
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
        if sock._owes_an_answer():  # it may wait for more of its request
            until = sock._was_active(self._listener.new_connection_grace)
            if now < until:
                self._spared[sock] = until
                return
        self._loop.call(sock, sock.finish)

    def _cut_off(self, sock: CallbackSocket) -> None:
        """Cut a connection off, unless a cancelled handler still cleans up."""
        handler = self._cancelled.get(sock)
        if not sock._is_over() and (handler is None or handler.done):
            self._loop.call(sock, partial(sock.close, self._reason))

    def _linger_together(self, now: float) -> None:
        """All connections that are left were sent a FIN: discard late input, and close them after `linger_seconds`.

        A lingering close: an RST could cost a peer the tail of its reply.
        """
        if self._linger_until is None:
            self._linger_until = now + self._listener.linger_seconds
        if now >= self._linger_until:
            for sock in self._left:  # after a stall of the process a FIN may be in the kernel, come in time
                if not sock.closed:
                    self._loop.call(sock, sock._hear_late)
            self._close_all("the peer did not end its side")

    def _cut(self) -> None:
        """The grace is over: close idle connections, and cut off the others; their handlers are cancelled."""
        self._listener.close(self._reason)
        if self._listener.openings is not None:
            self._listener.openings.close_all(self._reason)
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
        """The clean-up time is over: close the connections of handlers that still run, and end the drain."""
        self._close_all(self._reason)
        for handler in self._handlers().values():
            log().warning(
                "%r still runs %s s after it was cancelled: %s", handler, self._listener.clean_up_seconds, self._reason
            )
        self._conclude()

    def _conclude(self) -> None:
        """The server has ended: wake the tasks in `drain`, and drop all references."""
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
            for sock in self.cut_off:  # kept for later calls of `drain`; with their listener they would be a cycle
                sock._set_listener(None)
            del self._listener

    def _look_again(self, now: float) -> None:
        """Set a timer for the time when something will be due, so that there is a turn then."""
        times = [self._linger_until]
        times += [self._grace_ends] if self._cut_at is None else [self._cut_at + self._listener.clean_up_seconds]
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
        """Connection to the task of its handler, of all handlers that run, also of closed connections."""
        tasks = [task for task in scheduler(self._loop).tasks if isinstance(task, HandlerTask)]
        return {task.sock: task for task in tasks if task.sock._is_of(self._listener)}

    def _no_handler(self) -> bool:
        """Whether all handlers have ended. Called when no connection is left, so that no handler can start."""
        if self._still_at_work is None:
            self._still_at_work = list(self._handlers().values())
        while self._still_at_work and self._still_at_work[-1].done:
            self._still_at_work.pop()
        return not self._still_at_work

    def _is_idle(self, sock: CallbackSocket) -> bool:
        """The `idle` of an open connection; False if that raises, which is reported and closes the connection."""
        if sock._is_over():
            return False
        if type(sock).idle is CallbackSocket.idle:  # not overridden: it raises nothing
            return bool(sock.idle)
        try:  # `Loop.call`, inlined: there may be very many
            return bool(sock._run(getattr, sock, "idle"))
        except Exception as error:
            self._loop.handler_failed(sock, error)
            return False

    def _close_all(self, reason: object) -> None:
        for sock in self._left:
            self._loop.call(sock, partial(sock.close, reason))


def _eof_sent(sock: CallbackSocket) -> bool:
    """Whether everything was sent to the peer, the FIN included."""
    return sock.closed or sock._is_fin_sent()


def _do_nothing() -> None:
    """A call that makes a turn, at whose end the drain looks at its connections."""


def _stop_waiting(drain: Drain, task: Waiter) -> None:
    drain.waiting.pop(task, None)


_DRAIN = WaitKind("drain", _stop_waiting)
