"""What may happen to a connection: calls of both styles, what its peer does, refusals, and time.

Rules: a step never fails, whatever the call raises; one that never waits may be taken anywhere, in hooks and queued
callables too. What does not belong here: which step is next, and what must hold after it.
"""

from __future__ import annotations

import contextlib
import errno
import math
import socket
import struct
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import dangagreen as d
from dangagreen.loop.loop import Loop
from dangagreen.testing import WireEnd
from tests.soak.observing import Observer
from tests.soak.refusing import REFUSALS, OsSocket, Poller

MOST_CALLS = {"event_err": 1, "event_hup": 2}  # the second one after read() has answered None


class Oops(Exception):
    """What hooks, callables and handlers of a program raise."""


class Steps:
    """The steps of one program, each a method."""

    random: Random
    loop: Loop
    observer: Observer
    os_socket: OsSocket
    poller: Poller
    sock: Any
    far: Any  # the peer
    listener: Any
    stolen: Any
    tasks: list[d.Task[None]]
    leaving: list[Any]  # tasks at the end of their blocks
    depth: int  # of hooks within hooks
    called_hooks: Counter[str]
    planned: Callable[[Any], None] | None = None  # for the next hook

    def call(self, name: str, *args: Any) -> Any:
        """Call a method of the socket, in whatever place."""
        return self.do(f"{name}()", lambda: getattr(self.sock, name)(*args))

    def do(self, cause: str, call: Callable[[], Any], parks: bool = False) -> Any:
        with self.observer.during(cause) if not parks else contextlib.nullcontext():
            try:
                return call()
            except (OSError, d.BusyError, d.LimitError, EOFError, d.CannotParkError, Oops) as error:
                if isinstance(error, Oops):
                    self.observer.causes.append("it raised")
                return None
            finally:
                if parks:
                    self.observer.causes.append(cause)
                self.observer.look(cause)

    def hook(self, name: str, usual: Callable[[], Any]) -> None:
        """Called by the library: what is usual, and now and then something else, or an error."""
        before = list(self.observer.causes)
        self.observer.look(f"in {name}")
        self.called_hooks[name] += 1
        if self.called_hooks[name] > MOST_CALLS.get(name, math.inf):
            self.observer.wrong.append(f"{name} is called once more")
        self.depth += 1
        try:
            with self.observer.during(name):
                if self.planned is not None:
                    (act, self.planned) = self.planned, None
                    act(self)
                elif self.depth < 4 and self.random.random() < 0.15:
                    self.in_place()
                if self.random.random() < 0.03:
                    raise Oops(name)
                if self.random.random() < 0.9:
                    usual()
                self.observer.look(f"after {name}")
        except Oops:
            self.observer.causes.append("it raised")
            raise
        finally:
            self.depth -= 1
            self.observer.causes += before  # which may have effects still

    def in_place(self) -> None:
        """A step amid a call of the library's."""
        act = self.random.choice(ANYWHERE)
        act(self)

    # -- calls that never wait

    def size(self) -> int:
        return self.random.choice([1, 10, 100, 2000, 4000, 20_000])

    def read(self) -> None:
        self.call("read", self.size())

    def read_into(self) -> None:
        self.call("read_into", bytearray(self.size()))

    def write(self) -> None:
        self.call(self.random.choice(["write", "write", "write_soon"]), bytes(self.size()))

    def write_call(self) -> None:
        self.call("write", self.called)

    def called(self) -> None:
        self.hook("a queued callable", lambda: None)

    def kick(self) -> None:
        self.call("write", None)

    def write_eof(self) -> None:
        self.call("write_eof")

    def finish(self) -> None:
        self.do("a call", self.sock.finish)

    def close(self) -> None:
        self.call("close", self.random.choice([None, "a reason", ValueError("why")]))

    def steal(self) -> None:
        if (stolen := self.call("steal_socket")) is not None:
            self.stolen = stolen[0]

    def push_back(self) -> None:
        self.call("push_back_read", bytes(self.random.choice([1, 100])) + b"\n")

    def watch(self) -> None:
        self.call(self.random.choice(["watch_read", "watch_read", "watch_write"]), self.random.random() < 0.6)

    def ask(self) -> None:
        name = self.random.choice(["ready", "idle", "idle"])
        self.do(name, lambda: getattr(self.sock, name))

    def limit(self) -> None:
        name = self.random.choice(["idle_timeout", "lifetime"])
        self.do(name, lambda: setattr(self.sock, name, self.random.choice([None, 0.5, 5.0])))

    # -- tasks

    def spawn(self) -> None:
        self.tasks.append(d.spawn(self.task))

    def task(self) -> None:
        self.random.choice(PARKING)(self)

    def cancel(self) -> None:
        if self.tasks:
            self.random.choice(self.tasks).cancel()

    def read_in_task(self) -> None:
        name, *args = self.random.choice(
            [
                ("read_line",),
                ("read_exactly", self.size()),
                ("read_until", b"ab", 300),
                ("read_some", self.size()),
                ("read_some_into", bytearray(self.size())),
                ("read_to_end",),
            ]
        )
        with d.move_on_after(self.random.choice([None, 0.1])):
            self.do("a task reads", lambda: getattr(self.sock, name)(*args), parks=True)

    def read_soon(self) -> None:
        self.tasks.append(d.spawn(self.read_in_task))

    def write_in_task(self) -> None:
        name, *args = self.random.choice([("write_all", bytes(self.size())), ("drain",)])
        self.do("a task writes", lambda: getattr(self.sock, name)(*args), parks=True)

    def select(self) -> None:
        with d.move_on_after(1.0):
            self.do("a task waits", lambda: d.select(self.sock, d.Event()), parks=True)

    def block(self) -> None:
        def block() -> None:
            with self.sock:
                try:
                    self.in_place()
                finally:
                    self.leaving.append(self.loop.current)

        self.do("a block", block, parks=True)

    def pause(self) -> None:
        d.sleep(self.random.choice([0, 0.2]))

    # -- what others do

    def refuse(self) -> None:
        """The next call of a kind fails."""
        self.refuse_one(self.random.choice([*REFUSALS]))

    def refuse_one(self, call: str, errors: str = "") -> None:
        number = getattr(errno, self.random.choice((errors or REFUSALS[call]).split()))
        (self.poller if call in ("add", "modify") else self.os_socket).refusals[call] = number

    def meet_an_error(self) -> None:
        """By a look whether there is input."""
        self.call("watch_read", True)
        self.refuse_one("peek", "ECONNRESET EHOSTUNREACH")
        self.do("idle", lambda: self.sock.idle)

    def meet_one_while_blocked(self) -> None:
        self.limit()
        for _ in range(3):
            self.write()
        self.refuse_one("peek", "ECONNRESET EHOSTUNREACH")
        self.time()

    def meet_another(self) -> None:
        self.refuse_one("peek", "ECONNRESET EHOSTUNREACH")
        self.do("ready", lambda: self.sock.ready)

    def watch_reading(self) -> None:
        self.call("watch_read", True)

    def stop_under_the_reader(self) -> None:
        self.call("watch_read", False)
        self.peer_stops()

    def peer_resets_before_the_end(self) -> None:
        self.peer_resets()
        self.write_eof()

    def nobody_watches_the_end(self) -> None:
        self.call("watch_read", False)
        self.refuse_one("add")
        self.refuse_one("modify")
        self.finish()

    def exceed_in_an_end(self) -> None:
        self.planned = Steps.finish  # in on_high_water
        self.call("write_soon", bytes(20_000))

    def end_a_short_life(self) -> None:
        self.do("lifetime", lambda: setattr(self.sock, "lifetime", 0.5))
        self.finish()

    def act_at_the_last_look(self) -> None:
        """In on_low_water, when a timeout finds that the kernel has memory again."""
        self.do("idle_timeout", lambda: setattr(self.sock, "idle_timeout", 0.5))
        self.refuse_one("send", "ENOBUFS")
        self.call("write", bytes(4000))
        self.planned = self.random.choice([Steps.lift_limits, Steps.finish, Steps.fail])
        self.loop.clock.jump(2.5)  # type: ignore[attr-defined]

    def fail_at_the_last_look(self) -> None:
        """In the same hook, of a lingering close."""
        self.refuse_one("send", "ENOBUFS")
        self.call("write", bytes(4000))
        self.finish()
        self.planned = Steps.fail
        self.loop.clock.jump(2.5)  # type: ignore[attr-defined]

    def fail(self) -> None:
        raise Oops("as planned")

    def lift_limits(self) -> None:
        self.do("idle_timeout", lambda: setattr(self.sock, "idle_timeout", None))

    def recv_fails(self) -> None:
        self.refuse_one("recv", "ECONNRESET EIO")

    def steal_at_the_end(self) -> None:
        self.peer_stops()
        self.read()
        self.steal()

    def send_fails(self) -> None:
        self.refuse_one("send", "EPIPE ENOTCONN")

    def shutdown_fails(self) -> None:
        self.refuse_one("shutdown")

    def time(self) -> None:
        self.loop.clock.jump(self.random.choice([0.03, 0.5, 2.5, 6.0]))  # type: ignore[attr-defined]

    def peer(self, call: Callable[[Any], Any]) -> None:
        try:
            call(self.far)
        except OSError:
            pass

    def peer_sends(self) -> None:
        self.peer(lambda far: far.send((b"x" * self.random.choice([0, 1, 100, 3000])) + b"ab\n"))

    def peer_reads(self) -> None:
        self.peer(lambda far: far.recv(self.random.choice([10, 2000, 200_000])))

    def peer_ends(self) -> None:
        self.peer(lambda far: far.shutdown(self.random.choice([socket.SHUT_WR, socket.SHUT_WR, socket.SHUT_RD])))

    def peer_stops(self) -> None:
        self.peer(lambda far: far.shutdown(socket.SHUT_WR))

    def peer_closes(self) -> None:
        self.far.close()

    def peer_resets(self) -> None:
        if isinstance(self.far, WireEnd):
            self.far.reset()
        else:
            self.peer(lambda far: far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)))
            self.far.close()

    def drain_server(self) -> None:
        if self.listener is not None:
            self.tasks.append(d.spawn(self.listener.drain, self.random.choice([None, 0.0, 1.0])))


