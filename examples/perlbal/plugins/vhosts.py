"""Vhosts: a selector chooses by the Host header."""

from __future__ import annotations

import re

from perlbal.commands import Call
from perlbal.heads import RequestHead
from perlbal.hooks import Command, Plugin
from perlbal.language import CommandError
from perlbal.selector import NotFound, host_patterns, selector_of
from perlbal.services import Service

_PATTERN = re.compile(r"[\w\-.*;:]+", re.ASCII)
_USING = re.compile(r"/__using/([\w.]+)/\w+(?:\?.*)?", re.ASCII)


class Vhosts(Plugin[dict[str, str]]):
    def commands(self) -> dict[str, Command]:
        return {"vhost": self.vhost}

    def register(self, service: Service) -> None:
        role = selector_of(service, "vhost")
        table = self.states[service] = {}

        def choose(head: RequestHead) -> Service | None:
            host = head.host
            if host and head.uri.startswith("/__using/") and (using := _USING.fullmatch(head.uri)):
                target = service.world.services.get(table.get(f"{host.lower()};using:{using[1].lower()}", ""))
                if target is None:
                    raise NotFound("Vhost twiddling not configured for requested pair.")
                head.set("Host", using[1])
                return target
            for pattern in host_patterns(host):
                if target := service.world.services.get(table.get(pattern, "")):
                    return target
            return None

        role.choose, role.not_found = choose, "Not Found (no configured vhost)"

    def unregister(self, service: Service) -> None:
        super().unregister(service)
        selector_of(service, "vhost").choose = None

    def vhost(self, call: Call) -> None:
        name, host, target = call.match(
            r"vhost\s+(?:(\w+)\s+)?(\S+)\s*=\s*(\w+)", "usage: VHOST [<service>] <host_or_pattern> = <dest_service>"
        )
        service = call.service(name, "Service '{}' is not a selector service", "selector")
        if not _PATTERN.fullmatch(host or ""):
            raise CommandError(f"invalid host pattern: '{host}'")
        self.states.setdefault(service, {})[str(host)] = str(target).lower()

    def dump(self, service: Service) -> list[str]:
        return [f"VHOST {pattern} = {target}" for pattern, target in self.states.get(service, {}).items()]


PLUGIN = Vhosts
