"""A small Redis server: strings, expiry, transactions, publish and subscribe, RESP2 and RESP3, and a status page.

    python examples/miniredis.py --port 6380 --status-port 8080
    redis-cli -p 6380 set greeting hello ex 60
    redis-cli -p 6380 subscribe news               and elsewhere: redis-cli -p 6380 publish news 'it works'
    redis-benchmark -p 6380 -t ping,set,get -P 16 -q
    http://127.0.0.1:8080/                         in a browser

Which style is where, and why:

- The dialogue of requests and replies is sequential (`talk`, `read_request`). A request is a line, then so many times
  a line and a block of bytes, and the code just says that. It runs in a greenlet that `serve_requests` lends it while
  there are requests; a client that is idle is one small object, and holds no greenlet.
- A client that subscribes is in callback style from then on (`Client.event_read`): it has no turn to wait for, since
  messages come when somebody publishes, and requests come when it likes. When it has left its last channel it returns
  to the dialogue. What it has sent too early is put back, for the other style to read.
- The commands never wait. They are functions from a client and arguments to the bytes of a reply, so that both styles
  call the same ones. Keys expire by the loop's timers.
- The status page is in callback style: one read, one write, and nothing in between that could be waited for.
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import math
import re
import resource
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import ClassVar

from dangagreen import LimitError, Socket, Timer, current_loop, run, serve, serve_requests, sleep

LONGEST_BULK = 512 * 1024 * 1024  # bytes; these limits are Redis's own
LONGEST_LINE = 64 * 1024
MOST_WORDS = 1024 * 1024
MOST_UNSENT = 32 * 1024 * 1024  # bytes that a subscriber may be behind

Request = list[bytes]
Topic = tuple[bytes, bytes]  # b"" and a channel, or b"p" and a pattern


# -- the protocol: requests


class Refusal(Exception):
    """The answer is an error. The argument is its text, as bytes."""


def read_request(client: Client) -> Request:
    """Parks until a request is there; returns its words: none for an empty line, or at the end of the stream."""
    line = client.read_line()
    if line[:1] != b"*":
        try:
            return [word.encode("latin-1") for word in shlex.split(line.decode("latin-1"))]  # as humans type them
        except ValueError:
            raise Refusal(b"ERR Protocol error: unbalanced quotes in request") from None
    words = []
    for _ in range(length(line, b"*", b"multibulk", MOST_WORDS)):
        size = length(client.read_line(), b"$", b"bulk", LONGEST_BULK)
        words.append(client.read_exactly(size + 2)[:-2])
    return words


@lru_cache(1024)  # most requests have the same few lengths
def length(line: bytes, mark: bytes, what: bytes, most: int) -> int:
    r"""The number in a line like b"*3\r\n" or b"$5\r\n"."""
    digits = line[1:-2]
    if line[:1] != mark:
        raise Refusal(b"ERR Protocol error: expected '%b', got '%b'" % (mark, line[:1]))
    if not digits.isdigit() or len(digits) > 10 or int(digits) > most:
        raise Refusal(b"ERR Protocol error: invalid %b length" % what)
    return int(digits)


def take_request(data: bytes) -> tuple[Request, int]:
    """For callback style, which cannot wait: the request that `data` begins with, and its length in bytes.

    The length is 0 if it is not all there, or if it is anything but an ordinary array.
    """
    head = re.match(rb"\*([1-9]\d{0,5})\r\n", data)
    if head is None:
        return [], 0
    words, end = [], head.end()
    for _ in range(int(head[1])):
        size = re.compile(rb"\$(\d{1,9})\r\n").match(data, end)
        if size is None or len(data) < size.end() + int(size[1]) + 2:
            return [], 0
        end = size.end() + int(size[1]) + 2
        words.append(data[size.end() : end - 2])
    return words, end


# -- the protocol: replies

OK = b"+OK\r\n"
NULL = {2: b"$-1\r\n", 3: b"_\r\n"}


def error(text: bytes) -> bytes:
    return b"-%b\r\n" % re.sub(rb"[\r\n]", b" ", text)


def integer(value: int) -> bytes:
    return b":%d\r\n" % value


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def bulk_or_null(client: Client, value: bytes | None) -> bytes:
    return NULL[client.protocol] if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(replies: Iterable[bytes]) -> bytes:
    replies = list(replies)
    return b"*%d\r\n%b" % (len(replies), b"".join(replies))


def mapping(client: Client, pairs: dict[bytes, bytes]) -> bytes:
    """A map from names to replies. RESP2 has none, and gets a flat array."""
    flat = b"".join(bulk(name) + reply for name, reply in pairs.items())
    return (b"%%%d\r\n" % len(pairs) if client.protocol == 3 else b"*%d\r\n" % (2 * len(pairs))) + flat


def push(client: Client, *replies: bytes) -> bytes:
    """What a subscriber is told. RESP2 cannot tell it from an array."""
    return (b">" if client.protocol == 3 else b"*") + array(replies)[1:]


# -- clients, in both styles


class Client(Socket):
    """A connection, and what is to be remembered of it from one request to the next."""

    __slots__ = ("name", "number", "protocol", "queue", "spoilt", "topics")

    numbers = itertools.count(1)
    connected: ClassVar[dict[Client, None]] = {}

    def __init__(self, sock: object) -> None:
        super().__init__(sock)
        self.number = next(self.numbers)
        self.name: bytes | None = None
        self.protocol = 2
        self.topics: dict[Topic, None] = {}  # what it has subscribed to
        self.queue: list[Request] | None = None  # what it has asked for since MULTI
        self.spoilt = False  # something was wrong with one of these
        self.connected[self] = None

    def event_read(self) -> None:
        """There is input: start `talk`. A subscriber's requests are served right here, one a turn, without a task."""
        if not self.topics:
            super().event_read()
            return
        data = self.read(LONGEST_LINE)
        if data is None:
            self.close("the peer has ended")
            return
        request, size = take_request(data)
        self.push_back_read(data[size:])
        if request:
            self.tell(execute(self, request))
        else:
            super().event_read()  # half a request, or an odd one: `talk` can wait for the rest, or complain

    def tell(self, data: bytes) -> None:
        """Send without waiting. Who falls too far behind is cut off."""
        self.write_soon(data)
        if self.unsent > MOST_UNSENT:
            self.close("it does not read what it is told")

    def close(self, reason: object = None) -> None:
        super().close(reason)
        self.connected.pop(self, None)
        for topic in list(self.topics):
            leave(self, *topic)


