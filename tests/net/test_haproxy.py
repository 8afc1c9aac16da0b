"""A real HAProxy in front of a server: send-proxy, send-proxy-v2 and TLVs, over IPv4, IPv6, Unix sockets; and TLS."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess

import pytest

import dangagreen as d
from tests.certificates import client_context, server_context
from tests.connections import ask
from tests.programs import PROGRAM_SECONDS, missing

TRUSTED = ["127.0.0.0/8", "::1", "unix"]
CONFIGURATION = """
global
    log /dev/null local0
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
"""
OPTIONS = {
    "v1": "send-proxy",
    "v2": "send-proxy-v2",
    "v2-tlvs": "send-proxy-v2 proxy-v2-options crc32c,unique-id",
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("haproxy") is None and not os.environ.get("CI"), reason="needs HAProxy: Debian's package haproxy"
    ),
]


@pytest.fixture
def haproxy(tmp_path, peers):
    """`haproxy(listener, options)` starts one before a listener: a front address for each of IPv4, IPv6 and Unix, which
    lead to each address of the listener. Answers the front's sockets, by the address that they lead to.
    """
    if shutil.which("haproxy") is None:
        missing("haproxy")
    processes = []

    def haproxy(listener, options):
        lines, fronts, fds = [CONFIGURATION], {}, []
        for number, address in enumerate(listener.addresses):
            path = str(tmp_path / f"front{len(processes)}-{number}")
            fronts[address] = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
            fronts[address].append(socket.create_server(("::1", 0), family=socket.AF_INET6))
            fronts[address][1].bind(path)
            fronts[address][1].listen()
            peers.extend(fronts[address])
            lines.append(f"listen front{number}")
            lines += [f"    bind fd@{front.fileno()}" for front in fronts[address]]
            lines.append(f"    server one {in_its_words(address)} {options}")
            fds += [front.fileno() for front in fronts[address]]
        configuration = tmp_path / "haproxy.cfg"
        configuration.write_text("\n".join(lines) + "\n")
        command = ["haproxy", "-db", "-q", "-f", str(configuration)]
        processes.append(subprocess.Popen(command, pass_fds=fds, stderr=subprocess.PIPE, text=True))
        return fronts

    yield haproxy
    for process in processes:
        process.terminate()
        _, err = process.communicate(timeout=PROGRAM_SECONDS)
        assert "[ALERT]" not in err, err


def in_its_words(address):
    if isinstance(address, str):
        return f"unix@{address}"
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def addresses(tmp_path):
    return [("127.0.0.1", 0), ("::1", 0), str(tmp_path / "socket")]


def words(sockaddr):
    """An address of the kernel's as `peer_addr_string` has it."""
    return f"[{sockaddr[0]}]:{sockaddr[1]}" if ":" in sockaddr[0] else f"{sockaddr[0]}:{sockaddr[1]}"


def tell(sock):
    """Answers each line with the client's address and the line."""
    for line in sock:
        sock.write_all(f"{sock.peer_addr_string()} ".encode() + line)


def tell_once(sock):
    sock.write_all(f"{sock.peer_addr_string()} ".encode() + sock.read_line())


class Tell(d.Socket):
    __slots__ = ()

    def event_read(self):
        data = self.read(1000)
        if data is None:
            self.finish()
        else:
            self.write(f"{self.peer_addr_string()} ".encode() + data)


KINDS = {"callbacks": (d.serve, Tell), "sequential": (d.serve, tell), "requests": (d.serve_requests, tell_once)}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_client_of_haproxy_is_the_peer(real_loop, served, haproxy, tmp_path, kind, options):
    server, handler = KINDS[kind]
    listener = served(handler, server, addresses(tmp_path), proxy_protocol=TRUSTED)
    for fronts in haproxy(listener, options).values():
        for front in (fronts[0], fronts[2]):
            with d.connect(front.getsockname()[:2], 30) as sock:
                client = words(sock.sock.getsockname()).encode()
                for line in (b"one\n", b"two\n"):
                    assert ask(sock, line) == client + b" " + line
    assert listener.failed_handshakes == 0


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_client_of_haproxys_unix_socket_has_no_address_of_its_own(real_loop, served, haproxy, tmp_path, options):
    """Version 1 says UNKNOWN of it; version 2 has its family, or none."""
    listener = served(tell, address=addresses(tmp_path), proxy_protocol=TRUSTED)
    for fronts in haproxy(listener, options).values():
        with d.connect(fronts[1].getsockname(), 30) as sock:
            assert ask(sock, b"one\n").endswith(b" one\n")
    assert listener.failed_handshakes == 0


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_much_data_behind_the_header_arrives_whole(real_loop, served, haproxy, options):
    data = os.urandom(300_000)

    def handler(sock):
        sock.write_all(sock.read_exactly(len(data)))

    listener = served(handler, address=("127.0.0.1", 0), proxy_protocol=TRUSTED)
    ((front, *_),) = haproxy(listener, options).values()
    with d.connect(front.getsockname(), 30) as sock:
        sock.write_all(data)
        assert sock.read_exactly(len(data)) == data


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_tls_through_haproxy(real_loop, served, haproxy, tmp_path, options):
    listener = served(tell, address=addresses(tmp_path), proxy_protocol=TRUSTED, tls=server_context())
    for fronts in haproxy(listener, options).values():
        with d.connect(fronts[0].getsockname(), 30, tls=client_context(), server_hostname="localhost") as sock:
            client = words(fronts[0].getsockname()).rpartition(":")[0]
            assert ask(sock, b"secret\n").startswith(client.encode())
    assert listener.failed_handshakes == 0


@pytest.mark.parametrize("options", ["send-proxy-v2 check inter 20", "send-proxy check inter 20 check-send-proxy"])
def test_health_checks_of_haproxy_find_the_server_well(real_loop, served, haproxy, options, wait_for):
    """They are connections of its own, LOCAL in version 2, which it resets at once: some are gone when accepted."""
    listener = served(tell, address=("127.0.0.1", 0), proxy_protocol=TRUSTED)
    accepted = []
    listener.tell_of_connections(accepted.append)
    ((front, *_),) = haproxy(listener, options).values()
    wait_for(lambda: len(accepted) + listener.failed_handshakes > 5)
    with d.connect(front.getsockname(), 30) as sock:
        assert ask(sock, b"one\n") == words(sock.sock.getsockname()).encode() + b" one\n"


def test_a_haproxy_that_sends_no_header_or_comes_from_elsewhere_is_refused(real_loop, served, haproxy, wait_for):
    listener = served(tell, address=("127.0.0.1", 0), proxy_protocol=TRUSTED)
    other = served(tell, address=("127.0.0.1", 0), proxy_protocol=["10.0.0.0/8"])
    for one, options in ((listener, ""), (other, "send-proxy")):
        (fronts,) = haproxy(one, options).values()
        with d.connect(fronts[0].getsockname(), 30) as sock:
            sock.write_all(b"one\n")
            with pytest.raises((EOFError, ConnectionError)):
                sock.read_exactly(1)
        wait_for(lambda one=one: one.failed_handshakes)
