"""A socket in words: its addresses, its state, and lines to the log."""

from __future__ import annotations

import logging
import re
import socket

import pytest

from dangagreen import Socket
from tests.connections import Reader


@pytest.mark.parametrize(
    ("family", "ip", "pattern"),
    [(socket.AF_INET, "127.0.0.1", r"127\.0\.0\.1:(\d+)"), (socket.AF_INET6, "::1", r"\[::1\]:(\d+)")],
)
def test_addresses_of_tcp_sockets(loop, tcp_pair, family, ip, pattern):
    sock, peer = tcp_pair(family)
    one = Socket(sock)
    assert one.peer_ip_string() == one.local_ip_string() == ip
    assert int(re.fullmatch(pattern, one.peer_addr_string())[1]) == peer.getsockname()[1]
    assert int(re.fullmatch(pattern, one.local_addr_string())[1]) == sock.getsockname()[1]


def test_addresses_of_unix_sockets(loop, peers, tmp_path):
    path = str(tmp_path / "socket")
    server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    peers.extend((server, client))
    server.bind(path)
    server.listen()
    client.connect(path)
    accepted = server.accept()[0]
    peers.append(accepted)
    one, other = Socket(client), Socket(accepted)
    assert one.peer_addr_string() == other.local_addr_string() == path
    assert one.local_addr_string() == other.peer_addr_string() == ""
    assert one.peer_ip_string() is None
    assert one.local_ip_string() is None


def test_addresses_of_a_closed_socket_are_what_they_were_if_anybody_asked(loop, tcp_pair):
    asked, not_asked = Socket(tcp_pair()[0]), Socket(tcp_pair()[0])
    peer, local = asked.peer_addr_string(), asked.local_addr_string()
    for one in (asked, not_asked):
        one.close()
    assert asked.peer_addr_string() == peer
    assert asked.peer_ip_string() == "127.0.0.1"
    assert asked.local_addr_string() == local
    assert not_asked.peer_addr_string() is None
    assert not_asked.peer_ip_string() is None
    assert not_asked.local_addr_string() is None


def test_as_string_tells_the_class_what_is_watched_the_state_and_the_peer(loop, wires):
    one = Reader(wires()[0])
    assert one.as_string() == "Reader(): open to 10.0.0.2:2"
    one.watch_read(True)
    one.watch_write(True)
    assert repr(one) == one.as_string() == "Reader(RW): open to 10.0.0.2:2"
    one.close()
    assert repr(one) == "Reader(): closed to 10.0.0.2:2"


def test_as_string_of_a_socket_that_was_stolen_or_never_connected(loop, wires, peers):
    one = Reader(wires()[0])
    one.steal_socket()
    assert "closed" in repr(one)
    sock = socket.socket()
    peers.append(sock)
    assert repr(Reader(sock)) == "Reader(): open"


def test_debugmsg_and_dump_error_log_with_the_socket_in_words(loop, wires, caplog):
    one = Reader(wires()[0])
    one.debugmsg("not now %s", 1)
    assert caplog.records == []
    caplog.set_level(logging.DEBUG, "dangagreen")
    one.debugmsg("now %s of %d", "two", 3)
    one.debugmsg("a line\n")
    assert caplog.messages == [f"now two of 3 [{one!r}]", f"a line [{one!r}]"]
    caplog.clear()
    one.dump_error("what happened")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert repr(one) in record.getMessage()
    assert record.stack_info is not None


def test_debugmsg_with_a_percent_sign_in_the_peers_address_is_harmless(loop, peers, tmp_path, caplog):
    path = str(tmp_path / "100%d")
    server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    peers.extend((server, client))
    server.bind(path)
    server.listen()
    client.connect(path)
    caplog.set_level(logging.DEBUG, "dangagreen")
    Socket(client).debugmsg("50%% of %s", "it")
    Socket(server).dump_error("100% broken")
    assert "50% of it" in caplog.messages[0]
    assert path in caplog.messages[0]


# -- tcp_cork


CORK = getattr(socket, "TCP_CORK", getattr(socket, "TCP_NOPUSH", None))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_tcp_cork_sets_and_clears_the_option(real_loop, tcp_pair, family):
    sock, _ = tcp_pair(family)
    one = Socket(sock)
    assert CORK is not None
    one.tcp_cork(True)
    assert sock.getsockopt(socket.IPPROTO_TCP, CORK) != 0
    one.tcp_cork(False)
    assert sock.getsockopt(socket.IPPROTO_TCP, CORK) == 0


def test_tcp_cork_means_nothing_on_a_unix_socket_and_after_close(real_loop, unix_pair, tcp_pair):
    unix, tcp = Socket(unix_pair()[0]), Socket(tcp_pair()[0])
    unix.tcp_cork(True)
    assert unix.write(b"x") is True
    tcp.close()
    tcp.tcp_cork(True)
    tcp.tcp_cork(False)
    assert not unix.closed
