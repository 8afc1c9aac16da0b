"""How servers end, for real: HTTP and Redis clients that are in the middle of it, and processes that get signals."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import threading
from functools import partial

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import dangagreen as d
from dangagreen.loop.loop import Loop
from miniredis.clients import Client
from miniredis.commands import strings
from miniredis.keys import Keys
from miniredis.server import talk
from tests.programs import PREAMBLE, ended

pytestmark = pytest.mark.slow

LOCAL = ("127.0.0.1", 0)
SECONDS = 30.0


class Server:
    """A server in a thread of its own, until `stop`. `ended` is what serve_forever returned."""

    def __init__(self, start):
        self.start, self.ended = start, None
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        assert self.ready.wait(SECONDS)
        self.address = self.listener.address

    def run(self):
        with Loop():
            self.listener = self.start()
            self.listener.loop.call_soon(self.ready.set)
            self.ended = d.serve_forever(self.listener, grace=SECONDS)

    def stop(self):
        self.listener.stop()
        self.thread.join(2 * SECONDS)
        assert not self.thread.is_alive()


def at_once(functions):
    """Threads that are at it; they end by themselves when their server does."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    return threads


def joined(threads):
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()


# -- HTTP, in the three styles

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"


class Web:
    """A tiny HTTP server, and what became of each request, by its number."""

    def __init__(self, style):
        self.style = style
        self.accepted, self.handled = set(), set()  # ports of the peers, numbers of requests
        self.answered, self.lost = set(), {}
        self.reset_in_the_queue = []

    def answer(self, head):
        number = int(head.split(b" ")[1][1:])
        self.handled.add(number)
        return REPLY + b"%010d" % number * 1000

    def start(self):
        web = self

        class Noting(d.Socket):
            __slots__ = ()

            def __init__(self, sock):
                super().__init__(sock)
                web.accepted.add(sock.getpeername()[1])

        class Connection(Noting):
            __slots__ = ("head",)

            def event_read(self):
                data = self.read(65536)
                if data is None:
                    self.finish()
                    return
                head, end, rest = data.partition(b"\r\n\r\n")
                if end:
                    self.write(web.answer(head))
                    self.push_back_read(rest)
                else:
                    self.push_back_read(data)

        def one(sock):
            if head := sock.read_until(b"\r\n\r\n"):
                sock.write_all(self.answer(head))

        def many(sock):
            while head := sock.read_until(b"\r\n\r\n"):
                sock.write_all(self.answer(head))

        match self.style:
            case "callbacks":
                return d.serve(LOCAL, Connection)
            case "sequential":
                return d.serve(LOCAL, many, socket_class=Noting)
            case _:
                return d.serve_requests(LOCAL, one, socket_class=Noting)

    def request(self, connection, number):
        connection.request("GET", f"/{number}")
        with connection.getresponse() as response:
            assert response.read() == b"%010d" % number * 1000
        self.answered.add(number)

    def keeps_its_connection(self, address, numbers):
        """A client that sends requests until it finds the end of the connection: that, and nothing else."""
        connection = http.client.HTTPConnection(*address, timeout=SECONDS)
        with contextlib.closing(connection):
            for number in numbers:
                try:
                    self.request(connection, number)
                except ConnectionRefusedError:
                    return  # it came too late
                except http.client.RemoteDisconnected as error:  # an end without a byte of a reply
                    self.lost[number] = error
                    return
                except Exception as error:
                    self.lost[number] = error
                    raise

    def connects_for_each(self, address, numbers):
        """A client that connects for each request, until it is refused."""
        for number in numbers:
            connection = http.client.HTTPConnection(*address, timeout=SECONDS)
            with contextlib.closing(connection):
                try:
                    connection.connect()
                except ConnectionError:
                    return
                port = connection.sock.getsockname()[1]
                try:
                    self.request(connection, number)
                except ConnectionResetError:
                    if port in self.accepted:
                        raise
                    self.reset_in_the_queue.append(number)  # made between the last accept and the close
                    return


@pytest.mark.parametrize("style", ["callbacks", "sequential", "requests"])
def test_http_clients_lose_no_request_that_was_accepted(style):
    for _ in range(5):
        web = Web(style)
        server = Server(web.start)
        threads = at_once(
            partial(call, server.address, range(index * 1_000_000, (index + 1) * 1_000_000))
            for index, call in enumerate(4 * [web.keeps_its_connection, web.connects_for_each])
        )
        while len(web.answered) < 100:
            threading.Event().wait(0.001)
        server.stop()
        joined(threads)
        assert server.ended == []
        assert web.handled == web.answered
        assert {type(error) for error in web.lost.values()} <= {http.client.RemoteDisconnected}
        assert not web.handled & set(web.lost)
        assert len(web.lost) <= 4  # each client that keeps its connection finds its end once
        assert len(web.reset_in_the_queue) <= 4


# -- Redis


@pytest.fixture
def keys(monkeypatch):
    """What INCR counts up, of the test's own."""
    keys = Keys()
    monkeypatch.setattr(strings, "keys", keys)
    return keys


