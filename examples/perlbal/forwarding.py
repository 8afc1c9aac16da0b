"""The head that a backend sees: the client's, with what the proxy says of itself and of the client.

Rules: what the client has sent is passed on as it came; who is not trusted is not believed where a request comes from.
What does not belong here: bodies.
"""

from __future__ import annotations

from perlbal.clients import Client
from perlbal.heads import RequestHead
from perlbal.services import Service

NOT_BELIEVED = ("x-host", "x-forwarded-host")
UNIX = "unix:"  # where a client has no IP address


def is_trusted(service: Service, address: str) -> bool:
    """Whether what a client of this address says about others is believed."""
    if service.always_trusted:
        return True
    networks = service.trusted_upstream_proxies
    return networks is not None and address in networks


def observed_address(service: Service, client: Client, head: RequestHead) -> str:
    """Where the request comes from: of a trusted client the first that it names, otherwise the client itself."""
    address = client.peer_ip_string() or UNIX
    if named := head.get("x-forwarded-for"):
        if is_trusted(service, address):
            return named.partition(",")[0].strip()
    return address


def backend_head(service: Service, client: Client, head: RequestHead, node_name: str) -> RequestHead:
    sent = head.copy()
    if service.backend_http_version == "1.1":
        sent.version = 11
        if "host" not in sent:
            sent.set("Host", node_name)
    else:
        sent.version = 10
    sent.set("Connection", "keep-alive" if service.persist_backend else "close")
    if service.enable_reproxy:
        sent.set("X-Proxy-Capabilities", "reproxy-file")
    address = client.peer_ip_string() or UNIX
    if not is_trusted(service, address):
        sent.set("X-Forwarded-For", address)
        for name in NOT_BELIEVED:
            sent.remove(name)
    elif not service.blind_proxy:
        named = sent.get("x-forwarded-for")
        sent.set("X-Forwarded-For", f"{named}, {address}" if named else address)
    if service.removed_headers or service.inserted_headers:
        service.edit_head(sent)
    return sent
