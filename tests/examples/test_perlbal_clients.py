"""Clients of perlbal: reading heads in any pieces, keep-alive, bad input, limits in time, the end."""

from __future__ import annotations

import socket

import pytest

import dangagreen as d
from perlbal.clients import SWEEP_SECONDS, Exchange, HttpRole
from perlbal.heads import HEAD_LIMIT
from perlbal_talk import Talker, body, fields, get, served


class Echo(HttpRole):
    """In place of a role: notes the requests, and answers each by its URI, or lets it wait."""

    name = "echo"

    def __init__(self, service):
        super().__init__(service)
        self.heads = []
        self.waits = False

    def begin(self, client, head):
        self.heads.append(head)
        if self.waits:
            client.exchange = Waiting()
        else:
            client.error(200, head.uri)


class Waiting(Exchange):
    def __init__(self):
        super().__init__()
        self.ends = 0

    def gone(self, client):
        self.ends += 1


@pytest.fixture
def service(loop):
    with served(persist_client="on") as service:
        service.role = Echo(service)
        yield service


@pytest.fixture
def connect(loop, wires, run_turns, service):
    def connect(capacity=1 << 20):
        return Talker(service, wires, run_turns, capacity)

    return connect


REQUEST = get("/x", "Cookie: a=b")


@pytest.mark.parametrize("at", range(1, len(REQUEST)))
def test_a_head_may_be_split_anywhere(connect, service, at):
    talker = connect()
    assert body(talker.say(REQUEST[:at], REQUEST[at:])) == b"<h1>200 - OK</h1>\n/x"
    assert [head.uri for head in service.role.heads] == ["/x"]
    assert not talker.ended


def test_a_head_may_come_byte_by_byte(connect):
    assert fields(connect().say(*(bytes([one]) for one in REQUEST), turns=1))["code"] == "200"


def test_pipelined_requests_are_answered_in_their_order(connect):
    answers = connect().say(get("/1") + get("/2") + get("/3")[:-2], get("/3")[-2:])
    assert [answers.count(b"\n/%d" % number) for number in (1, 2, 3)] == [1, 1, 1]
    assert answers.index(b"\n/1") < answers.index(b"\n/2") < answers.index(b"\n/3")


# -- keep-alive

KEPT = {"connection": "keep-alive", "keep-alive": "timeout=30, max=100"}


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (get(), True),
        (get(version="1.0"), False),
        (get("/", "Connection: close"), False),
        (get("/", "Connection: Keep-Alive", version="1.0"), True),
        (get("/", "Connection: keep-alive, close", version="1.0"), False),
        (get(method="HEAD"), True),
        (get("/", "Content-Length: 0", method="POST"), True),
        (get("/", "Content-Length: 5", method="POST"), False),
        (get("/", "Transfer-Encoding: chunked", method="POST"), False),
    ],
)
def test_a_connection_is_kept_as_the_request_asks_and_never_with_an_unread_body(connect, request_, kept):
    talker = connect()
    answer = fields(talker.say(request_))
    assert talker.ended == (not kept)
    assert {name: answer[name] for name in KEPT if name in answer} == (KEPT if kept else {"connection": "close"})


def test_the_service_decides_too(connect, service):
    service.set("persist_client_idle_timeout", "0")
    answer = fields(connect().say(get()))
    assert answer["connection"] == "keep-alive"
    assert "keep-alive" not in answer
    service.set("persist_client", "off")
    assert fields(connect().say(get()))["connection"] == "close"


def test_no_connection_stays_where_the_service_is_disabled_or_the_program_stops(connect, service):
    kept, other = connect(), connect()
    assert fields(kept.say(get()))["connection"] == fields(other.say(get()))["connection"] == "keep-alive"
    service.world.stopping = True
    assert fields(other.say(get()))["connection"] == "close"
    service.world.stopping = False
    service.disable()
    assert fields(kept.say(get()))["connection"] == "close"
    assert kept.ended


def test_an_empty_line_before_the_next_request_is_taken(connect):
    talker = connect()
    talker.say(get("/", "Content-Length: 0", method="POST"))
    assert talker.say(b"\r\n") == b""
    assert fields(talker.say(b"\r\n", get("/again")))["code"] == "200"


def test_the_send_buffer_is_what_is_set(connect, service):
    service.set("client_sndbuf_size", "20k")
    assert connect().client.sock.options[socket.SOL_SOCKET, socket.SO_SNDBUF] == 20480


# -- bad input: each gets a short answer that says what was wrong, then a close


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", "400", b"NUL"),
        (b"GET /\r\n\r\n", "400", b"Not a request line"),
        (b"GET  / HTTP/1.0\r\n\r\n", "400", b"Not a request line"),
        (b"GET / HTTP/3.7\r\n\r\n", "505", b"HTTP/1.0 and HTTP/1.1"),
        (b"GET / HTTP/1.0\r\nBad Name: x\r\n\r\n", "400", b"Not a header line"),
        (b"GET / HTTP/1.0\r\nName : x\r\n\r\n", "400", b"Not a header line"),
        (b"GET / HTTP/1.0\r\nName: \0\r\n\r\n", "400", b"NUL"),
        (b"GET / HTTP/1.1\r\n\r\n", "400", b"Host"),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "400", b"Host"),
        (get("/", "Content-Length: -1"), "400", b"Content-Length < 0"),
        (get("/", "Content-Length: abc"), "400", b"Content-Length"),
        (get("/", "Content-Length: 5", "Content-Length: 5"), "400", b"Content-Length"),
        (get("/", "Content-Length: 5", "Transfer-Encoding: chunked"), "400", b"beside Transfer-Encoding"),
        (get("/", "Transfer-Encoding: gzip"), "501", b"chunked"),
        (b"x" * HEAD_LIMIT, "414", b"request line"),
        (b"GET / HTTP/1.0\r\n" + b"Name: value\r\n" * 9000, "431", b"too large"),
    ],
)
def test_bad_input_is_refused(connect, service, data, code, text):
    talker = connect()
    answer = talker.say(data, turns=20)
    assert fields(answer)["code"] == code
    assert text in body(answer)
    assert fields(answer)["connection"] == "close"
    assert talker.ended
    assert service.role.heads == []
    talker.far.close()
    talker.run_turns(3)
    assert talker.client.closed


