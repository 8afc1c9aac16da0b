"""Vpaths: a selector chooses by the URI, the first pattern that matches."""

from __future__ import annotations

import re

from perlbal.commands import Call
from perlbal.heads import RequestHead
from perlbal.hooks import Command, Plugin
from perlbal.language import CommandError
from perlbal.selector import NotFound, selector_of
from perlbal.services import Service


class Vpaths(Plugin[list[tuple[re.Pattern[str], str]]]):
    def commands(self) -> dict[str, Command]:
        return {"vpath": self.vpath}

    def register(self, service: Service) -> None:
        role = selector_of(service, "vpath")
        table = self.states[service] = []

        def choose(head: RequestHead) -> Service | None:
            for pattern, name in table:
                if pattern.search(head.uri):
                    target = service.world.services.get(name)
                    if target is None:
                        raise NotFound(f"Not Found ({name} not a defined service)")
                    return target
            return None

        role.choose, role.not_found = choose, "Not Found (no configured vpath)"

    def unregister(self, service: Service) -> None:
        super().unregister(service)
        selector_of(service, "vpath").choose = None

    def vpath(self, call: Call) -> None:
        name, pattern, target = call.match(
            r"vpath\s+(?:(\w+)\s+)?(\S+)\s*=\s*(\w+)", "usage: VPATH [<service>] <path regex> = <dest_service>"
        )
        service = call.service(name, "Service '{}' is not a selector service", "selector")
        try:
            compiled = re.compile(str(pattern))
        except re.error:
            raise CommandError(f"invalid regular expression: '{pattern}'") from None
        self.states.setdefault(service, []).append((compiled, str(target).lower()))

    def dump(self, service: Service) -> list[str]:
        return [f"VPATH {pattern.pattern} = {target}" for pattern, target in self.states.get(service, [])]


PLUGIN = Vpaths
