"""FlvStreaming: a player that seeks asks for `/a.flv?start=N`, and gets the file from byte N on, as a film of its own.

The backend is asked for that range, and the head of an FLV file is put before it. A backend that knows no ranges, or
not this one, is passed on as it answers.
"""

from __future__ import annotations

import re
from typing import Any

from perlbal.chunks import chunk
from perlbal.clients import Client
from perlbal.heads import RequestHead, ResponseHead
from perlbal.hooks import Plugin
from perlbal.language import CommandError
from perlbal.proxying import ProxyExchange
from perlbal.services import Service

HEAD = b"FLV\x01\x01\0\0\0\x09\0\0\0\x09"  # version 1, with video; its length, 9; no tag before the first
_START = re.compile(r"\.flv\?(?:.*&)?start=0*([1-9]\d{0,17})(?:&|\Z)", re.ASCII)


class FlvStreaming(Plugin[None]):
    def __init__(self) -> None:
        super().__init__()
        self.begun: ResponseHead | None = None  # of the response that the head of a file is to be put into next

    def register(self, service: Service) -> None:
        if service.role_name != "reverse_proxy":
            raise CommandError("You can't load the flvstreaming plugin on a service not of role reverse_proxy.")
        service.register_hook(self.name, "backend_client_assigned", self.ask_for_range)
        service.register_hook(self.name, "modify_response_headers", self.make_whole)
        service.register_hook(self.name, "prepend_body", self.prepend)

    def ask_for_range(self, backend: Any, client: Client, head: RequestHead) -> None:
        if (start := _START.search(head.uri)) is not None:
            head.set("Range", f"bytes={start[1]}-")
            head.remove("if-range")

    def make_whole(self, client: Client, head: ResponseHead) -> None:
        if head.code == 206 and client.head is not None and _START.search(client.head.uri):
            head.code, head.reason = 200, "OK"
            head.remove("content-range")
            if (length := head.get("content-length")).isdecimal():
                head.set("Content-Length", str(int(length) + len(HEAD)))
            self.begun = head

    def prepend(self, backend: Any, client: Client) -> None:
        exchange, begun = client.exchange, self.begun
        self.begun = None
        if isinstance(exchange, ProxyExchange) and exchange.response is begun and exchange.head.method != "HEAD":
            client.sent += len(HEAD)
            client.write(chunk(HEAD) if exchange.chunked else HEAD)


PLUGIN = FlvStreaming
