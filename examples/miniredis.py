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
- The commands never wait. They are functions from a client and arguments to a reply, which is an ordinary Python value
  until `encode` turns it into bytes. Both styles call the same ones. Keys expire by the loop's timers.
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
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TypeAlias

from dangagreen import LimitError, Socket, Timer, current_loop, run, serve, serve_requests, sleep

LONGEST_BULK = 512 * 1024 * 1024  # bytes; these limits are Redis's own
LONGEST_LINE = 64 * 1024
MANY = 1024 * 1024  # words in a request
MOST_UNSENT = 32 * 1024 * 1024  # bytes that a subscriber may be behind

Request = list[bytes]
Reply: TypeAlias = "int | str | bytes | Refusal | Sequence[Reply] | Mapping[bytes, Reply] | None"
Topic = tuple[bytes, bytes]  # b"" and a channel, or b"p" and a pattern


# -- the protocol: requests


class Refusal(Exception):
    """The answer is an error. The argument is its text, as bytes."""


def read_request(client: Client) -> Request:
    """Parks until a request is there; returns its words: none for an empty line, or at the end of the stream."""
    line = client.read_line()
    if line[:1] != b"*":
        if not re.search(rb"[\"'\\]", line):
            return line.split()
        try:
            return [word.encode("latin-1") for word in shlex.split(line.decode("latin-1"))]  # as humans type them
        except ValueError:
            raise Refusal(b"ERR Protocol error: unbalanced quotes in request") from None
    words = []
    for _ in range(length(line, b"*", b"multibulk", MANY)):
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


class Push(list[Reply]):
    """What a subscriber is told. RESP2 cannot tell it from an array."""


class Several(list[Reply]):
    """Not one reply but so many, or none."""


def encode(reply: Reply, protocol: int) -> bytes:
    """The bytes of a reply: text is a word like OK, bytes are data, a dict is a map, and a RESP2 client has no maps."""
    match reply:
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case str():
            return b"+%b\r\n" % reply.encode()
        case int():
            return b":%d\r\n" % reply
        case None:
            return b"_\r\n" if protocol == 3 else b"$-1\r\n"
        case Refusal():
            return b"-%b\r\n" % re.sub(rb"[\r\n]", b" ", reply.args[0])
        case Mapping():
            parts: Sequence[Reply] = list(itertools.chain(*reply.items()))
            head = b"%%%d\r\n" % len(reply) if protocol == 3 else b"*%d\r\n" % len(parts)
        case Several():
            parts, head = reply, b""
        case _:
            mark = b">" if protocol == 3 and isinstance(reply, Push) else b"*"
            parts, head = reply, b"%b%d\r\n" % (mark, len(reply))
    return head + b"".join([encode(part, protocol) for part in parts])


# -- clients, in both styles


class Client(Socket):
    """A connection, and what is to be remembered of it from one request to the next."""

    __slots__ = ("name", "number", "protocol", "queue", "spoilt", "topics")

    numbers = itertools.count(1)

    def __init__(self, sock: object) -> None:
        super().__init__(sock)
        self.number = next(self.numbers)
        self.name: bytes | None = None
        self.protocol = 2
        self.topics: dict[Topic, None] = {}  # what it has subscribed to
        self.queue: list[Request] | None = None  # what it has asked for since MULTI
        self.spoilt = False  # something was wrong with one of these

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

    def tell(self, reply: Reply) -> None:
        """Send without waiting. Who falls too far behind is cut off."""
        self.write_soon(encode(reply, self.protocol))
        if self.unsent > MOST_UNSENT:
            self.close("it does not read what it is told")

    def close(self, reason: object = None) -> None:
        super().close(reason)
        for topic in list(self.topics):
            leave(self, *topic)


def talk(client: Client) -> None:
    """The dialogue: serves the requests that are there, one after the other, and returns when there is none."""
    try:
        while True:
            request = read_request(client)
            if request and (reply := encode(execute(client, request), client.protocol)):
                client.write_all(reply)
            if client.topics or not client.buffered:
                return
    except (Refusal, LimitError) as problem:
        too_long = Refusal(b"ERR Protocol error: too big inline request")
        client.write_all(encode(problem if isinstance(problem, Refusal) else too_long, client.protocol))
        client.finish()


def execute(client: Client, request: Request) -> Reply:
    """The reply to one request. It never waits, so that a task may call it and a callback as well."""
    status.commands += 1
    name = request[0].upper()
    entry = COMMANDS.get(name) or COMMANDS.get(b" ".join(request[:2]).upper())
    try:
        if entry is None or not entry[0] <= len(request) <= entry[1]:
            client.spoilt = True
            if entry is None:
                raise Refusal(b"ERR unknown command '%b'" % request[0][:128])
            raise Refusal(b"ERR wrong number of arguments for '%b' command" % name.lower())
        if client.queue is not None and name not in NEVER_QUEUED:
            client.queue.append(request)
            return "QUEUED"
        if client.topics and client.protocol == 2 and name not in FOR_SUBSCRIBERS:
            what = b"only (P)SUBSCRIBE / (P)UNSUBSCRIBE / PING / QUIT are allowed in this context"
            raise Refusal(b"ERR Can't execute '%b': %b" % (name.lower(), what))
        return entry[2](client, *request[1:])
    except Refusal as refusal:
        return refusal


