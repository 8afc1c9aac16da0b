"""Connections to the servers of reproxied urls: their own, shared by all services of a world, by ip:port.

Those who ask are tasks, and wait in line where a server may have only so many connections. What does not belong here:
what is asked (reproxying).
"""

from __future__ import annotations

from collections import deque
from functools import partial

from dangagreen import Semaphore, connect, timeout
from perlbal.backends import Backend
from perlbal.pools import Node
from perlbal.services import Service, World

CONNECT_SECONDS = 5.0  # to get a connection, the wait in line included
STALE_SECONDS = 5.0  # an idle connection that is older is not used any more


class Server:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.room = Semaphore(limit) if limit else None
        self.idle: deque[Backend] = deque()
        self.used: dict[Backend, None] = {}
        self.queued = self.connecting = 0


class UrlConnections:
    """The connections; their keeper."""

    service: Service | None = None  # they belong to all of them

    def __init__(self, world: World) -> None:
        self.world = world
        self.servers: dict[Node, Server] = {}

    def get(self, node: Node, fresh: bool = False) -> Backend:
        """Parks until there is a connection, and this task's turn has come. Raises OSError; TimeoutError is one."""
        server = self._server(node)
        with timeout(CONNECT_SECONDS):
            if server.room is not None:
                server.queued += 1
                try:
                    server.room.acquire()
                finally:
                    server.queued -= 1
            try:
                backend = (None if fresh else self._idle(server)) or self._connect(node, server)
            except BaseException:
                if server.room is not None:
                    server.room.release()
                raise
        server.used[backend] = None
        return backend

    def _server(self, node: Node) -> Server:
        """What there is of a server; made anew if its limit was changed and nobody uses it."""
        world, server = self.world, self.servers.get(node)
        limit = world.max_reproxy_connections_of.get(node.name, world.max_reproxy_connections)
        if server is None or (server.limit != limit and not (server.used or server.queued or server.connecting)):
            for backend in () if server is None else list(server.idle):
                backend.close("the limit of connections was changed")
            server = self.servers[node] = Server(limit)
        return server

    def _idle(self, server: Server) -> Backend | None:
        """The connection that was used last, if there is one that may be used; the others are older still."""
        while server.idle:
            backend = server.idle.pop()
            if not backend.closed and backend.loop.now - backend.since <= STALE_SECONDS:
                return backend
            backend.close("it was idle for too long")
        return None

    def _connect(self, node: Node, server: Server) -> Backend:
        server.connecting += 1
        try:
            backend = connect(node.address, socket_class=partial(Backend, node=node, keeper=self))
        finally:
            server.connecting -= 1
        backend.event_connect()
        return backend

    # -- as their keeper

    def connected(self, backend: Backend) -> None:
        """Nothing is to be done: a task has waited for it."""

    def released(self, backend: Backend) -> None:
        """It may be used again."""
        self._is_free(backend)
        backend.state = "bored"
        backend.since = backend.loop.now
        self.servers[backend.node].idle.append(backend)

    def gone(self, backend: Backend, reason: object) -> None:
        self._is_free(backend)
        server = self.servers[backend.node]
        if backend in server.idle:
            server.idle.remove(backend)

    def _is_free(self, backend: Backend) -> None:
        server = self.servers[backend.node]
        if backend in server.used:
            del server.used[backend]
            if server.room is not None:
                server.room.release()

    def close_idle(self) -> None:
        for server in self.servers.values():
            for backend in list(server.idle):
                backend.close("the program ends")

    def describe(self) -> list[str]:
        """The lines of `reproxy_state`, without those of SERVER."""
        lines = []
        for node, server in sorted(self.servers.items(), key=lambda item: item[0].name):
            if server.connecting:
                lines.append(f"connecting {node.name} {server.connecting}")
            lines += [
                f"bored {node.name} {len(server.idle)}",
                f"clients_queued {node.name} {server.queued}",
                f"backends {node.name} {len(server.idle) + len(server.used)}",
            ]
            lines += [f"... {backend.as_string()}" for backend in (*server.used, *server.idle)]
        return lines