@pytest.mark.parametrize("several", [1, 10])
def test_redis_clients_lose_no_request_that_was_accepted(keys, several):
    for round in range(5):
        server = Server(lambda: d.serve_requests(LOCAL, talk, socket_class=Client))
        answered = [0] * 6
        ends = []

        def count(index, round=round, server=server, answered=answered, ends=ends):
            options = {"retry": Retry(NoBackoff(), 0), "single_connection_client": True, "socket_timeout": SECONDS}
            try:
                with redis.Redis(port=server.address[1], **options) as client:
                    while True:
                        pipeline = client.pipeline(transaction=False)
                        for _ in range(several):
                            pipeline.incr(f"{round}-{index}")
                        answered[index] += len(pipeline.execute())
            except redis.ConnectionError as error:
                ends.append(str(error))

        threads = at_once(partial(count, index) for index in range(6))
        while sum(answered) < 200:
            threading.Event().wait(0.001)
        server.stop()
        joined(threads)
        assert server.ended == []
        assert [int(keys.get(b"%d-%d" % (round, index)) or 0) for index in range(6)] == answered
        assert len(ends) == 6
        for end in ends:  # refused: the client had noticed the end before it sent its next request
            assert end == "Connection closed by server." or "refused" in end


# -- processes

EVERY_WAIT = (
    PREAMBLE
    + """
def handler(sock):
    last("handler", sock.read_line)

def request(sock):
    last("request", sock.read_exactly, 100)

def flood(sock):
    while True:
        sock.write_all(b"x" * 100000)

def write_and_drain(sock):
    sock.write(b"x" * 10_000_000)
    sock.drain()

def start():
    listeners = [d.serve(("127.0.0.1", 0), handler)] + [d.serve_requests(("127.0.0.1", 0), request) for _ in range(2)]
    clients = [d.connect(listener.address) for listener in listeners]
    for client in clients[1:]:
        client.write_all(b"half")
    pairs = [socket.socketpair() for _ in range(3)]
    socks = [d.Socket(pair[0]) for pair in pairs]
    d.spawn(last, "read_line of a client", clients[0].read_line)
    d.spawn(last, "read_line", socks[0].read_line)
    d.spawn(last, "write_all", flood, socks[1])
    d.spawn(last, "drain", write_and_drain, socks[2])
    sleeper = d.spawn(last, "sleep", d.sleep, 1e6)
    d.spawn(last, "join", sleeper.join)
    d.spawn(last, "join with a timeout", sleeper.join, 1e6)
    d.sleep(0.1)
    d.spawn(last, "drain of a listener", listeners.pop().drain, None)
    d.sleep(0.1)
    keep.extend([pairs, clients])
    d.current_loop().call_soon(say, "ready")  # when main is parked
    return listeners

keep = []
def main():
    listeners = start()
    if sys.argv[1] == "forever":
        last("main", lambda: d.serve_forever(*listeners, grace=0.1))
        say("ended")
    else:
        last("main", d.sleep, 1e6)

if sys.argv[2] == "run":
    d.run(main)
else:
    main()
"""
)

WAITS = ["drain", "drain of a listener", "handler", "join", "join with a timeout", "main", "read_line"]
WAITS += ["read_line of a client", "request", "request", "sleep", "write_all"]


@pytest.mark.parametrize("where", ["run", "top level"])
def test_ctrl_c_runs_every_finally(started, where):
    process = started(EVERY_WAIT, "plain", where)
    process.send_signal(signal.SIGINT)
    out, err, code = ended(process)
    assert sorted(out) == sorted(f"finally {name}" for name in WAITS)
    assert err.endswith("KeyboardInterrupt\n")
    assert err.count("Traceback") == 1
    assert code == -signal.SIGINT


@pytest.mark.parametrize("where", ["run", "top level"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_forever_in_a_process(started, where, number):
    process = started(EVERY_WAIT, "forever", where)
    process.send_signal(number)
    out, err, code = ended(process)
    assert (err, code) == ("", 0)
    assert sorted(out) == sorted(["ended", *(f"finally {name}" for name in WAITS)])


def test_a_program_that_hangs_is_ended_by_a_second_ctrl_c(started):
    program = (
        PREAMBLE
        + """
def hang():
    usual = signal.getsignal(signal.SIGINT)

    def noted(*arguments):
        say("noted")
        usual(*arguments)

    signal.signal(signal.SIGINT, noted)
    say("ready")
    while True:
        pass

d.current_loop().call_soon(hang)
last("main", d.serve_forever, d.serve(("127.0.0.1", 0), print))
"""
    )
    process = started(program)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "noted\n"
    process.send_signal(signal.SIGINT)
    out, err, code = ended(process)
    assert out == ["noted", "finally main"]
    assert err.endswith("KeyboardInterrupt\n")
    assert code == -signal.SIGINT


def test_a_request_under_way_is_finished_when_sigterm_comes(started):
    program = (
        PREAMBLE
        + """
def slow(sock):
    line = sock.read_line()
    say("asked")
    d.sleep(0.3)
    sock.write_all(line)

listener = d.serve_requests(("127.0.0.1", 0), slow)
say("ready")
say(str(listener.address[1]))
print(d.serve_forever(listener))
"""
    )
    process = started(program)
    with socket.create_connection(("127.0.0.1", int(process.stdout.readline())), SECONDS) as sock:
        sock.sendall(b"hello\n")
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)
        with sock.makefile("rb") as replies:
            assert replies.read() == b"hello\n"
    assert ended(process) == (["[]"], "", 0)
