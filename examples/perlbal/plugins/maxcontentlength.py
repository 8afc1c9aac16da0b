"""MaxContentLength: larger requests are refused."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from perlbal.clients import Client
from perlbal.hooks import Plugin
from perlbal.kinds import integer
from perlbal.services import Service


class MaxContentLength(Plugin[None]):
    tunables: ClassVar = {"max_content_length": integer("*", "0", "The largest Content-Length; 0 is no limit.")}

    def register(self, service: Service) -> None:
        service.register_hook(self.name, "start_http_request", partial(self.check, service))

    def check(self, service: Service, client: Client) -> bool:
        limit = service.tuned("max_content_length")
        if not limit or client.head is None or (client.head.content_length or 0) <= limit:
            return False
        client.error(413, "Content too long.\n")
        return True


PLUGIN = MaxContentLength