def talk(client: Client) -> None:
    """The dialogue: serves the requests that are there, one after the other, and returns when there is none."""
    try:
        while True:
            request = read_request(client)
            if request and (reply := execute(client, request)):
                client.write_all(reply)
            if client.topics or not client.buffered:
                return
    except (Refusal, LimitError) as problem:
        too_long = b"ERR Protocol error: too big inline request"
        client.write_all(error(problem.args[0] if isinstance(problem, Refusal) else too_long))
        client.finish()


def execute(client: Client, request: Request) -> bytes:
    """The reply to one request. It never waits, so that a task may call it and a callback as well."""
    status.commands += 1
    name = request[0].upper()
    entry = COMMANDS.get(name) or COMMANDS.get(b" ".join(request[:2]).upper())
    try:
        if entry is None or not entry[0] <= len(request) <= entry[1]:
            client.spoilt = True
            what = b"unknown command '%b'" if entry is None else b"wrong number of arguments for '%b' command"
            raise Refusal(b"ERR " + what % request[0][:128])
        if client.queue is not None and name not in NEVER_QUEUED:
            client.queue.append(request)
            return b"+QUEUED\r\n"
        if client.topics and client.protocol == 2 and name not in FOR_SUBSCRIBERS:
            what = b"only (P)SUBSCRIBE / (P)UNSUBSCRIBE / PING / QUIT are allowed in this context"
            raise Refusal(b"ERR Can't execute '%b': %b" % (name.lower(), what))
        return entry[2](client, *request[1:])
    except Refusal as refusal:
        return error(refusal.args[0])


# -- keys and values


class Keys:
    """What the server stores, and the timers of what expires."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.timers: dict[bytes, Timer] = {}

    def get(self, key: bytes) -> bytes | None:
        if key in self.timers and self.time_left(key, 1) <= 0:  # overdue: its timer has not had its turn yet
            self.remove(key)
        return self.values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value that does not expire; assign to `values[key]` to let a timer run on."""
        self.values[key] = value
        if self.timers:
            self.persist(key)

    def remove(self, key: bytes) -> bool:
        self.persist(key)
        return self.values.pop(key, None) is not None

    def expire(self, key: bytes, seconds: float) -> bool:
        self.persist(key)
        self.timers[key] = current_loop().add_timer(seconds, partial(self.remove, key))
        return True

    def persist(self, key: bytes) -> bool:
        timer = self.timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    def time_left(self, key: bytes, unit: int) -> float:
        return (self.timers[key].deadline - current_loop().time()) * unit


