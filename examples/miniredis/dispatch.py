"""The way of a request: its command is looked up, checked and carried out, or queued in a transaction.

EXEC is here, since it carries out others, and so are the few commands about the server.
"""

from __future__ import annotations

from types import GeneratorType
from typing import Any, cast

from miniredis.clients import Client, monitors
from miniredis.commands import channels, connection, keys, monitoring, strings, transactions
from miniredis.patterns import glob
from miniredis.portions import Work, in_portions
from miniredis.protocol import MANY, Command, NoArray, Refusal, Reply, Request
from miniredis.status import status


def execute(client: Client, request: Request) -> Reply:
    """Parks until the request is done, if that takes long; returns the reply."""
    status.commands += 1
    name = request[0].upper()
    entry = COMMANDS.get(name) or COMMANDS.get(b" ".join(request[:2]).upper())
    try:
        if entry is None or not entry[0] <= len(request) <= entry[1] or (client.topics and client.protocol == 2):
            check(client, name, entry, len(request))
        if client.queue is not None and name not in NEVER_QUEUED:
            return transactions.queue(client, request)
        return carry_out(client, entry, request)  # type: ignore[arg-type]  # `check` has raised if there is none
    except Refusal as refusal:
        return Refusal(*refusal.args)  # without its traceback, which holds the frames, and they the client


def check(client: Client, name: bytes, entry: Command | None, words: int) -> None:
    """Raises what is wrong with a request, be it only for a subscriber. It spoils a transaction."""
    if entry is None:
        problem = b"unknown command '%b'" % name[:128]
    elif not entry[0] <= words <= entry[1]:
        problem = b"wrong number of arguments for '%b' command" % name.lower()
    elif name not in FOR_SUBSCRIBERS:
        what = b"only (P)SUBSCRIBE / (P)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        problem = b"Can't execute '%b': %b" % (name.lower(), what)
    else:
        return
    client.spoilt = True
    if name == b"EXEC":
        client.leave_transaction()
        raise Refusal(b"EXECABORT Transaction discarded because of: " + problem)
    raise Refusal(b"ERR " + problem)


def carry_out(client: Client, entry: Command, request: Request) -> Reply:
    if monitors and client in monitors and request[0].upper() in ABOUT_KEYS:
        raise Refusal(b"ERR Replica can't interact with the keyspace")
    reply: Any = entry[2](client, *request[1:])
    if isinstance(reply, GeneratorType):
        reply = in_portions(reply)
    if monitors and request[0].upper() not in NOT_SHOWN:
        monitoring.show(client, request)
    return cast(Reply, reply)


def execute_all(client: Client) -> Work[Reply]:
    requests = transactions.take_queue(client)
    if isinstance(requests, NoArray):
        return requests
    replies: list[Reply] = []
    for request in requests:
        try:
            entry = COMMANDS.get(request[0].upper()) or COMMANDS[b" ".join(request[:2]).upper()]
            replies.append(carry_out(client, entry, request))
        except Refusal as refusal:
            replies.append(Refusal(*refusal.args))
        yield
    return replies


def config_get(_client: Client, _get: bytes, *patterns: bytes) -> Work[Reply]:
    found: dict[bytes, Reply] = {}
    for pattern in patterns:
        for name, value in SETTINGS.items():
            if (yield from glob(pattern.lower()).matches(name)):
                found[pattern if pattern.lower() == name else name] = value
        yield
    return found


SETTINGS: dict[bytes, Reply] = {b"save": b"", b"appendonly": b"no"}
SUBSCRIBING = {b"SUBSCRIBE", b"PSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE"}
FOR_SUBSCRIBERS = SUBSCRIBING | {b"PING", b"QUIT", b"RESET"}  # RESP2 cannot tell other replies from messages
NOT_SHOWN = {b"MONITOR", b"AUTH", b"HELLO"}
NEVER_QUEUED = {b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"QUIT", b"RESET"}
ABOUT_KEYS: dict[bytes, Command] = {**strings.COMMANDS, **keys.COMMANDS}
COMMANDS: dict[bytes, Command] = {
    **ABOUT_KEYS,
    **connection.COMMANDS,
    **transactions.COMMANDS,
    **channels.COMMANDS,
    **monitoring.COMMANDS,
    b"EXEC": (1, 1, execute_all),
    b"CONFIG GET": (3, MANY, config_get),
    b"COMMAND": (1, MANY, lambda *_: []),
    b"INFO": (1, MANY, status.info),
}
