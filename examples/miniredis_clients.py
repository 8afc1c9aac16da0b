"""The clients of miniredis: what each has subscribed to, watches and queues, and the commands about that.

A client that is told things unasked, messages or what MONITOR shows, is told by callbacks, whoever causes them. What
all are told is encoded once. No list of clients, channels or words is so long that it keeps others waiting: such
commands are done in portions.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Sequence
from functools import partial

from dangagreen import Socket, SocketLike
from miniredis_glob import Glob, glob
from miniredis_keys import Command, keys
from miniredis_protocol import (
    LONGEST_BULK,
    LONGEST_LINE,
    MANY,
    SYNTAX,
    NoArray,
    Refusal,
    Reply,
    Request,
    Several,
    Text,
    Work,
    encode,
    in_portions,
    number,
    pieces,
    simple,
)

MOST_NAMES = 10_000  # that a client watches, or has subscribed to: all are to be left when it goes
MOST_QUEUED = 32 * 1024 * 1024  # bytes of requests in a transaction
SHARE = 256 * 1024  # bytes that are told to subscribers before others have their turn
SHOWN = 100  # words, and bytes of each, that MONITOR shows
CHANNEL, PATTERN = b"", b"p"  # what comes before the "subscribe" of each kind


class Topic:
    """A channel or a pattern, and who has subscribed to it."""

    def __init__(self, kind: bytes, name: bytes) -> None:
        self.clients: dict[Client, None] = {}
        self.pattern: Glob | None = glob(name) if kind == PATTERN else None


topics: dict[bytes, dict[bytes, Topic]] = {CHANNEL: {}, PATTERN: {}}
everybody: dict[int, Client] = {}  # by number
monitors: dict[Client, None] = {}


class Client(Socket):
    """A client, and what is to be remembered of it from one request to the next."""

    __slots__ = ("born", "changed", "name", "number", "protocol", "queue", "queued", "spoilt", "topics", "watched")
    line_limit = LONGEST_LINE
    max_unsent = 2 * LONGEST_BULK  # bytes that it may be behind in what it is told unasked, before it is cut off
    numbers = itertools.count(1)

    def __init__(self, sock: SocketLike) -> None:
        super().__init__(sock)
        self.born = self.loop.time()
        self.number = next(self.numbers)
        self.topics: dict[tuple[bytes, bytes], None] = {}
        self.watched: set[bytes] = set()
        everybody[self.number] = self
        self.forget()

    def forget(self) -> None:
        """It is as new: what it has subscribed to, watched, queued or set is no more."""
        self.name = b""
        self.protocol = 2
        self.leave_transaction()
        for topic in list(self.topics):
            self.leave(*topic)
        monitors.pop(self, None)

    def leave_transaction(self) -> None:
        self.queue: list[Request] | None = None  # what it has asked for since MULTI
        self.queued = 0  # bytes of that
        self.spoilt = False  # something was wrong with one of these
        self.changed = False  # one of the keys that it watches
        for key in self.watched:
            keys.unwatch(self, key)
        self.watched.clear()

    def finish(self) -> None:
        """It has gone, though its connection may linger."""
        self.forget()
        everybody.pop(self.number, None)
        super().finish()

    def close(self, reason: object = None) -> None:
        super().close(reason)
        self.forget()
        everybody.pop(self.number, None)

    def join(self, kind: bytes, name: bytes) -> None:
        topic = topics[kind].get(name) or Topic(kind, name)
        topics[kind][name] = topic
        topic.clients[self] = self.topics[kind, name] = None

    def leave(self, kind: bytes, name: bytes) -> None:
        if (kind, name) in self.topics:
            del self.topics[kind, name], topics[kind][name].clients[self]
            if not topics[kind][name].clients:
                del topics[kind][name]

    def answer(self, reply: Reply) -> None:
        """Parks until the reply is on its way. What comes unasked must not come into the middle of it."""
        data = simple(reply, self.protocol)
        if data is not None:
            self.write_all(data)
        else:
            in_portions(self.answer_at_once(reply) if self.topics or self in monitors else self.answer_slowly(reply))

    def answer_slowly(self, reply: Reply) -> Work[None]:
        """As fast as the client reads it: no more of it is kept than that."""
        for piece in pieces(reply, self.protocol):
            self.write_all(piece)
            yield

    def answer_at_once(self, reply: Reply) -> Work[None]:
        whole, size = [], 0
        for piece in pieces(reply, self.protocol):
            whole.append(piece)
            size += len(piece)
            if size > self.max_unsent:
                return self.close("it has asked for more than it may be behind")
            yield
        for piece in whole:
            self.write_soon(piece)
        return None

    def described(self) -> bytes:
        """As CLIENT LIST has it."""
        channels = sum(kind == CHANNEL for kind, _ in self.topics)
        about = {
            "id": self.number,
            "addr": self.peer_addr_string(),
            "laddr": self.local_addr_string(),
            "fd": self.fd,
            "name": self.name.decode("latin-1"),
            "age": int(self.loop.time() - self.born),
            "flags": "O" * (self in monitors) + "P" * bool(self.topics) + "x" * (self.queue is not None) or "N",
            "db": 0,
            "sub": channels,
            "psub": len(self.topics) - channels,
            "multi": -1 if self.queue is None else len(self.queue),
            "omem": self.unsent,
            "user": "default",
            "resp": self.protocol,
        }
        return " ".join(f"{name}={value}" for name, value in about.items()).encode("latin-1") + b"\n"


# -- the connection


def hello(client: Client, version: bytes = b"", *options: bytes) -> Reply:
    if version:
        try:
            protocol = number(version)
        except Refusal:
            raise Refusal(b"ERR Protocol version is not an integer or out of range") from None
        if protocol not in (2, 3):
            raise Refusal(b"NOPROTO unsupported protocol version")
        words = iter(options)
        for word in words:
            match word.upper(), [*itertools.islice(words, 2 if word.upper() == b"AUTH" else 1)]:
                case b"AUTH", [user, password]:
                    authenticate(client, user, password)
                case b"SETNAME", [name]:
                    set_name(client, name)
                case _:
                    raise Refusal(b"ERR Syntax error in HELLO option '%b'" % word[:128])
        client.protocol = protocol
    about: dict[bytes, Reply] = {b"server": b"redis", b"version": b"7.0.0", b"proto": client.protocol}
    return about | {b"id": client.number, b"mode": b"standalone", b"role": b"master", b"modules": []}


def authenticate(_client: Client, user: bytes, *password: bytes) -> Reply:
    """There are no passwords: the default user has any."""
    if not password:
        raise Refusal(b"ERR AUTH <password> called without any password configured for the default user")
    if len(password) > 1:
        raise Refusal(SYNTAX)
    if user != b"default":
        raise Refusal(b"WRONGPASS invalid username-password pair or user is disabled.")
    return "OK"


def set_name(client: Client, name: bytes) -> Reply:
    if re.search(rb"[^!-~]", name):
        raise Refusal(b"ERR Client names cannot contain spaces, newlines or special characters.")
    client.name = name
    return "OK"


def ping(client: Client, message: bytes | None = None, *more: bytes) -> Reply:
    if more:
        raise Refusal(b"ERR wrong number of arguments for 'ping' command")
    if client.topics and client.protocol == 2:
        return [b"pong", message or b""]
    return "PONG" if message is None else message


def select(_client: Client, index: bytes) -> Reply:
    if number(index) != 0:
        raise Refusal(b"ERR DB index is out of range")
    return "OK"


def reset(client: Client) -> Reply:
    client.forget()
    return "RESET"


def leave_server(client: Client, *_words: bytes) -> Reply:
    client.leave_transaction()
    client.write_all(encode("OK", client.protocol))
    client.finish()
    return Several()


def list_clients(_client: Client, *options: bytes) -> Work[Reply]:
    those: Iterable[Client | None] = list(everybody.values())
    match [options[0].upper() if options else b"", *options[1:]]:
        case [b""]:
            pass
        case [b"TYPE", kind] if kind.lower() in (b"normal", b"pubsub", b"master", b"replica", b"slave"):
            listens = {b"normal": False, b"pubsub": True}.get(kind.lower())
            those = [client for client in everybody.values() if bool(client.topics) is listens]
        case [b"ID", _, *_]:
            try:
                those = [everybody.get(number(one)) for one in options[1:]]
            except Refusal:
                raise Refusal(b"ERR Invalid client ID") from None
        case _:
            raise Refusal(SYNTAX)
    lines = []
    for client in those:
        if client is not None and not client.closed:
            lines.append(client.described())
        yield
    return Text(b"".join(lines))


# -- transactions


def multi(client: Client) -> Reply:
    if client.queue is not None:
        raise Refusal(b"ERR MULTI calls can not be nested")
    client.queue, client.spoilt = [], False
    return "OK"


def queue(client: Client, request: Request) -> Reply:
    client.queued += sum(map(len, request)) + 64 * len(request)
    if client.queued > MOST_QUEUED:
        client.spoilt = True
        raise Refusal(b"ERR this transaction is too large")
    assert client.queue is not None
    client.queue.append(request)
    return "QUEUED"


def take_queue(client: Client) -> list[Request] | NoArray:
    """What is to be executed now; no array if a key that it watches has changed."""
    if client.queue is None:
        raise Refusal(b"ERR EXEC without MULTI")
    for key in client.watched:
        keys.value(key)  # its time may be up
    requests, spoilt, changed = client.queue, client.spoilt, client.changed
    client.leave_transaction()
    if spoilt:
        raise Refusal(b"EXECABORT Transaction discarded because of previous errors.")
    return NoArray() if changed else requests


def discard(client: Client) -> Reply:
    if client.queue is None:
        raise Refusal(b"ERR DISCARD without MULTI")
    client.leave_transaction()
    return "OK"


def watch(client: Client, *names: bytes) -> Reply:
    if client.queue is not None:
        raise Refusal(b"ERR WATCH inside MULTI is not allowed")
    if len(client.watched) + len(names) > MOST_NAMES:
        raise Refusal(b"ERR more than %d keys are watched" % MOST_NAMES)
    for name in names:
        keys.watch(client, name)
    client.watched.update(names)
    return "OK"


def unwatch(client: Client) -> Reply:
    if client.queue is None:
        client.leave_transaction()
    return "OK"


# -- publish and subscribe


def subscribe(kind: bytes, client: Client, *names: bytes) -> Work[Reply]:
    if len(client.topics) + len(names) > MOST_NAMES:
        raise Refusal(b"ERR more than %d channels and patterns" % MOST_NAMES)
    confirmed = Several()
    for name in names:
        client.join(kind, name)
        confirmed.append((kind + b"subscribe", name, len(client.topics)))
        yield
    return confirmed


def unsubscribe(kind: bytes, client: Client, *names: bytes) -> Work[Reply]:
    """No names are all of the kind."""
    confirmed = Several()
    for name in names or [name for its_kind, name in client.topics if its_kind == kind]:
        client.leave(kind, name)
        confirmed.append((kind + b"unsubscribe", name, len(client.topics)))
        yield
    return confirmed or (kind + b"unsubscribe", None, len(client.topics))


def publish(_client: Client, channel: bytes, message: bytes) -> Work[Reply]:
    told = 0
    topic = topics[CHANNEL].get(channel)
    if topic is not None:
        told += yield from tell((CHANNEL, channel), list(topic.clients), (b"message", channel, message))
    for name, topic in list(topics[PATTERN].items()):
        if topic.pattern is not None and (yield from topic.pattern.matches(channel)):
            clients = list(topic.clients)
            told += yield from tell((PATTERN, name), clients, (b"pmessage", name, channel, message))
        yield
    return told


def tell(topic: tuple[bytes, bytes], clients: Sequence[Client], news: Reply) -> Work[int]:
    """Send it to all who have subscribed to the topic, and still do. It is encoded once for each protocol."""
    encoded: dict[int, bytes] = {}
    told = size = 0
    for client in clients:
        if topic in client.topics:
            data = encoded.get(client.protocol)
            if data is None:
                data = encoded[client.protocol] = encode(news, client.protocol)
            client.write_soon(data)
            told += 1
            size += len(data) + 1000  # as if each cost so much more
        if size > SHARE:
            size = 0
            yield True  # what was written is to be sent, too
    return told


def list_channels(_client: Client, pattern: bytes | None = None, *more: bytes) -> Work[Reply]:
    if more:
        raise Refusal(b"ERR wrong number of arguments for 'pubsub|channels' command")
    found: list[Reply] = []
    matcher = None if pattern is None else glob(pattern)
    for name in list(topics[CHANNEL]):
        if (matcher is None or (yield from matcher.matches(name))) and name in topics[CHANNEL]:
            found.append(name)
        yield
    return found


def count_subscribers(_client: Client, *names: bytes) -> Work[Reply]:
    counts: list[Reply] = []
    for name in names:
        topic = topics[CHANNEL].get(name)
        counts += [name, len(topic.clients) if topic else 0]
        yield
    return counts


# -- what MONITOR shows


def monitor(client: Client) -> Reply:
    if client.queue is not None:
        raise Refusal(b"ERR MONITOR isn't allowed in a transaction")
    monitors[client] = None
    return "OK"


def show(client: Client, request: Request) -> None:
    """Tell all monitors of a request, in short."""
    shown = [quoted(word) for word in request[:SHOWN]]
    if len(request) > SHOWN:
        shown.append(b"... (%d more arguments)" % (len(request) - SHOWN))
    who = str(client.peer_addr_string()).encode()
    line = b"+%.6f [0 %b] %b\r\n" % (time.time(), who, b" ".join(shown))
    for monitor in monitors:
        monitor.write_soon(line)


def quoted(word: bytes) -> bytes:
    text = repr(word[:SHOWN])[2:-1].replace('"', '\\"').encode()
    return b'"%b"' % text + (b"... (%d more bytes)" % (len(word) - SHOWN) if len(word) > SHOWN else b"")


COMMANDS: dict[bytes, Command] = {
    b"PING": (1, MANY, ping),
    b"ECHO": (2, 2, lambda _, message: message),
    b"HELLO": (1, MANY, hello),
    b"AUTH": (2, MANY, authenticate),
    b"SELECT": (2, 2, select),
    b"RESET": (1, 1, reset),
    b"QUIT": (1, MANY, leave_server),
    b"CLIENT ID": (2, 2, lambda client, _: client.number),
    b"CLIENT GETNAME": (2, 2, lambda client, _: client.name or None),
    b"CLIENT SETNAME": (3, 3, lambda client, _, name: set_name(client, name)),
    b"CLIENT SETINFO": (4, 4, lambda *_: "OK"),
    b"CLIENT LIST": (2, MANY, lambda client, _, *options: list_clients(client, *options)),
    b"CLIENT INFO": (2, 2, lambda client, _: Text(client.described())),
    b"MULTI": (1, 1, multi),
    b"DISCARD": (1, 1, discard),
    b"WATCH": (2, MANY, watch),
    b"UNWATCH": (1, 1, unwatch),
    b"SUBSCRIBE": (2, MANY, partial(subscribe, CHANNEL)),
    b"PSUBSCRIBE": (2, MANY, partial(subscribe, PATTERN)),
    b"UNSUBSCRIBE": (1, MANY, partial(unsubscribe, CHANNEL)),
    b"PUNSUBSCRIBE": (1, MANY, partial(unsubscribe, PATTERN)),
    b"PUBLISH": (3, 3, publish),
    b"PUBSUB CHANNELS": (2, MANY, lambda client, _, *pattern: list_channels(client, *pattern)),
    b"PUBSUB NUMSUB": (2, MANY, lambda client, _, *names: count_subscribers(client, *names)),
    b"PUBSUB NUMPAT": (2, 2, lambda *_: len(topics[PATTERN])),
    b"MONITOR": (1, 1, monitor),
}
