"""ddlockd without a listener, clients of it in memory and over TCP, and what they are to be answered."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import dangagreen as d
from dangagreen.testing import virtual_loop, wire
from ddlockd.client import Client
from ddlockd.connection import Connection
from ddlockd.counters import Counters
from ddlockd.locks import Locks
from programs import connected

UNKNOWN = b"ERR unknown_command Unknown+server+command\r\n"
OK, TAKEN, EMPTY, DIDNT_HAVE = b"OK \r\n", b"ERR taken \r\n", b"ERR empty_lock \r\n", b"ERR didnthave \r\n"
WHO = rb"DDLockd::Client::Internal\(R\): open to [0-9.]+:\d+"
WHO_ENCODED = rb"DDLockd::Client::Internal%28R%29:\+open\+to\+[0-9.]+:\d+"


NAMES = [  # of locks
    b"plain", b"%2e", b"%2e%2e", b"..%2f..%2fescape", b"%00%0a%ff", b"A", b"a", b"%2etoken", b"x" * 5000,
    b"%e2%82%ac" * 90,
]  # fmt: skip

# What a fresh server answers to a fresh connection, line by line; a pattern where it is not the same each time.
DIALOGUES: dict[str, list[tuple[bytes, bytes | re.Pattern[bytes]]]] = {
    "take and free": [
        (b"trylock lock=invoice%3A17\r\n", OK),
        (b"trylock lock=invoice:17\r\n", TAKEN),
        (b"releaselock lock=invoice%3A17\r\n", OK),
        (b"releaselock lock=invoice%3A17\r\n", DIDNT_HAVE),
        (b"trylock lock=invoice:17\n", OK),
    ],
    "no name": [
        (b"trylock\r\n", EMPTY),
        (b"trylock lock=\r\n", EMPTY),
        (b"trylock lock\r\n", EMPTY),
        (b"trylock  =x&name=y\r\n", EMPTY),
        (b"trylock:lock=x\r\n", EMPTY),
        (b"releaselock lock==x\r\n", EMPTY),
        (b"lock\r\n", EMPTY),
        (b"trylock lock=0\r\n", OK),
        (b"releaselock lock=0\r\n", OK),
    ],
    "encodings": [
        (b"TryLock   lock=a+b\r\n", OK),
        (b"trylock lock=a%20b\r\n", TAKEN),
        (b"trylock lock=a b\r\n", TAKEN),
        (b"trylock lock=A+b\r\n", OK),
        (b"trylock lock=%zz\r\n", OK),
        (b"trylock lock=%25zz\r\n", TAKEN),
        (b"trylock lock=%ff%00\xfe%0A\r\n", OK),
        (b"trylock lock=%FF%00%fe%0a\r\n", TAKEN),
        (b"trylock lock=x=y\r\n", OK),
        (b"trylock lock=x\r\n", TAKEN),
        (b"trylock %6Cock=x&other=1\r\n", TAKEN),
        (b"trylock\tlock=x\r\n", TAKEN),
        (b"trylock lock=one&lock=two\r\n", OK),
        (b"trylock lock=one%00two\r\n", TAKEN),
        (b"trylock lock=0&lock=two\r\n", OK),
        (b"trylock lock=0two\r\n", TAKEN),
        (b"trylock lock=&lock=two\r\n", OK),
        (b"trylock lock=two\r\n", TAKEN),
        (b"trylock lock=cr\r\r\n", OK),
        (b"trylock lock=cr%0D\n", TAKEN),
    ],
    "what it does not know": [
        (b"frob\r\n", UNKNOWN),
        (b"\r\n", UNKNOWN),
        (b"\n", UNKNOWN),
        (b" noop\r\n", UNKNOWN),
        (b"__class__\r\n", UNKNOWN),
        (b"trylock.x\r\n", EMPTY),
        (b"noopx\r\n", UNKNOWN),
        (b"\xff\xfe\r\n", UNKNOWN),
        (b"noop what=ever\r\n", OK),
        (b"NOOP\n", OK),
    ],
    "counters": [
        (b"status\r\n", b"STATUS: OK\nSUCCESSES: 0\nFAILURES: 0\nRUNTIME: 0\nLOAD: 0\n\n"),
        (b"load\r\n", b"LOAD: 0\n\n"),
        (b"trylock lock=x\r\n", OK),
        (b"trylock lock=x\r\n", TAKEN),
        (b"trylock\r\n", EMPTY),
        (b"releaselock lock=x\r\n", OK),
        (b"lock lock=x\r\n", re.compile(rb"OK token=\d+\r\n")),
        (b"status\r\n", re.compile(rb"STATUS: OK\nSUCCESSES: 1\nFAILURES: 2\nRUNTIME: \d\nLOAD: 3\n\n")),
        (b"load\r\n", b"LOAD: 3\n\n"),
    ],
    "lists": [
        (b"locks\r\n", b"LOCKS:\n\n"),
        (b"trylock lock=b\r\n", OK),
        (b"trylock lock=a%26%0A\r\n", OK),
        (b"locks\r\n", re.compile(rb"LOCKS:\n  a&\n = " + WHO + rb"\n  b = " + WHO + rb"\n")),
    ],
    "new commands": [
        (b"holder lock=x\r\n", b"OK \r\n"),
        (b"holder\r\n", b"OK \r\n"),
        (b"waiters lock=x\r\n", b"OK waiters=0\r\n"),
        (b"lock lock=x\r\n", re.compile(rb"OK token=\d+\r\n")),
        (b"lock lock=x&timeout=5\r\n", TAKEN),
        (b"trylock lock=x\r\n", TAKEN),
        (b"holder lock=x\r\n", re.compile(rb"OK holder=" + WHO_ENCODED + rb"&token=\d+\r\n")),
        (b"releaselock lock=x\r\n", OK),
        (b"trylock lock=x&ttl=1&timeout=1\r\n", OK),
        (b"holder lock=x\r\n", re.compile(rb"OK holder=" + WHO_ENCODED + rb"\r\n")),
        (b"lock lock=y&timeout=soon\r\n", b"ERR bad_argument The+timeout+is+no+number+of+seconds\r\n"),
        (b"lock lock=y&timeout=-1\r\n", b"ERR bad_argument The+timeout+is+no+number+of+seconds\r\n"),
        (b"lock lock=y&timeout=nan\r\n", b"ERR bad_argument The+timeout+is+no+number+of+seconds\r\n"),
        (b"lock lock=y&ttl=0\r\n", b"ERR bad_argument The+ttl+is+no+number+of+seconds\r\n"),
        (b"lock lock=y&ttl=inf\r\n", b"ERR bad_argument The+ttl+is+no+number+of+seconds\r\n"),
        (b"lock lock=y&ttl=2.5\r\n", re.compile(rb"OK token=\d+\r\n")),
        (b"holder lock=y\r\n", re.compile(rb"OK holder=[^&]+&token=\d+&ttl=2\.[0-9]+\r\n")),
    ],
}  # fmt: skip


def check(replies: bytes, expected: list[bytes | re.Pattern[bytes]]) -> None:
    pattern = b"".join(one.pattern if isinstance(one, re.Pattern) else re.escape(one) for one in expected)
    assert re.fullmatch(pattern, replies, re.DOTALL), replies


class Peer:
    """A client in memory."""

    def __init__(self) -> None:
        here, self.end = wire(1 << 24)
        here.getpeername = lambda: ("127.0.0.1", 1234)  # type: ignore[method-assign]
        self.client = Client(here)
        self.client.watch_read(True)
        self.heard = b""

    def says(self, data: bytes) -> bytes:
        """Send it, and answer what has come when nothing more happens."""
        self.end.send(data)
        return self.hears(len(data))

    def hears(self, turns: int = 0) -> bytes:
        for _ in range(50 + 2 * turns):
            d.sleep(0)
        with contextlib.suppress(BlockingIOError):
            while data := self.end.recv(1 << 20):
                self.heard += data
        heard, self.heard = self.heard, b""
        return heard

    def goes(self) -> None:
        self.end.close()
        self.hears_nothing()

    @staticmethod
    def hears_nothing() -> None:
        for _ in range(50):
            d.sleep(0)


@contextlib.contextmanager
def in_memory() -> Iterator[Any]:
    """A server on a virtual clock, without a listener."""
    with virtual_loop() as loop:
        Connection.locks = Locks()
        Connection.counters = Counters()
        Connection.open = 0
        errors: list[Any] = []
        loop.on_error = errors.append
        yield loop
        loop.reset()
        assert errors == []


@contextlib.contextmanager
def clients(port: int, count: int) -> Iterator[list[Any]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connected(port)) for _ in range(count)]


def ask(connection: Any, line: bytes) -> bytes:
    sock, replies = connection
    sock.sendall(line + b"\r\n")
    return replies.readline()


class Holder:
    """What the locks know of a client."""

    numbers = iter(range(1, 1_000_000))

    def __init__(self) -> None:
        self.number = next(self.numbers)
        self.held: dict[bytes, None] = {}
        self.closed = False

    def has_unread(self) -> bool:
        return False

    def described(self) -> str:
        return f"client {self.number}"
