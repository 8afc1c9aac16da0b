"""No request to miniredis keeps the other clients waiting.

Measured is the processor time that the server takes between two turns of a task that is always ready to run: that is
what everybody else waits, on a machine that has nothing else to do.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from programs import EXAMPLES, SECONDS, connected
from redis_servers import packed, read_reply

LONGEST = 0.05  # seconds
TRIES = 3
SERVER = f"""
import sys, time
sys.path.insert(0, {str(EXAMPLES)!r})
import dangagreen
from miniredis import dispatch, server
longest = 0.0
def watch():
    global longest
    last = time.process_time()
    while True:
        dangagreen.sleep(0)
        now = time.process_time()
        longest = max(longest, now - last)
        last = now
def tell(*_words):
    global longest
    told, longest = longest, 0.0
    return b"%f" % told
dispatch.COMMANDS[b"LONGEST"] = (1, 1, tell)
dangagreen.spawn(watch)
sys.argv = ["miniredis", "--port", "0", "--status-port", "0"]
server.main()
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    command = [sys.executable, "-W", "error", "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().split(":")[-1])
        finally:
            process.kill()


def ask(port: int, data: bytes) -> None:
    """Have it done, and read what it answers."""
    with connected(port) as (sock, _):
        sock.settimeout(6 * SECONDS)
        sending = threading.Thread(target=sock.sendall, args=(data + packed(b"ECHO", b"the end"),))
        sending.start()
        end = b""
        while not end.endswith(b"$7\r\nthe end\r\n"):
            got = sock.recv(1 << 20)
            assert got
            end = (end + got)[-20:]
        sending.join()


def longest(port: int) -> float:
    with connected(port) as (sock, stream):
        sock.sendall(packed(b"LONGEST"))
        return float(read_reply(stream))


MANY = 100_000  # what is made of them is made by the tests: this file is imported in the quick part as well
NAMES = [b"key:%d" % number for number in range(MANY)]
PAIRS = [word for name in NAMES for word in (name, b"v")]
LONG = b"a" * (8 * 1024 * 1024)
VALUE = b"v" * (31 * 1024 * 1024)
CASES = {
    "mset": lambda: packed(b"MSET", *PAIRS),
    "mget": lambda: packed(b"MGET", *NAMES),
    "keys": lambda: packed(b"KEYS", b"*"),
    "keys-pattern": lambda: packed(b"KEYS", b"*[0-3]*?[^4]*5*"),
    "keys-long-pattern": lambda: packed(b"KEYS", b"*" + b"?" * 4000 + b"*"),
    "scan": lambda: packed(b"SCAN", b"0", b"COUNT", b"1000000"),
    "exists": lambda: packed(b"EXISTS", *NAMES),
    "many-small": lambda: b"".join(packed(b"GET", name) for name in NAMES[:20000]),
    "inline": lambda: b"PING\r\n" * 50000,
    "transaction": lambda: packed(b"MULTI") + packed(b"INCR", b"n") * 20000 + packed(b"EXEC"),
    "expire": lambda: b"".join(packed(b"EXPIRE", name, b"1000") for name in NAMES[:20000]),
    "del": lambda: packed(b"DEL", *NAMES[: MANY // 2]),
    "flushall": lambda: packed(b"FLUSHALL"),
    "long-key": lambda: (
        packed(b"SET", LONG, b"") + packed(b"KEYS", b"*a?a*a[ab]*" + b"?a" * 20 + b"b*") + packed(b"DEL", LONG)
    ),
    "large-value": lambda: packed(b"SET", b"k", VALUE) + packed(b"GET", b"k") * 5 + packed(b"APPEND", b"k", b"x"),
    "long-pattern": lambda: packed(b"PSUBSCRIBE", b"*" * 1_000_000),
    "hard-pattern": lambda: packed(b"SET", b"k" * 1000, b"v") + packed(b"KEYS", b"*k" * 500 + b"x"),
    "many-channels": lambda: (
        packed(b"HELLO", b"3") + packed(b"PSUBSCRIBE", *NAMES[:10000]) + packed(b"PUBLISH", b"c", b"x")
    ),
    "watch": lambda: packed(b"WATCH", *NAMES[:10000]),
    "too-many": lambda: packed(b"HELLO", b"3") + packed(b"SUBSCRIBE", *NAMES) + packed(b"WATCH", *NAMES),
}  # fmt: skip


def least(port: int, data: bytes) -> float:
    """The longest pause of the best of several tries."""
    pauses = []
    for _ in range(TRIES):
        longest(port)
        ask(port, data)
        pauses.append(longest(port))
        if pauses[-1] < LONGEST:
            break
    return min(pauses)


@pytest.mark.parametrize("case", CASES)
def test_one_request_does_not_stop_the_others(port: int, case: str) -> None:
    assert least(port, CASES[case]()) < LONGEST


@pytest.mark.parametrize("size", [10, 1_000_000], ids=["small", "large"])
def test_many_subscribers(port: int, size: int) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(100):
            sock, stream = stack.enter_context(connected(port))
            sock.sendall(packed(b"HELLO", b"%d" % (number % 2 + 2)) + packed(b"SUBSCRIBE", b"c"))
            read_reply(stream)
            read_reply(stream)
        assert least(port, packed(b"PUBLISH", b"c", b"x" * size) * (1_000 // size or 1)) < LONGEST
    longest(port)
