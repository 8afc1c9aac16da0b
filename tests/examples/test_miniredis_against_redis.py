"""miniredis answers as a real redis-server does: the same values, and the same first words of errors."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from programs import Program, connected
from redis_servers import Push, conversation, packed, read_reply, real_redis

SEEDS = int(os.environ.get("SEEDS", "25"))
NEVER = b"9223372036854775807"


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """That of a real Redis, and that of a miniredis."""
    directory: Path = tmp_path_factory.mktemp("redis")
    with real_redis(directory) as real:
        program = Program("miniredis", ("--port", "0", "--status-port", "0"), 2, directory / "errors")
        try:
            yield real, program.ports[0]
            program.end()
        finally:
            program.process.kill()
            program.process.communicate()


# -- random commands

NAMES = [b"", b"a", b"b", b"key:1", b"key:2", b"x" * 300, b"\r\n", b"\xff\0", b"*", b"h[e]llo"]
VALUES = [
    b"",
    b"1",
    b"-5",
    b"007",
    b"1.5",
    b" 1",
    b"some text",
    b"\r\n\0\xff",
    b"z" * 100,
    NEVER,
    b"-9223372036854775808",
]
NUMBERS = [
    b"0",
    b"1",
    b"-1",
    b"5",
    b"100",
    b"5000",
    b"9" * 19,
    NEVER,
    b"-9223372036854775808",
    b"9223372036854775",
    b"x",
    b"",
    b"+5",
    b"05",
    b"-0",
    b"1e3",
    b" 7",
    b"10000000000",
    b"9223372036854774",
    b"-9223372036854775",
    b"9" * 30,
]
LONG = [number for number in NUMBERS if number not in (b"1", b"5", b"100")]  # in milliseconds
PATTERNS = [
    b"*",
    b"",
    b"**",
    b"k*",
    b"*1",
    b"key:?",
    b"[a-b]",
    b"[^a]",
    b"[b-a]",
    b"\\*",
    b"h\\[e]llo",
    b"h[[]e]llo",
    b"[",
    b"[^",
    b"[]",
    b"[^]*",
    b"[a",
    b"\\",
    b"*\\",
    b"x*x*x*y",
    b"?*?",
    b"[\\]]",
    b"[a-",
    b"[--z]",
    b"[*]",
    b"*[*]*",
]
DATES = [b"1", b"-1", b"0", b"4000000000", b"4000000000000", b"9223372036854775807", b"9223372036854775", b"x"]
OPTIONS = [
    b"NX",
    b"xx",
    b"GET",
    b"KEEPTTL",
    b"EX",
    b"px",
    b"EXAT",
    b"PXAT",
    b"5000",
    b"4000000000",
    b"GT",
    b"LT",
    b"FOO",
    b"-3",
]


def keys_of(some: random.Random, most: int = 3) -> list[bytes]:
    return some.choices(NAMES, k=some.randint(0, most))


def any_of(*choices: list[bytes]) -> Callable[[random.Random], list[bytes]]:
    return lambda some: [some.choice(choice) for choice in choices]


def extended(
    *choices: list[bytes], options: list[bytes] = OPTIONS, most: int = 3
) -> Callable[[random.Random], list[bytes]]:
    return lambda some: [*(some.choice(choice) for choice in choices), *some.choices(options, k=some.randint(0, most))]


COMMANDS: dict[bytes, Callable[[random.Random], list[bytes]]] = {
    b"GET": any_of(NAMES),
    b"SET": extended(NAMES, VALUES),
    b"SETEX": any_of(NAMES, NUMBERS, VALUES),
    b"PSETEX": any_of(NAMES, LONG, VALUES),
    b"SETNX": any_of(NAMES, VALUES),
    b"GETDEL": any_of(NAMES),
    b"MSET": lambda some: [
        word for _ in range(some.randint(0, 3)) for word in (some.choice(NAMES), some.choice(VALUES))
    ],
    b"MGET": keys_of,
    b"APPEND": any_of(NAMES, VALUES),
    b"STRLEN": any_of(NAMES),
    b"INCR": any_of(NAMES),
    b"DECR": any_of(NAMES),
    b"INCRBY": any_of(NAMES, NUMBERS),
    b"DECRBY": any_of(NAMES, NUMBERS),
    b"DEL": keys_of,
    b"UNLINK": keys_of,
    b"EXISTS": keys_of,
    b"TYPE": any_of(NAMES),
    b"KEYS": any_of(PATTERNS),
    b"SCAN": extended([b"0", b"x", b"", b"9" * 30, b"1e"], options=[b"MATCH", b"k*", b"COUNT", b"0", b"TYPE", b"x"]),
    b"DBSIZE": any_of(),
    b"FLUSHALL": extended(options=[b"ASYNC", b"sync", b"FOO"], most=2),
    b"FLUSHDB": extended(options=[b"ASYNC", b"sync", b"FOO"], most=2),
    b"EXPIRE": extended(NAMES, NUMBERS, options=OPTIONS[:2] + OPTIONS[-4:]),
    b"PEXPIRE": extended(NAMES, LONG, options=OPTIONS[:2]),
    b"EXPIREAT": extended(NAMES, DATES, options=OPTIONS[:2] + OPTIONS[-4:]),
    b"PEXPIREAT": extended(NAMES, DATES, options=OPTIONS[:2] + OPTIONS[-4:]),
    b"TTL": any_of(NAMES),
    b"PTTL": any_of(NAMES),
    b"PERSIST": any_of(NAMES),
    b"PUBLISH": any_of(NAMES, VALUES),
    b"PING": extended(options=VALUES, most=2),
    b"ECHO": any_of(VALUES),
    b"AUTH": extended([b"default", b"other"], options=VALUES, most=2),
    b"SELECT": any_of([b"0", b"1", b"-1", b"x", b"", b"9" * 30, b"00"]),
    b"HELLO": extended(options=[b"2", b"3", b"4", b"x", b"AUTH", b"default", b"SETNAME", b"me", b"a b"], most=4),
    b"CLIENT": extended(
        [b"GETNAME", b"getname", b"SETNAME", b"FOO", b""], options=[b"me", b"a b", b"", b"\n", b"\xff"], most=2
    ),
    b"MULTI": any_of(),
    b"EXEC": any_of(),
    b"DISCARD": any_of(),
    b"WATCH": keys_of,
    b"UNWATCH": any_of(),
    b"RESET": any_of(),
    b"PUBSUB": extended([b"CHANNELS", b"NUMSUB", b"NUMPAT", b"FOO"], options=NAMES, most=2),
    b"CONFIG": any_of([b"GET"], [b"save", b"append[o]nly", b"nothing*", b"SAVE"]),
    b"INFO": any_of([b"foo"]),
    b"NOSUCH": keys_of,
    b"": keys_of,
}
SUBSCRIBING = dict.fromkeys((b"SUBSCRIBE", b"PSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE"), keys_of)


def random_request(some: random.Random, commands: dict[bytes, Callable[[random.Random], list[bytes]]]) -> list[bytes]:
    name = some.choice(list(commands))
    words = commands[name](some)
    if some.random() < 0.04:  # wrong arity
        words = words[1:] if some.random() < 0.5 else [*words, b"extra"]
    return [name.lower() if some.random() < 0.2 else name, *words]


def comparable(request: list[bytes], reply: Any) -> Any:
    """What of a reply is to be the same: not an order that is nobody's, nor the very millisecond."""
    name = request[0].upper() if request else b""
    if name in (b"KEYS", b"PUBSUB") and isinstance(reply, list) and b"NUMSUB" not in request:
        return sorted(reply, key=repr)
    if (name == b"INFO" and reply) or name == b"DBSIZE":  # a real one counts keys whose time is up, for a while
        return type(reply)
    if name == b"SCAN" and isinstance(reply, list):
        return [reply[0], sorted(reply[1])]
    if name in (b"TTL", b"PTTL") and isinstance(reply, int) and reply > 0:
        return "time", round(reply, -3 if name == b"TTL" else -6)
    return greeting(reply)


