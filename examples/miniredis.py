"""A small Redis server: strings, expiry, transactions, publish and subscribe, RESP2 and RESP3, and a status page.

    python examples/miniredis.py --port 6380 --status-port 8080      and http://127.0.0.1:8080/ in a browser
    redis-cli -p 6380 set greeting hello ex 60
    redis-cli -p 6380 subscribe news      and elsewhere: redis-cli -p 6380 publish news 'it works'
    redis-benchmark -p 6380 -t ping,set,get -P 16 -q

Which style is where, and why:

- The dialogue of requests and replies is sequential (`talk`, `read_request`). A request is a line, then so many times
  a line and a block of bytes, and the code just says that. It runs in a greenlet that `serve_requests` lends it while
  there are requests; a client that is idle is one small object, and holds no greenlet.
- A client that subscribes is in callback style (`Client.event_read`) until it has left its last channel: messages come
  when somebody publishes, requests when it likes. What it has sent too early is put back, for the other style to read.
- The commands never wait, and both styles call the same ones (`execute`). They answer ordinary Python values, which
  `encode` turns into bytes. Keys expire by the loop's timers.
- Ctrl-C and SIGTERM drain both servers (`serve_forever`): requests that have come are answered, then clients are told
  the end. Without such care, a client that has just sent INCR could not know whether it happened.
- The status page is in callback style: one read, one write, and nothing in between that could be waited for.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
import shlex
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from resource import RUSAGE_SELF, getrusage
from typing import TypeAlias

from output import tell

from dangagreen import LimitError, Socket, Timer, current_loop, serve, serve_forever, serve_requests

LONGEST_BULK = 512 * 1024 * 1024  # bytes; these limits are Redis's own
LONGEST_LINE = 64 * 1024
MANY = 1024 * 1024  # words in a request
MOST_UNSENT = 32 * 1024 * 1024  # bytes that a subscriber may be behind

Request = list[bytes]
Reply: TypeAlias = "int | str | bytes | Refusal | Sequence[Reply] | Mapping[bytes, Reply] | None"


# -- the protocol


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
        size = length(client.read_line())
        words.append(client.read_exactly(size + 2)[:-2])
    return words


@lru_cache(1024)  # most requests have the same few lengths
def length(line: bytes, mark: bytes = b"$", what: bytes = b"bulk", most: int = LONGEST_BULK) -> int:
    r"""The number in a line like b"*3\r\n" or b"$5\r\n"."""
    digits = line[1:-2]
    if line[:1] != mark:
        raise Refusal(b"ERR Protocol error: expected '%b', got '%b'" % (mark, line[:1]))
    if not digits.isdigit() or len(digits) > 10 or int(digits) > most:
        raise Refusal(b"ERR Protocol error: invalid %b length" % what)
    return int(digits)


def take_request(data: bytes) -> tuple[Request, int]:
    """For who cannot wait: the request that `data` begins with, and its length: 0 if it is odd, or not all there."""
    head = re.match(rb"\*([1-9]\d{0,5})\r\n", data)
    words: Request = []
    end = head.end() if head else 0
    while head and len(words) < int(head[1]):
        size = re.compile(rb"\$(\d{1,9})\r\n").match(data, end)
        if size is None or len(data) < size.end() + int(size[1]) + 2:
            return [], 0
        end = size.end() + int(size[1]) + 2
        words.append(data[size.end() : end - 2])
    return words, end


class Several(list[Reply]):
    """Not one reply but so many, or none."""


def encode(reply: Reply, protocol: int) -> bytes:
    """The bytes of a reply: str is a word like OK, dict a map, tuple news (in RESP2, which has neither, arrays)."""
    match reply:
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case str():
            return f"+{reply}\r\n".encode()
        case int():
            return b":%d\r\n" % reply
        case None:
            return b"_\r\n" if protocol == 3 else b"$-1\r\n"
        case Refusal():
            return b"-%b\r\n" % re.sub(rb"[\r\n]", b" ", reply.args[0])
        case Several():
            return b"".join([encode(part, protocol) for part in reply])
        case Mapping():
            parts = [part for pair in reply.items() for part in pair]
            head = b"%%%d\r\n" % len(reply) if protocol == 3 else b"*%d\r\n" % len(parts)
        case _:
            mark = b">" if protocol == 3 and isinstance(reply, tuple) else b"*"
            head, parts = b"%b%d\r\n" % (mark, len(reply)), [*reply]
    return head + b"".join([encode(part, protocol) for part in parts])


class Client(Socket):
    """A client, in both styles, and what is to be remembered of it from one request to the next."""

    __slots__ = ("name", "number", "protocol", "queue", "spoilt", "topics")
    numbers = itertools.count(1)

    def __init__(self, sock: object) -> None:
        super().__init__(sock)
        self.number = next(self.numbers)
        self.name: bytes | None = None
        self.protocol = 2
        self.topics: dict[tuple[bytes, bytes], None] = {}  # b"" and a channel, or b"p" and a pattern
        self.queue: list[Request] | None = None  # what it has asked for since MULTI
        self.spoilt = False  # something was wrong with one of these

    def event_read(self) -> None:
        """There is input: start `talk`. A subscriber's requests are served right here, one a turn, without a task."""
        if self.topics:
            data = self.read(LONGEST_LINE) or b""
            request, size = take_request(data)
            self.push_back_read(data[size:])
            if request:
                self.tell(execute(self, request))
                return
        super().event_read()  # of a subscriber: half a request, an odd one, or the end, and `talk` can wait for more

    def tell(self, reply: Reply) -> None:
        """Send without waiting. Who falls too far behind is cut off."""
        self.write_soon(encode(reply, self.protocol))
        if self.unsent > MOST_UNSENT:
            self.close("it does not read what it is told")

    def close(self, reason: object = None) -> None:
        super().close(reason)
        for topic in list(self.topics):
            self.leave(*topic)

    def join(self, kind: bytes, name: bytes) -> None:
        self.topics[kind, name] = None
        subscribers[kind].setdefault(name, set()).add(self)

    def leave(self, kind: bytes, name: bytes) -> None:
        if (kind, name) in self.topics:
            del self.topics[kind, name]
            subscribers[kind][name].remove(self)
            if not subscribers[kind][name]:
                del subscribers[kind][name]

    # Commands that are about the connection

    def multi(self) -> Reply:
        if self.queue is not None:
            raise Refusal(b"ERR MULTI calls can not be nested")
        self.queue, self.spoilt = [], False
        return "OK"

    def execute_all(self) -> Reply:
        queue = self.queue or []
        self.discard(b"EXEC")
        if self.spoilt:
            raise Refusal(b"EXECABORT Transaction discarded because of previous errors.")
        return [execute(self, request) for request in queue]

    def discard(self, name: bytes = b"DISCARD") -> Reply:
        if self.queue is None:
            raise Refusal(b"ERR %b without MULTI" % name)
        self.queue = None
        return "OK"

    def ping(self, message: bytes | None = None) -> Reply:
        if self.topics and self.protocol == 2:
            return [b"pong", message or b""]
        return "PONG" if message is None else message

    def hello(self, version: bytes = b"") -> Reply:
        if version not in (b"", b"2", b"3"):
            raise Refusal(b"NOPROTO unsupported protocol version")
        self.protocol = int(version or self.protocol)
        about: dict[bytes, Reply] = {b"server": b"redis", b"version": b"7.0.0", b"mode": b"standalone"}
        return about | {b"role": b"master", b"proto": self.protocol, b"id": self.number, b"modules": []}

    def set_name(self, _setname: bytes, name: bytes) -> Reply:
        self.name = name
        return "OK"

    def leave_server(self, *_words: bytes) -> Reply:
        self.write_soon(encode("OK", self.protocol))
        self.finish()
        return Several()


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
        why = problem.args[0] if isinstance(problem, Refusal) else b"ERR Protocol error: too big inline request"
        client.write_all(encode(Refusal(why), client.protocol))
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


