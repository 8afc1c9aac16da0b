"""Publish and subscribe. What all subscribers are told is encoded once.

No list of clients or channels is so long that it keeps others waiting: such commands are done in portions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from miniredis.clients import CHANNEL, MOST_NAMES, PATTERN, Client, topics
from miniredis.patterns import glob
from miniredis.portions import Work
from miniredis.protocol import MANY, Command, Refusal, Reply, Several, encode

SHARE = 256 * 1024  # bytes that are told to subscribers before others have their turn


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
        told += yield from deliver((CHANNEL, channel), list(topic.clients), (b"message", channel, message))
    for name, topic in list(topics[PATTERN].items()):
        if topic.pattern is not None and (yield from topic.pattern.matches(channel)):
            clients = list(topic.clients)
            told += yield from deliver((PATTERN, name), clients, (b"pmessage", name, channel, message))
        yield
    return told


def deliver(topic: tuple[bytes, bytes], clients: Sequence[Client], news: Reply) -> Work[int]:
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


COMMANDS: dict[bytes, Command] = {
    b"SUBSCRIBE": (2, MANY, partial(subscribe, CHANNEL)),
    b"PSUBSCRIBE": (2, MANY, partial(subscribe, PATTERN)),
    b"UNSUBSCRIBE": (1, MANY, partial(unsubscribe, CHANNEL)),
    b"PUNSUBSCRIBE": (1, MANY, partial(unsubscribe, PATTERN)),
    b"PUBLISH": (3, 3, publish),
    b"PUBSUB CHANNELS": (2, MANY, lambda client, _, *pattern: list_channels(client, *pattern)),
    b"PUBSUB NUMSUB": (2, MANY, lambda client, _, *names: count_subscribers(client, *names)),
    b"PUBSUB NUMPAT": (2, 2, lambda *_: len(topics[PATTERN])),
}