def greeting(reply: Any) -> Any:
    """A reply to HELLO, be it in a transaction, without what differs: its version, and the number of the client."""
    if isinstance(reply, list) and reply[:1] == [b"server"]:
        return ["hello", greeting(dict(zip(reply[::2], reply[1::2], strict=True)))]
    if isinstance(reply, list):
        return [greeting(one) for one in reply]
    if isinstance(reply, dict) and b"server" in reply:
        return {field: reply[field] for field in (b"server", b"proto", b"mode", b"role", b"modules")}
    return reply


def compare(port: int, other: int, requests: list[list[bytes]], note: object) -> None:
    data = b"".join(packed(*request) for request in requests)
    expected, got = conversation(port, data), conversation(other, data)
    for number, request in enumerate(requests):
        pair = [comparable(request, replies[number]) if number < len(replies) else "end" for replies in (expected, got)]
        assert (note, number, request, pair[1]) == (note, number, request, pair[0])
    assert len(got) == len(expected)


@pytest.mark.parametrize("transactions", [False, True], ids=["plain", "transactions"])
def test_random_commands(ports: tuple[int, int], transactions: bool) -> None:
    """Times that have come are not compared, so that no reply depends on the moment."""
    beside = {b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"RESET"}
    for seed in range(SEEDS):
        some = random.Random(f"{seed} {transactions}")
        commands = {name: how for name, how in COMMANDS.items() if transactions or name not in beside}
        requests = [[b"FLUSHALL"], *(random_request(some, commands) for _ in range(60))]
        if transactions:  # what a transaction answers is compared as it is
            without = {b"KEYS", b"PUBSUB", b"TTL", b"PTTL", b"HELLO", b"SCAN"}
            requests = [request for request in requests if request[0].upper() not in without]
        compare(*ports, requests, seed)


