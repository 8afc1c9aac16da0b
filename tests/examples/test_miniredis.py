"""examples/miniredis.py, by the redis package, byte by byte, and by Redis's own programs."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from programs import SECONDS, answer, connected, expect

# -- miniredis, by the redis package


@pytest.fixture
def server(start: Any) -> list[int]:
    """A miniredis; its port, and that of its status page."""
    ports: list[int] = start("miniredis", "--port", "0", "--status-port", "0", lines=2)
    return ports


@pytest.fixture
def port(server: list[int]) -> int:
    return server[0]


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(port: int, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with redis.Redis(port=port, protocol=request.param, socket_timeout=SECONDS, client_name="test") as client:
        yield client


def test_strings_and_keys(client: redis.Redis) -> None:
    assert client.ping() is True
    assert client.echo("hello") == b"hello"
    assert client.set("a", b"\r\n$\0") is True
    assert client.get("a") == b"\r\n$\0"
    assert client.get("none") is None
    assert client.mget("a", "none", "a") == [b"\r\n$\0", None, b"\r\n$\0"]
    assert client.set("a", "2", nx=True) is None
    assert client.set("b", "2", xx=True) is None
    assert client.set("b", "2", nx=True) is True
    assert client.set("b", "3", xx=True) is True
    assert client.set("c", "3") is True
    assert client.set("", "") is True
    assert (client.exists(""), client.delete("")) == (1, 1)
    assert client.append("c", "45") == 3
    assert client.append("d", "x") == 1
    assert (client.strlen("c"), client.strlen("none")) == (3, 0)
    assert client.exists("a", "a", "none") == 2
    assert (client.type("a"), client.type("none")) == (b"string", b"none")
    assert sorted(client.keys("*")) == [b"a", b"b", b"c", b"d"]
    assert sorted(client.keys("[^ab]")) == [b"c", b"d"]
    assert client.dbsize() == 4
    assert client.delete("a", "a", "none", "b") == 2
    assert client.flushall() is True
    assert client.keys() == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("h?llo", "hello hallo"), ("h[ae]llo", "hello hallo"), ("h[^e]llo", "hallo"), ("h[a-b]*", "hallo"), (r"\*", "*")],
)
def test_patterns(client: redis.Redis, pattern: str, names: str) -> None:
    for name in "hello", "hallo", "heello", "*":
        client.set(name, 1)
    assert sorted(client.keys(pattern)) == sorted(names.encode().split())


def test_numbers(client: redis.Redis) -> None:
    assert [client.incr("n"), client.incr("n", 41), client.decr("n"), client.decrby("n", 50)] == [1, 42, 41, -9]
    client.set("n", 2**63 - 1)
    with pytest.raises(redis.ResponseError, match="overflow"):
        client.incr("n")
    for wrong in b"x", b" 1", b"1.5", b"+1", b"01", b"9" * 40:
        client.set("n", wrong)
        with pytest.raises(redis.ResponseError, match="not an integer"):
            client.incr("n")


def test_expiry(client: redis.Redis) -> None:
    assert (client.ttl("k"), client.pttl("k"), client.persist("k"), client.expire("k", 9)) == (-2, -2, False, False)
    client.set("k", "v")
    assert (client.ttl("k"), client.persist("k")) == (-1, False)
    assert client.expire("k", 100) is True
    assert 0 < client.ttl("k") <= 100
    assert client.persist("k") is True
    assert client.ttl("k") == -1
    assert client.set("k", "v", px=100_000)
    assert 90_000 < client.pttl("k") <= 100_000
    client.set("k", "w", keepttl=True)
    client.append("k", "x")
    assert 90_000 < client.pttl("k") <= 100_000
    client.set("k", "v")
    assert client.ttl("k") == -1
    client.set("k", "v", ex=2**31)
    assert client.ttl("k") == 2**31
    assert client.pexpire("k", 50) is True
    expect(lambda: client.pttl("k") == -2)
    client.set("k", "1", px=20)
    client.set("long", "1", ex=100)
    expect(lambda: client.dbsize() == 1)  # by the timer: nobody has asked for it
    assert client.get("k") is None
    assert client.expire("long", -1) is True
    assert client.exists("long") == 0


@pytest.mark.parametrize(
    "words",
    ["EX", "EX 0", "PX -5", "EX x", "EX 1 PX 1", "NX XX", "EX 1 KEEPTTL", "SOMETHING", "EX 999999999999999999"],
)
def test_set_with_wrong_options(client: redis.Redis, words: str) -> None:
    with pytest.raises(redis.ResponseError, match=r"syntax error|invalid expire time|not an integer"):
        client.execute_command("SET", "k", "v", *words.split())
    assert client.exists("k") == 0


def test_errors_leave_the_connection_as_it_was(client: redis.Redis) -> None:
    for words, message in [
        (("NOSUCH", "a\r\nb"), "unknown command 'NOSUCH'"),
        (("GET",), "wrong number of arguments for 'get' command"),
        (("PING", "a", "b"), "wrong number of arguments for 'ping' command"),
        (("CLIENT", "NO\r\nSUCH"), "unknown command 'CLIENT'"),
        (("SELECT", "1"), "DB index is out of range"),
        (("EXEC",), "EXEC without MULTI"),
        (("DISCARD",), "DISCARD without MULTI"),
        (("HELLO", "4"), "unsupported protocol version"),
    ]:
        with pytest.raises(redis.ResponseError, match=message):
            client.execute_command(*words)
        assert client.ping() is True


def test_connection_commands(client: redis.Redis) -> None:
    assert client.client_getname() in ("test", b"test")
    assert client.client_id() > 0
    assert client.select(0) is True
    assert client.config_get("save") == {"save": ""} or client.config_get("save") == {b"save": b""}
    about = client.info()
    assert about["connected_clients"] >= 1
    assert about["total_commands_processed"] >= 1
    assert client.execute_command("COMMAND") == {}


@pytest.mark.parametrize("transaction", [True, False])
def test_pipelines(client: redis.Redis, transaction: bool) -> None:
    with client.pipeline(transaction=transaction) as pipe:
        for n in range(500):
            pipe.set(f"key{n}", n).incr("sum", n).get(f"key{n}")
        replies = pipe.execute()
    assert replies[::3] == [True] * 500
    assert replies[1::3] == [n * (n + 1) // 2 for n in range(500)]
    assert replies[2::3] == [b"%d" % n for n in range(500)]
    with client.pipeline(transaction=transaction) as pipe:
        replies = pipe.set("word", "x").incr("word").get("word").execute(raise_on_error=False)
    assert [replies[0], replies[2]] == [True, b"x"]
    assert isinstance(replies[1], redis.ResponseError)


def test_transactions(client: redis.Redis, port: int) -> None:
    with client.client() as one:
        say = one.execute_command
        assert say("MULTI") in (b"OK", "OK", True)
        assert say("INCR", "n") in (b"QUEUED", "QUEUED")
        assert client.get("n") is None
        with pytest.raises(redis.ResponseError, match="nested"):
            say("MULTI")
        with pytest.raises(redis.ResponseError, match="inside MULTI"):
            say("WATCH", "n")
        assert one.connection.send_command("EXEC") is None
        assert one.connection.read_response() == [1]
        say("MULTI")
        say("INCR", "n")
        say("DISCARD")
        assert client.get("n") == b"1"
        for wrong in ("GET",), ("NOSUCH",):
            say("MULTI")
            say("INCR", "n")
            with pytest.raises(redis.ResponseError):
                say(*wrong)
            with pytest.raises(redis.exceptions.ExecAbortError):
                say("EXEC")
            assert client.get("n") == b"1"


def next_message(pubsub: Any) -> Any:
    message = pubsub.get_message(timeout=SECONDS)
    return message["type"], message["channel"], message["data"]


def test_publish_and_subscribe(client: redis.Redis) -> None:
    with client.pubsub() as pubsub:
        pubsub.subscribe("news", "sport")
        assert next_message(pubsub) == ("subscribe", b"news", 1)
        assert next_message(pubsub) == ("subscribe", b"sport", 2)
        pubsub.psubscribe("n*")
        assert next_message(pubsub) == ("psubscribe", b"n*", 3)
        assert client.publish("news", "hello") == 2
        assert client.publish("sport", b"\r\n") == 1
        assert client.publish("nobody's", "x") == 1
        assert client.publish("weather", "x") == 0
        assert next_message(pubsub) == ("message", b"news", b"hello")
        assert next_message(pubsub) == ("pmessage", b"news", b"hello")
        assert next_message(pubsub) == ("message", b"sport", b"\r\n")
        assert next_message(pubsub) == ("pmessage", b"nobody's", b"x")
        pubsub.ping("are you there")
        assert pubsub.get_message(timeout=SECONDS)["data"] == b"are you there"
        pubsub.unsubscribe("news")
        assert next_message(pubsub) == ("unsubscribe", b"news", 2)
        pubsub.unsubscribe()
        assert next_message(pubsub) == ("unsubscribe", b"sport", 1)
        pubsub.punsubscribe()
        assert next_message(pubsub) == ("punsubscribe", b"n*", 0)
        connection = pubsub.connection
        connection.send_command("GET", "none")  # the same connection, in the dialogue again
        assert connection.read_response() is None
        connection.send_command("PING")
        assert connection.read_response() in (b"PONG", "PONG")
    expect(lambda: client.info()["subscribed_clients"] == 0)


def test_many_subscribers_of_many_messages(client: redis.Redis) -> None:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(client.pubsub()) for _ in range(10)]
        for listener in listeners:
            listener.subscribe("c")
            assert next_message(listener)[0] == "subscribe"
        for n in range(100):
            assert client.publish("c", n) == 10
        for listener in listeners:
            assert [next_message(listener)[2] for _ in range(100)] == [b"%d" % n for n in range(100)]
    assert client.ping()
    expect(lambda: client.publish("c", "x") == 0)


# -- miniredis, byte by byte


def packed(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


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


def test_status_page(server: list[int]) -> None:
    port, status_port = server
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
