"""Servers behind a proxy: the PROXY header before the handler, in each style, over each kind of address, with TLS."""

from __future__ import annotations

import logging
import os
import socket

import pytest

import dangagreen as d
from tests.certificates import client_context, server_context
from tests.connections import LOCAL, Echo, ask, echo_one_line, reset, styles

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n"
V2 = bytes.fromhex("0D0A0D0A000D0A515549540A 21 11 000C C0000201 C6336401 1388 01BB")
LOCAL_V2 = V2[:12] + b"\x20\0\0\0"
CLIENT = "192.0.2.1:5000"
EVERYBODY = ["127.0.0.0/8", "::1", "unix"]

versions = pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])


@pytest.fixture(params=["ipv4", "ipv6", "unix"])
def address(request, tmp_path):
    """An address of each kind to serve on."""
    return {"ipv4": LOCAL, "ipv6": ("::1", 0), "unix": str(tmp_path / "socket")}[request.param]


@pytest.fixture
def proxied(served):
    """`proxied(handler, server, address)`: a server that believes its proxies, who come from this machine."""

    def proxied(handler, server=d.serve, address=LOCAL, proxy_protocol=EVERYBODY, **options):
        return served(handler, server, address, proxy_protocol=proxy_protocol, **options)

    return proxied


def tell(sock):
    sock.write_all(f"{sock.peer_addr_string()} {sock.peer_ip_string()}\n".encode())


class Told(Echo):
    """Keeps what it was told of its peer when it was made."""

    __slots__ = ("peer",)
    made = []  # noqa: RUF012

    def __init__(self, sock):
        super().__init__(sock)
        self.peer = self.peer_addr_string()
        self.made.append(self)


@styles
@versions
def test_each_style_gets_what_follows_the_header_and_knows_the_client(
    real_loop, proxied, client, address, server, handler, header
):
    listener = proxied(handler, server, address)
    sock = client(listener)
    sock.write_all(header + b"one\n")  # in one segment
    assert sock.read_line() == b"one\n"
    (served,) = [one for one in d.Socket.descriptor_map().values() if isinstance(one, d.Socket) and one is not sock]
    assert (served.peer_addr_string(), served.peer_ip_string()) == (CLIENT, "192.0.2.1")
    assert f"open to {CLIENT}" in repr(served)
    assert ask(sock, b"two\n") == b"two\n"
    assert listener.failed_handshakes == 0


@styles
def test_a_header_in_segments(real_loop, proxied, client, address, server, handler):
    sock = client(proxied(handler, server, address))
    for index in range(len(V2)):
        sock.write(V2[index : index + 1])
        d.sleep(0)
    assert ask(sock, b"one\n") == b"one\n"


def test_the_client_is_known_when_the_object_is_made(real_loop, proxied, client):
    Told.made.clear()
    sock = client(proxied(Told))
    assert ask(sock, V1 + b"x\n") == b"x\n"
    assert [one.peer for one in Told.made] == [CLIENT]
    Told.made.clear()


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", LOCAL_V2], ids=["unknown", "local"])
def test_a_header_that_names_no_client_leaves_the_real_address(real_loop, proxied, client, header):
    sock = client(proxied(tell))
    host, port = sock.sock.getsockname()
    sock.write_all(header)
    assert sock.read_line() == f"{host}:{port} {host}\n".encode()


def test_a_server_that_speaks_first_waits_for_the_header(real_loop, proxied, client):
    sock = client(proxied(tell))
    sock.write_all(V1[:-1])
    reading = d.spawn(sock.read_line)
    with pytest.raises(TimeoutError):
        reading.join(0.02)
    sock.write_all(V1[-1:])
    reading.join(30)
    assert reading.result() == f"{CLIENT} 192.0.2.1\n".encode()


def never(sock):
    raise AssertionError("its handler has run")


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "no header of the PROXY protocol"),
        (V1.replace(b"192.0.2.1", b"192.0.2.999"), "malformed"),
        (V2[:13] + b"\x51" + V2[14:], "unknown"),
        (b"PROXY TCP4 " + b" " * 200, "longer than 107 bytes"),
    ],
)
def test_what_is_no_header_closes_the_connection_before_its_handler(
    real_loop, proxied, client, wait_for, caplog, sent, why
):
    caplog.set_level(logging.DEBUG, "dangagreen")
    listener = proxied(never)
    sock = client(listener)
    sock.write_all(sent)
    with pytest.raises((ConnectionResetError, EOFError)):
        sock.read_exactly(1)
    wait_for(lambda: listener.failed_handshakes == 1)
    assert not listener.connections
    (line,) = [record for record in caplog.records if "has not opened" in record.getMessage()]
    assert why in line.getMessage()
    assert line.levelno == logging.DEBUG


def test_an_end_before_the_header_is_whole_closes_the_connection(real_loop, proxied, client, wait_for):
    listener = proxied(never)
    for sent in (b"", V1[:20], V2[:20]):
        sock = client(listener)
        sock.write_all(sent)
        sock.write_eof()
        assert sock.read_to_end() == b""
    wait_for(lambda: listener.failed_handshakes == 3 and not listener.connections)


@pytest.mark.parametrize("sent", [b"", V1[:20], V2[:-1]])
def test_a_silent_or_slow_proxy_is_closed_when_the_time_is_over(real_loop, proxied, client, wait_for, sent):
    listener = proxied(never, handshake_timeout=0.05)
    sock = client(listener)
    sock.write_all(sent)
    assert sock.read_to_end() == b""
    wait_for(lambda: listener.failed_handshakes == 1 and not listener.connections)