def test_expiry_that_overflows(ports: tuple[int, int]) -> None:
    requests = [[b"SET", b"k", b"v"]]
    for name in b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT":
        for exponent in range(10, 64):
            for amount in 2**exponent, 2**exponent - 1, -(2**exponent):
                requests += [[name, b"k", b"%d" % amount], [b"EXISTS", b"k"], [b"TTL", b"k"], [b"SET", b"k", b"v"]]
    for unit in b"EX", b"PX", b"EXAT", b"PXAT":
        for exponent in range(10, 64):
            requests += [[b"SET", b"k", b"v", unit, b"%d" % (2**exponent + off)] for off in (-1, 0)]
            requests += [[b"EXISTS", b"k"], [b"TTL", b"k"]]
    compare(*ports, requests, "overflow")


def test_random_patterns(ports: tuple[int, int]) -> None:
    for seed in range(10):
        some = random.Random(seed)
        letters = [b"a", b"b", b"-", b"]", b"[", b"^", b"\\", b"*", b"?", b"c"]
        names = {b"".join(some.choices(letters, k=some.randint(0, 5))) for _ in range(60)}
        requests = [[b"FLUSHALL"], [b"MSET", *(word for name in sorted(names) for word in (name, b""))]]
        for _ in range(400):
            requests.append([b"KEYS", b"".join(some.choices(letters, k=some.randint(0, 7)))])
        compare(*ports, requests, seed)


def test_a_scan_finds_what_is_there_all_the_time(ports: tuple[int, int]) -> None:
    for port in ports:
        with connected(port) as (sock, stream):

            def say(*words: bytes) -> Any:
                sock.sendall(packed(*words))
                return read_reply(stream)

            say(b"FLUSHALL")
            say(b"MSET", *(word for n in range(3000) for word in (b"%d" % n, b"")))
            found: set[bytes] = set()
            cursor, calls = b"0", 0
            while True:
                cursor, part = say(b"SCAN", cursor, b"COUNT", b"50", b"MATCH", b"*[02468]")
                found.update(part)
                calls += 1
                if cursor == b"0":
                    break
                say(b"SET", b"new%d" % calls, b"")
                say(b"DEL", b"%d" % (2 * calls + 1))
            assert {b"%d" % n for n in range(0, 3000, 2)} <= found
            assert calls > 20
            assert sorted(say(b"SCAN", b"0", b"COUNT", b"1000000")[1]) == sorted(say(b"KEYS", b"*"))


