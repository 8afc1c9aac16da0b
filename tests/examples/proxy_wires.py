"""A reverse proxy in memory, on a virtual clock: its clients, and the nodes of its pool, are ends of wires."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from dangagreen.loop.loop import Loop
from dangagreen.testing.wire import wire
from perlbal.backends import Backend
from perlbal.clients import Client
from perlbal.proxy_role import ProxyRole
from perlbal.services import World

NODE = "10.0.0.9:80"
OK = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
ANSWERED = (
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\nKeep-Alive: timeout=30, max=100\r\n\r\nok"
)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class End:
    """The other end of a connection of the proxy."""

    def __init__(self, sock: Any, near: Any, name: str = "") -> None:
        self.sock, self.near, self.name = sock, near, name
        self.connected = not name

    def send(self, data: bytes) -> None:
        assert self.sock.send(data) == len(data)

    def received(self, most: int = 10_000_000) -> bytes | None:
        """What has come since the last time; None for EOF alone."""
        data = b""
        while len(data) < most:
            try:
                piece = self.sock.recv(most - len(data))
            except BlockingIOError:
                break
            if not piece:
                return data or None
            data += piece
        return data

    def ended(self) -> bool:
        """Whether the proxy has ended the connection, and all was received."""
        try:
            return self.sock.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.reset()


class Proxy:
    """The proxy. `nodes` are the connections that it has asked for; `connects` says what becomes of new ones."""

    def __init__(self, loop: Loop, run_turns: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop, self.run_turns = loop, run_turns
        self.nodes: list[End] = []
        self.clients: list[End] = []
        self.connects: Callable[[str], bool | None] = lambda name: True
        self.capacity = 65536
        self.world = World()
        self.world.roles["reverse_proxy"] = ProxyRole
        self.pool = self.world.create_pool("a")
        self.pool.add(NODE)
        self.service = self.world.create_service("rp")
        self.service.set("role", "reverse_proxy")
        self.service.set("pool", "a")
        self.service.set("persist_client", "on")
        self.service.set("persist_backend", "on")
        self.service.enabled = True
        monkeypatch.setattr(Backend, "connect_to", self._connect_to)

    @property
    def queues(self) -> Any:
        return self.service.role.queues

    def set(self, **parameters: object) -> Proxy:
        for key, value in parameters.items():
            self.service.set(key, str(value))
        return self

    def _connect_to(self, address: Any, *arguments: Any, **options: Any) -> Backend:
        near, far = wire(self.capacity)
        backend = Backend(near, *arguments)
        name = address if isinstance(address, str) else "{}:{}".format(*address)
        self.nodes.append(End(far, backend, name))
        match self.connects(name):
            case True:
                self.loop.call_soon(partial(self.connect, self.nodes[-1]))
            case False:
                self.loop.call_soon(partial(self.refuse, self.nodes[-1]))
        return backend

    def connect(self, node: End) -> None:
        """A connection that was asked for is made."""
        if not node.near.closed:
            node.connected = True
            node.near.event_connect()

    def refuse(self, node: End) -> None:
        if not node.near.closed:
            node.near.event_connect_failed(ConnectionRefusedError(111, "refused"))
            node.near.close(ConnectionRefusedError(111, "refused"))

    def client(self, data: bytes = b"", capacity: int = 65536) -> End:
        """A new client, which sends this."""
        near, far = wire(capacity)
        client = Client(near, self.service)
        client.watch_read(True)
        self.clients.append(End(far, client))
        if data:
            self.clients[-1].send(data)
            self.turns()
        return self.clients[-1]

    def turns(self, n: int = 12) -> None:
        self.run_turns(n)

    def ask(self, client: End, data: bytes) -> bytes | None:
        """What a client receives when it sends this, and time stands still."""
        client.send(data)
        self.turns()
        return client.received()

    def node(self, number: int = -1) -> End:
        return self.nodes[number]

    def answer(self, data: bytes = OK, number: int = -1) -> bytes:
        """What a node has received; it answers this."""
        self.turns()
        got = self.nodes[number].received() or b""
        self.nodes[number].send(data)
        self.turns()
        return got

    def check(self) -> None:
        """Nothing is left of what is over: no request under way, no client in a queue, no connection but idle ones."""
        self.turns()
        queues = self.queues
        assert (queues.waiting, dict(queues.pending)) == (0, {})
        assert all(not line for line in queues.lines.values())
        assert list(queues.open) == list(queues.bored)
        assert all(node.active == 0 for node in self.world.nodes.values())
        assert all(end.near.exchange is None for end in self.clients)
        for end in self.nodes:
            assert end.near.closed or end.near in queues.open

    def end(self) -> None:
        """Close everything."""
        self.service.connect_ahead = 0
        self.service.role.closed()
        for end in (*self.clients, *self.nodes):
            end.near.close()
            end.close()