# -- keys and values


class Keys:
    """What the server stores, and the timers of what expires."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.timers: dict[bytes, Timer] = {}

    def get(self, key: bytes) -> bytes | None:
        if key in self.timers and self.time_left(key) <= 0:  # overdue: its timer has not had its turn yet
            self.remove(key)
        return self.values.get(key)

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

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

    def time_left(self, key: bytes) -> float:
        return self.timers[key].deadline - current_loop().time()


keys = Keys()
UNITS = {b"EX": 1, b"PX": 1000}  # in a second


def number(text: bytes) -> int:
    if re.fullmatch(rb"0|-?[1-9]\d{0,18}", text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    raise Refusal(b"ERR value is not an integer or out of range")


def set_value(_client: Client, key: bytes, value: bytes, *options: bytes) -> Reply:
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
    if flags and (b"NX" if key in keys else b"XX") in flags:
        return None
    if b"KEEPTTL" in flags:
        keys.values[key] = value
    else:
        keys.put(key, value)
    if seconds:
        keys.expire(key, seconds)
    return "OK"


def add(key: bytes, amount: int) -> Reply:
    value = number(keys.get(key) or b"0") + amount
    if not -(2**63) <= value < 2**63:
        raise Refusal(b"ERR increment or decrement would overflow")
    keys.values[key] = b"%d" % value
    return value


def append(_client: Client, key: bytes, tail: bytes) -> Reply:
    keys.values[key] = value = (keys.get(key) or b"") + tail
    return len(value)


def expire(key: bytes, seconds: float) -> Reply:
    return key in keys and (keys.expire(key, seconds) if seconds > 0 else keys.remove(key))


def time_to_live(key: bytes, unit: int) -> Reply:
    if key not in keys:
        return -2
    return round(keys.time_left(key) * unit) if key in keys.timers else -1


def find(_client: Client, pattern: bytes) -> Reply:
    matches = glob(pattern)
    return [key for key in list(keys.values) if matches(key) and key in keys]


def flush(_client: Client, _mode: bytes = b"SYNC") -> Reply:
    for key in list(keys.values):
        keys.remove(key)
    return "OK"


# -- publish and subscribe

subscribers: dict[bytes, dict[bytes, set[Client]]] = {b"": {}, b"p": {}}


@lru_cache
def glob(pattern: bytes) -> Callable[[bytes], object]:
    """Does a name match? Redis's patterns are those of fnmatch, but for [^a], and for a backslash that quotes."""
    text = re.sub(r"\\([*?[])", r"[\1]", pattern.decode("latin-1")).replace("[^", "[!")
    match = re.compile(fnmatch.translate(text)).match
    return lambda name: match(name.decode("latin-1"))


def join(client: Client, kind: bytes, name: bytes) -> None:
    client.topics[kind, name] = None
    subscribers[kind].setdefault(name, set()).add(client)


def leave(client: Client, kind: bytes, name: bytes) -> None:
    if (kind, name) in client.topics:
        del client.topics[kind, name]
        subscribers[kind][name].remove(client)
        if not subscribers[kind][name]:
            del subscribers[kind][name]


def change(kind: bytes, what: bytes, how: Callable[..., None], client: Client, *names: bytes) -> Reply:
    """Join or leave channels or patterns, no names being all of them, and confirm each."""
    if client.queue is not None:
        raise Refusal(b"ERR %b inside MULTI is not allowed" % what.upper())
    confirmed = Several()
    for name in names or [name for its_kind, name in client.topics if its_kind == kind]:
        how(client, kind, name)
        confirmed.append(Push([what, name, len(client.topics)]))
    return confirmed or Push([what, None, len(client.topics)])


def publish(_client: Client, channel: bytes, message: bytes) -> Reply:
    told = [(client, Push([b"message", channel, message])) for client in subscribers[b""].get(channel, ())]
    for pattern, clients in subscribers[b"p"].items():
        if glob(pattern)(channel):
            told += [(client, Push([b"pmessage", pattern, channel, message])) for client in clients]
    for client, news in told:
        client.tell(news)
    return len(told)


# -- transactions


def multi(client: Client) -> Reply:
    if client.queue is not None:
        raise Refusal(b"ERR MULTI calls can not be nested")
    client.queue, client.spoilt = [], False
    return "OK"


def execute_all(client: Client) -> Reply:
    queue = client.queue or []
    discard(client, b"EXEC")
    if client.spoilt:
        raise Refusal(b"EXECABORT Transaction discarded because of previous errors.")
    return [execute(client, request) for request in queue]


def discard(client: Client, name: bytes = b"DISCARD") -> Reply:
    if client.queue is None:
        raise Refusal(b"ERR %b without MULTI" % name)
    client.queue = None
    return "OK"


# -- the connection and the server

SETTINGS = {b"save": b"", b"appendonly": b"no"}


