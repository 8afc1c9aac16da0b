"""The head that a backend sees."""

from __future__ import annotations

import pytest

from perlbal.forwarding import backend_head, observed_address
from perlbal.heads import parse_request
from perlbal.proxy_role import ProxyRole
from perlbal.services import Service, World

ASKED = (
    b"GET /x?y=1 HTTP/1.1\r\nHost: www\r\nX-Forwarded-For: 6.6.6.6\r\nX-Host: evil\r\nX-Forwarded-Host: evil\r\n\r\n"
)


class Peer:
    def __init__(self, address: str | None) -> None:
        self.address = address

    def peer_ip_string(self) -> str | None:
        return self.address


def service(**parameters: str) -> Service:
    world = World()
    world.roles["reverse_proxy"] = ProxyRole
    service = world.create_service("rp")
    service.set("role", "reverse_proxy")
    for key, value in parameters.items():
        service.set(key, value)
    return service


def seen(service: Service, asked: bytes = ASKED, address: str | None = "10.0.0.7") -> list[str]:
    head = backend_head(service, Peer(address), parse_request(asked), "node:80")
    return head.to_bytes().decode().split("\r\n")[:-2]


def test_who_is_not_trusted_is_not_believed() -> None:
    assert seen(service()) == ["GET /x?y=1 HTTP/1.0", "Host: www", "X-Forwarded-For: 10.0.0.7", "Connection: close"]


@pytest.mark.parametrize("how", [{"always_trusted": "on"}, {"trusted_upstream_proxies": "192.168.0.0/16, 10.0.0.0/8"}])
def test_who_is_trusted_is_one_more_in_the_list(how: dict[str, str]) -> None:
    believed = "X-Forwarded-For: 6.6.6.6, 10.0.0.7"
    assert seen(service(**how))[2:5] == [believed, "X-Host: evil", "X-Forwarded-Host: evil"]
    assert "X-Forwarded-For: 10.0.0.7" in seen(service(**how), b"GET / HTTP/1.0\r\n\r\n")


def test_others_are_not_trusted_with_a_list() -> None:
    assert "X-Forwarded-For: 10.0.0.7" in seen(service(trusted_upstream_proxies="192.168.0.0/16"))


def test_a_blind_proxy_leaves_what_trusted_peers_have_said() -> None:
    assert "X-Forwarded-For: 6.6.6.6" in seen(service(always_trusted="on", blind_proxy="on"))
    assert "X-Forwarded-For: 10.0.0.7" in seen(service(blind_proxy="on"))


def test_the_observed_address_is_the_first_that_a_trusted_peer_has_named() -> None:
    head = parse_request(b"GET / HTTP/1.0\r\nX-Forwarded-For: 6.6.6.6, 7.7.7.7\r\n\r\n")
    assert observed_address(service(always_trusted="on"), Peer("10.0.0.7"), head) == "6.6.6.6"
    assert observed_address(service(), Peer("10.0.0.7"), head) == "10.0.0.7"
    assert observed_address(service(), Peer(None), head) == "unix:"


def test_what_is_said_of_the_connection_and_of_reproxying() -> None:
    assert seen(service(persist_backend="on", enable_reproxy="on"), b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n") == [
        "GET / HTTP/1.0", "Connection: keep-alive", "X-Proxy-Capabilities: reproxy-file", "X-Forwarded-For: 10.0.0.7",
    ]  # fmt: skip


def test_headers_are_removed_and_then_inserted() -> None:
    one = service()
    one.removed_headers.append("X-Forwarded-For")
    one.inserted_headers.append(("X-A", "1"))
    one.inserted_headers.append(("Host", "other"))
    assert seen(one) == ["GET /x?y=1 HTTP/1.0", "Host: other", "Connection: close", "X-A: 1"]


def test_nothing_else_changes() -> None:
    fields = [
        "Keep-Alive: 1",
        "TE: trailers",
        "Upgrade: h2c",
        "Proxy-Connection: x",
        "Expect: 100-continue",
        "x-ODD: \xff",
    ]
    asked = "FOO /\xff HTTP/1.0\r\n" + "".join(f"{field}\r\n" for field in fields) + "\r\n"
    head = backend_head(service(), Peer("::1"), parse_request(asked.encode("latin-1")), "node:80")
    lines = head.to_bytes().decode("latin-1").split("\r\n")
    assert lines[0] == "FOO /\xff HTTP/1.0"
    assert lines[1:7] == fields


def test_http_1_1_has_a_host() -> None:
    modern = service(backend_http_version="1.1")
    assert seen(modern)[:2] == ["GET /x?y=1 HTTP/1.1", "Host: www"]
    assert "Host: node:80" in seen(modern, b"GET / HTTP/1.0\r\n\r\n")


def test_the_clients_head_stays_as_it_is() -> None:
    head = parse_request(ASKED)
    backend_head(service(), Peer("10.0.0.7"), head, "node:80")
    assert head.to_bytes() == ASKED
