"""LazyCDN: what a web server does not have, or only a copy that is too old, another service answers.

A URI says by `v=` and seconds since 1970 how new it has to be. Who fills the document root hears of what was asked for
in vain by UDP, and is not waited for.
"""

from __future__ import annotations

import contextlib
import re
import socket
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from perlbal.clients import Client, HttpRole
from perlbal.heads import RequestHead
from perlbal.hooks import Plugin
from perlbal.kinds import Kind, optional
from perlbal.services import Service

_VERSION = re.compile(r"\bv=0*(\d{1,18})\b", re.ASCII)
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+:\d{1,5}", re.ASCII)


def _address(of: Any, text: str) -> tuple[str, int]:
    if not _ADDRESS.fullmatch(text):
        raise ValueError("Expecting IP:port of form a.b.c.d:port.")
    host, _, port = text.partition(":")
    return host, int(port)


address: Kind[tuple[str, int] | None] = Kind("address", _address, lambda end: f"{end[0]}:{end[1]}")


class LazyCDN(Plugin[None]):
    tunables: ClassVar = {
        "fallback_service": optional("web_server", None, "The service that answers what is not there, or is too old."),
        "fallback_udp_ping_addr": address("web_server", None, "Where a datagram with each such URI is sent."),
    }

    def __init__(self) -> None:
        super().__init__()
        self.handed: WeakKeyDictionary[Client, tuple[RequestHead, list[Service]]] = WeakKeyDictionary()  # who had it

    def register(self, service: Service) -> None:
        for kind in "static", "concat":
            service.register_hook(self.name, f"{kind}_get_poststat_file_missing", partial(self.hand_on, service))
            service.register_hook(self.name, f"{kind}_get_poststat_pre_send", partial(self.hand_on_old, service))

    def hand_on_old(self, service: Service, client: Client, mtime: int) -> bool:
        wanted = _VERSION.search(client.head.uri) if client.head is not None else None
        return wanted is not None and int(wanted[1]) > mtime and self.hand_on(service, client)

    def hand_on(self, service: Service, client: Client) -> bool:
        """Whether another service answers: none that has had this request already, which would go round in circles."""
        head, target = client.head, service.world.services.get(service.tuned("fallback_service") or "")
        if head is None or target is None or not isinstance(target.role, HttpRole):
            return False
        of, had = self.handed.get(client, (head, []))
        had = [service] if of is not head else [*had, service]
        if target in had:
            return False
        self.handed[client] = head, had
        if (end := service.tuned("fallback_udp_ping_addr")) is not None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ping:
                ping.setblocking(False)
                ping.sendto(head.uri.encode("latin-1"), end)
        client.hand_to(target)
        return True


PLUGIN = LazyCDN
