"""Queues: what backends hear of those who wait."""

from __future__ import annotations

from perlbal_worlds import configured, get


def test_backends_hear_that_nobody_waits(proxied):
    world, requests = proxied
    configured("SET rp.plugins = queues", world)
    get(world, "rp")
    assert "X-Queue-Count: 0\r\nX-Queue-Age: 0\r\nX-HP-Queue-Count: 0\r\nX-HP-Queue-Age: 0\r\n" in requests[0]
