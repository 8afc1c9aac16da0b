"""XFFExtras: what backends hear of the port and the protocol of a client."""

from __future__ import annotations

import pytest

from perlbal.heads import parse_request
from perlbal_worlds import ask, configured, get


def test_headers_for_backends(proxied):
    world, requests = proxied
    configured("SET rp.plugins = xffextras\nSET rp.send_backend_port = on\nSET rp.send_backend_proto = on", world)
    get(world, "rp")
    port = world.services["rp"].listener.address[1]
    assert f"X-Forwarded-Port: {port}\r\nX-Forwarded-Proto: http\r\n" in requests[0]
    configured("SET rp.blind_proxy = on\nSET rp.always_trusted = on", world)
    get(world, "rp")
    assert "X-Forwarded-Port" not in requests[1]


class Connected:
    """A client, as far as this plugin looks at it."""

    def __init__(self, local="[::1]:8080", tls=None, peer="10.0.0.1"):
        self.local, self.tls, self.peer = local, tls, peer

    def local_addr_string(self):
        return self.local

    def peer_ip_string(self):
        return self.peer


@pytest.fixture
def service():
    return configured("LOAD xffextras\nCREATE SERVICE rp\nSET role = reverse_proxy\nSET plugins = xffextras").services[
        "rp"
    ]


def told(service, client):
    """The port and the protocol that a backend hears of a client that lies about them; None where it is left so."""
    head = parse_request(b"GET / HTTP/1.0\r\nX-Forwarded-Port: lie\r\nX-Forwarded-Proto: lie\r\n\r\n")
    service.run_all_hooks("backend_client_assigned", None, client, head)
    return [None if (value := head.get(f"x-forwarded-{name}")) == "lie" else value for name in ("port", "proto")]


def test_each_is_asked_for_by_itself(service):
    assert told(service, Connected()) == [None, None]
    configured("SET rp.send_backend_port = on", service.world)
    assert told(service, Connected()) == ["8080", None]
    configured("SET rp.send_backend_port = off\nSET rp.send_backend_proto = on", service.world)
    assert told(service, Connected()) == [None, "http"]
    assert told(service, Connected(tls=object())) == [None, "https"]


def test_a_client_of_a_unix_socket_has_no_port(service):
    configured("SET rp.send_backend_port = on", service.world)
    assert told(service, Connected(None)) == ["", None]


def test_a_blind_proxy_leaves_what_trusted_peers_say_and_only_that(service):
    configured("SET rp.send_backend_port = on\nSET rp.send_backend_proto = on", service.world)
    configured("SET rp.trusted_upstream_proxies = 10.0.0.0/8", service.world)
    assert told(service, Connected()) == ["8080", "http"]
    configured("SET rp.blind_proxy = on", service.world)
    assert told(service, Connected()) == [None, None]
    assert told(service, Connected(peer="11.0.0.1")) == ["8080", "http"]


def test_they_are_parameters_of_a_proxy_while_the_plugin_is_loaded(service):
    world = service.world
    configured("CREATE SERVICE w\nSET role = web_server", world)
    for key in "send_backend_port", "send_backend_proto":
        assert ask(world, f"SET w.{key} = on") == [
            f"ERROR: The '{key}' option can only be set on a 'reverse_proxy' service"
        ]
        assert ask(world, f"SET rp.{key} = x") == [f"ERROR: Expecting boolean value for parameter '{key}'"]
    configured("SET rp.send_backend_port = on", world)
    assert "  SET send_backend_port = on" in ask(world, "dumpconfig")
    configured("UNLOAD xffextras", world)
    assert ask(world, "SET rp.send_backend_port = on") == ["ERROR: Unknown service parameter 'send_backend_port'"]