keys = Keys()


def number(text: bytes) -> int:
    if re.fullmatch(rb"0|-?[1-9]\d{0,18}", text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    raise Refusal(b"ERR value is not an integer or out of range")


def set_value(client: Client, key: bytes, value: bytes, *options: bytes) -> bytes:
    if not options:
        keys.put(key, value)
        return OK
    flags, seconds, words = set(), 0.0, iter(options)
    for word in map(bytes.upper, words):
        if word in UNITS and not seconds and (amount := next(words, None)) is not None:
            seconds = number(amount) / UNITS[word]
            if not 0 < seconds < 2**50:
                raise Refusal(b"ERR invalid expire time in 'set' command")
        elif word in (b"NX", b"XX", b"KEEPTTL"):
            flags.add(word)
        else:
            raise Refusal(b"ERR syntax error")
    if {b"NX", b"XX"} <= flags or (seconds and b"KEEPTTL" in flags):
        raise Refusal(b"ERR syntax error")
    if (b"XX" if keys.get(key) is None else b"NX") in flags:
        return NULL[client.protocol]
    if b"KEEPTTL" not in flags:
        keys.persist(key)
    keys.values[key] = value
    if seconds:
        keys.expire(key, seconds)
    return OK


def add(key: bytes, amount: int) -> bytes:
    old = keys.get(key)
    value = amount if old is None else number(old) + amount
    if not -(2**63) <= value < 2**63:
        raise Refusal(b"ERR increment or decrement would overflow")
    keys.values[key] = b"%d" % value
    return integer(value)


def append(_client: Client, key: bytes, tail: bytes) -> bytes:
    keys.values[key] = value = (keys.get(key) or b"") + tail
    return integer(len(value))


def count(test: Callable[[bytes], object], names: Iterable[bytes]) -> bytes:
    """How many of the keys that there are pass a test."""
    return integer(sum(keys.get(name) is not None and bool(test(name)) for name in names))


def expire(key: bytes, amount: bytes, unit: int) -> bytes:
    seconds = number(amount) / unit
    return count(partial(keys.expire, seconds=seconds) if seconds > 0 else keys.remove, [key])


def time_to_live(key: bytes, unit: int) -> bytes:
    if keys.get(key) is None:
        return integer(-2)
    return integer(round(keys.time_left(key, unit)) if key in keys.timers else -1)


def find(_client: Client, pattern: bytes) -> bytes:
    matches = glob(pattern)
    return array(bulk(key) for key in list(keys.values) if matches(key) and keys.get(key) is not None)


def flush(_client: Client, _mode: bytes = b"SYNC") -> bytes:
    for key in list(keys.values):
        keys.remove(key)
    return OK


# -- publish and subscribe

subscribers: dict[bytes, dict[bytes, dict[Client, None]]] = {b"": {}, b"p": {}}


@lru_cache
def glob(pattern: bytes) -> Callable[[bytes], object]:
    """Does a name match? Redis's patterns are those of fnmatch, but for [^a], and for a backslash that quotes."""
    text = re.sub(r"\\([*?[])", r"[\1]", pattern.decode("latin-1")).replace("[^", "[!")
    match = re.compile(fnmatch.translate(text)).match
    return lambda name: match(name.decode("latin-1"))


def join(client: Client, kind: bytes, name: bytes) -> None:
    client.topics[kind, name] = None
    subscribers[kind].setdefault(name, {})[client] = None


def leave(client: Client, kind: bytes, name: bytes) -> None:
    if (kind, name) in client.topics:
        del client.topics[kind, name], subscribers[kind][name][client]
        if not subscribers[kind][name]:
            del subscribers[kind][name]


def change(kind: bytes, what: bytes, how: Callable[..., None], client: Client, *names: bytes) -> bytes:
    """Join or leave channels or patterns, no names being all of them, and confirm each."""
    if client.queue is not None:
        raise Refusal(b"ERR %b inside MULTI is not allowed" % what.upper())
    confirmed = b""
    for name in names or [name for its_kind, name in client.topics if its_kind == kind]:
        how(client, kind, name)
        confirmed += push(client, bulk(what), bulk(name), integer(len(client.topics)))
    return confirmed or push(client, bulk(what), NULL[client.protocol], integer(len(client.topics)))


def publish(_client: Client, channel: bytes, message: bytes) -> bytes:
    told = [(client, [b"message", channel, message]) for client in subscribers[b""].get(channel, ())]
    for pattern, clients in subscribers[b"p"].items():
        if glob(pattern)(channel):
            told += [(client, [b"pmessage", pattern, channel, message]) for client in clients]
    for client, words in told:
        client.tell(push(client, *map(bulk, words)))
    return integer(len(told))


# -- transactions


def multi(client: Client) -> bytes:
    if client.queue is not None:
        raise Refusal(b"ERR MULTI calls can not be nested")
    client.queue, client.spoilt = [], False
    return OK


def end_multi(client: Client, name: bytes) -> list[Request]:
    if client.queue is None:
        raise Refusal(b"ERR %b without MULTI" % name)
    queue, client.queue = client.queue, None
    return queue


def execute_all(client: Client) -> bytes:
    queue = end_multi(client, b"EXEC")
    if client.spoilt:
        raise Refusal(b"EXECABORT Transaction discarded because of previous errors.")
    return array([execute(client, request) for request in queue])


def discard(client: Client) -> bytes:
    end_multi(client, b"DISCARD")
    return OK


# -- the connection and the server


def ping(client: Client, message: bytes | None = None) -> bytes:
    if client.topics and client.protocol == 2:
        return push(client, bulk(b"pong"), bulk(message or b""))
    return b"+PONG\r\n" if message is None else bulk(message)


def hello(client: Client, version: bytes = b"") -> bytes:
    if version not in (b"", b"2", b"3"):
        raise Refusal(b"NOPROTO unsupported protocol version")
    client.protocol = int(version or client.protocol)
    words = {b"server": b"redis", b"version": b"7.0.0", b"mode": b"standalone", b"role": b"master"}
    numbers = {b"proto": integer(client.protocol), b"id": integer(client.number), b"modules": array([])}
    return mapping(client, {name: bulk(word) for name, word in words.items()} | numbers)


def leave_server(client: Client) -> bytes:
    client.write_soon(OK)
    client.finish()
    return b""


def set_name(client: Client, _setname: bytes, name: bytes) -> bytes:
    client.name = name
    return OK


def get_config(client: Client, _get: bytes, *names: bytes) -> bytes:
    settings = {b"save": b"", b"appendonly": b"no"}
    return mapping(client, {name: bulk(settings[name]) for name in names if name in settings})


def info(_client: Client, *_sections: bytes) -> bytes:
    lines = [f"{name.lower().replace(' ', '_')}:{value}\r\n" for name, value in status.figures().items()]
    return bulk(b"# Server\r\nredis_version:7.0.0\r\n" + "".join(lines).encode())


# -- the table of commands: the fewest words of a request, its name included, the most, and what to call

MANY = MOST_WORDS
UNITS = {b"EX": 1, b"PX": 1000}
SUBSCRIBING = {b"SUBSCRIBE", b"PSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE"}
NEVER_QUEUED = SUBSCRIBING | {b"MULTI", b"EXEC", b"DISCARD", b"QUIT"}
FOR_SUBSCRIBERS = SUBSCRIBING | {b"PING", b"QUIT"}  # RESP2 cannot tell other replies from messages

COMMANDS: dict[bytes, tuple[int, int, Callable[..., bytes]]] = {
    b"GET": (2, 2, lambda client, key: bulk_or_null(client, keys.get(key))),
    b"SET": (3, MANY, set_value),
    b"MGET": (2, MANY, lambda client, *names: array(bulk_or_null(client, keys.get(name)) for name in names)),
    b"APPEND": (3, 3, append),
    b"STRLEN": (2, 2, lambda _, key: integer(len(keys.get(key) or b""))),
    b"INCR": (2, 2, lambda _, key: add(key, 1)),
    b"DECR": (2, 2, lambda _, key: add(key, -1)),
    b"INCRBY": (3, 3, lambda _, key, amount: add(key, number(amount))),
    b"DECRBY": (3, 3, lambda _, key, amount: add(key, -number(amount))),
    b"DEL": (2, MANY, lambda _, *names: count(keys.remove, names)),
    b"EXISTS": (2, MANY, lambda _, *names: count(lambda name: True, names)),
    b"TYPE": (2, 2, lambda _, key: b"+none\r\n" if keys.get(key) is None else b"+string\r\n"),
    b"KEYS": (2, 2, find),
    b"DBSIZE": (1, 1, lambda _: integer(len(keys.values))),
    b"FLUSHALL": (1, 2, flush),
    b"EXPIRE": (3, 3, lambda _, key, amount: expire(key, amount, 1)),
    b"PEXPIRE": (3, 3, lambda _, key, amount: expire(key, amount, 1000)),
    b"TTL": (2, 2, lambda _, key: time_to_live(key, 1)),
    b"PTTL": (2, 2, lambda _, key: time_to_live(key, 1000)),
    b"PERSIST": (2, 2, lambda _, key: count(keys.persist, [key])),
    b"SUBSCRIBE": (2, MANY, partial(change, b"", b"subscribe", join)),
    b"PSUBSCRIBE": (2, MANY, partial(change, b"p", b"psubscribe", join)),
    b"UNSUBSCRIBE": (1, MANY, partial(change, b"", b"unsubscribe", leave)),
    b"PUNSUBSCRIBE": (1, MANY, partial(change, b"p", b"punsubscribe", leave)),
    b"PUBLISH": (3, 3, publish),
    b"MULTI": (1, 1, multi),
    b"EXEC": (1, 1, execute_all),
    b"DISCARD": (1, 1, discard),
    b"PING": (1, 2, ping),
    b"ECHO": (2, 2, lambda _, message: bulk(message)),
    b"HELLO": (1, 2, hello),
    b"SELECT": (2, 2, lambda _, index: OK if index == b"0" else error(b"ERR DB index is out of range")),
    b"QUIT": (1, MANY, leave_server),
    b"CLIENT ID": (2, 2, lambda client, _: integer(client.number)),
    b"CLIENT GETNAME": (2, 2, lambda client, _: bulk_or_null(client, client.name)),
    b"CLIENT SETNAME": (3, 3, set_name),
    b"CLIENT SETINFO": (4, 4, lambda *_: OK),
    b"CONFIG GET": (3, MANY, get_config),
    b"COMMAND": (1, MANY, lambda *_: array([])),
    b"INFO": (1, MANY, info),
}


# -- the status page, in callback style

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="1">
<title>miniredis</title><style>body { font: 1.2em sans-serif; margin: 3em } td { padding: .3em 2em .3em 0 }</style>
<h1>miniredis</h1><table>%s</table></html>
"""
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"


class StatusPage(Socket):
    """One HTTP request. Whatever it asks for, it gets the page."""

    __slots__ = ("request",)

    idle_timeout = 10.0

    def __init__(self, sock: object) -> None:
        super().__init__(sock)
        self.request = b""

    def event_read(self) -> None:
        data = self.read(LONGEST_LINE)
        self.request += data or b""
        if b"\r\n\r\n" in self.request:
            page = PAGE % "".join(f"<tr><td>{name}<td>{value:,}" for name, value in status.figures().items())
            self.write((HEAD % len(page) + page).encode())
            self.finish()
        elif data is None or len(self.request) > LONGEST_LINE:
            self.close("that is no HTTP request")


class Status:
    """What the page, and INFO, tell about the server."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.commands = self.counted = self.per_second = 0

    def tick(self) -> None:
        self.per_second, self.counted = self.commands - self.counted, self.commands
        current_loop().add_timer(1, self.tick)

    def figures(self) -> dict[str, int]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "Uptime in seconds": int(time.monotonic() - self.started),
            "Connected clients": len(Client.connected),
            "Subscribed clients": sum(bool(client.topics) for client in Client.connected),
            "Total commands processed": self.commands,
            "Instantaneous ops per sec": self.per_second,
            "Keys": len(keys.values),
            "Keys that expire": len(keys.timers),
            "Peak memory in bytes": peak if sys.platform == "darwin" else peak * 1024,
        }


status = Status()


def main() -> None:
    parser = argparse.ArgumentParser(description="A small Redis server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6380, help="0 picks one")
    parser.add_argument("--status-port", type=int, default=8080, help="0 picks one")
    options = parser.parse_args()
    try:
        redis = serve_requests((options.host, options.port), talk, socket_class=Client)
        web = serve((options.host, options.status_port), StatusPage)
    except OSError as problem:
        sys.exit(f"miniredis: {problem}")
    print("miniredis listens on {}:{}".format(*redis.address), flush=True)
    print("its status page is http://{}:{}/".format(*web.address), flush=True)
    status.tick()
    sleep(math.inf)


if __name__ == "__main__":
    try:
        run(main)
    except KeyboardInterrupt:
        print("bye")
