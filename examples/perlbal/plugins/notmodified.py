"""NotModified: whoever has a copy of anything of some hosts is told that it is fresh."""

from __future__ import annotations

import re
from functools import partial

from perlbal.clients import Client
from perlbal.hooks import Plugin
from perlbal.language import CommandError
from perlbal.services import Service


class NotModified(Plugin[re.Pattern[str]]):
    def register(self, service: Service) -> None:
        service.register_setter(self.name, "host_pattern", partial(self.set_pattern, service))
        service.register_hook(self.name, "start_http_request", partial(self.answer, service))

    def set_pattern(self, service: Service, text: str) -> None:
        try:
            self.states[service] = re.compile(text)
        except re.error:
            raise CommandError("Invalid regular expression") from None

    def answer(self, service: Service, client: Client) -> bool:
        head, pattern = client.head, self.states.get(service)
        if pattern is None or head is None or not head.host or not head.get("if-modified-since"):
            return False
        if not pattern.search(head.host):
            return False
        client.error(304)
        return True

    def dump(self, service: Service) -> list[str]:
        pattern = self.states.get(service)
        return [] if pattern is None else [f"SET {service.name}.notmodified.host_pattern = {pattern.pattern}"]


PLUGIN = NotModified