# -- several clients


class Talk:
    """A client: what it asks for, and all that it hears."""

    def __init__(self, port: int, stack: contextlib.ExitStack) -> None:
        self.sock, self.stream = stack.enter_context(connected(port))
        self.heard: list[Any] = []
        self.in_transaction = False  # or perhaps

    def say(self, words: list[bytes]) -> None:
        """It is done when something comes that is no message of somebody else."""
        self.sock.sendall(packed(*words))
        name = words[0].upper()
        self.in_transaction = name == b"MULTI" or (
            self.in_transaction and name not in (b"EXEC", b"RESET") and [*words[1:], name] != [b"DISCARD"]
        )
        while True:
            reply = read_reply(self.stream)
            if not is_message(reply):
                return self.heard.append(comparable(words, reply))
            self.heard.append(reply)


def is_message(reply: Any) -> bool:
    return isinstance(reply, (list, Push)) and len(reply) > 2 and reply[0] in (b"message", b"pmessage")


def unordered(reply: Any) -> Any:
    if isinstance(reply, list) and not is_message(reply):
        names = [one for one in reply if isinstance(one, bytes)]
        return sorted(reply) if names == reply else [unordered(one) for one in reply]
    return reply


def in_any_order(heard: list[Any]) -> list[Any]:
    """Which pattern of a client is served first is nobody's business, nor is the order of PUBSUB CHANNELS."""
    parts = itertools.groupby(map(unordered, heard), is_message)
    return [one for news, some in parts for one in (sorted(some, key=repr) if news else some)]


def test_random_conversations_of_several_clients(ports: tuple[int, int]) -> None:
    watched = {name: COMMANDS[name] for name in (b"GET", b"SET", b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"UNWATCH")}
    watched |= {
        name: COMMANDS[name] for name in (b"INCR", b"DEL", b"FLUSHALL", b"PERSIST", b"RESET", b"PING", b"PUBSUB")
    }
    watched |= {b"EXPIRE": any_of(NAMES, [b"-1", b"5000"]), b"PUBLISH": any_of(NAMES[1:5], VALUES)}
    channels = {name: (lambda some: some.choices(NAMES[1:5] + PATTERNS[:6], k=1)) for name in SUBSCRIBING}
    watched |= channels
    for seed in range(SEEDS):
        heard = []
        for port in ports:
            some = random.Random(seed)
            with contextlib.ExitStack() as stack:
                clients = [Talk(port, stack) for _ in range(3)]
                for client in clients:
                    client.say([b"HELLO", some.choice([b"2", b"3"])])
                clients[0].say([b"FLUSHALL"])
                for _ in range(80):
                    request = random_request(some, watched)
                    if request[0].upper() in SUBSCRIBING:  # one name: one reply
                        request = [request[0], *request[1:2], b"a"][:2]
                    client = some.choice(clients)
                    if request[0].upper() == b"PUBLISH" and client.in_transaction:
                        continue  # what it tells the client itself would come within the reply of a real EXEC
                    client.say(request)
                for client in clients:
                    client.say([b"RESET"])
                    client.say([b"PING", b"the end"])
                heard.append([in_any_order(client.heard) for client in clients])
        for number, (expected, got) in enumerate(zip(*heard, strict=True)):
            differs = [(at, pair) for at, pair in enumerate(zip(got, expected, strict=False)) if pair[0] != pair[1]]
            assert (seed, number, differs[:1], len(got)) == (seed, number, [], len(expected))


# -- raw protocol

