"""Lints of turns: callbacks that are called for nothing, and callbacks that have themselves called again and again.

Rules: at the end of a turn its events are compared with those of the turns before; a closer look is taken only at what
was ready in very many turns in a row; it takes no input, and costs no error of the kernel's. What does not belong here:
tasks that run (lint_tasks).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from itertools import islice
from types import FunctionType, MethodType
from typing import Any

from dangagreen.errors import connection
from dangagreen.introspect.linting import Findings, LintReport, Patches
from dangagreen.loop.handlers import FdHandler, Handler
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import READ, WRITE
from dangagreen.net.sock import Socket
from dangagreen.places import named, place_of, unwrapped
from dangagreen.sockets.kernel import bytes_read, traffic, unread
from dangagreen.sockets.sock import CallbackSocket

SPINS = 1000  # turns in a row in which a descriptor was ready, and nothing was done about it
CALLS = 1000  # turns without an event, at whose end the same callback is queued again,
CALL_SECONDS = 1.0  # within at least so many seconds,
CALL_RUN = 100e-6  # in each of which less than so many seconds were spent
SWEEP_SECONDS = 5.0  # between two looks at locks, queues and tasks
_SUSPICIOUS = SPINS // 2  # turns, after which it is observed whether anything is done about it
_FEW = 8  # queued calls that are looked at


class _Spin:
    """A descriptor that has been ready for very many turns."""

    __slots__ = {
        "handler": "What is called.",
        "mark": "Of a socket: what is replaced when input is received. None of anything else.",
        "read": "How many bytes were read from its TCP connection; None if it is something else.",
        "sent": "How many bytes were sent on its connection; None if that is not known.",
        "unread": "How much input there is; -1: its end; 0: none, or not known.",
    }

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.mark = handler._mark() if isinstance(handler, CallbackSocket) else None
        self.read = bytes_read(handler.fd)
        self.sent = _sent(handler)
        self.unread = _unread(handler)

    def is_silent(self) -> bool:
        """Whether nothing was received since the mark."""
        return self.mark is None or not self.handler._has_heard_since(self.mark)  # type: ignore[attr-defined]

    def may_read_nothing(self, handler: Handler) -> bool:
        """Whether this handler, which is ready now, may have read nothing since this was made."""
        if handler is not self.handler or not self.is_silent():
            return False
        return not isinstance(handler, CallbackSocket) or handler._hears_by_event_read()

    def reads_nothing(self) -> bool:
        """Whether that is certain, as far as the kernel tells."""
        if self.read is not None:
            return bytes_read(self.handler.fd) == self.read
        before, self.unread = self.unread, _unread(self.handler)
        return self.mark is not None and self.unread >= before and self.unread != 0


class TurnLints:
    """What is noted of the turns of one loop."""

    def __init__(
        self,
        loop: Loop,
        findings: Findings,
        idle: IdleSockets,
        sweep: Callable[[Loop, float], object],
        look_later: Callable[[Loop], object],
    ) -> None:
        self._findings = findings
        self._idle = idle
        self._sweep = sweep
        self._look_later = look_later
        self._is_over = False
        self._swept = loop.clock()
        self._streaks: dict[tuple[int, int], int] = {}  # event to the number of turns in a row that have had it
        self._spins: dict[tuple[int, int], _Spin] = {}
        self._call: Any = None  # the callback that was queued at the end of the last turn
        self._since = self._busy = 0.0  # for how long it is so, and the seconds of work in turns without an event
        self._turns = 0  # turns without an event, meanwhile
        self._before = loop.after_turn
        loop.after_turn = self.turned

    def close(self, loop: Loop) -> None:
        """Look at its turns no more."""
        self._is_over = True
        if loop.after_turn == self.turned:
            loop.after_turn = self._before

    def turned(self, loop: Loop) -> None:
        """A turn is over."""
        if self._before is not None:
            self._before(loop)
        if self._is_over:  # something else was put before it meanwhile
            return
        if loop.batch or self._streaks:
            self._count_events(loop)
        if loop.ready or loop.timers.heap or self._call is not None:
            self._count_calls(loop)
        if loop.now - self._swept >= SWEEP_SECONDS:
            self._swept = loop.now
            self._sweep(loop, loop.now)
        self._look_later(loop)

    # -- events

    def _count_events(self, loop: Loop) -> None:
        before, self._streaks = self._streaks, {}
        for event in loop.batch:
            count = self._streaks[event] = before.get(event, 0) + 1
            if count >= _SUSPICIOUS:
                handler = loop.handlers.get(event[0])
                if handler is None or not self._look(loop, handler, event, count):
                    self._streaks[event] = 0
                    self._end(event)
        for event in [event for event in self._spins if event not in self._streaks]:
            self._end(event)

    def _end(self, event: tuple[int, int]) -> None:
        """Something was done about it."""
        if (spin := self._spins.pop(event, None)) is not None:
            self._idle.forget(spin)

    def _look(self, loop: Loop, handler: Handler, event: tuple[int, int], count: int) -> bool:
        """Look at a handler whose descriptor was ready in so many turns. Returns whether it is still suspicious."""
        reads = bool(event[1] & READ)
        if (spin := self._spins.get(event)) is None:
            if not (_may_read_nothing(handler) if reads else _may_write_nothing(handler)):
                return False
            spin = self._spins[event] = _Spin(handler)
            self._idle.suspect(spin, reads)
            return True
        if reads:
            if not spin.may_read_nothing(handler):
                return False
        elif not (_may_write_nothing(handler) and self._idle.writes_nothing(handler)):
            return False
        if count < SPINS:
            return True
        if not reads and spin.sent == _sent(handler):
            did = "writes nothing; watch_write(False) would end that, and write() does without"
            self._tell_of_hook(loop, handler, "event_write", did)
        elif reads and spin.reads_nothing():
            self._tell_of_hook(loop, handler, "event_read", "has read nothing, though there is input, or its end")
        return False

    def _tell_of_hook(self, loop: Loop, handler: Handler, hook: str, did: str) -> None:
        what = f"{_hook_of(handler, hook)} was called {SPINS} times in a row, and {did}"
        self._findings.add(loop, LintReport("idle-wake", what, place_of(handler._code_behind(hook)), handler))

    # -- calls

    def _count_calls(self, loop: Loop) -> None:
        queued = [unwrapped(call) for call in islice(loop.ready, _FEW)] or _timers_due(loop)
        if self._call is None or not any(_is_same(call, self._call) for call in queued):
            self._call = next((call for call in queued if isinstance(call, (FunctionType, MethodType))), None)
            self._since, self._turns, self._busy = loop.now, 0, 0.0
        elif not loop.batch:
            self._turns += 1
            self._busy += loop.looked - loop.now
            if self._turns >= CALLS and loop.now - self._since >= CALL_SECONDS:
                if self._busy < self._turns * CALL_RUN:
                    self._tell_of_call(loop)
                self._call = None

    def _tell_of_call(self, loop: Loop) -> None:
        what = (
            f"the callback {named(self._call)} calls itself: {self._turns} turns of the loop in"
            f" {loop.now - self._since:.1f} s were made for it alone, and did next to nothing"
        )
        self._findings.add(loop, LintReport("self-wake", what, place_of(self._call), self._call))


class IdleSockets:
    """Sockets under suspicion, of all loops: whether they receive, and whether anything is written to them."""

    def __init__(self, patches: Patches) -> None:
        self._readers: dict[Handler, _Spin] = {}
        self._writers: set[Handler] = set()
        for name in ("_was_at_work", "_has_worked"):
            patches.put(Socket, name, partial(_keep_mark, self._readers))
        for name in ("write", "_enqueue"):
            patches.put(Socket, name, partial(_note_write, self._writers))

    def suspect(self, spin: _Spin, reads: bool) -> None:
        """Observe the socket from now on, if it is one."""
        if not isinstance(spin.handler, CallbackSocket):
            return
        if reads:
            self._readers[spin.handler] = spin
        else:
            self._writers.add(spin.handler)

    def writes_nothing(self, handler: Handler) -> bool:
        """Whether nothing was written to it since then."""
        return handler in self._writers

    def forget(self, spin: _Spin) -> None:
        """Observe it no more."""
        self._readers.pop(spin.handler, None)
        self._writers.discard(spin.handler)


def _keep_mark(readers: dict[Handler, _Spin], original: Callable[..., Any]) -> Callable[..., Any]:
    """A callback's own work restarts the idle clock, and is no input."""

    def note(self: CallbackSocket) -> None:
        spin = readers.get(self)
        silent = spin is not None and spin.is_silent()
        original(self)
        if silent and spin is not None:
            spin.mark = self._mark()

    return note


