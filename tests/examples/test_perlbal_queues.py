"""Who gets which backend: the queues, their order, connections that are begun, kept and given up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perlbal.priorities import HIGH, LOW, NORMAL
from proxy_wires import ANSWERED, GET, NODE, OK, Proxy

CLOSING = OK.replace(b"keep-alive", b"close")
OTHER = "10.0.0.8:80"


def asked(proxy: Proxy) -> list[str]:
    return [node.name for node in proxy.nodes]


def test_one_connection_is_begun_for_a_node_at_a_time_and_the_next_when_it_is_there(proxy: Proxy) -> None:
    proxy.connects = lambda name: None
    for _ in range(3):
        proxy.client(GET)
    assert (proxy.queues.waiting, len(proxy.nodes)) == (3, 1)
    proxy.connect(proxy.node())
    proxy.turns()
    assert (proxy.queues.waiting, len(proxy.nodes)) == (2, 2)


def test_several_nodes_are_connected_to_at_once(proxy: Proxy) -> None:
    proxy.pool.add(OTHER)
    proxy.connects = lambda name: None
    for _ in range(3):
        proxy.client(GET)
    assert sorted(asked(proxy)) == [OTHER, NODE]


def test_the_order_is_high_normal_low(proxy: Proxy) -> None:
    proxy.connects = lambda name: None
    names = ["n1", "n2", "h1", "n3", "h2", "l1"]
    kinds = {"n": NORMAL, "h": HIGH, "l": LOW}
    proxy.service.register_hook("test", "make_high_priority", lambda client: client.head.uri[1] == "h")
    proxy.service.register_hook("test", "make_low_priority", lambda client: client.head.uri[1] == "l")
    for name in names:
        proxy.client(GET.replace(b" / ", f" /{name} ".encode()))
    assert [len(proxy.queues.lines[kinds[kind]]) for kind in "nhl"] == [3, 2, 1]
    served = []
    proxy.connect(proxy.node())
    for _ in names:
        served.append(proxy.answer(number=0).split()[1].decode()[1:])
    assert served == ["h1", "h2", "n1", "n2", "n3", "l1"]


def test_a_cookie_makes_a_client_go_first(proxy: Proxy) -> None:
    proxy.set(high_priority_cookie="user", high_priority_cookie_contents="paid&up")
    proxy.connects = lambda name: None
    for cookie in ("a=b", "user=free", "x=y; user=is%20paid%26up; z=1", "user=PAID%26up", "superuser=paid%26up"):
        proxy.client(GET.replace(b"\r\n\r\n", f"\r\nCookie: {cookie}\r\n\r\n".encode()))
    assert [len(line) for line in proxy.queues.lines.values()] == [4, 1, 0]


@pytest.mark.parametrize("chance", [0, 100])
def test_relief_lets_a_normal_one_go_first_and_serves_the_others_where_none_is(proxy: Proxy, chance: int) -> None:
    proxy.set(queue_relief_size="2", queue_relief_chance=str(chance))
    proxy.service.register_hook("test", "make_high_priority", lambda client: client.head.uri[1] == "h")
    proxy.connects = lambda name: None
    for name in ("h1", "n1", "n2"):
        proxy.client(GET.replace(b" / ", f" /{name} ".encode()))
    proxy.connect(proxy.node())
    first = proxy.answer(number=0).split()[1]
    assert first == (b"/n1" if chance else b"/h1")
    assert proxy.answer(number=0).split()[1] == (b"/h1" if chance else b"/n1")  # only one normal one waits now


def test_who_has_left_is_passed_over(proxy: Proxy) -> None:
    proxy.connects = lambda name: None
    leaves, stays = proxy.client(GET), proxy.client(GET)
    leaves.close()
    proxy.turns()
    assert proxy.queues.waiting == 1
    proxy.connect(proxy.node())
    proxy.answer()
    assert stays.received() == ANSWERED
    proxy.check()


# -- no backend


def test_nobody_waits_for_ever(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.connects = lambda name: False
    client = proxy.client(GET)
    advance(9)
    assert client.received() == b""
    advance(2)
    got = client.received() or b""
    assert got.startswith(b"HTTP/1.0 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 10\r\n" in got
    proxy.check()


def test_a_node_that_comes_back_serves_at_once(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.connects = lambda name: False
    client = proxy.client(GET)
    advance(4)
    assert 4 <= len(proxy.nodes) <= 6  # a dead one is tried once a second
    proxy.connects = lambda name: True
    advance(1.6)
    proxy.answer()
    assert client.received() == ANSWERED
    proxy.check()


def test_a_dead_node_is_passed_over(proxy: Proxy) -> None:
    proxy.pool.add(OTHER)
    proxy.connects = lambda name: name == OTHER
    proxy.set(persist_backend="off")
    for _ in range(20):
        client = proxy.client(GET)
        proxy.answer(CLOSING)
        assert client.received() is not None
    assert asked(proxy).count(NODE) <= 1
    proxy.check()


def test_no_pool_is_no_backend(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.pool.remove(NODE)
    client = proxy.client(GET)
    advance(11)
    assert (client.received() or b"").startswith(b"HTTP/1.0 503 ")
    proxy.check()


def test_an_attempt_that_takes_long_is_not_counted_on_and_given_up_if_somebody_waits(
    proxy: Proxy, advance: Callable[[float], None]
) -> None:
    proxy.pool.add(OTHER)
    proxy.connects = lambda name: None
    proxy.client(GET)
    advance(0.6)
    assert len(proxy.nodes) == 1
    advance(1)
    assert sorted(asked(proxy)) == [OTHER, NODE]
    advance(5)
    assert proxy.nodes[0].near.closed


def test_an_attempt_that_nobody_waits_for_is_given_up_after_15_seconds(
    proxy: Proxy, advance: Callable[[float], None]
) -> None:
    proxy.connects = lambda name: None
    proxy.client(GET).close()
    advance(14)
    assert not proxy.node().near.closed
    advance(2)
    assert proxy.node().near.closed
    proxy.check()


# -- what is kept


def test_so_many_are_kept_where_nobody_waits(proxy: Proxy) -> None:
    proxy.set(backend_persist_cache="2")
    for _ in range(4):
        proxy.client(GET)
    assert len(proxy.nodes) == 4
    for number in range(4):
        proxy.answer(number=number)
    assert len(proxy.queues.bored) == 2
    proxy.check()


def test_none_is_kept_without_persistence_and_the_request_says_so(proxy: Proxy) -> None:
    proxy.set(persist_backend="off")
    proxy.client(GET)
    assert b"\r\nConnection: close\r\n" in proxy.answer()
    assert proxy.node().near.closed
    proxy.check()


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 304 OK\r\n\r\n", True),
    ],
)
def test_both_sides_have_to_agree(proxy: Proxy, answer: bytes, kept: bool) -> None:
    proxy.client(GET)
    proxy.answer(answer)
    assert len(proxy.queues.bored) == kept


@pytest.mark.parametrize("most", [1, 2])
def test_a_connection_is_used_so_often(proxy: Proxy, most: int) -> None:
    proxy.set(max_backend_uses=str(most))
    client = proxy.client()
    for _ in range(4):
        proxy.ask(client, GET)
        proxy.answer()
        client.received()
    assert len(proxy.nodes) == 4 // most
    proxy.check()


def test_one_that_its_server_will_close_soon_is_not_used(proxy: Proxy, advance: Callable[[float], None]) -> None:
    promise = OK.replace(b"Connection", b"Keep-Alive: timeout=5, max=9\r\nConnection")
    client = proxy.client(GET)
    proxy.answer(promise)
    advance(2.5)
    proxy.ask(client, GET)
    proxy.answer(promise)
    assert len(proxy.nodes) == 1
    advance(3.5)
    proxy.ask(client, GET)
    assert len(proxy.nodes) == 2
    assert proxy.nodes[0].near.closed
    proxy.answer()
    proxy.check()


def test_an_idle_one_that_ends_or_speaks_is_dropped(proxy: Proxy) -> None:
    for leave in (lambda: proxy.node().close(), lambda: proxy.node().send(b"HTTP/1.0 408 Too slow\r\n\r\n")):
        client = proxy.client(GET)
        proxy.answer()
        assert len(proxy.queues.bored) == 1
        leave()
        proxy.turns()
        assert len(proxy.queues.open) == 0
        proxy.ask(client, GET)
        proxy.answer(CLOSING)
        proxy.check()


def test_those_of_a_node_that_was_removed_are_closed(proxy: Proxy) -> None:
    proxy.client(GET)
    proxy.answer()
    proxy.pool.add(OTHER)
    proxy.turns()
    assert len(proxy.queues.bored) == 1
    proxy.pool.remove(NODE)
    proxy.turns()
    assert proxy.node().near.closed
    proxy.check()


def test_one_that_is_used_is_closed_after_its_answer_if_its_node_was_removed(proxy: Proxy) -> None:
    client = proxy.client(GET)
    proxy.pool.remove(NODE)
    proxy.answer()
    assert client.received() == ANSWERED
    assert proxy.node().near.closed
    proxy.check()


def test_another_pool_with_the_same_node_keeps_its_connections(proxy: Proxy) -> None:
    proxy.client(GET)
    proxy.answer()
    proxy.world.create_pool("b").add(NODE)
    proxy.set(pool="b")
    assert len(proxy.queues.bored) == 1
    proxy.world.create_pool("c").add(OTHER)
    proxy.set(pool="c")
    assert len(proxy.queues.bored) == 0
    assert (proxy.pool.services, proxy.world.pools["c"].services) == (0, 1)
    proxy.check()


def test_spare_connections(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.set(connect_ahead="2")
    advance(2)
    assert len(proxy.queues.bored) == 2
    proxy.client(GET)
    advance(2)
    assert (len(proxy.queues.bored), len(proxy.nodes)) == (2, 3)
    proxy.answer(number=0)
    advance(6)  # one that was never spoken on is not used when it is older than 5 s
    before = list(proxy.queues.bored)
    assert len(before) == 2
    client = proxy.client(GET)
    advance(1)
    assert all(backend.closed for backend in before)
    assert client.near.exchange.backend not in before


# -- verification


def test_a_connection_is_verified_before_it_is_used(proxy: Proxy) -> None:
    proxy.set(verify_backend="on", verify_backend_path="/alive")
    client = proxy.client(GET)
    assert proxy.answer(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nalive") == (
        b"OPTIONS /alive HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    )
    assert proxy.answer().startswith(b"GET / ")
    assert client.received() == ANSWERED
    assert proxy.queues.bored[0].attention
    client.send(GET)
    assert proxy.answer().startswith(b"GET / ")  # once is enough
    assert client.received() == ANSWERED
    assert proxy.world.nodes[NODE].verifies == 1
    proxy.check()


def test_a_node_that_refuses_it_is_used_unverified_for_a_minute(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.set(verify_backend="on", queue_timeout="100")
    client = proxy.client(GET)
    proxy.answer(b"HTTP/1.0 405 Not allowed\r\nContent-Length: 0\r\n\r\n")
    advance(2)
    assert len(proxy.nodes) == 2
    assert proxy.answer(CLOSING).startswith(b"GET / ")
    assert client.received() is not None
    advance(61)
    client = proxy.client(GET)
    assert proxy.answer(b"").startswith(b"OPTIONS ")


@pytest.mark.parametrize(
    "said", [b"", b"garbage\r\n\r\n", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 9\r\n\r\nx"]
)
def test_one_that_ends_while_it_is_verified_is_a_failure_to_connect(
    proxy: Proxy, said: bytes, advance: Callable[[float], None]
) -> None:
    proxy.set(verify_backend="on")
    client = proxy.client(GET)
    proxy.answer(said)
    proxy.node().close()
    proxy.turns()
    assert proxy.world.nodes[NODE].dead_until > proxy.loop.now
    advance(2)
    proxy.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    proxy.answer()
    assert client.received() == ANSWERED
    proxy.check()


def test_a_silent_verification_is_given_up(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.set(verify_backend="on", queue_timeout="100")
    client = proxy.client(GET)
    advance(18)
    assert proxy.nodes[0].near.closed
    assert len(proxy.nodes) == 2
    proxy.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    proxy.answer()
    assert client.received() == ANSWERED
    proxy.check()


# -- failures put a node aside


def test_a_node_that_fails_is_put_aside_and_returns(proxy: Proxy, advance: Callable[[float], None]) -> None:
    proxy.pool.add(OTHER)
    proxy.pool.set("eject_failures", "2")
    proxy.pool.set("eject_seconds", "20")
    proxy.set(persist_backend="off")

    def serve() -> str:
        client = proxy.client(GET)
        node = proxy.node()
        if node.name == NODE and bad:
            node.close()
            proxy.turns()
        else:
            proxy.answer(CLOSING)
        return f"{node.name} {(client.received() or b'').split()[1].decode()}"

    bad = True
    while proxy.world.nodes[NODE].ejected_until == 0:
        serve()
    assert {serve() for _ in range(20)} == {f"{OTHER} 200"}
    bad = False
    advance(20)
    assert {serve() for _ in range(50)} == {f"{OTHER} 200", f"{NODE} 200"}
    proxy.check()


# -- the end


def test_when_the_service_closes_requests_are_finished_and_nothing_is_kept(proxy: Proxy) -> None:
    proxy.client(GET)
    proxy.answer()
    client, other = proxy.client(GET), proxy.client(GET)
    proxy.service.disable()
    assert len(proxy.queues.bored) == 0
    for number in (0, 1):
        proxy.answer(number=number)
    for one in (client, other):
        assert b"Connection: close" in (one.received() or b"")
    assert len(proxy.queues.open) == 0
    proxy.check()