@pytest.mark.parametrize("networks", [["10.0.0.0/8"], ["::/0"], ["unix", "10.0.0.0/8"]])
@versions
def test_a_connection_from_elsewhere_is_refused(real_loop, proxied, client, wait_for, caplog, networks, header):
    caplog.set_level(logging.DEBUG, "dangagreen")
    listener = proxied(never, proxy_protocol=networks)
    sock = client(listener)
    sock.write(header)
    with pytest.raises((ConnectionError, EOFError)):
        sock.read_exactly(1)
    wait_for(lambda: listener.failed_handshakes == 1)
    assert not listener.connections
    assert any("no trusted proxy" in line and "127.0.0.1" in line for line in caplog.messages)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_connections_that_end_at_each_byte_of_the_header_leave_nothing(real_loop, proxied, wait_for, tls):
    listener = proxied(Echo, tls=server_context() if tls else None)
    before = len(os.listdir("/dev/fd"))
    ended = 0
    for header in (V1, V2):
        for length in range(len(header) + 1):
            for end in (reset, socket.socket.close):
                peer = socket.create_connection(listener.address, 30)
                peer.sendall(header[:length])
                if length % 3:  # otherwise it may have gone when it is accepted
                    d.sleep(0)
                end(peer)
                ended += 1
    wait_for(lambda: not listener.connections and not listener.openings.under_way)
    whole = 0 if tls else 4
    assert ended - whole - 2 <= listener.failed_handshakes <= ended  # a reset may overtake the header
    assert (len(os.listdir("/dev/fd")), len(real_loop.timers)) == (before, 0)


def test_slow_headers_hold_up_nobody_and_count_as_connections(real_loop, proxied, client, wait_for):
    listener = proxied(echo_one_line, max_connections=4)
    slow = [client(listener) for _ in range(3)]
    for sock in slow:
        sock.write(V1[:10])
    sock = client(listener)
    assert ask(sock, V1 + b"quick\n") == b"quick\n"
    late = client(listener)
    late.write_all(V1 + b"late\n")
    reading = d.spawn(late.read_line)
    with pytest.raises(TimeoutError):
        reading.join(0.02)
    slow[0].close()
    reading.join(30)
    assert reading.result() == b"late\n"
    slow[1].write_all(V1[10:] + b"slow\n")
    assert slow[1].read_line() == b"slow\n"


@styles
@versions
def test_tls_behind_the_header(real_loop, proxied, address, server, handler, header):
    listener = proxied(handler, server, address, tls=server_context())
    raw = socket.socket(socket.AF_UNIX if isinstance(listener.address, str) else listener.sock.family)
    raw.connect(listener.address)
    raw.sendall(header)  # the ClientHello may come in the same segment, or not
    sock = d.Socket(raw)
    sock.start_tls(client_context(), "localhost")
    assert ask(sock, b"secret\n") == b"secret\n"
    (served,) = [one for one in d.Socket.descriptor_map().values() if isinstance(one, d.Socket) and one is not sock]
    assert served.peer_addr_string() == CLIENT
    sock.close()


def test_tls_without_the_header_is_refused(real_loop, proxied, client, wait_for):
    listener = proxied(never, tls=server_context())
    with pytest.raises(OSError):
        d.connect(listener.address, 30, tls=client_context(), server_hostname="localhost")
    wait_for(lambda: listener.failed_handshakes == 1 and not listener.connections)


def test_the_os_socket_that_is_stolen_knows_the_client_too(real_loop, proxied, client, run_until):
    stolen = []

    class Thief(Echo):
        __slots__ = ()

        def event_read(self):
            stolen.append(self.steal_socket()[0])

    sock = client(proxied(Thief))
    sock.write_all(V1 + b"x")
    run_until(lambda: stolen)
    assert isinstance(stolen[0], socket.socket)
    assert stolen[0].getpeername() == ("192.0.2.1", 5000)
    assert stolen[0].recv(10) == b"x"
    stolen[0].close()


def test_several_addresses_behind_proxies(real_loop, proxied, tmp_path):
    listener = proxied(
        tell, address=[LOCAL, ("::1", 0), str(tmp_path / "socket")], proxy_protocol=["127.0.0.1", "unix"]
    )
    answers = []
    for address in listener.addresses:
        with d.connect(address, 30) as sock:
            sock.write(V2)
            try:
                answers.append(sock.read_line())
            except ConnectionError:
                answers.append(b"")
    assert answers == [f"{CLIENT} 192.0.2.1\n".encode(), b"", f"{CLIENT} 192.0.2.1\n".encode()]


def test_a_drain_does_not_wait_for_headers_beyond_its_grace(loop, proxied, wait_for):
    listener = proxied(never, handshake_timeout=None)
    peer = socket.create_connection(listener.address, 30)
    wait_for(lambda: listener.connections)
    start = loop.clock()
    assert listener.drain(3) == []
    assert loop.clock() == start + 3
    peer.close()


@pytest.mark.parametrize("server", [d.serve, d.serve_requests])
@pytest.mark.parametrize(("networks", "error"), [([], ValueError), ("10.0.0.0/8", TypeError), (["x"], ValueError)])
def test_networks_are_checked_before_anything_listens(loop, server, networks, error):
    with pytest.raises(error, match=f"{server.__name__}: proxy_protocol"):
        server(LOCAL, tell, proxy_protocol=networks)
    assert d.Socket.watched_sockets() == 0
