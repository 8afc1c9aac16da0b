"""Throttle: who asks too often waits, ever longer, and is banned for a while if that does not help.

In this order a request is let through, refused or held to its interval: lists of networks, bans, how many requests of
an address are under way, and whether method and path are throttled at all. What is known of addresses is shared by
services with the same `instance_name`, and forgotten when it has no effect any more. Callback style: a delay is a
timer.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from typing import ClassVar

import perlbal.kinds as kinds
from perlbal.clients import Client
from perlbal.commands import Call
from perlbal.delaying import delay
from perlbal.forwarding import observed_address
from perlbal.hooks import Command, Plugin
from perlbal.kinds import Networks, boolean, choice, integer, optional, text
from perlbal.language import CommandError
from perlbal.services import Service

ALLOW, THROTTLE, DENY = "allow", "throttle", "deny"
LOGGED = ("ban", "unban", "whitelisted", "blacklisted", "concurrent", "throttled", "banned")
KEPT = 10_000  # addresses; when there are more, those that are of no effect any more are dropped


class Known:
    """What is known of addresses: the requests under way, bans, and when each was seen last."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.banned: dict[str, float] = {}  # until when
        self.seen: dict[str, tuple[float, float, int]] = {}  # until when it counts; when it was; violations

    def note(self, address: str, now: float, seconds: float, violations: int) -> None:
        self.seen[address] = now + seconds, now, violations
        if len(self.seen) > KEPT:
            self.seen = {one: kept for one, kept in self.seen.items() if kept[0] > now}
            self.banned = {one: until for one, until in self.banned.items() if until > now}

    def end(self, address: str) -> None:
        self.running[address] -= 1
        if self.running[address] <= 0:
            del self.running[address]


class Settings:
    """What one service has made of its parameters."""

    def __init__(self, service: Service, known: Known) -> None:
        self.service, self.known = service, known
        self.counted: dict[Client, str] = {}  # clients whose request is under way, and their addresses
        self.white = _networks(service.tuned("whitelist_file"))
        self.black = _networks(service.tuned("blacklist_file"))
        self.read()

    def read(self) -> None:
        """Take the patterns, and what is logged, as the parameters have them now. Raises CommandError."""
        tuned = self.service.tuned
        events = set(re.split(r"[, ]+", tuned("log_events").lower()))
        self.logged = set() if "none" in events else set(LOGGED) if "all" in events else events & set(LOGGED)
        self.path, self.method = _pattern(tuned("path_regex")), _pattern(tuned("method_regex"))

    def log(self, event: str, words: str) -> None:
        if event in self.logged:
            self.service.world.log("info", words)

    def verdict(self, address: str, method: str, uri: str, now: float) -> str:
        """What becomes of a request, as far as lists, bans and patterns say it."""
        tuned = self.service.tuned
        if self.white is not None and address in self.white:
            self.log("whitelisted", f"Letting whitelisted ip {address} through")
            return ALLOW
        if self.is_banned(address, now):
            self.log("banned", f"Denying banned IP {address}")
            return DENY
        if self.black is not None and address in self.black:
            verb = tuned("blacklist_action")
            self.log("blacklisted", f"{'Denying' if verb == DENY else 'Throttling'} blacklisted IP {address}")
            return str(verb)
        if self.known.running[address] > tuned("max_concurrent"):
            self.log("concurrent", f"Too many concurrent connections from {address}")
            return DENY
        if (self.path and not self.path.search(uri)) or (self.method and not self.method.search(method)):
            return ALLOW
        return str(tuned("default_action"))

    def is_banned(self, address: str, now: float) -> bool:
        until = self.known.banned.get(address)
        if until is not None and until <= now:
            del self.known.banned[address]
            self.log("unban", f"Unbanning {address}")
            return False
        return until is not None

    def seconds(self, address: str, uri: str, now: float) -> float | None:
        """How long a request that is throttled has to wait; None: its address is banned now."""
        tuned, known = self.service.tuned, self.known
        threshold = tuned("throttle_threshold_seconds")
        until, last, violations = known.seen.get(address, (now, 0.0, 0))
        if until <= now or now - last >= threshold:
            known.note(address, now, threshold, 0 if until <= now else violations)
            return 0.0
        seconds = float(min(tuned("initial_delay") * 2 ** min(violations, 30), tuned("max_delay")))
        violations += 1
        if 0 < tuned("ban_threshold") <= violations:
            self.log("ban", f"Banning {address} for {tuned('ban_expiration')}s: {uri}")
            known.banned[address] = now + tuned("ban_expiration")
            return None
        known.note(address, now, max(seconds, threshold), violations)
        self.log("throttled", f"Throttling {address} for {seconds:g}: {uri}")
        return seconds


