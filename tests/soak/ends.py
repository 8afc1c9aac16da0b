"""Random programs about the end of a connection, against the table of `dangagreen.sockets.states`.

One connection is observed: calls of both styles, from callbacks, hooks, queued callables and tasks; a peer that sends,
stops, resets; refusals of the kernel and of the poller; time that passes; a drain. After each call, before each system
call and each hook, and at the end of each turn its state is read off the slots: it has to be one of the legal ones, and
what led there from the one before has to stand in the table. `seen` counts what was met, so that a table which says
more than happens is found as well.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from functools import partial
from random import Random
from typing import Any

import dangagreen as d
from dangagreen.green.sched import scheduler
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import available_pollers
from dangagreen.testing import no_leaks, wire
from dangagreen.testing.clock import VirtualClock, VirtualPoller
from tests.connections import tcp_ends
from tests.soak import describe
from tests.soak.observing import Observer, Seen
from tests.soak.refusing import OsSocket, Poller
from tests.soak.steps import PARKING, PLOTS, STEPS, WEIGHTS, Oops, Steps

REASONS = {  # of those ends that come from inside: part of what they say, and the cause that is meant
    "its lifetime of": "lifetime",
    "the peer was idle for": "idle_timeout",
    " s after finish()": "linger_seconds",
    "bytes after finish()": "linger_bytes",
    "the peer reads too slowly": "max_unsent",
    "the grace of the drain": "a drain",
    "the peer did not end its side!": "a drain",
}


class Observed(d.Socket):
    """The connection that is looked at. Its hooks do what the program makes of them."""

    __slots__ = ("program",)
    high_water, low_water = 3000, 1000
    linger_seconds, linger_bytes = 2.0, 3000

    def __init__(self, sock: Any, program: Program) -> None:
        super().__init__(sock)
        self.program = program
        program.sock = program.observer.sock = self
        program.observer.look("at the beginning")

    def event_read(self) -> None:
        self.program.hook("event_read", self.program.on_read)

    def event_write(self) -> None:
        self.program.hook("event_write", super().event_write)

    def event_hup(self) -> None:
        self.program.hook("event_hup", super().event_hup)

    def event_err(self) -> None:
        self.program.hook("event_err", super().event_err)

    def on_incomplete_write(self) -> None:
        self.program.hook("on_incomplete_write", lambda: None)

    def on_high_water(self) -> None:
        self.program.hook("on_high_water", lambda: None)

    def on_low_water(self) -> None:
        self.program.hook("on_low_water", lambda: None)

    def finish(self) -> None:
        with self.program.observer.during("finish()"):
            super().finish()
            self.program.observer.look("finished")

    def close(self, reason: object = None) -> None:
        words = f"{reason}!"
        causes = [cause for part, cause in REASONS.items() if part in words]
        if isinstance(reason, BaseException) and not isinstance(reason, OSError):
            causes.append("it raised")
        before = self.program.observer.before
        if not self.unsent and (before["life"], before["write"]) == ("finishing", "shutting"):
            causes.append("the queue has left")
        if self.loop.current in self.program.leaving:
            causes.append("the end of a block")
        self.program.observer.causes += causes
        with self.program.observer.during("it closes"):
            super().close(reason)
            self.program.observer.look("closed")


class Limited(Observed):
    """One whose time and queue are limited."""

    __slots__ = ()
    idle_timeout, lifetime, max_unsent = 3.0, 20.0, 6000


class Program(Steps):
    """One connection, and what happens to it."""

    def __init__(self, random: Random, loop: Loop, ends: tuple[Any, Any], observer: Observer) -> None:
        self.random, self.loop, self.observer = random, loop, observer
        self.near, self.far = ends
        self.os_socket = OsSocket(self.near, observer, random)
        self.poller = loop.poller = Poller(loop.poller, observer)  # type: ignore[assignment]
        self.left = random.randrange(5, 60)
        self.plot = list(random.choice(PLOTS)) if random.random() < 0.4 else []
        self.depth = 0
        self.called_hooks: Counter[str] = Counter()
        self.leaving: list[Any] = []  # tasks at the end of their blocks
        self.tasks: list[d.Task[None]] = []
        self.stolen: Any = None
        self.served = False
        self.listener: Any = None
        self.sock: Any = None
        self.begin()

    def begin(self) -> None:
        """In callback style, in tasks, or as a connection of a server."""
        make = partial(self.random.choice([Observed, Limited]), program=self)
        kind = self.random.choice(["callbacks", "tasks", "serve", "serve_requests"])
        if kind.startswith("serve"):
            self.served = kind == "serve_requests"
            serve = d.serve_requests if self.served else d.serve
            self.listener = serve(("127.0.0.1", 0), self.handler, socket_class=make, nodelay=False, loop=self.loop)
            self.listener.set_up(self.os_socket)
        else:
            make(self.os_socket)
            if kind == "callbacks":
                self.sock.watch_read(True)

    # -- how it goes on

    def turn(self) -> bool:
        """At the end of each turn: some steps. Is the program over?"""
        self.observer.causes.append("the turn ends")
        self.observer.look("at the end of a turn", at_rest=True)
        if self.left <= 0:
            return True
        if self.sock.closed:
            self.left = min(self.left, 3)
        if self.plot:
            self.plot.pop(0)(self)
        elif self.random.random() < 0.7:
            self.step()
        return False

    def step(self) -> None:
        self.left -= 1
        self.random.choices(STEPS, WEIGHTS)[0](self)

    def on_read(self) -> None:
        if self.served and self.random.random() < 0.9:
            d.Socket.event_read(self.sock)
            return
        self.random.choice([Steps.read, Steps.read, Steps.read_into, Steps.in_place])(self)

    def handler(self, sock: Any) -> None:
        """What a task does: some calls of sequential style, and perhaps it fails."""
        for _ in range(self.random.randrange(1, 4)):
            self.random.choice(PARKING)(self)
            if self.random.random() < 0.2:
                self.in_place()
        if self.random.random() < 0.1:
            self.observer.causes.append("it raised")
            raise Oops("a handler")
        self.observer.look("a handler ends")
        self.observer.causes.append("a handler has ended")

    def end(self) -> None:
        """Nothing is left behind."""
        self.loop.poller = self.poller.poller
        self.observer.causes.append("the turn ends")
        self.observer.look("at the end")
        self.observer.sock = None
        for task in [*scheduler(self.loop).tasks]:
            task.cancel()
        if self.listener is not None:
            self.listener.close()
        self.sock.close()
        for end in (self.far, self.near):
            end.close()


def _in_memory(random: Random) -> tuple[Any, Any]:
    return wire(random.choice([100, 5000, 65536]), family=random.choice([socket.AF_INET, socket.AF_UNIX]))


def _real(random: Random) -> tuple[Any, Any]:
    """TCP over loopback or a pair of Unix sockets, with small buffers."""
    ends = socket.socketpair() if random.random() < 0.5 else tcp_ends(buffers=5000)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 5000)
    return ends


def once(seed: int, seen: Seen | None = None, real: bool | None = None) -> list[str]:
    """One program, which follows from the seed but for what the kernel's timing makes of it. What is wrong, in words.

    Time passes when the program says so, also over real sockets.
    """
    random = Random(seed)
    in_memory = random.random() < 0.7 if real is None else not real
    poller = random.choice(available_pollers())()
    clock = VirtualClock()
    loop = Loop(clock=clock, poller=VirtualPoller(clock, poller) if in_memory else poller)
    loop.deadlock_seconds = None
    loop.loop_timeout = 0
    ends = _in_memory(random) if in_memory else _real(random)
    observer = Observer(seen if seen is not None else Seen())
    where = f"program {seed}, {'in memory' if in_memory else type(poller).__name__}, {type(ends[0]).__name__}"
    try:
        with loop, no_leaks(loop) as check:
            program = Program(random, loop, ends, observer)
            try:
                loop.run(program.turn)
            finally:
                program.end()
            settle(loop, clock)
            if not observer.wrong:
                observer.wrong += [str(context) for context in check.errors if not is_expected(context.exception)]
            check.errors.clear()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        observer.wrong.append(describe(error))
    finally:
        for end in ends:
            end.close()
    return [f"{where}: {wrong}" for wrong in observer.wrong[:3]]


def settle(loop: Loop, clock: VirtualClock) -> None:
    """Some turns more, in which time passes, so that what is pending comes to its end."""
    turns = iter(range(10))

    def turn() -> bool:
        clock.jump(1.0)
        return next(turns, None) is None

    loop.run(turn)


def is_expected(error: BaseException | None) -> bool:
    """Is it one that the program itself has raised, or the kernel?"""
    if isinstance(error, OSError) and error.errno == errno.EBADF:
        return False
    return isinstance(error, (Oops, OSError, EOFError, d.LimitError, d.BusyError))
