"""examples/ddlockd.py: what its clients see, as a program and, where time or single bytes matter, in memory."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ddlockclient
import ddlockd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import EXAMPLES, SECONDS, Program, connected, expect

import dangagreen as d
from dangagreen.testing import BLOCK, virtual_loop, wire

UNKNOWN = b"ERR unknown_command Unknown+server+command\r\n"
OK, TAKEN, EMPTY, DIDNT_HAVE = b"OK \r\n", b"ERR taken \r\n", b"ERR empty_lock \r\n", b"ERR didnthave \r\n"
WHO = rb"DDLockd::Client::Internal\(R\): open to [0-9.]+:\d+"
WHO_ENCODED = rb"DDLockd::Client::Internal%28R%29:\+open\+to\+[0-9.]+:\d+"

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


# -- in memory


class Peer:
    """A client in memory."""

    def __init__(self) -> None:
        here, self.end = wire(1 << 24)
        here.getpeername = lambda: ("127.0.0.1", 1234)  # type: ignore[method-assign]
        self.client = ddlockd.Client(here)
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


@pytest.fixture
def memory() -> Iterator[Any]:
    with in_memory() as loop:
        yield loop


@contextlib.contextmanager
def in_memory() -> Iterator[Any]:
    """A server on a virtual clock, without a listener."""
    with virtual_loop() as loop:
        ddlockd.locks = ddlockd.Locks()
        ddlockd.counters = ddlockd.Counters()
        ddlockd.Client.open = 0
        errors: list[Any] = []
        loop.on_error = errors.append
        yield loop
        loop.reset()
        assert errors == []


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_each_exchange_split_at_every_byte(memory: Any, dialogue: str) -> None:
    peer = Peer()
    peer.client.sock.reads.extend([1] * 10_000)
    check(peer.says(b"".join(line for line, _ in DIALOGUES[dialogue])), [reply for _, reply in DIALOGUES[dialogue]])


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_each_exchange_in_two_pieces_at_every_place(dialogue: str) -> None:
    lines = b"".join(line for line, _ in DIALOGUES[dialogue])
    for place in range(0, len(lines), 7):
        with in_memory():
            peer = Peer()
            heard = peer.says(lines[:place]) + peer.says(lines[place:])
            check(heard, [reply for _, reply in DIALOGUES[dialogue]])


def test_lines_that_come_together_are_answered_in_one_write(memory: Any) -> None:
    peer = Peer()
    writes = peer.client.sock.writes
    writes.append(5 * len(OK))
    assert peer.says(b"noop\r\nnoop\nnoop\r\nnoop\nnoop\nno") == 5 * OK
    assert not writes
    assert peer.says(b"op\n") == OK


def test_a_lock_is_waited_for_in_turn(memory: Any) -> None:
    holder, *others = (Peer() for _ in range(4))
    assert holder.says(b"trylock lock=x\n") == OK
    for number, other in enumerate(others):
        assert other.says(b"lock lock=x&timeout=60\n") == b""
        assert holder.says(b"waiters lock=x\n") == b"OK waiters=%d\r\n" % (number + 1)
    tokens = []
    for before, after in zip([holder, *others], others, strict=False):
        assert before.says(b"releaselock lock=x\ntrylock lock=x\n") == OK + TAKEN  # nobody overtakes
        tokens.append(int(after.hears().split(b"=")[1]))
        assert all(other.hears() == b"" for other in others)
    assert tokens == sorted(set(tokens))
    others[-1].goes()
    assert holder.says(b"trylock lock=x\n") == OK
    assert not ddlockd.locks.lines


def test_what_is_sent_while_waiting_is_answered_afterwards(memory: Any) -> None:
    holder, other = Peer(), Peer()
    holder.says(b"trylock lock=x\n")
    assert other.says(b"noop\nlock lock=x\ntrylock lock=y\nlock lock=y\nfrob\nlo") == OK
    assert other.says(b"ck lock=z&timeout=1\nnoop\n") == b""
    assert holder.says(b"trylock lock=y\n") == OK
    assert holder.says(b"releaselock lock=x\n") == OK
    check(other.hears(), [re.compile(rb"OK token=\d+\r\n"), TAKEN])  # and waits again, for y
    holder.says(b"releaselock lock=y\n")
    token = re.compile(rb"OK token=\d+\r\n")
    check(other.hears(), [token, UNKNOWN, token, OK])


def test_the_time_is_up(memory: Any) -> None:
    holder, other = Peer(), Peer()
    holder.says(b"trylock lock=x\n")
    start = memory.time()
    assert other.says(b"lock lock=x&timeout=0\n").startswith(b"ERR timeout ")
    assert other.says(b"lock lock=x&timeout=2.5\nnoop\n") == b""
    d.sleep(2.4)
    assert other.hears() == b""
    d.sleep(0.2)
    assert other.hears() == b"ERR timeout The+lock+was+not+free+in+time\r\n" + OK
    assert memory.time() - start == pytest.approx(2.6)
    assert not ddlockd.locks.lines
    assert len(memory.timers) == 0


def test_what_is_sent_while_waiting_has_a_limit(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ddlockd.Client, "line_limit", 50)
    holder, other, last = Peer(), Peer(), Peer()
    holder.says(b"trylock lock=x\n")
    other.says(b"trylock lock=y\nlock lock=x\n")
    last.says(b"lock lock=x\n")
    assert other.says(b"noop\n" * 10) == b""
    assert other.says(b"noop\n") == b"ERR line_too_long Too+much+was+sent+while+it+waited+for+a+lock\r\n"
    assert other.client._finishing
    assert holder.says(b"waiters lock=x\ntrylock lock=y\n") == b"OK waiters=1\r\n" + OK
    holder.says(b"releaselock lock=x\n")
    assert last.hears().startswith(b"OK token=")


@pytest.mark.parametrize("command", [b"lock lock=x\n", b"trylock lock=x\nlocks\nlock lock=y\ntrylock lock=z\n"])
def test_one_who_goes_before_it_is_answered(memory: Any, command: bytes) -> None:
    """What it has sent and its end come in one event."""
    other = Peer()
    for end in ("reset", "close"):
        peer = Peer()
        peer.end.send(command)
        getattr(peer.end, end)()
        peer.hears_nothing()
        assert other.says(b"trylock lock=x\nreleaselock lock=x\n") == OK + OK
        assert not ddlockd.locks.holders
        assert ddlockd.Client.open == 1


@pytest.mark.parametrize("leaving", ["close", "reset", "end", "end with lines behind"])
def test_one_who_goes_while_it_waits_has_left_the_line(memory: Any, leaving: str) -> None:
    holder, other, last = Peer(), Peer(), Peer()
    holder.says(b"trylock lock=x\n")
    other.says(b"trylock lock=y\nlock lock=x\n")
    last.says(b"lock lock=x\n")
    if leaving == "end with lines behind":
        other.end.send(b"noop\n" * 100)
    {"close": other.end.close, "reset": other.end.reset}.get(leaving, lambda: other.end.shutdown(socket.SHUT_WR))()
    assert last.hears() == b""
    assert holder.says(b"waiters lock=x\n") == b"OK waiters=1\r\n"
    assert holder.says(b"trylock lock=y\n") == OK  # what it held is free
    holder.says(b"releaselock lock=x\n")
    assert last.hears().startswith(b"OK token=")


def test_one_who_goes_at_the_moment_of_its_turn(memory: Any) -> None:
    holder, other, last = Peer(), Peer(), Peer()
    holder.says(b"trylock lock=x\n")
    other.says(b"lock lock=x\n")
    last.says(b"lock lock=x\n")
    holder.end.send(b"releaselock lock=x\n")
    other.end.close()
    assert holder.hears() == OK
    assert last.hears().startswith(b"OK token=")


def test_a_lease_ends_unless_it_is_renewed(memory: Any) -> None:
    holder, other = Peer(), Peer()
    token = re.compile(rb"OK token=\d+\r\n")
    check(holder.says(b"lock lock=x&ttl=10\n"), [token])
    holder.says(b"trylock lock=kept\n")
    for _ in range(5):
        d.sleep(8)
        assert holder.says(b"noop\n") == OK
    assert other.says(b"lock lock=x\n") == b""
    d.sleep(9.9)
    assert other.hears() == b""
    d.sleep(0.2)
    check(other.hears(), [token])
    assert holder.says(b"releaselock lock=x\nreleaselock lock=kept\n") == DIDNT_HAVE + OK
    assert holder.says(b"noop\n") == OK
    assert other.says(b"releaselock lock=x\n") == OK
    check(holder.says(b"lock lock=x&ttl=1\nreleaselock lock=x\nlock lock=x\n"), [token, OK, token])
    d.sleep(5)  # the first lease's time ends nothing any more
    assert other.says(b"trylock lock=x\n") == TAKEN


def test_limits_on_lines(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ddlockd.Client, "line_limit", 50)
    too_long = b"ERR line_too_long A+line+has+at+most+50+bytes\r\n"
    for data in (b"x" * 51, b"x" * 60 + b"\nnoop\n"):
        peer = Peer()
        peer.says(b"trylock lock=x\n")
        assert peer.says(b"noop\n" + data) == OK + too_long
        assert peer.client._finishing
        assert not ddlockd.locks.holders
        peer.goes()
    peer = Peer()
    assert peer.says(b"trylock lock=" + b"y" * 37 + b"\n" + b"noop\n" * 100) == OK + 100 * OK


def test_a_long_list_is_no_longer_than_its_client_reads(memory: Any) -> None:
    """It may be longer than `max_unsent`, and is not made again before it was read."""
    holder, reader = Peer(), Peer()
    for number in range(20_000):
        ddlockd.locks.take(holder.client, b"%d" % number)
    reader.client.sock.writes.extend([BLOCK] * 10_000)
    assert reader.says(b"locks\n" * 9 + b"noop\n") == b""
    assert reader.client.unsent < 100_000
    reader.client.sock.writes.clear()
    listed = reader.hears(500)
    assert listed.count(b"LOCKS:\n") == 9
    assert listed.endswith(OK)
    assert len(listed) > 9 * 1_100_000
    assert not reader.client.closed


def test_one_who_does_not_read_is_closed(memory: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    peer, other = Peer(), Peer()
    peer.client.sock.writes.extend([BLOCK] * 10_000)
    peer.says(b"trylock lock=x\n")
    for _ in range(300):
        if peer.client.closed:
            break
        peer.end.send(b"frob\n" * 1000)
        with contextlib.suppress(ConnectionResetError):  # it was closed with some of these unread
            peer.hears()
    assert "reads too slowly" in str(peer.client.close_reason)
    assert re.fullmatch(r"ddlockd: connection \d+ from 127.0.0.1:1234: \d+ bytes are .*\n", capsys.readouterr().err)
    assert other.says(b"trylock lock=x\n") == OK


@pytest.mark.parametrize("on", [True, False])
def test_keep_alive(on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ddlockd.Client, "keep_alive", on)
    monkeypatch.setattr(ddlockd.Client, "open", 0)
    with d.Loop(), d.serve(("127.0.0.1", 0), ddlockd.Client) as listener, connected(listener.address[1]) as (sock, _):
        while not ddlockd.Client.open:
            d.sleep(0)
        (client,) = (one for one in d.current_loop().handlers.values() if isinstance(one, ddlockd.Client))
        assert client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert bool(client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is on
        idle = getattr(socket, "TCP_KEEPIDLE", None) or socket.TCP_KEEPALIVE  # type: ignore[attr-defined]
        for option, value in ((idle, 30), (socket.TCP_KEEPCNT, 10), (socket.TCP_KEEPINTVL, 30)):
            assert (client.sock.getsockopt(socket.IPPROTO_TCP, option) == value) is on
        sock.close()


LINES = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from(sorted(ddlockd.COMMANDS)),
        st.sampled_from([b" lock=", b"lock=theirs", b" lock=th%65irs", b"&", b"=", b"%", b"\r", b"\n", b"&timeout=0"]),
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(pieces=LINES, joined=st.booleans())
def test_random_bytes_take_and_free_nothing_of_others(pieces: list[bytes], joined: bool) -> None:
    with in_memory():
        owner, stranger = Peer(), Peer()
        assert owner.says(b"trylock lock=theirs\n") == OK
        for data in [b"".join(pieces)] if joined else pieces:
            stranger.says(data)
        assert ddlockd.locks.holders[b"theirs"] is owner.client
        assert set(ddlockd.locks.holders) == set(owner.client.held) | set(stranger.client.held)
        assert owner.says(b"releaselock lock=theirs\n") == OK


# -- as a program


@pytest.fixture
def port(start: Any) -> int:
    return start("ddlockd.py", "--port", "0", "--bind", "127.0.0.1")[0]


@contextlib.contextmanager
def clients(port: int, count: int) -> Iterator[list[Any]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connected(port)) for _ in range(count)]


def ask(connection: Any, line: bytes) -> bytes:
    sock, replies = connection
    sock.sendall(line + b"\r\n")
    return replies.readline()


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_each_exchange_over_tcp(port: int, dialogue: str) -> None:
    with connected(port) as (sock, replies):
        for line, _ in DIALOGUES[dialogue]:
            sock.sendall(line)
        sock.sendall(b"the end\n")
        heard = b""
        while not heard.endswith(b"\n" + UNKNOWN) or heard.count(UNKNOWN) <= [r for _, r in DIALOGUES[dialogue]].count(
            UNKNOWN
        ):
            heard += replies.readline()
    check(heard, [*(reply for _, reply in DIALOGUES[dialogue]), UNKNOWN])


@contextlib.contextmanager
def ddlock(*ports: int) -> Iterator[Any]:
    client = ddlockclient.DDLockClient([f"127.0.0.1:{port}" for port in ports])
    try:
        yield client
    finally:
        for cached in client.sockcache.values():
            cached["file"].close()
            cached["socket"].close()


def test_the_client_from_the_package_index(port: int) -> None:
    with ddlock(port) as one, ddlock(port) as two:
        lock = one.trylock("a name: with / and %", timeout=0)
        assert lock
        assert two.trylock("a name: with / and %", timeout=0) is None
        assert "ERR taken" in two.last_error()
        lock.release()
        with two.trylock("a name: with / and %", timeout=0) as again:
            assert again
        assert one.trylock("a name: with / and %", timeout=0)


def test_a_client_that_needs_two_servers(start: Any) -> None:
    first, second = (start("ddlockd.py", "--port", "0", "--bind", "127.0.0.1")[0] for _ in range(2))
    with ddlock(first, second) as both, ddlock(second) as other, connected(first) as watcher:
        held = other.trylock("x", timeout=0)
        assert both.trylock("x", timeout=0) is None
        assert ask(watcher, b"trylock lock=x") == OK  # it was let go on the first
        assert ask(watcher, b"releaselock lock=x") == OK
        held.release()
        lock = both.trylock("x", timeout=0)
        assert ask(watcher, b"trylock lock=x") == TAKEN
        lock.release()


@pytest.mark.parametrize("end", ["close", "half", "reset", "kill"])
def test_the_end_of_a_connection_frees_what_it_held(port: int, end: str) -> None:
    with connected(port) as watcher:
        if end == "kill":
            code = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); "
            code += "s.sendall(b'trylock lock=x\\n'); print(s.recv(100)); s.recv(1)"
            with subprocess.Popen([sys.executable, "-c", code, str(port)], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert b"OK" in process.stdout.readline()
                assert ask(watcher, b"trylock lock=x") == TAKEN
                process.kill()
        else:
            with connected(port) as (sock, replies):
                assert ask((sock, replies), b"trylock lock=x") == OK
                assert ask(watcher, b"trylock lock=x") == TAKEN
                if end == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif end == "half":
                    sock.shutdown(socket.SHUT_WR)
                    assert replies.read() == b""
        expect(lambda: ask(watcher, b"trylock lock=x") == OK)


def test_too_many_connections(start: Any) -> None:
    (port,) = start("ddlockd.py", "--port", "0", "--bind", "127.0.0.1", "--max-connections", "2")
    with connected(port) as one, connected(port) as two:
        assert (ask(one, b"noop"), ask(two, b"noop")) == (OK, OK)
        with connected(port) as (_, replies):
            assert replies.read() == b"ERR too_many_connections This+server+has+enough+connections\r\n"
    expect(lambda: _answers(port))


def test_those_who_are_refused_do_not_count(start: Any) -> None:
    (port,) = start("ddlockd.py", "--port", "0", "--bind", "127.0.0.1", "--max-connections", "1")
    with contextlib.ExitStack() as stack:
        with connected(port) as one:
            assert ask(one, b"noop") == OK
            for _ in range(5):  # they are told, and stay
                _, replies = stack.enter_context(connected(port))
                assert replies.readline().startswith(b"ERR too_many_connections ")
        expect(lambda: _answers(port))


@pytest.mark.descriptors(800)
def test_more_connections_than_the_system_allows_files(tmp_path: Path) -> None:
    """They are refused with an error, as those beyond --max-connections are, and nobody else notices."""
    limited = [sys.executable, "-c", "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160));"
               "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"]  # fmt: skip
    command = [*limited, str(EXAMPLES / "ddlockd.py"), "--port=0", "--bind=127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().split(":")[-1])
            with connected(port) as first, clients(port, 300) as many:
                assert ask(first, b"trylock lock=x") == OK
                heard = [replies.readline() for _, replies in many[59:120]]
                assert heard == [b"ERR too_many_connections This+server+has+enough+connections\r\n"] * 61
                assert [ask(one, b"trylock lock=x") for one in many[:59]] == [TAKEN] * 59
            expect(lambda: _answers(port))
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)


@pytest.mark.descriptors(3200)
def test_a_backlog_for_thousands(start: Any, tmp_path: Path) -> None:
    """While the server is busy, here even stopped, clients connect all the same, as many as the system lets it."""
    limit = Path("/proc/sys/net/core/somaxconn")
    count = min(1500, int(limit.read_text()) if limit.exists() else 128)
    pidfile = tmp_path / "pid"
    (port,) = start("ddlockd.py", "--port", "0", "--bind", "127.0.0.1", f"--pidfile={pidfile}")
    os.kill(int(pidfile.read_text()), signal.SIGSTOP)
    try:
        with clients(port, count) as many:
            os.kill(int(pidfile.read_text()), signal.SIGCONT)
            assert [ask(one, b"trylock lock=%d" % number) for number, one in enumerate(many)] == [OK] * count
    finally:
        os.kill(int(pidfile.read_text()), signal.SIGCONT)


def test_waiting_clients_that_are_killed(port: int) -> None:
    code = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); "
    code += "s.sendall(b'lock lock=x\\n'); s.recv(1)"
    with clients(port, 3) as (holder, waiter, watcher):
        assert ask(holder, b"trylock lock=x") == OK
        with contextlib.ExitStack() as stack:
            for number in range(3):
                process = stack.enter_context(subprocess.Popen([sys.executable, "-c", code, str(port)]))
                stack.callback(process.kill)
                expect(lambda number=number: ask(watcher, b"waiters lock=x") == b"OK waiters=%d\r\n" % (number + 1))
            waiter[0].sendall(b"lock lock=x\n")
            expect(lambda: ask(watcher, b"waiters lock=x") == b"OK waiters=4\r\n")
        expect(lambda: ask(watcher, b"waiters lock=x") == b"OK waiters=1\r\n")
        assert ask(holder, b"releaselock lock=x") == OK
        assert waiter[1].readline().startswith(b"OK token=")


def take_and_list(sock: socket.socket, path: Path) -> None:
    """Take a lock by a Unix socket, and see it in the list under no name of its own."""
    sock.connect(str(path))
    sock.sendall(b"trylock lock=x\nlocks\n")
    heard = b""
    while heard.count(b"\n") < 3:
        heard += sock.recv(1000)
    assert heard == OK + b"LOCKS:\n  x = DDLockd::Client::Internal(R): open to a Unix socket\n"


def test_a_unix_socket_whose_client_has_a_strange_name(tmp_path: Path) -> None:
    path = tmp_path / "lock.sock"
    command = [sys.executable, str(EXAMPLES / "ddlockd.py"), "--socket", str(path), "--debug=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(SECONDS)
            sock.bind(os.fsencode(tmp_path) + b"/\xff\n")
            take_and_list(sock, path)
        process.terminate()
        assert process.communicate(timeout=SECONDS)[0] == "connection 1 from a Unix socket\nbye\n"


def _answers(port: int) -> bool:
    with connected(port) as connection:
        return ask(connection, b"noop") == OK


def test_who_waits_when_the_server_ends(tmp_path: Path) -> None:
    program = Program("ddlockd.py", ("--port", "0", "--bind", "127.0.0.1"), 1, tmp_path / "errors")
    try:
        with clients(program.ports[0], 3) as (holder, waiter, idle):
            ask(holder, b"trylock lock=x")
            waiter[0].sendall(b"lock lock=x\r\n")
            expect(lambda: ask(idle, b"waiters lock=x") == b"OK waiters=1\r\n")
            program.end()
            assert waiter[1].read() == b"ERR shutting_down \r\n"
            assert idle[1].read() == b""
    finally:
        program.process.kill()
        program.process.communicate()


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "ddlockd.py"), *options],
        capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip


def test_exit_codes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("--bind", "127.0.0.1", "--port", str(taken.getsockname()[1]))
        assert done.returncode == errno.EADDRINUSE
        assert done.stderr.startswith("Error creating socket: ")
        done = run("-d", "--bind", "127.0.0.1", "-p", str(taken.getsockname()[1]))  # a daemon says so, too
        assert done.returncode == errno.EADDRINUSE
        assert done.stderr.startswith("Error creating socket: ")
    done = run("-d", "-p0", "--type=dbi", "-h", "sqlite:/nowhere/at/all")
    assert (done.returncode, done.stderr) == (255, "ddlockd: unable to open database file\n")
    done = run("-p0", "--pidfile=/nowhere/at/all")
    assert done.returncode == 255
    assert "/nowhere/at/all" in done.stderr
    for options in (["-t", "frob"], ["--type=frob"]):
        done = run("-p0", *options)
        assert (done.returncode, done.stdout) == (255, "")
        assert "unknown type 'frob'" in done.stderr
    assert run("-p0", "--type", "dbi").returncode == 255
    assert run("-p0", "--type", "dlmfs").returncode == 255
    assert run("-p0", "--type", "dlmfs", "--directory", "/nowhere/at/all").returncode == 255
    assert run("-p0", "--type", "dbi", "-h", "oracle:x").returncode == 255
    done = run("-p0", "--token-file=/nowhere/at/all")
    assert (done.returncode, done.stdout) == (255, "")
    assert "/nowhere/at/all" in done.stderr
    assert run("--help").returncode == 0


def test_an_unknown_option_does_no_harm(tmp_path: Path) -> None:
    options = ("--port=0", "--bind=127.0.0.1", "--frob", "-n", "--debug=1")
    program = Program("ddlockd.py", options, 1, tmp_path / "errors")
    try:
        with connected(program.ports[0]) as connection:
            assert ask(connection, b"noop") == OK
        assert program.errors.read_text() == "Unknown option: --frob\n"
        program.process.terminate()
        printed, _ = program.process.communicate(timeout=SECONDS)
        assert re.fullmatch(r"connection 1 from 127\.0\.0\.1:\d+\nbye\n", printed)
        assert program.process.returncode == 0
    finally:
        program.process.kill()
        program.process.communicate()


def test_a_daemon(tmp_path: Path) -> None:
    pidfile, path = tmp_path / "pid", tmp_path / "lock.sock"
    done = run("-d", "--socket", str(path), "--pidfile", str(pidfile))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"ddlockd listens on {path}\n"
    pid = int(pidfile.read_text())
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(SECONDS)
            take_and_list(sock, path)
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            assert os.getsid(pid) != os.getsid(0)
            assert run("--socket", str(path)).returncode == errno.EADDRINUSE
            os.kill(pid, signal.SIGTERM)
            assert sock.recv(1) == b""
    finally:
        expect(lambda: not path.exists())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_end_of_a_server_frees_its_port(tmp_path: Path) -> None:
    """After kill -9 a new one takes its place at once."""
    port = 0
    for _ in range(2):
        program = Program("ddlockd.py", (f"-p{port}", "--bind=127.0.0.1"), 1, tmp_path / "errors")
        (port,) = program.ports
        with clients(port, 3) as (connection, waiter, watcher):
            assert ask(connection, b"trylock lock=x") == OK
            waiter[0].sendall(b"lock lock=x\n")
            expect(lambda watcher=watcher: ask(watcher, b"waiters lock=x") == b"OK waiters=1\r\n")
            program.process.kill()
            program.process.communicate()
            assert connection[1].read() == waiter[1].read() == b""


# -- many at once


def compete(port: int, folder: Path, seed: int, rounds: int) -> tuple[int, int]:
    """One client for some rounds: how often it held a lock, and how often it was cut off."""
    chance, held, cut = random.Random(seed), 0, 0
    sock = d.connect(("127.0.0.1", port))
    for _ in range(rounds):
        name = chance.randrange(10)
        waits = chance.random() < 0.5
        sock.write_all(b"%s lock=%d\r\n" % (b"lock" if waits else b"trylock", name))
        if chance.random() < 1 / 3 / rounds:  # before it knows
            sock.close()
            return held, 1
        reply = sock.read_line()
        if reply.startswith(b"OK"):
            held += 1
            proof = folder / str(name)
            proof.touch(exist_ok=False)  # nobody else has it
            for _ in range(chance.randrange(3)):
                d.sleep(0)
            proof.unlink()
            if chance.random() < 1 / 3 / rounds:  # while it holds it
                sock.close()
                return held, 1
            sock.write_all(b"releaselock lock=%d\r\n" % name)
            assert sock.read_line() == OK
        else:
            assert reply == TAKEN
    sock.close()
    return held, cut


@pytest.mark.descriptors(1200)
def test_a_thousand_connections_compete_for_ten_locks(port: int, tmp_path: Path) -> None:
    with d.Loop():
        tasks = [d.spawn(compete, port, tmp_path, seed, 5) for seed in range(1000)]
        with d.timeout(50):
            d.wait(tasks)
        results = [task.result() for task in tasks]
        assert sum(held for held, _ in results) > 500
        assert 100 < sum(cut for _, cut in results) < 600
    with connected(port) as connection:
        assert all(ask(connection, b"trylock lock=%d" % name) == OK for name in range(10))
    assert not any(path.name.isdigit() for path in tmp_path.iterdir())


def test_a_port_that_cannot_be_is_told() -> None:
    done = run("--bind=127.0.0.1", "--port=70000")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error creating socket: the port of ")


def test_a_lease_that_was_renewed_before_a_stall_of_the_server_goes_on(memory: Any) -> None:
    """Of many events at once most are dispatched after timers have been looked at."""
    holders = [Peer() for _ in range(40)]
    for n, holder in enumerate(holders):
        assert holder.says(b"lock lock=%d&ttl=10\n" % n).startswith(b"OK token=")
    silent = Peer()
    assert silent.says(b"lock lock=silent&ttl=10\n").startswith(b"OK token=")
    for holder in holders:
        holder.end.send(b"noop\n")
    memory.clock.jump(20)
    assert [holder.hears() for holder in holders] == [OK] * 40
    assert [holder.says(b"releaselock lock=%d\n" % n) for n, holder in enumerate(holders)] == [OK] * 40
    assert silent.says(b"releaselock lock=silent\n") == DIDNT_HAVE


def test_what_is_sent_after_all_renews_no_lease(memory: Any) -> None:
    holder, other = Peer(), Peer()
    assert holder.says(b"lock lock=x&ttl=10\n").startswith(b"OK token=")
    assert other.says(b"lock lock=x\n") == b""
    for _ in range(11):
        d.sleep(1)
        holder.says(b"trylock lock=x\n")
    assert other.hears().startswith(b"OK token=")