class Throttle(Plugin[Settings]):
    tunables: ClassVar = {
        "whitelist_file": kinds.existing_file("*", None, "Networks whose requests are never throttled, one a line."),
        "blacklist_file": kinds.existing_file("*", None, "Networks that blacklist_action is about, one a line."),
        "default_action": choice("*", "throttle allow", "What becomes of requests from others."),
        "blacklist_action": choice("*", "deny throttle", "What becomes of requests from the blacklist."),
        "path_regex": optional("*", None, "Only requests whose URI matches are throttled."),
        "method_regex": optional("*", None, "Only requests whose method matches are throttled."),
        "log_events": text("*", "all", f"What is logged: all, none, or at commas {', '.join(LOGGED)}."),
        "log_only": boolean("*", "off", "All is worked out and logged, and every request is let through."),
        "throttle_threshold_seconds": integer("*", "60", "A request sooner after the last one is a violation."),
        "initial_delay": integer(
            "*", "3", "The seconds of delay after the first violation; each further one doubles them."
        ),
        "max_delay": integer("*", "300", "The longest delay, in seconds."),
        "max_concurrent": integer("*", "2", "Requests of an address that may be under way at a time."),
        "ban_threshold": integer("*", "0", "An address with so many violations is banned; 0 is never."),
        "ban_expiration": integer("*", "60", "For how many seconds."),
        "instance_name": text("*", "Throttle", "Services with the same one share what they know of addresses."),
    }

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Known] = {}
        self.passing: Client | None = None  # whose delay is over

    def commands(self) -> dict[str, Command]:
        return {"throttle": self.reload}

    def register(self, service: Service) -> None:
        known = self.known.setdefault(service.tuned("instance_name"), Known())
        self.states[service] = settings = Settings(service, known)
        service.register_hook(self.name, "start_proxy_request", partial(self.begin, settings))
        service.register_hook(self.name, "end_proxy_request", partial(self.end, settings))

    def begin(self, settings: Settings, client: Client) -> bool:
        """Whether the request was answered, or waits."""
        head, service = client.head, settings.service
        if head is None or client is self.passing:
            return False
        now = client.loop.clock()
        address = observed_address(service, client, head)
        self.end(settings, client)
        settings.counted[client] = address
        settings.known.running[address] += 1
        log_only = service.tuned("log_only")
        verdict = settings.verdict(address, head.method, head.uri, now)
        if verdict == DENY and not log_only:
            self.end(settings, client)
            client.error(403, "Forbidden.\n")
            return True
        if verdict != THROTTLE:
            return False
        seconds = settings.seconds(address, head.uri, now)
        if log_only or seconds == 0.0:
            return False
        if seconds is None:
            self.end(settings, client)
            client.close("its address was banned")
        else:
            delay(client, seconds, partial(self.go_on, service, client), partial(self.end, settings, client))
        return True

    def go_on(self, service: Service, client: Client) -> None:
        before, self.passing = self.passing, client
        try:
            service.role.begin(client, client.head)
        finally:
            self.passing = before

    def end(self, settings: Settings, client: Client) -> None:
        address = settings.counted.pop(client, None)
        if address is not None:
            settings.known.end(address)

    def reload(self, call: Call) -> None:
        (what,) = call.match(
            r"throttle\s+reload\s+(whitelist|blacklist|config)", "usage: throttle reload <config|whitelist|blacklist>"
        )
        problem = "No service name set. This command must be used after CREATE SERVICE <name> or USE <service_name>"
        service = call.world.services.get(call.named(None, problem))
        settings = None if service is None else self.states.get(service)
        if settings is None:
            raise CommandError(f"Non-existent service '{call.context.name}'")
        if what == "config":
            return settings.read()
        path = settings.service.tuned(f"{what}_file")
        if path is None:
            raise CommandError(f"no {what} file configured")
        if what == "whitelist":
            settings.white = _networks(path)
        else:
            settings.black = _networks(path)
        return None


def _networks(path: str | None) -> Networks | None:
    """The networks of a file. Raises CommandError."""
    if path is None:
        return None
    try:
        with open(path, encoding="latin-1") as file:
            found = [line.partition("#")[0].strip() for line in file]
        return Networks(",".join(filter(None, found)))
    except (OSError, ValueError) as error:
        raise CommandError(f"Couldn't load {path}: {error}") from None


def _pattern(source: str | None) -> re.Pattern[str] | None:
    try:
        return None if source is None else re.compile(source)
    except re.error:
        raise CommandError(f"invalid regular expression: '{source}'") from None


PLUGIN = Throttle