def test_bad_input_after_a_good_request_is_refused(connect):
    answers = connect().say(get("/1") + b"nonsense\r\n\r\n")
    assert answers.count(b"HTTP/1.0 200 OK") == 1
    assert answers.count(b"HTTP/1.0 400 Bad request") == 1


# -- time


def test_a_slow_head_is_refused(connect, service, advance):
    service.set("head_timeout", "10")
    talker = connect()
    talker.say(b"GET ")
    for _ in range(3):
        advance(5)
        talker.say(b"x")
    talker.take()
    assert fields(talker.got)["code"] == "408"
    assert talker.ended


def test_idle_connections_are_closed(connect, service, advance):
    service.set("idle_timeout", "8")
    service.set("persist_client_idle_timeout", "18")
    new, kept = connect(), connect()
    kept.say(get())
    advance(8 + SWEEP_SECONDS)
    new.say(b"")
    assert (new.client.closed, kept.client.closed) == (True, False)
    advance(10)
    assert kept.client.closed


def test_an_exchange_in_which_nothing_happens_is_ended(connect, service, advance):
    service.role.waits = True
    service.set("idle_timeout", "8")
    talker = connect()
    talker.say(get())
    exchange = talker.client.exchange
    advance(8)
    assert not talker.client.closed
    advance(SWEEP_SECONDS)
    assert talker.client.closed
    assert exchange.ends == 1


def test_between_requests_there_is_neither_a_task_nor_a_timer_for_a_client(connect, service, loop):
    talkers = [connect() for _ in range(20)]
    for talker in talkers:
        talker.say(get())
    assert {talker.client.state for talker in talkers} == {"persist_wait"}
    assert not hasattr(talkers[0].client, "__dict__")
    assert len(loop.timers) == 1  # the sweep
    assert d.task_table(loop).count("task") == 0


def test_no_timer_is_left_when_there_is_nobody_to_look_after(connect, service, advance, loop):
    talker = connect()
    service.disable()
    talker.client.close()
    advance(SWEEP_SECONDS)
    assert service.world.sweeping is None
    assert len(loop.timers) == 0


# -- the end


def test_a_client_that_leaves_between_requests_is_closed(connect):
    talker = connect()
    talker.say(get())
    talker.far.close()
    talker.run_turns(2)
    assert talker.client.closed


def test_a_client_that_has_sent_all_and_half_closes_is_answered(connect):
    talker = connect()
    talker.far.send(get("/last"))
    talker.far.shutdown(1)
    assert body(talker.say(b"")).endswith(b"/last")
    assert talker.ended


def test_an_exchange_hears_once_that_its_client_has_gone(connect, service):
    service.role.waits = True
    talker = connect()
    talker.say(get())
    exchange = talker.client.exchange
    talker.client.close()
    talker.client.close()
    assert exchange.ends == 1
    assert talker.client.exchange is None


def test_a_client_that_does_not_read_gets_no_further_answers(connect, service):
    """Its next request waits until it has read the answer before."""
    talker = connect(300)
    talker.far.send(get("/1")[:300])
    talker.far.send(get("/2"))
    talker.far.send(get("/3"))
    talker.run_turns(10)
    assert len(service.role.heads) <= 2
    assert talker.client.state == "draining_res"
    for _ in range(10):
        talker.say(b"")
    assert [head.uri for head in service.role.heads] == ["/1", "/2", "/3"]
    assert talker.got.count(b"HTTP/1.0 200 OK") == 3


def test_a_client_that_does_not_read_is_closed(connect, service, advance):
    service.set("client_stall_timeout", "8")
    service.set("idle_timeout", "1000")
    talker = connect(300)
    talker.far.send(get("/" + "x" * 200))
    talker.run_turns(5)
    assert talker.client.unsent
    advance(SWEEP_SECONDS)
    assert not talker.client.closed
    advance(SWEEP_SECONDS)
    assert talker.client.closed


def test_states(connect, service):
    service.role.waits = True
    talker = connect()
    assert talker.client.state == "reading_headers"
    talker.say(get())
    assert talker.client.state == "wait_res"
    talker.client.error(200)
    assert talker.client.state == "persist_wait"
    talker.say(b"G")
    assert talker.client.state == "reading_headers"


def test_what_is_counted_of_a_node(connect, service):
    service.role.waits = True
    talker = connect()
    talker.say(get())
    exchange = talker.client.exchange
    exchange.node, exchange.response_seconds = "127.0.0.1:9000", 0.5
    talker.client.error(502)
    meter = service.world.node_meters["127.0.0.1:9000"]
    assert (meter.codes, meter.seconds) == ({502: 1}, 0.5)


def test_what_is_counted(connect, service):
    talker = connect()
    talker.say(get(), get(), b"nonsense\r\n\r\n")
    assert service.meter.codes == {200: 2, 400: 1}
    assert sum(service.meter.durations) == 3
    assert service.meter.sent == sum(len(b"<h1>200 - OK</h1>\n/") for _ in range(2)) + len(body(talker.got[-200:]))
    assert service.world.requests == 2
