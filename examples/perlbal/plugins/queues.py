"""Queues: backends hear how many clients wait, and since when."""

from __future__ import annotations

from functools import partial
from typing import Any

from perlbal.clients import Client
from perlbal.heads import RequestHead
from perlbal.hooks import Plugin
from perlbal.services import Service


class Queues(Plugin[None]):
    def register(self, service: Service) -> None:
        service.register_hook(self.name, "backend_client_assigned", partial(self.add, service))

    def add(self, service: Service, backend: Any, client: Client, head: RequestHead) -> None:
        lengths = service.role.queue_lengths()
        for prefix, name in ("X-Queue", "normal"), ("X-HP-Queue", "highpri"):
            age, count = lengths[name]
            head.set(f"{prefix}-Count", str(count))
            head.set(f"{prefix}-Age", str(age))


PLUGIN = Queues
