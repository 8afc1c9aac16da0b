"""Queues: what backends hear of those who wait."""

from __future__ import annotations

from perlbal.heads import parse_request
from perlbal_worlds import configured, get


def test_backends_hear_that_nobody_waits(proxied):
    world, requests = proxied
    configured("SET rp.plugins = queues", world)
    get(world, "rp")
    assert "X-Queue-Count: 0\r\nX-Queue-Age: 0\r\nX-HP-Queue-Count: 0\r\nX-HP-Queue-Age: 0\r\n" in requests[0]


def test_how_many_wait_and_since_when_by_their_queue():
    """Those of low priority are of no interest, as in the original."""
    world = configured("LOAD queues\nCREATE SERVICE rp\nSET role = reverse_proxy\nSET plugins = queues")
    service = world.services["rp"]
    service.role.queue_lengths = lambda: {"normal": (3, 20), "highpri": (1, 2), "lowpri": (9, 9)}
    head = parse_request(b"GET / HTTP/1.0\r\nX-Queue-Count: a lie\r\n\r\n")
    service.run_all_hooks("backend_client_assigned", None, None, head)
    names = "x-queue-count", "x-queue-age", "x-hp-queue-count", "x-hp-queue-age"
    assert [head.get(name) for name in names] == ["20", "3", "2", "1"]
    assert b"a lie" not in head.to_bytes()
    assert b"9" not in head.to_bytes()


def test_each_request_has_them_and_without_the_plugin_none(proxied):
    world, requests = proxied
    configured("SET rp.plugins = queues", world)
    assert [get(world, "rp", f"/{number}")[2] for number in range(3)] == [b"hi"] * 3
    assert [request.count("X-Queue-Count: 0\r\n") for request in requests] == [1, 1, 1]
    configured("SET rp.plugins = none", world)
    get(world, "rp")
    assert "X-Queue" not in requests[3]
