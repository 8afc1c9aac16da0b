"""The queues of a service: clients that wait for a backend, by priority, and the connections that they wait for.

Rules: an idle connection is given at once; otherwise the client is queued, and as many connections are begun as clients
wait, one for each node at a time. A connection that becomes ready goes to the first in the queues. Nobody waits for
ever: `look_at_clock` is called twice a second while anybody waits. What does not belong here: what is sent over a
connection (backends, proxying).
"""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from dangagreen import Loop
from perlbal.backends import Backend
from perlbal.pools import DEAD_SECONDS, Node, Pool
from perlbal.priorities import HIGH, LOW, NORMAL
from perlbal.services import Service

if TYPE_CHECKING:
    from perlbal.proxying import ProxyExchange  # which is above this module

AT_ONCE = 10  # connections that are begun in one go
CONNECT_SECONDS = 15.0  # until an attempt is given up
CONNECT_SECONDS_IF_NEEDED = 5.0  # and if a client waits for it
VERIFY_SECONDS = 15.0
PATIENCE_SECONDS = 1.0  # after which an attempt is not counted on: another node is tried beside it
STALE_SECONDS = 5.0  # a connection that was never used is not used any more when it is so old
EARLY_SECONDS = 2.0  # and none that its server may close in so many seconds


class Queues:
    """Who waits for a backend of a service, and which connections there are."""

    def __init__(self, service: Service, loop: Loop) -> None:
        self.service = service
        self.loop = loop
        self.lines: dict[str, OrderedDict[ProxyExchange, None]] = {name: OrderedDict() for name in (NORMAL, HIGH, LOW)}
        self.waiting = 0
        self.bored: deque[Backend] = deque()
        self.pending: dict[Node, Backend] = {}
        self.open: dict[Backend, None] = {}
        self.closing = False  # no connection is kept any more
        self._pool: Pool | None = None

    # -- who waits

    def ask(self, request: ProxyExchange) -> None:
        """Give this request an idle connection now, or one as soon as there is one."""
        if not request.needs_fresh:
            while self.bored:
                backend = self.bored.popleft()
                if self._is_usable(backend) and not (request.only_once and backend.has_input()):
                    return request.use(backend)
                backend.close("it is not used any more")
        request.queued_at = self.loop.now
        self.lines[request.priority][request] = None
        self.waiting += 1
        return self.start_connections()

    def forget(self, request: ProxyExchange) -> None:
        """It waits no more; nothing, if it does not wait."""
        line = self.lines[request.priority]
        if request in line:
            del line[request]
            self.waiting -= 1

    def _next(self, fresh: bool) -> ProxyExchange | None:
        """The one whose turn it is, who waits no more then; None if there is none for this connection."""
        service = self.service
        order = (HIGH, NORMAL, LOW)
        if 0 < service.queue_relief_size <= len(self.lines[NORMAL]):
            if random.randrange(100) < service.queue_relief_chance:
                order = (NORMAL, HIGH, LOW)
        for name in order:
            for request in self.lines[name]:
                if fresh or not request.needs_fresh:
                    self.forget(request)
                    return request
        return None

    def age(self, name: str) -> float:
        """For how many seconds the first of a queue has waited."""
        first = next(iter(self.lines[name]), None)
        return 0.0 if first is None else self.loop.clock() - first.queued_at

    # -- connections

    def pool(self) -> Pool | None:
        """The pool of the service. If it is another one than it was, idle connections that are not in it are closed."""
        pool: Pool | None = self.service.pool
        if pool is not self._pool:
            if self._pool is not None:
                self._pool.on_change.remove(self.drop_strangers)
            if pool is not None:
                pool.on_change.append(self.drop_strangers)
            self._pool = pool
            self.drop_strangers()
        return pool

    def drop_strangers(self) -> None:
        """Close idle connections to nodes that are not in the pool."""
        nodes = () if self._pool is None else self._pool.uses
        for backend in [one for one in self.bored if one.node not in nodes]:
            backend.close("its node is not in the pool any more")

    def _is_usable(self, backend: Backend) -> bool:
        now = self.loop.now
        pool = self.pool()
        return not (
            backend.closed
            or pool is None
            or backend.node not in pool.uses
            or (not backend.uses and not backend.attention and now - backend.since > STALE_SECONDS)
            or (backend.usable_until and now > backend.usable_until - EARLY_SECONDS)
        )

    def start_connections(self) -> None:
        """Begin as many connections as are wanted and may be begun now."""
        if self.closing and not self.waiting:
            return
        pool = self.pool()
        if pool is None:
            return
        ahead = 0 if self.closing else self.service.connect_ahead
        now = self.loop.now
        begun = sum(now - backend.since < PATIENCE_SECONDS for backend in self.pending.values())
        idle = 0 if self.waiting else len(self.bored)  # who waits beside an idle one needs a fresh one
        wanted = self.waiting + ahead - idle - begun
        for _ in range(min(wanted, AT_ONCE)):
            node = pool.choose(now, lambda node: node in self.pending)
            if node is None:
                break
            self._connect(node, pool)

    def _connect(self, node: Node, pool: Pool) -> None:
        backend = Backend.connect_to(node.address, node, self, timeout=CONNECT_SECONDS, **pool.tls_options(node))
        self.pending[node] = backend
        self.open[backend] = None

    def connected(self, backend: Backend) -> None:
        """A connection is made: it is verified, or ready."""
        service = self.service
        if service.verify_backend and backend.node.unverified_until <= self.loop.now:
            backend.verify(service.verify_backend_path)
        else:
            self.released(backend)

    def released(self, backend: Backend) -> None:
        """A connection is ready for a request, its first one or another."""
        node = backend.node
        if self.pending.get(node) is backend:
            del self.pending[node]
        service = self.service
        uses = backend.uses
        pool = self.pool()
        if uses and (not service.persist_backend or 0 < service.max_backend_uses <= uses or self.closing):
            return backend.close("it was used as often as it may be")
        if pool is None or node not in pool.uses:
            return backend.close("its node is not in the pool any more")
        if self.waiting and (request := self._next(fresh=not uses)) is not None:
            request.use(backend)
            if self.waiting:
                self.start_connections()
            return None
        if len(self.bored) >= self._most_bored(uses) or self.closing:
            return backend.close("there are enough idle connections")
        backend.state = "bored"
        backend.since = self.loop.now
        if not uses:
            backend.watch_read(True)
        if backend.attention:
            self.bored.appendleft(backend)
        else:
            self.bored.append(backend)
        if service.connect_ahead:
            self.start_connections()
        return None

    def _most_bored(self, uses: int) -> float:
        """How many connections may be idle before this one is kept, too: one that was made is not closed at once."""
        return max(self.service.backend_persist_cache, self.service.connect_ahead) if uses else float("inf")

    def gone(self, backend: Backend, reason: object) -> None:
        """A connection has closed, or was not made."""
        self.open.pop(backend, None)
        node = backend.node
        if self.pending.get(node) is backend:
            del self.pending[node]
            if backend.state == "connecting" or isinstance(reason, Exception):
                node.dead_until = self.loop.now + DEAD_SECONDS
                node.has_failed(self.loop.now, self._pool)
            if self.waiting:
                self.start_connections()
        elif backend.state == "bored":
            if backend in self.bored:
                self.bored.remove(backend)
        elif self.waiting:
            self.start_connections()

    # -- time

    def look_at_clock(self) -> None:
        """Give up what takes too long, and try nodes again whose time has come."""
        now = self.loop.now
        for node, backend in list(self.pending.items()):
            age = now - backend.since
            most = CONNECT_SECONDS_IF_NEEDED if backend.state == "connecting" and self.waiting else VERIFY_SECONDS
            if age > most and self.pending.get(node) is backend:
                backend.close(TimeoutError(f"{node.name} did not answer within {most:g} s"))
        if limit := self.service.queue_timeout:
            for line in self.lines.values():
                for request in [one for one in line if now - one.queued_at >= limit]:
                    self.forget(request)
                    request.waited_in_vain()
        self.start_connections()

    def is_idle(self) -> bool:
        """Whether there is nothing to look at the clock for."""
        ahead = self.service.connect_ahead and not self.closing
        return not (self.waiting or self.pending or len(self.open) > len(self.bored) or ahead)

    def close_idle(self) -> None:
        for backend in list(self.bored):
            backend.close("the service ends")