class Keys:
    """The keys and their values, and the timers of those that expire."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.timers: dict[bytes, Timer] = {}

    def get(self, key: bytes) -> bytes | None:
        if (timer := self.timers.get(key)) and timer.deadline <= current_loop().time():  # it has not had its turn yet
            self.remove(key)
        return self.values.get(key)

    def __contains__(self, key: bytes) -> bool:
        return self.get(key) is not None

    def put(self, key: bytes, value: bytes, keep_timer: bool = False) -> None:
        self.values[key] = value
        if self.timers and not keep_timer:
            self.persist(key)

    def remove(self, key: bytes) -> bool:
        self.persist(key)
        return self.values.pop(key, None) is not None

    def expire(self, key: bytes, seconds: float) -> bool:
        if key not in self or seconds <= 0:
            return self.remove(key)
        self.persist(key)
        self.timers[key] = current_loop().add_timer(seconds, partial(self.remove, key))
        return True

    def persist(self, key: bytes) -> bool:
        timer = self.timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        return timer is not None

    def time_left(self, key: bytes, unit: int) -> int:
        if key not in self:
            return -2
        return round((self.timers[key].deadline - current_loop().time()) * unit) if key in self.timers else -1

    def append(self, key: bytes, tail: bytes) -> int:
        self.values[key] = value = (self.get(key) or b"") + tail
        return len(value)

    def add(self, key: bytes, amount: int) -> int:
        value = (number(self.values[key]) if key in self else 0) + amount
        if not -(2**63) <= value < 2**63:
            raise Refusal(b"ERR increment or decrement would overflow")
        self.values[key] = b"%d" % value
        return value

    def clear(self) -> str:
        for key in list(self.values):
            self.remove(key)
        return "OK"


keys = Keys()
UNITS = {b"EX": 1, b"PX": 1000}  # in a second


def number(text: bytes) -> int:
    if re.fullmatch(rb"0|-?[1-9]\d{0,18}", text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    raise Refusal(b"ERR value is not an integer or out of range")


def set_value(_client: Client, key: bytes, value: bytes, *options: bytes) -> Reply:
    if not options:
        keys.put(key, value)
        return "OK"
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
    if (b"NX" if key in keys else b"XX") in flags:
        return None
    keys.put(key, value, keep_timer=b"KEEPTTL" in flags)
    if seconds:
        keys.expire(key, seconds)
    return "OK"


# -- publish and subscribe

subscribers: dict[bytes, dict[bytes, set[Client]]] = {b"": {}, b"p": {}}


@lru_cache
def glob(pattern: bytes) -> Callable[[bytes], object]:
    """Does a name match? Redis's patterns are those of fnmatch, but for [^a], and for a backslash that quotes."""
    text = re.sub(r"\\([*?[])", r"[\1]", pattern.decode("latin-1")).replace("[^", "[!")
    return re.compile(fnmatch.translate(text).encode("latin-1")).match


