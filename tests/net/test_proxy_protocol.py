"""The PROXY protocol: the parser against the specification's examples, and whom it is believed of."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import dangagreen as d
from dangagreen.net.proxy_protocol import Header, ProxiedSocket, ProxyHeader, TrustedProxies, parse

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")
TEST = bytes.fromhex("04 0003 6e6f6f")  # a TLV: PP2_TYPE_NOOP
CHECKSUM = bytes.fromhex("03 0004 deadbeef")  # PP2_TYPE_CRC32C
LONGEST = b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"


def binary(command, kind, block=b""):
    return SIGNATURE + bytes([command, kind]) + struct.pack(">H", len(block)) + block


def inet(host="192.0.2.1", port=5000):
    return socket.inet_aton(host) + socket.inet_aton("198.51.100.1") + struct.pack(">HH", port, 443)


def inet6(host="2001:db8::1", port=5000):
    ends = (socket.inet_pton(socket.AF_INET6, one) for one in (host, "2001:db8::2"))
    return b"".join(ends) + struct.pack(">HH", port, 443)


def unix(name=b"/run/client"):
    return name.ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")


GOOD = {
    b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n": ("255.255.255.255", 65535),
    b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n": ("192.168.0.1", 56324),
    b"PROXY TCP4 192.168.0.1 192.168.0.11 0 0\r\n": ("192.168.0.1", 0),
    b"PROXY TCP6 " + LONGEST + b" " + LONGEST + b" 65535 65535\r\n": (LONGEST.decode(), 65535, 0, 0),
    b"PROXY TCP6 2001:DB8:0::0001 ::1 80 443\r\n": ("2001:db8::1", 80, 0, 0),
    b"PROXY TCP6 ::ffff:192.0.2.1 ::1 80 443\r\n": ("::ffff:192.0.2.1", 80, 0, 0),
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN " + LONGEST + b" " + LONGEST + b" 65535 65535\r\n": None,
    b"PROXY UNKNOWN whatever\r is \n here\0\xff\r\n": None,
    binary(0x20, 0x00): None,
    binary(0x20, 0x00, b"x" * 300): None,
    binary(0x20, 0x11, inet()): None,  # LOCAL: the family is to be ignored
    binary(0x20, 0xFF): None,
    binary(0x21, 0x00): None,
    binary(0x21, 0x00, inet()): None,
    binary(0x21, 0x10, inet()): None,  # UNSPEC in one half
    binary(0x21, 0x01, b"12345"): None,
    binary(0x21, 0x11, inet()): ("192.0.2.1", 5000),
    binary(0x21, 0x12, inet()): ("192.0.2.1", 5000),
    binary(0x21, 0x11, inet() + CHECKSUM + TEST): ("192.0.2.1", 5000),
    binary(0x21, 0x11, inet() + b"\x04\xff\xff"): ("192.0.2.1", 5000),  # a TLV beyond the end: skipped unread
    binary(0x21, 0x11, inet() + bytes(65523)): ("192.0.2.1", 5000),
    binary(0x21, 0x21, inet6()): ("2001:db8::1", 5000, 0, 0),
    binary(0x21, 0x22, inet6(port=65535) + TEST): ("2001:db8::1", 65535, 0, 0),
    binary(0x21, 0x31, unix()): "/run/client",
    binary(0x21, 0x32, unix(b"x" * 108)): "x" * 108,
    binary(0x21, 0x31, unix(b"")): "",
    binary(0x21, 0x31, unix(b"\0name")): b"\0name",
    binary(0x21, 0x31, unix(b"/run/\xff\0old")): "/run/\udcff",
}

BAD = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a ClientHello
    b"\0",
    b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\nGET / HTTP/1.1\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rGET / HTTP/1.1\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
    b"PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.x 1 2\r\n",
    b"PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 " + b"9" * 60 + b" 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 \xd9\xa1 2\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP6 fe80::1%lo fe80::2%lo 1 2\r\n",
    b"PROXY TCP6 2001:db8:::1 ::1 1 2\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY unknown\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY \r\n",
    b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",  # 108 bytes
    b"PROXY TCP4 " + b"1" * 1000,
    SIGNATURE[:11] + b"\r",
    binary(0x11, 0x11, inet()),
    binary(0x22, 0x11, inet()),
    binary(0x31, 0x11, inet()),
    binary(0x21, 0x41, unix()),
    binary(0x21, 0x13, inet()),
    binary(0x21, 0xFF, inet()),
    binary(0x21, 0x11, inet()[:-1]),
    binary(0x21, 0x21, inet6()[:-1]),
    binary(0x21, 0x31, unix()[:-1]),
    binary(0x21, 0x11),
]


@pytest.mark.parametrize(("data", "client"), GOOD.items(), ids=[str(number) for number in range(len(GOOD))])
def test_a_whole_header_tells_its_length_and_the_client(data, client):
    for behind in (b"", b"\r\n", b"PROXY UNKNOWN\r\n", SIGNATURE, bytes(3000)):
        assert parse(data + behind) == Header(len(data), client)


@pytest.mark.parametrize("data", GOOD, ids=[str(number) for number in range(len(GOOD))])
def test_each_beginning_of_a_header_is_one_that_is_not_whole(data):
    for length in [*range(min(len(data), 500)), len(data) - 1]:
        assert parse(data[:length]) is None


@pytest.mark.parametrize("data", BAD, ids=[str(number) for number in range(len(BAD))])
def test_what_is_no_header_is_refused_at_once_and_for_good(data):
    with pytest.raises(ValueError, match=r"PROXY|header"):
        parse(data)
    with pytest.raises(ValueError, match=r"PROXY|header"):
        parse(data + b"\r\nmore\r\n")


@pytest.mark.parametrize("data", [b"G", b"P\r", b"PROXYX", b"\r\n\r\n\0\r\nQUIT\r", SIGNATURE + b"\x10"])
def test_it_is_refused_by_its_first_wrong_byte(data):
    assert parse(data[:-1]) is None
    with pytest.raises(ValueError, match="header"):
        parse(data)


beginnings = st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ::1 ", b"PROXY UNKNOWN", SIGNATURE])


@given(st.tuples(beginnings, st.binary(max_size=300)).map(b"".join))
@example(SIGNATURE + b"\x21\x11\0\x0c")
def test_anything_is_a_header_or_none_or_not_whole_and_the_rest_changes_nothing(data):
    try:
        header = parse(data)
    except ValueError:
        with pytest.raises(ValueError, match=r"PROXY|header"):
            parse(data + b"more\r\n")
        return
    if header is not None:
        assert 15 <= header.length <= len(data)
        assert parse(data[: header.length]) == parse(data + b"more") == header
        assert parse(data[: header.length - 1]) is None


# -- received from a socket


@pytest.fixture
def ends(peers):
    """The accepted socket as a connection's first step has it, and its proxy's end."""

    def ends(family):
        if family == "unix":
            near, far = socket.socketpair()
        else:
            host = {"ipv4": "127.0.0.1", "ipv6": "::1"}[family]
            with socket.create_server(
                (host, 0), family=socket.AF_INET if family == "ipv4" else socket.AF_INET6
            ) as server:
                far = socket.create_connection(server.getsockname()[:2], 5)
                near = server.accept()[0]
        near.setblocking(False)
        far.settimeout(5)
        near = ProxiedSocket(near)
        peers.extend([near, far])
        return near, far

    return ends


def received(near, step):
    """What `step` makes of what has come; False if it waits for more."""
    with contextlib.suppress(BlockingIOError):
        return step.go_on()
    return False


families = pytest.mark.parametrize("family", ["ipv4", "ipv6", "unix"])
SAMPLE = [data for data in GOOD if len(data) < 300][::3]


@families
@pytest.mark.parametrize("data", SAMPLE, ids=[str(number) for number in range(len(SAMPLE))])
def test_exactly_the_header_is_received_wherever_it_is_split(loop, ends, family, data):
    for split in range(len(data) + 1):
        near, far = ends(family)
        real = near.getpeername()
        step = ProxyHeader(near)
        far.sendall(data[:split])
        if split < len(data):
            assert received(near, step) is False
        far.sendall(data[split:] + b"\r\nPROXY behind")
        assert received(near, step) is near
        assert near.recv(100) == b"\r\nPROXY behind"
        assert near.getpeername() == (real if GOOD[data] is None else GOOD[data])
        near.close()
        far.close()


@families
def test_byte_by_byte(loop, ends, family):
    data = binary(0x21, 0x21, inet6() + TEST)
    near, far = ends(family)
    step = ProxyHeader(near)
    for index in range(len(data)):
        assert received(near, step) is False
        far.send(data[index : index + 1])
    assert received(near, step) is near
    with pytest.raises(BlockingIOError):
        near.recv(1)


def test_the_longest_header_of_all(loop, ends):
    near, far = ends("ipv4")
    step, data = ProxyHeader(near), binary(0x21, 0x11, inet() + bytes(65523)) + b"behind"
    while data:
        data = data[far.send(data) :]
        done = received(near, step)
    assert done is near
    assert near.recv(100) == b"behind"
    assert near.getpeername() == ("192.0.2.1", 5000)


@families
@pytest.mark.parametrize("data", [b"", b"PROXY TCP4 192.0.2.1 ", SIGNATURE])
def test_an_end_within_the_header_is_an_error(loop, ends, family, data):
    near, far = ends(family)
    far.sendall(data)
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionAbortedError, match="ended within its PROXY header"):
        ProxyHeader(near).go_on()


def test_what_is_no_header_is_an_error_of_the_connection(loop, ends):
    near, far = ends("ipv4")
    far.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(ConnectionAbortedError, match="no header of the PROXY protocol"):
        ProxyHeader(near).go_on()


# -- who is trusted


@pytest.mark.parametrize(
    ("family", "networks", "trusted"),
    [
        ("ipv4", ["127.0.0.0/8"], True),
        ("ipv4", ["127.0.0.1"], True),
        ("ipv4", ["10.0.0.0/8", ipaddress.ip_network("127.0.0.1/32")], True),
        ("ipv4", ["10.0.0.0/8", "::/0", "unix"], False),
        ("ipv4", ["::ffff:127.0.0.1"], False),
        ("ipv6", ["::1"], True),
        ("ipv6", ["::1/128", "10.0.0.0/8"], True),
        ("ipv6", ["0.0.0.0/0", "fe80::/10", "unix"], False),
        ("unix", ["unix"], True),
        ("unix", ["0.0.0.0/0", "::/0"], False),
    ],
)
def test_a_peer_is_trusted_by_its_network(loop, ends, family, networks, trusted):
    assert TrustedProxies("serve", networks).trusts(ends(family)[0]) is trusted


def test_an_ipv4_peer_of_a_dual_stack_server_is_trusted_as_ipv4(loop, peers):
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        far = socket.create_connection(("127.0.0.1", server.getsockname()[1]), 5)
        near = server.accept()[0]
    peers.extend([near, far])
    assert near.getpeername()[0] == "::ffff:127.0.0.1"
    assert TrustedProxies("serve", ["127.0.0.0/8"]).trusts(near)
    assert not TrustedProxies("serve", ["::/0"]).trusts(near)


def test_a_peer_that_has_gone_is_an_error_of_the_system(loop, ends):
    near, far = ends("ipv4")
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        TrustedProxies("serve", ["127.0.0.0/8"]).admit(near)


@pytest.mark.parametrize(
    ("networks", "error"),
    [
        ([], ValueError),
        ("10.0.0.0/8", TypeError),
        (5, TypeError),
        (["10.0.0.1/8"], ValueError),
        (["10.0.0.0/33"], ValueError),
        (["localhost"], ValueError),
        ([None], ValueError),
        ([("127.0.0.1", 80)], ValueError),
    ],
)
def test_networks_that_make_no_sense_are_refused(networks, error):
    with pytest.raises(error, match="serve: proxy_protocol"):
        TrustedProxies("serve", networks)


@pytest.mark.parametrize(
    ("networks", "address", "fits"),
    [
        (["unix"], ("127.0.0.1", 0), False),
        (["10.0.0.0/8"], "/a/path", False),
        (["10.0.0.0/8", "unix"], "/a/path", True),
        (["unix"], [("127.0.0.1", 0), "/a/path"], True),
        (["::1"], [("127.0.0.1", 0), "/a/path"], True),
    ],
)
def test_addresses_whose_peers_are_all_refused_are_refused(networks, address, fits):
    proxies = TrustedProxies("serve", networks)
    if fits:
        proxies.check_addresses("serve", address)
    else:
        with pytest.raises(ValueError, match="serve: proxy_protocol trusts no peer of"):
            proxies.check_addresses("serve", address)


def test_so_is_the_socket_of_an_activation():
    for family, networks in ((socket.AF_UNIX, ["10.0.0.0/8"]), (socket.AF_INET, ["unix"])):
        with socket.socket(family) as sock, pytest.raises(ValueError, match="nobody could connect"):
            TrustedProxies("serve", networks).check_addresses("serve", [sock])


@pytest.mark.parametrize("serve", [d.serve, d.serve_requests])
def test_a_server_refuses_them(loop, serve):
    with pytest.raises(ValueError, match="proxy_protocol trusts no peer of"):
        serve(("127.0.0.1", 0), print, proxy_protocol=["unix"])
