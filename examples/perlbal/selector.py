"""The role selector: it listens, and has another service answer each request.

Which one that is says the plugin that has set `choose`, such as Vhosts, or else `default_service`. After each response
the client is back here. What does not belong here: the plugins, and how clients are served.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from perlbal.clients import Client, HttpRole
from perlbal.delaying import delay
from perlbal.heads import RequestHead
from perlbal.language import CommandError
from perlbal.services import Service


class NotFound(Exception):
    """There is no service for a request, nor is `default_service` meant: the text of the answer, which is 404."""


Choose = Callable[[RequestHead], Service | None]


class Selector(HttpRole):
    """The role. A plugin's `choose(head)` answers a service, or None; or raises NotFound."""

    name = "selector"

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.choose: Choose | None = None
        self.not_found = ""  # what is said where `choose` has found nothing

    def begin(self, client: Client, head: RequestHead) -> None:
        service = self.service
        if service.hooks and service.run_hooks("start_http_request", client):
            return
        if service.latency:
            delay(client, service.latency / 1000, partial(self._select, client, head))
        else:
            self._select(client, head)

    def _select(self, client: Client, head: RequestHead) -> None:
        if self.choose is None:
            return client.error(500, "No service selector configured.")
        try:
            target = self.choose(head) or self.service.default_service
        except NotFound as none:
            return client.error(404, str(none))
        if target is None:
            return client.error(404, self.not_found)
        if not isinstance(target.role, HttpRole) or target is self.service:
            return client.error(500, f"Can't map to service type {target.role_name}")
        self.service.edit_head(head)
        return client.hand_to(target)


def selector_of(service: Service, plugin: str) -> Selector:
    """The role of a service that a selecting plugin is set on. Raises CommandError if it is another one."""
    if not isinstance(service.role, Selector):
        raise CommandError(f"You can't load the {plugin} plugin on a service not of role selector.")
    return service.role


def host_patterns(host: str) -> Iterator[str]:
    """What may stand for a host in a map, the closest first. The host is as the Host header has it."""
    host = re.sub(r":\d+\Z", "", host.lower()).removesuffix(".")
    if host:
        yield host
        yield f"*.{host}"
    while "." in host:
        host = host.partition(".")[2]
        yield f"*.{host}"
    yield "*"
