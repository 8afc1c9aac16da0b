"""Clients of miniredis: how they are answered, and what they leave behind."""

from __future__ import annotations

import contextlib
import gc
import socket
import struct

import pytest

import dangagreen as d
from miniredis.clients import MOST_NAMES, Client, everybody
from miniredis.keys import keys
from miniredis.protocol import LONGEST_BULK, Refusal
from miniredis.server import talk
from programs import SECONDS
from redis_peers import Peer
from redis_servers import packed


def test_a_reply_does_not_get_between_the_parts_of_another(stack: contextlib.ExitStack) -> None:
    """A subscriber's long reply is told whole; another's is sent as fast as it reads."""
    one, other = Peer(stack), Peer(stack)
    one.do(b"HELLO", b"3")
    one.do(b"SUBSCRIBE", b"c")
    value = b"v" * 1_000_000

    def publish() -> None:
        while not one.client.closed:
            other.do(b"PUBLISH", b"c", b"x")
            d.sleep(0)

    d.spawn(publish)
    one.client.answer(value)
    heard = b""
    while len(heard) < 1_100_000:
        heard += one.heard()
    assert b"$1000000\r\n" + value + b"\r\n" in heard
    one.client.close()


def test_a_slow_client_is_owed_little(stack: contextlib.ExitStack) -> None:
    """Of what it asks for again and again no more is kept than a piece or two."""
    one = Peer(stack)
    value = b"v" * LONGEST_BULK
    task = d.spawn(lambda: [one.client.answer([value] * 10) for _ in range(10)])
    most = 0
    for _ in range(100):
        one.heard()
        most = max(most, one.client.unsent)
    assert 0 < most < 300_000
    one.client.close()
    with contextlib.suppress(OSError):
        task.join()


def test_a_client_watches_and_hears_so_much(stack: contextlib.ExitStack) -> None:
    one = Peer(stack)
    names = [b"%d" % number for number in range(MOST_NAMES)]
    for request in [b"WATCH"], [b"SUBSCRIBE"]:
        assert isinstance(one.do(*request, *names, b"one more"), Refusal)
        assert not isinstance(one.do(*request, *names), Refusal)
        assert isinstance(one.do(*request, b"one more"), Refusal)


LIFE = [
    [b"HELLO", b"3", b"SETNAME", b"me"], [b"WATCH", b"a", b"b"], [b"SUBSCRIBE", b"a", b"b"], [b"PSUBSCRIBE", b"*"],
    [b"PUBLISH", b"a", b"x" * 1_000_000], [b"GET"], [b"MGET", *[b"big"] * 100], [b"MONITOR"], [b"PING"],
    [b"MULTI"], [b"GET", b"a"], [b"CLIENT", b"LIST"],
]  # fmt: skip
ENDS = {
    "end": b"", "reset": b"", "cut": b"*2\r\n$1000\r\nabc", "quit": b"QUIT\r\n", "wrong": b"*1\r\n+\r\n",
    "http": b"POST / HTTP/1.1\r\n",
}  # fmt: skip


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "does-not-read"])
@pytest.mark.parametrize("end", ENDS)
def test_a_client_leaves_nothing_behind(stack: contextlib.ExitStack, end: str, reads: bool) -> None:
    """Its last reference frees it, whatever it has done and asked for: the collector has nothing to do."""
    keys.put(b"big", b"x" * 1_000_000)
    listener = d.serve_requests(("127.0.0.1", 0), talk, socket_class=Client)
    gc.collect()
    gc.disable()
    stack.callback(gc.enable)
    with socket.create_connection(listener.address) as sock:
        sock.setblocking(False)
        sock.sendall(b"".join(packed(*request) for request in LIFE) + ENDS[end])
        for _ in range(200):
            d.sleep(0)
            with contextlib.suppress(BlockingIOError):
                if reads and not sock.recv(10_000_000):
                    break
        if end == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with d.timeout(SECONDS):
        while everybody or any(isinstance(handler, Client) for handler in d.Socket.descriptor_map().values()):
            d.sleep(0.001)
    d.sleep(0)
    assert [thing for thing in gc.get_objects() if type(thing) is Client] == []
    keys.remove(b"big")
    listener.close()
