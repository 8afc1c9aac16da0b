"""Publish and subscribe: who is told what, and what is encoded how often."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import redis

from miniredis.commands import channels
from miniredis.protocol import LONGEST_BULK
from miniredis.protocol import encode as encode_reply
from programs import SECONDS, expect
from redis_peers import Peer


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


def test_a_message_is_encoded_once_for_each_protocol(
    stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[tuple[Any, int]] = []
    usual = encode_reply

    def encode(reply: Any, protocol: int) -> bytes:
        encoded.append((reply, protocol))
        return usual(reply, protocol)

    monkeypatch.setattr(channels, "encode", encode)
    peers = [Peer(stack) for _ in range(40)]
    for number, peer in enumerate(peers[1:]):
        peer.do(b"HELLO", b"%d" % (number % 2 + 2))
        peer.do(b"SUBSCRIBE", b"c")
    peers[1].do(b"PSUBSCRIBE", b"*")
    peers[2].do(b"PSUBSCRIBE", b"*")
    encoded.clear()
    assert peers[0].do(b"PUBLISH", b"c", b"x") == 41
    assert sorted(protocol for _, protocol in encoded) == [2, 2, 3, 3]
    for number, peer in enumerate(peers[3:]):
        assert peer.heard() == b"%b3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n" % (b">" if number % 2 else b"*")


def test_who_leaves_amid_a_message_is_told_nothing(stack: contextlib.ExitStack) -> None:
    one, other = Peer(stack), Peer(stack)
    for peer in one, other:
        peer.do(b"SUBSCRIBE", b"c")
    work = channels.publish(one.client, b"c", b"x" * 300_000)
    next(work)
    other.client.finish()
    with pytest.raises(StopIteration) as end:
        next(work)
    assert end.value.value == 1


def test_who_does_not_read_is_cut_off(stack: contextlib.ExitStack) -> None:
    slow, other = Peer(stack), Peer(stack)
    slow.do(b"SUBSCRIBE", b"c")
    message = b"x" * LONGEST_BULK
    assert [other.do(b"PUBLISH", b"c", message) for _ in range(4)] == [1, 1, 1, 0]
    assert slow.client.closed
