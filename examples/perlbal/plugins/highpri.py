"""Highpri: requests whose URI or host match a pattern have high priority."""

from __future__ import annotations

import re
from functools import partial

from perlbal.clients import Client
from perlbal.commands import Call
from perlbal.hooks import Command, Plugin
from perlbal.language import CommandError
from perlbal.services import Service

DEFAULT_URI = r"^(?:/interface/(?:xmlrpc|flat)|/login\.bml)$"
NONE = ("undef", "none", "null")


class Highpri(Plugin[dict[str, re.Pattern[str] | None]]):
    def commands(self) -> dict[str, Command]:
        return {"patterns": self.patterns}

    def register(self, service: Service) -> None:
        patterns = self.states[service] = {"uri_pattern": re.compile(DEFAULT_URI), "host_pattern": None}
        for key in patterns:
            service.register_setter(self.name, key, partial(self.set_pattern, service, key))
        service.register_hook(self.name, "make_high_priority", partial(self.is_high, service))

    def set_pattern(self, service: Service, key: str, text: str) -> None:
        try:
            self.states[service][key] = None if text in NONE else re.compile(text)
        except re.error:
            raise CommandError("Invalid regular expression") from None

    def is_high(self, service: Service, client: Client) -> bool:
        head, patterns = client.head, self.states[service]
        if head is None:
            return False
        uri, host = patterns["uri_pattern"], patterns["host_pattern"]
        return bool((uri and uri.search(head.uri)) or (host and head.host and host.search(head.host)))

    def patterns(self, call: Call) -> list[str]:
        return ["High priority pattern buffer:", *(line for one in self.states for line in self.dump(one)), "."]

    def dump(self, service: Service) -> list[str]:
        return [
            f"SET {service.name}.highpri.{key} = {'undef' if pattern is None else pattern.pattern}"
            for key, pattern in self.states[service].items()
        ]


PLUGIN = Highpri
