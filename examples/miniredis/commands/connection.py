"""The commands about a connection: who a client is, and what protocol it speaks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from miniredis.clients import Client, everybody
from miniredis.portions import Work
from miniredis.protocol import MANY, SYNTAX, Command, Refusal, Reply, Several, Text, encode, number


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
}
