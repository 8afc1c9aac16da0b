"""Redirect: requests for some hosts are answered by the address of another."""

from __future__ import annotations

from functools import partial

from perlbal.clients import Client
from perlbal.commands import Call
from perlbal.heads import ResponseHead
from perlbal.pages import REASONS, SERVER
from perlbal.selector import host_patterns
from perlbal.services import Plugin, Service, World


class Redirect(Plugin):
    name = "Redirect"

    def load(self, world: World) -> None:
        self.maps: dict[Service, dict[str, str]] = {}
        world.commands["redirect"] = self.redirect

    def unload(self, world: World) -> None:
        del world.commands["redirect"]

    def register(self, service: Service) -> None:
        self.maps[service] = {}
        service.register_hook(self.name, "start_http_request", partial(self.answer, service))

    def unregister(self, service: Service) -> None:
        self.maps.pop(service, None)

    def answer(self, service: Service, client: Client) -> bool:
        head, table = client.head, self.maps[service]
        if head is None:
            return False
        target = next((table[one] for one in host_patterns(head.host) if one in table), None)
        if target is None:
            return False
        response = ResponseHead(301, REASONS[301])
        response.set("Location", f"http://{target}{head.uri}")
        response.set("Content-Length", "0")
        if client.service.server_tokens:
            response.set("Server", SERVER)
        client.send_head(response)
        client.response_done()
        return True

    def redirect(self, call: Call) -> None:
        host, target = call.match(r"redirect host (\S+) (\S+)", "usage: REDIRECT HOST <match_host> <target_host>")
        service = call.service_in_use()
        self.maps.setdefault(service, {})[str(host)] = str(target)

    def dump(self, service: Service) -> list[str]:
        return [f"REDIRECT HOST {host} {target}" for host, target in self.maps[service].items()]


PLUGIN = Redirect
