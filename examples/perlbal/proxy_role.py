"""The role reverse_proxy: a service that hands requests to the backends of a pool.

What does not belong here: what is done for one request (proxying).
"""

from __future__ import annotations

from dangagreen import Loop, Timer, current_loop
from perlbal.backends import Backend
from perlbal.clients import Client, HttpRole
from perlbal.heads import RequestHead
from perlbal.pools import Node, Pool
from perlbal.proxying import ProxyExchange
from perlbal.queues import Queues
from perlbal.reproxy_cache import ReproxyCache
from perlbal.services import Service
from perlbal.url_connections import UrlConnections

LOOK_SECONDS = 0.5  # between two looks at who waits, while anybody does


class ProxyRole(HttpRole):
    name = "reverse_proxy"

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.loop: Loop = current_loop()
        self.queues = Queues(service, self.loop)
        self.cache = ReproxyCache()
        self._timer: Timer | None = None

    @property
    def connections(self) -> UrlConnections:
        """Those to the servers of reproxied urls, which all services of the world share."""
        world = self.service.world
        if world.url_connections is None:
            world.url_connections = UrlConnections(world)
        return world.url_connections  # type: ignore[no-any-return]

    def opened(self) -> None:
        super().opened()
        self.queues.closing = False
        if self._timer is None:
            self._look_at_clock()

    def closed(self) -> None:
        """No connection is kept any more; requests under way are answered."""
        self.queues.closing = True
        self.queues.close_idle()

    def changed(self, key: str) -> None:
        if key == "pool":
            self.queues.pool()
        elif key == "connect_ahead" and self.service.enabled and self._timer is None:
            self._look_at_clock()

    # -- what the console shows

    def describe(self) -> list[str]:
        queues, service = self.queues, self.service
        pool: Pool | None = service.pool
        lines = [f"  pend clients: {queues.waiting}", f"  pend backend: {len(queues.pending)}"]
        lines += [f"   {node.name} - {backend.state} - {self._age(backend)}s" for node, backend in self._pending()]
        if service.reproxy_cache_maxsize:
            lines += self.cache.describe(service.reproxy_cache_maxsize)
        lines += [f" connect-ahead: {len(queues.bored)}/{service.connect_ahead}"]
        lines += [f"          pool: {pool.name if pool is not None else '(none)'}"]
        if pool is not None:
            lines += ["         nodes:"]
            lines += [f"{'':16}{node.name:<21} {uses:7}" for node, uses in pool.uses.items()]
        return lines

    def queue_lengths(self) -> dict[str, tuple[int, int]]:
        return {name: (int(self.queues.age(name)), len(line)) for name, line in self.queues.lines.items()}

    def pending_connects(self) -> dict[str, int]:
        return {node.name: self._age(backend) for node, backend in self._pending()}

    def _pending(self) -> list[tuple[Node, Backend]]:
        return sorted(self.queues.pending.items(), key=lambda item: item[0].name)

    def _age(self, backend: Backend) -> int:
        return int(self.loop.clock() - backend.created)

    # -- requests

    def begin(self, client: Client, head: RequestHead) -> None:
        exchange = ProxyExchange(self, client, head)
        client.exchange = exchange
        if self._timer is None:
            self._timer = self.loop.add_timer(LOOK_SECONDS, self._look_at_clock)
        exchange.begin()

    def _look_at_clock(self) -> None:
        """Look at what may take too long; no more, when there is nothing."""
        self._timer = None
        queues, now = self.queues, self.loop.now
        queues.look_at_clock()
        limit, stalled = self.service.backend_timeout, self.service.client_stall_timeout
        for backend in list(queues.open):
            exchange = backend.consumer
            if not isinstance(exchange, ProxyExchange):
                continue
            if exchange.held:
                if stalled and now - exchange.client.active > stalled:
                    exchange.client.close(f"it has read nothing for {stalled:g} s")
            elif limit and now - backend.since > limit:
                exchange.timed_out()
        if not queues.is_idle():
            self._timer = self.loop.add_timer(LOOK_SECONDS, self._look_at_clock)
