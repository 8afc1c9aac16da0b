"""Stats: how many requests of which kind, and how long the last ones took."""

from __future__ import annotations

from collections import Counter, deque
from functools import partial
from typing import Any

from perlbal.commands import Call
from perlbal.hooks import Command, Plugin
from perlbal.services import Service

KEYS = ("files_reproxied", "files_sent", "proxy_requests", "proxy_requests_highpri", "web_requests")
COUNTED = {
    "start_send_file": "files_sent",
    "start_file_reproxy": "files_reproxied",
    "start_web_request": "web_requests",
}
KEPT = 100


class Record:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.recent: deque[str] = deque(maxlen=KEPT)
        self.begun: dict[Any, float] = {}  # requests at a backend, and when they were given to it

    def count(self, key: str, *_arguments: object) -> None:
        self.counts[key] += 1

    def assigned(self, backend: Any, client: Any, *_arguments: object) -> None:
        high = getattr(client.exchange, "priority", "") == "highpri"
        self.counts["proxy_requests_highpri" if high else "proxy_requests"] += 1
        self.begun[client] = client.loop.clock()

    def answered(self, backend: Any, *_arguments: object) -> None:
        client: Any = getattr(backend.consumer, "client", None)
        begun = self.begun.pop(client, None)
        if begun is not None and client.head is not None:
            url = f"http://{client.head.host or 'unknown'}{client.head.uri}"
            self.recent.append(f"{client.loop.clock() - begun:<6.4f} {url}")

    def ended(self, client: Any, *_arguments: object) -> None:
        self.begun.pop(client, None)


class Stats(Plugin[Record]):
    def commands(self) -> dict[str, Command]:
        return {"stats": self.stats, "recent": self.recent}

    def register(self, service: Service) -> None:
        record = self.states[service] = Record()
        for hook, key in COUNTED.items():
            service.register_hook(self.name, hook, partial(record.count, key))
        service.register_hook(self.name, "backend_client_assigned", record.assigned)
        service.register_hook(self.name, "backend_response_received", record.answered)
        service.register_hook(self.name, "end_proxy_request", record.ended)

    def stats(self, call: Call) -> list[str]:
        lines = []
        total: Counter[str] = Counter()
        for service, record in self.states.items():
            lines += [_line(service.name, key, record.counts) for key in KEYS]
            total += record.counts
        return [*lines, *(_line("total", key, total) for key in KEYS), "."]

    def recent(self, call: Call) -> list[str]:
        return [*(f"{service.name} {line}" for service, one in self.states.items() for line in one.recent), "."]


def _line(name: str, key: str, counts: Counter[str]) -> str:
    return f"{name:<15} {key:<25} {counts[key]:12}"


PLUGIN = Stats
