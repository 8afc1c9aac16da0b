"""Redirect: requests for some hosts are answered by the address of another."""

from __future__ import annotations

from functools import partial

from perlbal.clients import Client
from perlbal.commands import Call
from perlbal.heads import ResponseHead
from perlbal.hooks import Command, Plugin
from perlbal.pages import REASONS, SERVER
from perlbal.selector import host_patterns
from perlbal.services import Service


class Redirect(Plugin[dict[str, str]]):
    def commands(self) -> dict[str, Command]:
        return {"redirect": self.redirect}

    def register(self, service: Service) -> None:
        self.states[service] = {}
        service.register_hook(self.name, "start_http_request", partial(self.answer, service))

    def answer(self, service: Service, client: Client) -> bool:
        head, table = client.head, self.states[service]
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
        self.states.setdefault(service, {})[str(host)] = str(target)

    def dump(self, service: Service) -> list[str]:
        return [f"REDIRECT HOST {host} {target}" for host, target in self.states[service].items()]


PLUGIN = Redirect