PARKING = [
    *[Steps.read_in_task] * 4, *[Steps.write_in_task] * 3, Steps.select, Steps.block, Steps.pause,
]  # fmt: skip
ANYWHERE = [
    *[Steps.write] * 4, Steps.write_call, Steps.kick, Steps.write_eof, Steps.finish, Steps.close,
    Steps.push_back, Steps.watch, Steps.ask, Steps.limit, Steps.read, Steps.steal, Steps.refuse,
    Steps.peer_reads,
]  # fmt: skip
PLOTS: list[list[Callable[[Steps], None]]] = [  # what chance would seldom find
    [Steps.read_soon, Steps.peer_stops, Steps.write, Steps.meet_an_error],
    [Steps.read_soon, Steps.peer_stops, Steps.write, Steps.recv_fails, Steps.read],
    [Steps.meet_an_error, Steps.meet_another],
    [Steps.write, Steps.watch_reading, Steps.read_soon, Steps.stop_under_the_reader, Steps.peer_closes],
    [Steps.meet_an_error, Steps.write_eof],
    [Steps.meet_an_error, Steps.finish],
    [Steps.meet_an_error, Steps.recv_fails, Steps.read],
    [Steps.meet_an_error, Steps.recv_fails, Steps.read_soon],
    [Steps.meet_one_while_blocked],
    [Steps.meet_one_while_blocked],
    [Steps.recv_fails, Steps.read_soon, Steps.peer_sends, Steps.recv_fails, Steps.read],
    [Steps.recv_fails, Steps.read_soon, Steps.peer_sends, Steps.recv_fails, Steps.read],
    [Steps.shutdown_fails, Steps.write_eof, Steps.time, Steps.shutdown_fails, Steps.time],
    [Steps.peer_resets_before_the_end],
    [Steps.exceed_in_an_end],
    [Steps.act_at_the_last_look, Steps.time, Steps.time],
    [Steps.fail_at_the_last_look],
    [Steps.end_a_short_life, Steps.time, Steps.time],
    [Steps.send_fails, Steps.write, Steps.steal_at_the_end],
    [Steps.read_soon, Steps.peer_stops, Steps.send_fails, Steps.write, Steps.steal],
    [Steps.nobody_watches_the_end],
    [Steps.nobody_watches_the_end],
    [Steps.read, Steps.read, Steps.write, Steps.write, Steps.write, Steps.drain_server, Steps.time],
]
CHANCES = {
    Steps.read: 3, Steps.read_into: 2, Steps.write: 8, Steps.write_call: 3, Steps.kick: 1,
    Steps.write_eof: 1.5, Steps.finish: 1, Steps.close: 0.5, Steps.steal: 1, Steps.push_back: 2,
    Steps.watch: 3, Steps.ask: 2, Steps.limit: 0.7, Steps.spawn: 6, Steps.cancel: 2, Steps.refuse: 5,
    Steps.time: 2, Steps.peer_sends: 5, Steps.peer_reads: 4, Steps.peer_ends: 1.5, Steps.peer_closes: 0.5,
    Steps.peer_resets: 0.5, Steps.drain_server: 0.7,
}  # fmt: skip
STEPS = list(CHANCES)
WEIGHTS = list(CHANCES.values())