RAW = [
    b"PING", b"\r\n", b"\n", b"  ", b"*1\r\n$4\r\nPING\r\n", b"*0\r\n", b"*-1\r\n", b"*-5\r\n", b"ECHO hello\r\n",
    b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n", b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\na\r\n\r\n", b"GET k\n",
    b"ECHO 'a b'\r\n", b'ECHO "a\\x41\\n\\"b"\r\n', b"ECHO a'b'\r\n", b"set k v\r\n", b"*1\r\n$0\r\n\r\n",
    b"NOSUCH\r\n", b"GET\r\n", b"\tECHO\t \tx \r\n", b"ECHO ''\r\n", b'ECHO "\\q\\\\"\r\n', b"ECHO '\\n\\''\r\n",
]  # fmt: skip
WRONG = [
    b"*1\r\n$-1\r\n", b"*1\r\n+PING\r\n", b"*1\r\n:1\r\n", b"*x\r\n", b"*\r\n", b"* 1\r\n", b"*01\r\n", b"*-0\r\n",
    b"*99999999999\r\n", b"*9223372036854775808\r\n", b"*1\r\n$99999999999\r\n", b"*1\r\n$04\r\nPING\r\n",
    b"*1\r\n$4 \r\nPING\r\n", b"*1\r\n$\r\n", b"*1\r\n$33554433\r\n", b"*1\r\n\r\n", b"ECHO 'a\r\n", b'ECHO "a\r\n',
    b"ECHO 'a'b\r\n", b'ECHO "a"b\r\n', b'ECHO "a\\"\r\n', b"*1\r\nPING\r\n", b"*2\r\n$4\r\nECHO\r\n\r\n",
    b"POST / HTTP/1.1\r\n", b"post /\r\n", b"Host: localhost\r\n", b"HOST: x\r\n", b"*1\r\n$4\r\nPOST\r\n",
    b"*2\r\n$5\r\nhost:\r\n$1\r\nx\r\n", b"QUIT\r\n", b"*1\r\n$4\r\nQUIT\r\n", b"quit now please\r\n", b'"PI"NG\r\n',
    b"x" * 70000, b"*" + b"1" * 70000, b"*1\r\n$" + b"1" * 70000, b"*2147483648\r\n",
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong[:30])[2:-1].replace(" ", "_"))
def test_what_ends_a_connection(ports: tuple[int, int], wrong: bytes) -> None:
    """Nothing behind it is executed, and it is the same in the middle of a transaction."""
    real, ours = ports
    for before in b"", b"SET k before\r\n", b"MULTI\r\n":
        data = before + wrong + b"SET k after\r\n"
        assert conversation(ours, data) == conversation(real, data)
        assert conversation(ours, b"GET k\r\nDEL k\r\n") == conversation(real, b"GET k\r\nDEL k\r\n")


def test_random_streams(ports: tuple[int, int]) -> None:
    real, ours = ports
    for seed in range(150):
        some = random.Random(seed)
        data = b"".join(some.choices(RAW, k=some.randint(1, 15)))
        if some.random() < 0.3:
            data += some.choice(WRONG[:-9]) + b"PING\r\n"
        assert (seed, data, conversation(ours, data)) == (seed, data, conversation(real, data))


def test_random_quotes(ports: tuple[int, int]) -> None:
    real, ours = ports
    letters = [b"a", b" ", b"'", b'"', b"\\", b"\\x41", b"\\x4", b"\\n", b"\t", b"\\'", b'\\"', b"\v", b"\r", b"\xff"]
    for seed in range(300):
        some = random.Random(seed)
        data = b"MGET " + b"".join(some.choices(letters, k=some.randint(0, 10))) + b"\r\n"
        data = data.replace(b"MGET", some.choice([b"ECHO", b"PING"])) + b"PING end\r\n"
        assert (seed, data, conversation(ours, data)) == (seed, data, conversation(real, data))


