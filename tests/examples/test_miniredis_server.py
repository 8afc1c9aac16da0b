"""miniredis as a program: byte by byte, its status page, and by Redis's own programs."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import urllib.request

import pytest
import redis

from programs import SECONDS, answer, connected, expect
from redis_servers import packed


@pytest.fixture
def port(miniredis: list[int]) -> int:
    return miniredis[0]


# -- miniredis, byte by byte


def test_inline_commands(port: int) -> None:
    asked = b"PING\r\n\r\nset k word\r\nGET k\r\n  echo  a \n*0\r\nQUIT\r\nPING\r\n"
    assert answer(port, asked) == b"+PONG\r\n+OK\r\n$4\r\nword\r\n$1\r\na\r\n+OK\r\n"


CONVERSATION = packed(b"SET", b"k", b"a\r\nb") + b"GET k\r\n" + packed(b"SUBSCRIBE", b"c") + packed(b"PING")
CONVERSATION += b"PING\r\n" + packed(b"GET", b"k") + packed(b"UNSUBSCRIBE", b"c") + packed(b"GET", b"k")
REPLIES = b"+OK\r\n$4\r\na\r\nb\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n" + 2 * b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
REPLIES += b"-ERR Can't execute 'get': only (P)SUBSCRIBE / (P)UNSUBSCRIBE / PING / QUIT / RESET"
REPLIES += b" are allowed in this context\r\n"
REPLIES += b"*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n$4\r\na\r\nb\r\n"


def test_a_conversation_in_both_styles_split_at_every_byte(port: int) -> None:
    assert answer(port, CONVERSATION) == REPLIES
    with connected(port) as (other, pongs):
        for split in range(1, len(CONVERSATION)):
            with connected(port) as (sock, replies):
                sock.sendall(CONVERSATION[:split])
                other.sendall(b"PING\r\n")  # when it is answered, the server has seen the first piece
                assert pongs.readline() == b"+PONG\r\n"
                sock.sendall(CONVERSATION[split:])
                sock.shutdown(socket.SHUT_WR)
                assert (split, replies.read()) == (split, REPLIES)


def test_a_conversation_byte_by_byte(port: int) -> None:
    with connected(port) as (sock, replies):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(len(CONVERSATION)):
            sock.sendall(CONVERSATION[place : place + 1])
        sock.shutdown(socket.SHUT_WR)
        assert replies.read() == REPLIES


def test_resp3_subscribers_may_do_everything(port: int) -> None:
    asked = packed(b"HELLO", b"3") + packed(b"SUBSCRIBE", b"c") + packed(b"SET", b"k", b"v") + packed(b"GET", b"none")
    asked += packed(b"PING") + packed(b"UNSUBSCRIBE") + packed(b"UNSUBSCRIBE")
    hello, rest = answer(port, asked).split(b"modules\r\n*0\r\n")
    assert hello.startswith(b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n")
    assert rest == (
        b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n+OK\r\n_\r\n+PONG\r\n"
        b">3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n>3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n"
    )


@pytest.mark.parametrize("subscribed", [False, True], ids=["dialogue", "subscribed"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (b"*1\r\n$-2\r\n", b"invalid bulk length"),
        (b"*1\r\n$1073741824\r\n", b"invalid bulk length"),
        (b"*1\r\n$" + b"9" * 30 + b"\r\n", b"invalid bulk length"),
        (b"*1\r\n$abc\r\n", b"invalid bulk length"),
        (b"*1\r\n$\r\n", b"invalid bulk length"),
        (b"*1\r\n$ 4\r\nPING\r\n", b"invalid bulk length"),
        (b"*2\r\n$4\r\nPING\r\n$1_0\r\n", b"invalid bulk length"),
        (b"*1000000000\r\n", b"invalid multibulk length"),
        (b"*99999999999999999999\r\n", b"invalid multibulk length"),
        (b"*x\r\n", b"invalid multibulk length"),
        (b"*1\r\nPING\r\n", b"expected '$', got 'P'"),
        (b"A" * 70000, b"too big inline request"),
    ],
)
def test_protocol_errors(port: int, wrong: bytes, message: bytes, subscribed: bool) -> None:
    with connected(port) as (sock, replies):
        if subscribed:
            sock.sendall(packed(b"SUBSCRIBE", b"c"))
            assert [replies.readline() for _ in range(6)][5] == b":1\r\n"
        sock.sendall(packed(b"PING") + wrong)
        *_, complaint, end = [*replies, b""]  # an error, and then the end of the stream, though this side is open
        assert (complaint, end) == (b"-ERR Protocol error: " + message + b"\r\n", b"")
    assert answer(port, b"PING\r\nPUBLISH c x\r\n") == b"+PONG\r\n:0\r\n"


def test_half_a_request_and_then_the_end(port: int) -> None:
    for half in b"*2\r\n", b"*2\r\n$3\r\nGE", b"PIN", b"*1\r\n$400000000\r\nabc":
        assert answer(port, packed(b"PING") + half).startswith(b"+PONG\r\n")
    assert answer(port, b"PING\r\n") == b"+PONG\r\n"


def test_large_values_and_a_client_that_reads_late(port: int) -> None:
    value = bytes(range(256)) * 4096
    with connected(port) as (sock, replies):
        sock.sendall(packed(b"SET", b"k", value))
        assert replies.readline() == b"+OK\r\n"
        sock.sendall(packed(b"GET", b"k") * 20)
        assert answer(port, b"STRLEN k\r\n") == b":1048576\r\n"  # others are served meanwhile
        for _ in range(20):
            assert replies.readline() == b"$1048576\r\n"
            assert replies.read(len(value) + 2) == value + b"\r\n"


def test_status_page(miniredis: list[int]) -> None:
    port, status_port = miniredis
    with redis.Redis(port=port) as client:
        client.set("one", 1)
        client.set("two", 2, ex=100)

        def figures() -> dict[str, int]:
            with urllib.request.urlopen(f"http://127.0.0.1:{status_port}/", timeout=SECONDS) as page:
                assert page.headers["Content-Type"] == "text/html; charset=utf-8"
                text = page.read().decode()
            assert 'http-equiv="refresh"' in text
            return {name: int(n.replace(",", "")) for name, n in re.findall(r"<td>([^<]+)<td>([\d,]+)", text)}

        seen = figures()
        assert (seen["Keys"], seen["Keys that expire"], seen["Connected clients"]) == (2, 1, 1)
        assert seen["Peak memory in bytes"] > 1_000_000
        expect(lambda: client.ping() and figures()["Instantaneous ops per sec"] > 0)
    for request, outcome in (b"GET /?x", b"200 OK"), (b"GET /x", b"404 "), (b"POST /", b"405 "), (b"\0", b"405 "):
        reply = answer(status_port, request + b" HTTP/1.1\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 " + outcome)
        assert b"Keys" in reply or outcome != b"200 OK"
        assert (b"\r\nAllow: GET, HEAD\r\n" in reply) == (outcome == b"405 ")
    head, body = answer(status_port, b"HEAD / HTTP/1.1\r\n\r\n").split(b"\r\n\r\n")
    assert (head[:15], body) == (b"HTTP/1.1 200 OK", b"")
    for wrong in b"", b"GET / HTTP/1.1\r\n", b"x" * 70000:
        with contextlib.suppress(ConnectionError):  # cut off while it was still sending
            assert answer(status_port, wrong) == b""
    assert figures()["Keys"] == 2


# -- miniredis, by Redis's own programs, or by a client of our own where they are not installed


def cli(port: int, *words: str) -> str:
    """What redis-cli prints, without its end."""
    program = shutil.which("redis-cli")
    if program is not None:
        command = [program, "-p", str(port), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout.strip()
    reply = answer(port, packed(*(word.encode() for word in words))).decode()
    return reply.split("\r\n")[1] if reply[0] == "$" else reply[1:].strip()


def test_redis_cli(port: int) -> None:
    assert cli(port, "set", "k", "two words", "ex", "100") == "OK"
    assert cli(port, "get", "k") == "two words"
    assert cli(port, "get", "none") == ""
    assert cli(port, "incr", "n") == "1"
    assert cli(port, "publish", "c", "x") == "0"
    assert cli(port, "incr", "k").removeprefix("(error) ") == "ERR value is not an integer or out of range"


REQUESTS = {"ping": packed(b"PING"), "set": packed(b"SET", b"key:__rand_int__", b"xxx")}
REQUESTS["get"] = packed(b"GET", b"key:__rand_int__")


def benchmark(port: int, requests: int, connections: int, pipeline: int) -> str:
    """Many requests on many connections at once, by redis-benchmark. Answers what it has to complain about."""
    program = shutil.which("redis-benchmark")
    if program is not None:
        options = f"-p {port} -t ping,set,get -n {requests} -c {connections} -P {pipeline} --csv".split()
        done = subprocess.run([program, *options], capture_output=True, text=True, timeout=50, check=True)
        return "".join(re.findall(r".*(?:[Ee]rror|WARNING).*", done.stdout + done.stderr))
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connected(port)) for _ in range(connections)]
        for request, reply in (
            (REQUESTS["ping"], b"+PONG\r\n"),
            (REQUESTS["set"], b"+OK\r\n"),
            (REQUESTS["get"], b"$3\r\nxxx\r\n"),
        ):
            for _ in range(-(-requests // connections // pipeline)):
                for sock, _ in socks:
                    sock.sendall(request * pipeline)
                for _, replies in socks:
                    if replies.read(len(reply) * pipeline) != reply * pipeline:
                        return "Error: not the reply that was expected"
    return ""


@pytest.mark.parametrize("pipeline", [1, 16])
def test_redis_benchmark(port: int, pipeline: int) -> None:
    assert benchmark(port, requests=2000, connections=20, pipeline=pipeline) == ""
    with redis.Redis(port=port) as client:
        assert len(client.get("key:__rand_int__")) == 3
        assert client.info()["total_commands_processed"] >= 3 * 2000
        expect(lambda: client.info()["connected_clients"] == 1)
