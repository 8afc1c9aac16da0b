"""The graceful shutdown: who may finish, who is ended, and for how long it waits."""

from __future__ import annotations

import contextlib

import pytest

import dangagreen as d
from perlbal.clients import Exchange
from perlbal.ending import drain_all
from perlbal.services import World
from perlbal_worlds import address, configured, serving, web

MANAGEMENT = "\nCREATE SERVICE mgmt\nSET role = management\nSET listen = 127.0.0.1:0\nENABLE mgmt"
REQUEST = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"


@pytest.fixture
def held():
    """Clients whose request is under way, until `answer` is called with them."""
    return []


@pytest.fixture
def world(tmp_path, held):
    with serving(web(tmp_path, "ws", "none", "SET persist_client = on") + MANAGEMENT) as world, d.timeout(20):
        yield world


def hold(world, held):
    """Have requests of the service wait for `answer`."""

    def take(client):
        client.exchange = Exchange()
        held.append(client)
        return True

    world.services["ws"].register_hook("T", "start_web_request", take)


def answer(client):
    client.exchange = None
    client.error(404)


def until(condition):
    while not condition():
        d.sleep(0)


def refused(place):
    with pytest.raises(ConnectionError), d.connect(place) as sock:
        sock.read_to_end(1)
    return True


def test_where_nobody_is_it_is_over_at_once(world):
    drain_all(world, None)
    assert world.stopping
    assert [service.enabled for service in world.services.values()] == [False, False]
    assert [service.listener for service in world.services.values()] == [None, None]


def test_a_world_with_nothing_in_it():
    world = World()
    drain_all(world, None)
    assert world.stopping


def test_a_request_is_finished_and_its_connection_ends(world, held):
    hold(world, held)
    with d.connect(address(world, "ws")) as sock:
        sock.write_all(REQUEST)
        until(lambda: held)
        ending = d.spawn(drain_all, world, None)
        for _ in range(20):
            d.sleep(0)
        assert not ending.done
        answer(held[0])
        received = sock.read_to_end(1000)
        assert received.startswith(b"HTTP/1.0 404 ")
        assert b"\r\nConnection: close\r\n" in received
        until(lambda: ending.done)


def test_connections_between_two_requests_end_and_new_ones_are_refused(world, held):
    place = address(world, "ws")
    with d.connect(place) as idle, d.connect(place) as busy:
        idle.write_all(REQUEST)
        assert idle.read_until(b"hello\n")
        hold(world, held)
        busy.write_all(REQUEST)
        until(lambda: held)
        ending = d.spawn(drain_all, world, None)
        assert idle.read_to_end(1) == b""
        assert refused(place)
        assert not ending.done
        answer(held[0])
        until(lambda: ending.done)


def test_management_connections_are_not_waited_for_and_stay(world):
    place = address(world, "mgmt")
    with d.connect(place) as sock:
        sock.write_all(b"uptime\n")
        assert sock.read_until(b".\r\n")
        drain_all(world, None)
        assert refused(place)
        sock.write_all(b"uptime\n")
        assert b"starttime" in sock.read_until(b".\r\n")


def test_after_so_many_seconds_whoever_is_left_is_ended(world, held):
    hold(world, held)
    with d.connect(address(world, "ws")) as sock:
        sock.write_all(REQUEST)
        until(lambda: held)
        drain_all(world, 0.05)
        assert held[0].closed
        received = b""
        with contextlib.suppress(ConnectionError):  # whether it is a FIN or an RST
            received = sock.read_to_end(1000)
        assert received == b""


def test_those_of_a_service_that_was_disabled_before_are_waited_for_too(world, held):
    hold(world, held)
    with d.connect(address(world, "ws")) as sock:
        sock.write_all(REQUEST)
        until(lambda: held)
        configured("DISABLE ws", world)
        ending = d.spawn(drain_all, world, None)
        for _ in range(20):
            d.sleep(0)
        assert not ending.done
        answer(held[0])
        assert sock.read_to_end(1000).startswith(b"HTTP/1.0 404 ")
        until(lambda: ending.done)


def test_roles_are_told_once_and_those_without_a_role_are_no_trouble(world):
    configured("CREATE SERVICE bare\nCREATE SERVICE off\nSET role = web_server", world)
    told = []
    for name in "ws", "off":
        world.services[name].role.closed = lambda name=name: told.append(name)
    drain_all(world, None)
    assert told == ["ws", "off"]