def test_every_split(ports: tuple[int, int]) -> None:
    real, ours = ports
    data = b"".join(RAW[1:]) + b"*-1\r\nPING\r\n"
    expected = conversation(real, data)
    assert len(expected) >= 19
    for split in range(len(data)):
        assert (split, conversation(ours, data, split)) == (split, expected)


def test_info_is_verbatim_in_resp3(ports: tuple[int, int]) -> None:
    for request in b"INFO server\r\n", b"CLIENT LIST\r\n", b"CLIENT INFO\r\n":
        for port in ports:
            plain = conversation(port, request)[0]
            kind, text = conversation(port, b"HELLO 3\r\n" + request)[1]
            assert isinstance(plain, bytes)
            assert (kind, text[:4]) == (b"=", b"txt:")


def test_client_lists(ports: tuple[int, int]) -> None:
    for port in ports:
        with contextlib.ExitStack() as stack:
            one, other = Talk(port, stack), Talk(port, stack)
            one.say([b"CLIENT", b"SETNAME", b"me"])
            other.say([b"SUBSCRIBE", b"c", b"d"])
            read_reply(other.stream)
            for options, names in (
                ([], [b"me", b""]),
                ([b"TYPE", b"pubsub"], [b""]),
                ([b"type", b"NORMAL"], [b"me"]),
                ([b"TYPE", b"replica"], []),
            ):
                one.say([b"CLIENT", b"LIST", *options])
                lines = [dict(field.split(b"=", 1) for field in line.split()) for line in one.heard[-1].splitlines()]
                assert sorted(line[b"name"] for line in lines) == sorted(names)
                for line in lines:
                    assert line[b"resp"] == b"2"
                    assert line[b"sub"] == (b"0" if line[b"name"] else b"2")
                    assert line[b"flags"] == (b"N" if line[b"name"] else b"P")
            one.say([b"CLIENT", b"ID"])
            one.say([b"CLIENT", b"LIST", b"ID", b"%d" % one.heard[-1], b"99999"])
            assert one.heard[-1].count(b"\n") == 1
            for wrong in ([b"TYPE", b"x"], [b"ID", b"x"], [b"ID"], [b"FOO"], [b"TYPE"]):
                one.say([b"CLIENT", b"LIST", *wrong])
                assert one.heard[-1] == "ERR"


def test_monitors(ports: tuple[int, int]) -> None:
    for port in ports:
        with contextlib.ExitStack() as stack:
            watcher, one = Talk(port, stack), Talk(port, stack)
            watcher.say([b"MONITOR"])
            for request in [b"SET", b"k", b'a"\\\r\n\xff'], [b"MULTI"], [b"GET", b"k"], [b"EXEC"], [b"GET"], [b"PING"]:
                one.say(request)
            shown = [read_reply(watcher.stream).split("] ", 1)[1] for _ in range(5)]
            assert sorted(shown) == sorted(
                ['"SET" "k" "a\\"\\\\\\r\\n\\xff"', '"MULTI"', '"GET" "k"', '"EXEC"', '"PING"']
            )
            watcher.say([b"GET", b"k"])
            assert watcher.heard[-1] == "ERR"
            watcher.say([b"RESET"])
            watcher.say([b"GET", b"k"])
            assert watcher.heard[-2:] == ["RESET", b'a"\\\r\n\xff']


def test_after_quit_a_subscriber_is_gone_at_once(ports: tuple[int, int]) -> None:
    """Not only when its connection has ended, which this side of it leaves open."""
    for port in ports:
        with contextlib.ExitStack() as stack:
            one, other = Talk(port, stack), Talk(port, stack)
            one.say([b"SUBSCRIBE", b"c"])
            one.say([b"QUIT"])
            other.say([b"PUBLISH", b"c", b"x"])
            other.say([b"PUBSUB", b"CHANNELS"])
            other.say([b"CLIENT", b"LIST"])
            assert (other.heard[0], other.heard[1], other.heard[2].count(b"\n")) == (0, [], 1)
            assert one.sock.recv(1) == b""