def _note_write(writers: set[Handler], original: Callable[..., Any]) -> Callable[..., Any]:
    def write(self: CallbackSocket, data: Any) -> Any:
        if writers:
            writers.discard(self)
        return original(self, data)

    return write


def _may_read_nothing(handler: Handler) -> bool:
    """Whether its callback is to read, or its task; not that of a listening socket, which accepts."""
    if not isinstance(handler, CallbackSocket):
        return type(handler) is FdHandler
    return handler._hears_by_event_read() and not handler.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def _may_write_nothing(handler: Handler) -> bool:
    """Whether its `event_write` is called though nothing is queued."""
    return isinstance(handler, CallbackSocket) and handler._is_sent() and bool(handler._interest() & WRITE)


def _unread(handler: Handler) -> int:
    """How many bytes of input the kernel has; 1 where it cannot tell how many; -1: the end; 0: none, or not known."""
    size = unread(handler.fd)
    if size or not isinstance(handler, CallbackSocket) or handler._speaks_tls():  # to peek would make TLS decrypt
        return size
    there = handler._peek()
    return -1 if there is None else there


def _sent(handler: Handler) -> int | None:
    passed = traffic(handler)
    return None if passed is None else passed.sent


def _hook_of(handler: Handler, hook: str) -> str:
    if not isinstance(handler, CallbackSocket):
        return f"the callback of fd {handler.fd}"
    return f"{hook} of {type(handler).__name__}, {connection(handler)},"


def _timers_due(loop: Loop) -> list[Any]:
    """The callback of the next timer, if that is due already."""
    deadline = loop.timers.next_deadline()
    if deadline is None or deadline > loop.clock():
        return []
    return [loop.timers.by_number[loop.timers.heap[0][1]].callback]


def _is_same(call: Any, other: Any) -> bool:
    """Whether two calls are of one method of one object, or of one function, though it was made anew."""
    if isinstance(call, FunctionType) and isinstance(other, FunctionType):
        return call.__code__ is other.__code__
    return isinstance(call, MethodType) and call == other
