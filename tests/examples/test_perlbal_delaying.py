"""Requests that wait: when they go on, what becomes of those whose client leaves, and that nothing is left behind."""

from __future__ import annotations

import pytest

from perlbal.delaying import delay
from perlbal_talk import Talker, fields, get, served


@pytest.fixture
def service(loop):
    with served(persist_client="on", idle_timeout=2) as service:
        yield service


@pytest.fixture
def told():
    """What has become of the requests."""
    return []


@pytest.fixture
def talker(service, wires, run_turns, told):
    """A client whose requests wait 10 seconds."""

    def go_on(client):
        told.append(f"goes on: {client.head.uri}")
        client.error(404)

    def wait(client):
        delay(client, 10, lambda: go_on(client), lambda: told.append("has left"))
        return True

    service.register_hook("T", "start_web_request", wait)
    return Talker(service, wires, run_turns, 1 << 16)


def test_a_request_goes_on_when_its_time_has_come(talker, told, advance):
    assert talker.say(get("/a")) == b""
    assert talker.client.state == "delayed"
    advance(9.9)
    assert (talker.say(), told) == (b"", [])
    advance(0.2)
    assert fields(talker.say(b""))["code"] == "404"
    assert told == ["goes on: /a"]
    assert (talker.client.exchange, talker.client.state) == (None, "persist_wait")


def test_the_next_request_waits_for_its_turn_and_then_its_time(talker, told, advance):
    talker.say(get("/a"), get("/b"))
    assert talker.client.paused
    advance(10.1)
    talker.say(b"")
    assert told == ["goes on: /a"]
    advance(10.1)
    talker.say(b"")
    assert told == ["goes on: /a", "goes on: /b"]
    assert talker.got.count(b"HTTP/1.0 404") == 2


def test_a_client_is_not_idle_while_it_waits(talker, told, advance):
    """idle_timeout is 2 seconds, and clients are looked at every 5."""
    talker.say(get("/a"))
    advance(9)
    assert not talker.client.closed
    advance(2)
    assert told == ["goes on: /a"]


def test_of_a_client_that_leaves_nothing_is_left(talker, told, advance):
    talker.say(get("/a"))
    timer = talker.client.exchange.timer
    assert timer.active
    talker.client.close("it has gone")
    assert told == ["has left"]
    assert not timer.active
    advance(20)
    assert told == ["has left"]


def test_nobody_has_to_be_told_that_a_client_has_left(service, wires, run_turns, advance, told):
    service.register_hook("T", "start_web_request", lambda client: delay(client, 10, lambda: told.append("on")) or True)
    talker = Talker(service, wires, run_turns, 1 << 16)
    talker.say(get("/a"))
    talker.client.close("it has gone")
    advance(20)
    assert told == []


def test_what_goes_on_may_wait_again(service, wires, run_turns, advance):
    def twice(client):
        delay(client, 1, lambda: delay(client, 1, lambda: client.error(404)))
        return True

    service.register_hook("T", "start_web_request", twice)
    talker = Talker(service, wires, run_turns, 1 << 16)
    talker.say(get("/a"))
    advance(1.5)
    assert talker.client.state == "delayed"
    advance(1)
    assert fields(talker.say(b""))["code"] == "404"


def test_a_request_goes_on_as_if_it_had_just_come(service, wires, run_turns, advance):
    """Whoever answers it later hears what its client sends meanwhile."""
    seen = []

    def go_on(client):
        seen.append((client.exchange, client.paused, client.closed))
        client.error(404)

    def wait(client):
        delay(client, 1, lambda: go_on(client))
        return True

    service.register_hook("T", "start_web_request", wait)
    talker = Talker(service, wires, run_turns, 1 << 16)
    talker.say(get("/a"), get("/b")[:5])
    assert talker.client.paused
    advance(1.5)
    assert seen == [(None, False, False)]