def ping(client: Client, message: bytes | None = None) -> Reply:
    if client.topics and client.protocol == 2:
        return [b"pong", message or b""]
    return "PONG" if message is None else message


def hello(client: Client, version: bytes = b"") -> Reply:
    if version not in (b"", b"2", b"3"):
        raise Refusal(b"NOPROTO unsupported protocol version")
    client.protocol = int(version or client.protocol)
    about = {b"server": b"redis", b"version": b"7.0.0", b"mode": b"standalone", b"role": b"master"}
    return about | {b"proto": client.protocol, b"id": client.number, b"modules": []}


def select(_client: Client, index: bytes) -> Reply:
    return "OK" if index == b"0" else Refusal(b"ERR DB index is out of range")


def leave_server(client: Client) -> Reply:
    client.tell("OK")
    client.finish()
    return Several()


def set_name(client: Client, _setname: bytes, name: bytes) -> Reply:
    client.name = name
    return "OK"


def info(_client: Client, *_sections: bytes) -> Reply:
    lines = [f"{name.lower().replace(' ', '_')}:{value}\r\n" for name, value in status.figures().items()]
    return b"# Server\r\nredis_version:7.0.0\r\n" + "".join(lines).encode()


# -- the table of commands: the fewest words of a request, its name included, the most, and what to call

SUBSCRIBING = {b"SUBSCRIBE", b"PSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE"}
NEVER_QUEUED = SUBSCRIBING | {b"MULTI", b"EXEC", b"DISCARD", b"QUIT"}
FOR_SUBSCRIBERS = SUBSCRIBING | {b"PING", b"QUIT"}  # RESP2 cannot tell other replies from messages

COMMANDS: dict[bytes, tuple[int, int, Callable[..., Reply]]] = {
    b"GET": (2, 2, lambda _, key: keys.get(key)),
    b"SET": (3, MANY, set_value),
    b"MGET": (2, MANY, lambda _, *names: [keys.get(name) for name in names]),
    b"APPEND": (3, 3, append),
    b"STRLEN": (2, 2, lambda _, key: len(keys.get(key) or b"")),
    b"INCR": (2, 2, lambda _, key: add(key, 1)),
    b"DECR": (2, 2, lambda _, key: add(key, -1)),
    b"INCRBY": (3, 3, lambda _, key, amount: add(key, number(amount))),
    b"DECRBY": (3, 3, lambda _, key, amount: add(key, -number(amount))),
    b"DEL": (2, MANY, lambda _, *names: sum(name in keys and keys.remove(name) for name in names)),
    b"EXISTS": (2, MANY, lambda _, *names: sum(name in keys for name in names)),
    b"TYPE": (2, 2, lambda _, key: "string" if key in keys else "none"),
    b"KEYS": (2, 2, find),
    b"DBSIZE": (1, 1, lambda _: len(keys.values)),
    b"FLUSHALL": (1, 2, flush),
    b"EXPIRE": (3, 3, lambda _, key, amount: expire(key, number(amount))),
    b"PEXPIRE": (3, 3, lambda _, key, amount: expire(key, number(amount) / 1000)),
    b"TTL": (2, 2, lambda _, key: time_to_live(key, 1)),
    b"PTTL": (2, 2, lambda _, key: time_to_live(key, 1000)),
    b"PERSIST": (2, 2, lambda _, key: key in keys and keys.persist(key)),
    b"SUBSCRIBE": (2, MANY, partial(change, b"", b"subscribe", join)),
    b"PSUBSCRIBE": (2, MANY, partial(change, b"p", b"psubscribe", join)),
    b"UNSUBSCRIBE": (1, MANY, partial(change, b"", b"unsubscribe", leave)),
    b"PUNSUBSCRIBE": (1, MANY, partial(change, b"p", b"punsubscribe", leave)),
    b"PUBLISH": (3, 3, publish),
    b"MULTI": (1, 1, multi),
    b"EXEC": (1, 1, execute_all),
    b"DISCARD": (1, 1, discard),
    b"PING": (1, 2, ping),
    b"ECHO": (2, 2, lambda _, message: message),
    b"HELLO": (1, 2, hello),
    b"SELECT": (2, 2, select),
    b"QUIT": (1, MANY, leave_server),
    b"CLIENT ID": (2, 2, lambda client, _: client.number),
    b"CLIENT GETNAME": (2, 2, lambda client, _: client.name),
    b"CLIENT SETNAME": (3, 3, set_name),
    b"CLIENT SETINFO": (4, 4, lambda *_: "OK"),
    b"CONFIG GET": (3, MANY, lambda _client, _get, *names: {n: SETTINGS[n] for n in names if n in SETTINGS}),
    b"COMMAND": (1, MANY, lambda *_: []),
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

    commands = counted = per_second = 0

    def tick(self) -> None:
        self.per_second, self.counted = self.commands - self.counted, self.commands
        current_loop().add_timer(1, self.tick)

    def figures(self) -> dict[str, int]:
        clients = [sock for sock in current_loop().descriptor_map().values() if isinstance(sock, Client)]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "Connected clients": len(clients),
            "Subscribed clients": sum(bool(client.topics) for client in clients),
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
