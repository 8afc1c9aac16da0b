"""The clients: what each has subscribed to, watches and queues, and how it is answered.

A client that is told things unasked, messages or what MONITOR shows, is told by callbacks, whoever causes them. A reply
is sent as fast as its client reads it, in portions.
"""

from __future__ import annotations

import itertools

from dangagreen import Socket, SocketLike
from miniredis.keys import keys
from miniredis.patterns import Glob, glob
from miniredis.portions import Work, in_portions
from miniredis.protocol import LONGEST_BULK, LONGEST_LINE, Reply, Request, pieces, simple

MOST_NAMES = 10_000  # that a client watches, or has subscribed to: all are to be left when it goes
CHANNEL, PATTERN = b"", b"p"  # what comes before the "subscribe" of each kind


class Topic:
    """A channel or a pattern, and who has subscribed to it."""

    def __init__(self, kind: bytes, name: bytes) -> None:
        self.clients: dict[Client, None] = {}
        self.pattern: Glob | None = glob(name) if kind == PATTERN else None


topics: dict[bytes, dict[bytes, Topic]] = {CHANNEL: {}, PATTERN: {}}
everybody: dict[int, Client] = {}  # by number
monitors: dict[Client, None] = {}


class Client(Socket):
    """A client, and what is to be remembered of it from one request to the next."""

    __slots__ = ("born", "changed", "name", "number", "protocol", "queue", "queued", "spoilt", "topics", "watched")
    line_limit = LONGEST_LINE
    max_unsent = 2 * LONGEST_BULK  # bytes that it may be behind in what it is told unasked, before it is cut off
    numbers = itertools.count(1)

    def __init__(self, sock: SocketLike) -> None:
        super().__init__(sock)
        self.born = self.loop.time()
        self.number = next(self.numbers)
        self.topics: dict[tuple[bytes, bytes], None] = {}
        self.watched: set[bytes] = set()
        everybody[self.number] = self
        self.forget()

    def forget(self) -> None:
        """It is as new: what it has subscribed to, watched, queued or set is no more."""
        self.name = b""
        self.protocol = 2
        self.leave_transaction()
        for topic in list(self.topics):
            self.leave(*topic)
        monitors.pop(self, None)

    def leave_transaction(self) -> None:
        self.queue: list[Request] | None = None  # what it has asked for since MULTI
        self.queued = 0  # bytes of that
        self.spoilt = False  # something was wrong with one of these
        self.changed = False  # one of the keys that it watches
        for key in self.watched:
            keys.unwatch(self, key)
        self.watched.clear()

    def finish(self) -> None:
        """It has gone, though its connection may linger."""
        self.forget()
        everybody.pop(self.number, None)
        super().finish()

    def close(self, reason: object = None) -> None:
        super().close(reason)
        self.forget()
        everybody.pop(self.number, None)

    def join(self, kind: bytes, name: bytes) -> None:
        topic = topics[kind].get(name) or Topic(kind, name)
        topics[kind][name] = topic
        topic.clients[self] = self.topics[kind, name] = None

    def leave(self, kind: bytes, name: bytes) -> None:
        if (kind, name) in self.topics:
            del self.topics[kind, name], topics[kind][name].clients[self]
            if not topics[kind][name].clients:
                del topics[kind][name]

    def answer(self, reply: Reply) -> None:
        """Parks until the reply is on its way. What comes unasked must not come into the middle of it."""
        data = simple(reply, self.protocol)
        if data is not None:
            self.write_all(data)
        else:
            in_portions(self.answer_at_once(reply) if self.topics or self in monitors else self.answer_slowly(reply))

    def answer_slowly(self, reply: Reply) -> Work[None]:
        """As fast as the client reads it: no more of it is kept than that."""
        for piece in pieces(reply, self.protocol):
            self.write_all(piece)
            yield

    def answer_at_once(self, reply: Reply) -> Work[None]:
        whole, size = [], 0
        for piece in pieces(reply, self.protocol):
            whole.append(piece)
            size += len(piece)
            if size > self.max_unsent:
                return self.close("it has asked for more than it may be behind")
            yield
        for piece in whole:
            self.write_soon(piece)
        return None

    def described(self) -> bytes:
        """As CLIENT LIST has it."""
        channels = sum(kind == CHANNEL for kind, _ in self.topics)
        about = {
            "id": self.number,
            "addr": self.peer_addr_string(),
            "laddr": self.local_addr_string(),
            "fd": self.fd,
            "name": self.name.decode("latin-1"),
            "age": int(self.loop.time() - self.born),
            "flags": "O" * (self in monitors) + "P" * bool(self.topics) + "x" * (self.queue is not None) or "N",
            "db": 0,
            "sub": channels,
            "psub": len(self.topics) - channels,
            "multi": -1 if self.queue is None else len(self.queue),
            "omem": self.unsent,
            "user": "default",
            "resp": self.protocol,
        }
        return " ".join(f"{name}={value}" for name, value in about.items()).encode("latin-1") + b"\n"
