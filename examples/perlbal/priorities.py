"""Who is served first: a cookie, or a plugin, tells clients of high and of low priority.

What does not belong here: how they wait (queues).
"""

from __future__ import annotations

from urllib.parse import unquote_plus

from perlbal.clients import Client
from perlbal.services import Service

NORMAL, HIGH, LOW = "normal", "highpri", "lowpri"  # as `queues` calls them


def priority(service: Service, client: Client) -> str:
    """The queue of a client. A plugin may say `make_high_priority` or `make_low_priority`; high beats low."""
    if has_cookie(service, client) or service.run_hooks("make_high_priority", client):
        return HIGH
    return LOW if service.run_hooks("make_low_priority", client) else NORMAL


def has_cookie(service: Service, client: Client) -> bool:
    """Whether the client has the cookie of high priority, with the contents that are wanted in it."""
    wanted, contents, head = service.high_priority_cookie, service.high_priority_cookie_contents, client.head
    if not wanted or head is None or not (text := head.get("cookie")):
        return False
    for cookie in text.split("; "):
        name, _, value = cookie.partition("=")
        if unquote_plus(name, "latin-1") == wanted:
            return (contents or "") in unquote_plus(value, "latin-1")
    return False
