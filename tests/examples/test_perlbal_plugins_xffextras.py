"""XFFExtras: what backends hear of the port and the protocol of a client."""

from __future__ import annotations

from perlbal_worlds import configured, get


def test_headers_for_backends(proxied):
    world, requests = proxied
    configured("SET rp.plugins = xffextras\nSET rp.send_backend_port = on\nSET rp.send_backend_proto = on", world)
    get(world, "rp")
    port = world.services["rp"].listener.address[1]
    assert f"X-Forwarded-Port: {port}\r\nX-Forwarded-Proto: http\r\n" in requests[0]
    configured("SET rp.blind_proxy = on\nSET rp.always_trusted = on", world)
    get(world, "rp")
    assert "X-Forwarded-Port" not in requests[1]
