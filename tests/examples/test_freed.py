"""The connections of the examples are freed by their last reference, whatever ended them: without the collector."""

from __future__ import annotations

import gc
import socket

import pytest

import chat
import dangagreen as d
import echo
from crawler.crawl import Crawl, follow_links
from dangagreen.sockets.acceptor import Acceptor
from dangagreen.sockets.descriptor import Descriptor
from ddlockd.client import Client
from miniredis.clients import Client as RedisClient
from miniredis.server import talk
from miniredis.status import StatusPage
from tests.connections import reset

LOCAL = ("127.0.0.1", 0)
LINES = b"x" * 100_000
SET = b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$200000\r\n%b\r\n" % bytes(200_000)
SUBSCRIBE = b"subscribe a b\r\npublish a x\r\n"
GET = b"*2\r\n$3\r\nget\r\n$1\r\nk\r\n"


def echo_server(style):
    return lambda: echo.listen(style, LOCAL)


SERVERS = {
    "echo callback": (echo_server("callback"), [b"hello\n", LINES * 20]),
    "echo sequential": (echo_server("sequential"), [b"hello\n", LINES * 20]),
    "echo requests": (echo_server("requests"), [b"hello\n", LINES * 20]),
    "chat": (
        lambda: d.serve(LOCAL, chat.log_in, socket_class=chat.Member),
        [b"", b"ann\nhello\n/who\n", b"ann\n" + LINES],
    ),
    "miniredis": (
        lambda: d.serve_requests(LOCAL, talk, socket_class=RedisClient),
        [b"ping\r\n", b"*3\r\n$3", b"*1\r\n$x\r\n", SET + GET * 30, SUBSCRIBE, b"quit\r\n", LINES],
    ),
    "status page": (
        lambda: d.serve(LOCAL, StatusPage), [b"GET / HTTP/1.1\r\n\r\n", b"GET /none HTTP/1.1\r\n\r\n", LINES]
    ),
    "ddlockd": (
        lambda: d.serve(LOCAL, Client),
        [b"trylock lock=a\r\nlock lock=b\r\nlocks\r\n", b"lock lock=a timeout=0.1\r\n", b"lock lock=", LINES],
    ),
}  # fmt: skip
CASES = [(name, number) for name, (_, requests) in SERVERS.items() for number in range(len(requests))]


def connections():
    return [one for one in gc.get_objects() if isinstance(one, Descriptor) and not isinstance(one, Acceptor)]


_before = set()  # ids of those that something else in this process holds: a module's list, an error that is kept


def connections_since():
    return [one for one in connections() if id(one) not in _before]


@pytest.fixture
def uncollected():
    gc.collect()
    gc.disable()
    held = connections()
    _before.update(map(id, held))
    yield
    _before.clear()
    gc.enable()


@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["closes", "resets"])
@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{name}-{number}" for name, number in CASES])
def test_a_connection_of_an_example_is_freed(loop, run_until, run_turns, uncollected, name, number, end):
    serve, requests = SERVERS[name]
    listener = serve()
    for times in (1, 3):
        peers = [socket.create_connection(listener.address) for _ in range(times)]
        run_until(lambda times=times: listener.connections == times)
        for peer in peers:
            peer.setblocking(False)
            try:
                peer.send(requests[number])
            except BlockingIOError:
                pass
        run_turns(10)
        for peer in peers:
            end(peer)
        for _ in range(20):  # what is over already gives no event
            run_turns(3)
            if listener.connections:
                run_until(lambda: not listener.connections)
        alive = len(connections_since())
        assert alive == 0
    listener.close()


@pytest.mark.parametrize("body", [b"fine", b"too short", b"no", b""], ids=["whole", "cut", "not spoken", "closed"])
def test_a_connection_of_the_crawler_is_freed(loop, run_until, run_turns, uncollected, body):
    def page(sock):
        sock.read_line()
        if body == b"no":
            sock.write_all(b"HTTQ\r\n\r\n")
        elif body:
            sock.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n" + body[:4])
            if len(body) > 4:
                sock.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n")

    listener = d.serve(LOCAL, page)
    crawl = Crawl(10, 10_000, 1, 5.0)
    task = d.spawn(follow_links, crawl, ["http://{}:{}/".format(*listener.address)], 2, 5.0)
    run_until(lambda: task.done)
    for _ in range(20):
        run_turns(3)
    alive = len(connections_since())
    assert alive == 0
    listener.close()
