"""Highpri: requests whose URI or host match a pattern have high priority."""

from __future__ import annotations

import re
from functools import partial

from perlbal.clients import Client
from perlbal.commands import Call
from perlbal.language import CommandError
from perlbal.services import Plugin, Service, World

DEFAULT_URI = r"^(?:/interface/(?:xmlrpc|flat)|/login\.bml)$"
NONE = ("undef", "none", "null")


class Highpri(Plugin):
    name = "Highpri"

    def load(self, world: World) -> None:
        self.patterns: dict[Service, dict[str, re.Pattern[str] | None]] = {}
        world.commands["patterns"] = self.list_patterns

    def unload(self, world: World) -> None:
        del world.commands["patterns"]

    def register(self, service: Service) -> None:
        patterns = self.patterns[service] = {"uri_pattern": re.compile(DEFAULT_URI), "host_pattern": None}
        for key in patterns:
            service.register_setter(self.name, key, partial(self.set_pattern, service, key))
        service.register_hook(self.name, "make_high_priority", partial(self.is_high, service))

    def unregister(self, service: Service) -> None:
        self.patterns.pop(service, None)

    def set_pattern(self, service: Service, key: str, text: str) -> None:
        try:
            self.patterns[service][key] = None if text in NONE else re.compile(text)
        except re.error:
            raise CommandError("Invalid regular expression") from None

    def is_high(self, service: Service, client: Client) -> bool:
        head, patterns = client.head, self.patterns[service]
        if head is None:
            return False
        uri, host = patterns["uri_pattern"], patterns["host_pattern"]
        return bool((uri and uri.search(head.uri)) or (host and head.host and host.search(head.host)))

    def list_patterns(self, call: Call) -> list[str]:
        lines = ["High priority pattern buffer:"]
        for service in self.patterns:
            lines += [f"SET {service.name}.{line}" for line in self.lines(service)]
        return [*lines, "."]

    def lines(self, service: Service) -> list[str]:
        return [
            f"highpri.{key} = {'undef' if pattern is None else pattern.pattern}"
            for key, pattern in self.patterns[service].items()
        ]

    def dump(self, service: Service) -> list[str]:
        return [f"SET {service.name}.{line}" for line in self.lines(service)]


PLUGIN = Highpri
