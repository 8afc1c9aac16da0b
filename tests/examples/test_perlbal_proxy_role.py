"""The role reverse_proxy: what its service tells it, and its clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy_wires import ANSWERED, GET, Proxy


def test_its_clock_stands_still_where_there_is_nothing_to_look_at(
    proxy: Proxy, advance: Callable[[float], None]
) -> None:
    client = proxy.client(GET)
    proxy.answer()
    assert client.received() == ANSWERED
    advance(1)
    before = proxy.loop.poller.waits  # type: ignore[attr-defined]
    advance(100)
    assert proxy.loop.poller.waits - before < 5  # type: ignore[attr-defined]
    client.send(GET)
    proxy.answer(b"")
    advance(61)
    assert (client.received() or b"").startswith(b"HTTP/1.0 504 ")
    proxy.check()


def test_services_of_a_world_share_the_connections_of_urls(proxy: Proxy) -> None:
    other = proxy.world.create_service("other")
    other.set("role", "reverse_proxy")
    assert other.role.connections is proxy.service.role.connections
    other.role.closed()


@pytest.mark.parametrize(
    "hook",
    [
        "start_proxy_request",
        "proxy_read_request",
        "backend_client_assigned",
        "backend_response_received",
        "modify_response_headers",
    ],
)
def test_a_plugin_may_take_over(proxy: Proxy, hook: str) -> None:
    def take(*told: object) -> bool:
        client = proxy.clients[-1].near
        client.error(418, hook)
        return True

    proxy.service.register_hook("test", hook, take)
    client = proxy.client(GET)
    if proxy.nodes:
        proxy.answer()
    assert hook.encode() in (client.received() or b"")
    proxy.check()


def test_what_the_console_shows(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.connects = lambda name: None
    proxy.client(GET)
    advance(2.1)
    role = proxy.service.role
    assert role.describe() == [
        "  pend clients: 1",
        "  pend backend: 1",
        "   10.0.0.9:80 - connecting - 2s",
        " connect-ahead: 0/0",
        "          pool: a",
        "         nodes:",
        "                10.0.0.9:80                 1",
    ]
    assert role.queue_lengths() == {"normal": (2, 1), "highpri": (0, 0), "lowpri": (0, 0)}
    assert role.pending_connects() == {"10.0.0.9:80": 2}
    proxy.connect(proxy.node())
    proxy.answer()
    shown = proxy.node().near.as_string()
    assert shown == "Perlbal::BackendHTTP(R): open to 10.0.0.9:80: localport=1; uses=1; bored"


def test_plugins_are_asked_at_a_verification(proxy: Proxy) -> None:
    told: list[str] = []
    for hook in ("backend_write_verify", "backend_readable_verify"):
        proxy.service.register_hook("test", hook, lambda backend, hook=hook: told.append(f"{hook} {backend.state}"))
    proxy.set(verify_backend="on")
    proxy.client(GET)
    proxy.answer()
    assert told == ["backend_write_verify verifying_backend", "backend_readable_verify verifying_backend"]
    proxy.answer()
    proxy.check()


def test_a_service_that_is_disabled_has_no_clock_and_no_spare_connections(
    proxy: Proxy, advance: Callable[[float], None]
) -> None:
    proxy.set(connect_ahead="2")
    proxy.service.role.opened()
    advance(3)
    assert len(proxy.queues.bored) == 2
    before = proxy.loop.poller.waits  # type: ignore[attr-defined]
    advance(10)
    assert proxy.loop.poller.waits - before < 40  # type: ignore[attr-defined]
    proxy.service.disable()
    advance(1)
    before = proxy.loop.poller.waits  # type: ignore[attr-defined]
    advance(100)
    assert (len(proxy.queues.open), proxy.loop.poller.waits - before < 30) == (0, True)  # type: ignore[attr-defined]
    proxy.check()
