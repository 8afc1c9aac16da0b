"""Connections to the servers of urls, over TCP."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from dangagreen import run, spawn
from perlbal.services import World
from perlbal.url_connections import UrlConnections


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def name_of(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_one_that_is_free_is_given_again(server: socket.socket) -> None:
    def main() -> tuple[bool, bool, int]:
        connections = UrlConnections(world := World())
        node = world.nodes.named(name_of(server))
        first = connections.get(node)
        first.watch_read(True)
        connections.released(first)
        again = connections.get(node)
        fresh = connections.get(node, fresh=True)
        for backend in again, fresh:
            backend.close()
        return first is again, first is fresh, node.connects

    assert run(main) == (True, False, 2)


def test_a_limit_makes_others_wait(server: socket.socket) -> None:
    def main() -> list[str]:
        connections = UrlConnections(world := World())
        world.max_reproxy_connections_of[name_of(server)] = 1
        node = world.nodes.named(name_of(server))
        first = connections.get(node)
        waiting = spawn(connections.get, node)
        while not connections.servers[node].queued:
            spawn(lambda: None).join()
        lines = connections.describe()
        first.close()
        waiting.join()
        waiting.result().close()
        return lines[:3]

    name = name_of(server)
    assert run(main) == [f"bored {name} 0", f"clients_queued {name} 1", f"backends {name} 1"]


def test_a_failure_gives_the_turn_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = name_of(server)

    def main() -> int:
        connections = UrlConnections(world := World())
        world.max_reproxy_connections = 1
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                connections.get(world.nodes.named(name))
        return len(connections.servers[world.nodes.named(name)].used)

    assert run(main) == 0


def test_another_limit_counts_when_nobody_uses_it(server: socket.socket) -> None:
    def main() -> bool:
        connections = UrlConnections(world := World())
        world.max_reproxy_connections = 1
        node = world.nodes.named(name_of(server))
        backend = connections.get(node)
        backend.watch_read(True)
        connections.released(backend)
        world.max_reproxy_connections = 2
        one, other = connections.get(node), connections.get(node)
        for each in one, other:
            each.close()
        return backend.closed

    assert run(main)