def change(kind: bytes, what: bytes, how: Callable[..., None], client: Client, *names: bytes) -> Reply:
    """Join or leave channels or patterns, no names being all of them, and confirm each."""
    if client.queue is not None:
        raise Refusal(b"ERR %b inside MULTI is not allowed" % what.upper())
    confirmed = Several()
    for name in names or [name for its_kind, name in client.topics if its_kind == kind]:
        how(client, kind, name)
        confirmed.append((what, name, len(client.topics)))
    return confirmed or (what, None, len(client.topics))


def publish(_client: Client, channel: bytes, message: bytes) -> Reply:
    everybody = subscribers[b""].get(channel, ())
    told: list[tuple[Client, Reply]] = [(client, (b"message", channel, message)) for client in everybody]
    for pattern, clients in subscribers[b"p"].items():
        if glob(pattern)(channel):
            told += [(client, (b"pmessage", pattern, channel, message)) for client in clients]
    for client, news in told:
        client.tell(news)
    return len(told)


# -- the status page, in callback style

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="1">
<title>miniredis</title><h1>miniredis</h1><table>%s</table></html>"""
HEAD = "HTTP/1.1 %s\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"


class StatusPage(Socket):
    """One HTTP request, which should be for the one page that there is."""

    __slots__ = ("request",)
    idle_timeout = 10.0

    def event_read(self) -> None:
        data = self.read(LONGEST_LINE)
        self.request = getattr(self, "request", b"") + (data or b"")
        if b"\r\n\r\n" in self.request:
            method, path, _ = re.split(rb"[ ?\r]", self.request, maxsplit=2)
            outcome, page = "200 OK", PAGE % "".join(f"<tr><td>{name}<td>{n:,}" for name, n in status.figures().items())
            if path != b"/":
                outcome = page = "404 Not Found"
            if method not in (b"GET", b"HEAD"):
                outcome, page = "405 Method Not Allowed\r\nAllow: GET, HEAD", "GET it"
            self.write((HEAD % (outcome, len(page)) + page * (method != b"HEAD")).encode())
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
        return {
            "Connected clients": len(clients),
            "Subscribed clients": sum(bool(client.topics) for client in clients),
            "Total commands processed": self.commands,
            "Instantaneous ops per sec": self.per_second,
            "Keys": len(keys.values),
            "Keys that expire": len(keys.timers),
            "Peak memory in bytes": getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        }

    def info(self) -> bytes:
        lines = [f"{name.lower().replace(' ', '_')}:{value}\r\n" for name, value in self.figures().items()]
        return b"# Server\r\nredis_version:7.0.0\r\n" + "".join(lines).encode()


status = Status()


# -- the table of commands: the fewest words of a request, its name included, the most, and what to call

SUBSCRIBING = {b"SUBSCRIBE", b"PSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE"}
NEVER_QUEUED = SUBSCRIBING | {b"MULTI", b"EXEC", b"DISCARD", b"QUIT"}
FOR_SUBSCRIBERS = SUBSCRIBING | {b"PING", b"QUIT"}  # RESP2 cannot tell other replies from messages
SETTINGS = {b"save": b"", b"appendonly": b"no"}
COMMANDS: dict[bytes, tuple[int, int, Callable[..., Reply]]] = {
    b"GET": (2, 2, lambda _, key: keys.get(key)),
    b"SET": (3, MANY, set_value),
    b"MGET": (2, MANY, lambda _, *names: [keys.get(name) for name in names]),
    b"APPEND": (3, 3, lambda _, key, tail: keys.append(key, tail)),
    b"STRLEN": (2, 2, lambda _, key: len(keys.get(key) or b"")),
    b"INCR": (2, 2, lambda _, key: keys.add(key, 1)),
    b"DECR": (2, 2, lambda _, key: keys.add(key, -1)),
    b"INCRBY": (3, 3, lambda _, key, amount: keys.add(key, number(amount))),
    b"DECRBY": (3, 3, lambda _, key, amount: keys.add(key, -number(amount))),
    b"DEL": (2, MANY, lambda _, *names: sum(name in keys and keys.remove(name) for name in names)),
    b"EXISTS": (2, MANY, lambda _, *names: sum(name in keys for name in names)),
    b"TYPE": (2, 2, lambda _, key: "string" if key in keys else "none"),
    b"KEYS": (2, 2, lambda _, pattern: [key for key in filter(glob(pattern), list(keys.values)) if key in keys]),
    b"DBSIZE": (1, 1, lambda _: len(keys.values)),
    b"FLUSHALL": (1, 2, lambda *_: keys.clear()),
    b"EXPIRE": (3, 3, lambda _, key, amount: keys.expire(key, number(amount))),
    b"PEXPIRE": (3, 3, lambda _, key, amount: keys.expire(key, number(amount) / 1000)),
    b"TTL": (2, 2, lambda _, key: keys.time_left(key, 1)),
    b"PTTL": (2, 2, lambda _, key: keys.time_left(key, 1000)),
    b"PERSIST": (2, 2, lambda _, key: key in keys and keys.persist(key)),
    b"SUBSCRIBE": (2, MANY, partial(change, b"", b"subscribe", Client.join)),
    b"PSUBSCRIBE": (2, MANY, partial(change, b"p", b"psubscribe", Client.join)),
    b"UNSUBSCRIBE": (1, MANY, partial(change, b"", b"unsubscribe", Client.leave)),
    b"PUNSUBSCRIBE": (1, MANY, partial(change, b"p", b"punsubscribe", Client.leave)),
    b"PUBLISH": (3, 3, publish),
    b"MULTI": (1, 1, Client.multi),
    b"EXEC": (1, 1, Client.execute_all),
    b"DISCARD": (1, 1, Client.discard),
    b"PING": (1, 2, Client.ping),
    b"ECHO": (2, 2, lambda _, message: message),
    b"HELLO": (1, 2, Client.hello),
    b"SELECT": (2, 2, lambda _, index: "OK" if index == b"0" else Refusal(b"ERR DB index is out of range")),
    b"QUIT": (1, MANY, Client.leave_server),
    b"CLIENT ID": (2, 2, lambda client, _: client.number),
    b"CLIENT GETNAME": (2, 2, lambda client, _: client.name),
    b"CLIENT SETNAME": (3, 3, Client.set_name),
    b"CLIENT SETINFO": (4, 4, lambda *_: "OK"),
    b"CONFIG GET": (3, MANY, lambda _, _get, *names: {name: SETTINGS[name] for name in names if name in SETTINGS}),
    b"COMMAND": (1, MANY, lambda *_: []),
    b"INFO": (1, MANY, lambda *_: status.info()),
}


def main() -> None:
    parser = ArgumentParser(description="A small Redis server.", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--port", type=int, default=6380, help="0 picks one")
    parser.add_argument("--status-port", type=int, default=8080, help="0 picks one")
    options = parser.parse_args()
    try:
        redis = serve_requests(("127.0.0.1", options.port), talk, socket_class=Client)
        web = serve(("127.0.0.1", options.status_port), StatusPage)
    except (OSError, ValueError) as problem:
        sys.exit(f"miniredis: {problem}")
    tell("miniredis listens on {}:{}".format(*redis.address))
    tell("its status page is http://{}:{}/".format(*web.address))
    status.tick()
    cut_off = serve_forever(redis, web)  # until Ctrl-C or SIGTERM: the clients have their replies, and then the end
    tell("bye" + (f", and {len(cut_off)} clients were cut off" if cut_off else ""))


if __name__ == "__main__":
    main()
