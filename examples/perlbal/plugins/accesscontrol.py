"""AccessControl: who may send requests, and whose wait the longest. The first rule that matches decides."""

from __future__ import annotations

import ipaddress
from functools import partial

from perlbal.clients import Client
from perlbal.commands import Call
from perlbal.forwarding import observed_address
from perlbal.hooks import Command, Plugin
from perlbal.kinds import FALSE, network
from perlbal.language import CommandError
from perlbal.services import Service

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Access:
    """The rules of one service: (verb, kind, text, network) each."""

    def __init__(self) -> None:
        self.rules: list[tuple[str, str, str, Network | None]] = []
        self.denies = False  # what no rule is about
        self.by_observed_address = False

    def verb_for(self, address: str) -> str:
        """What the rules say of an address."""
        for verb, _, text, net in self.rules:
            if address == text if net is None else _is_in(address, net):
                return verb
        return "deny" if self.denies else "allow"


def _is_in(address: str, net: Network) -> bool:
    try:
        return ipaddress.ip_address(address) in net
    except ValueError:
        return False


class AccessControl(Plugin[Access]):
    def commands(self) -> dict[str, Command]:
        return {"access": self.access}

    def register(self, service: Service) -> None:
        self.states[service] = Access()
        service.register_hook(self.name, "start_http_request", partial(self.check, service))
        service.register_hook(self.name, "make_low_priority", partial(self.is_low, service))
        service.register_setter(self.name, "use_observed_ip", partial(self.use_observed, service))

    def use_observed(self, service: Service, text: str) -> None:
        self.states[service].by_observed_address = text.lower() not in FALSE

    def verb(self, service: Service, client: Client) -> str:
        access = self.states[service]
        if access.by_observed_address and client.head is not None:
            return access.verb_for(observed_address(service, client, client.head))
        return access.verb_for(client.peer_ip_string() or "")

    def check(self, service: Service, client: Client) -> bool:
        if self.verb(service, client) != "deny":
            return False
        client.error(403, "Access denied.")
        return True

    def is_low(self, service: Service, client: Client) -> bool:
        return self.verb(service, client) == "queue_low"

    def access(self, call: Call) -> None:
        verb, what, value = call.match(
            r"access\s+(policy|allow|deny|reset|queue_low)(?:\s+(\S+))?(?:\s+(\S+))?",
            "usage: ACCESS <cmd> <arg1> [<arg2>]",
        )
        service = call.service_in_use()
        access = self.states.setdefault(service, Access())
        if verb == "reset":
            access.rules, access.denies = [], False
        elif verb == "policy":
            if what not in ("allow", "deny"):
                raise CommandError("policy must be 'allow' or 'deny'")
            access.denies = what == "deny"
        elif what not in ("ip", "netmask") or not value:
            raise CommandError(f"Unknown item to {verb}: '{what or ''}'")
        else:
            access.rules.append((str(verb), what, value, _parse(value) if what == "netmask" else None))

    def dump(self, service: Service) -> list[str]:
        access = self.states[service]
        lines = [f"ACCESS {verb.upper()} {what.upper()} {text}" for verb, what, text, _ in access.rules]
        return [*lines, f"ACCESS POLICY {'DENY' if access.denies else 'ALLOW'}"]


def _parse(text: str) -> Network:
    try:
        return network(text)
    except ValueError:
        raise CommandError("Error parsing netmask") from None


PLUGIN = AccessControl
