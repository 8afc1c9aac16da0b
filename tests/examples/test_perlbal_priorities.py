"""Who is served first."""

from __future__ import annotations

from typing import Any

import pytest

from perlbal.heads import parse_request
from perlbal.priorities import HIGH, LOW, NORMAL, has_cookie, priority
from perlbal.proxy_role import ProxyRole
from perlbal.services import Service, World


class Client:
    def __init__(self, cookie: str | None) -> None:
        field = "" if cookie is None else f"Cookie: {cookie}\r\n"
        self.head = parse_request(f"GET / HTTP/1.0\r\n{field}\r\n".encode("latin-1"))


def service(name: str | None = "user", contents: str | None = "paid") -> Service:
    world = World()
    world.roles["reverse_proxy"] = ProxyRole
    one = world.create_service("rp")
    one.set("role", "reverse_proxy")
    one.high_priority_cookie, one.high_priority_cookie_contents = name, contents
    return one


@pytest.mark.parametrize(
    ("cookie", "has"),
    [
        (None, False),
        ("user=paid", True),
        ("user=has%20paid+up", True),
        ("a=b; us%65r=paid; c=d", True),
        ("a=b;user=paid", False),
        ("user=PAID", False),
        ("user", False),
        ("superuser=paid", False),
    ],
)
def test_the_cookie(cookie: str | None, has: bool) -> None:
    client: Any = Client(cookie)
    assert has_cookie(service(), client) is has


def test_a_cookie_without_contents_has_to_be_there() -> None:
    client: Any = Client("user=")
    assert has_cookie(service(contents=None), client)
    assert not has_cookie(service(name=None), client)


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [(False, False, NORMAL), (True, False, HIGH), (False, True, LOW), (True, True, HIGH)],
)
def test_what_plugins_say(high: bool, low: bool, expected: str) -> None:
    one = service()
    one.register_hook("test", "make_high_priority", lambda client: high)
    one.register_hook("test", "make_low_priority", lambda client: low)
    client: Any = Client(None)
    assert priority(one, client) == expected
    cookie: Any = Client("user=paid")
    assert priority(one, cookie) == HIGH
