"""XFFExtras: backends hear of the port that a client has connected to, and whether it speaks TLS."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from perlbal.clients import Client
from perlbal.forwarding import is_trusted
from perlbal.heads import RequestHead
from perlbal.hooks import Plugin
from perlbal.kinds import boolean
from perlbal.services import Service


class XFFExtras(Plugin[None]):
    tunables: ClassVar = {
        "send_backend_port": boolean("reverse_proxy", "off", "Backends get X-Forwarded-Port, that of the listener."),
        "send_backend_proto": boolean("reverse_proxy", "off", "Backends get X-Forwarded-Proto, http or https."),
    }

    def register(self, service: Service) -> None:
        service.register_hook(self.name, "backend_client_assigned", partial(self.add, service))

    def add(self, service: Service, backend: Any, client: Client, head: RequestHead) -> None:
        if service.blind_proxy and is_trusted(service, client.peer_ip_string() or ""):
            return
        if service.tuned("send_backend_port"):
            head.set("X-Forwarded-Port", str(client.local_addr_string() or "").rpartition(":")[2])
        if service.tuned("send_backend_proto"):
            head.set("X-Forwarded-Proto", "http" if client.tls is None else "https")


PLUGIN = XFFExtras
