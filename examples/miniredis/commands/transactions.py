"""Transactions: requests that are queued, to be executed together unless a watched key has changed."""

from __future__ import annotations

from miniredis.clients import MOST_NAMES, Client
from miniredis.keys import keys
from miniredis.protocol import MANY, Command, NoArray, Refusal, Reply, Request

MOST_QUEUED = 32 * 1024 * 1024  # bytes of requests in a transaction


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


COMMANDS: dict[bytes, Command] = {
    b"MULTI": (1, 1, multi),
    b"DISCARD": (1, 1, discard),
    b"WATCH": (2, MANY, watch),
    b"UNWATCH": (1, 1, unwatch),
}
