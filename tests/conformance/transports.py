"""Transports: each opens a connected pair, our Socket and a raw peer, and declares what it cannot do.

A case asks no transport for its name: it asserts what the transport declares, a refusal for example.
"""

from __future__ import annotations

import socket
import ssl
from functools import partial

from dangagreen import spawn
from dangagreen.testing import wire
from tests.certificates import client_context, server_context
from tests.conformance.peers import Peer, TlsPeer

SEGMENT = 1460  # bytes: over loopback it would be 64 KiB, which small buffers handle in jerks
SEND_BUFFER, RECEIVE_BUFFER = 16384, 32768  # bytes, of which Linux gives twice as many


class Transport:
    """A way to open a pair; `name` is part of the test's id.

    `virtual`: it needs no kernel, and no poller. `cut`: what a read finds when the peer ends the connection below the
    protocol. `capacity`: more bytes than the kernels of a connection hold together. `refuses_to_steal`: the error of
    `steal_socket`, if it is refused.
    """

    name = ""
    virtual = False
    cut = "eof"
    capacity = 1 << 20
    refuses_to_steal: type[Exception] | None = None

    def open(self, conversation, socket_class):
        """(our Socket, the peer): connected, on the conversation's loop."""
        near, far = self.ends(conversation.rng)
        peer = Peer(far)
        conversation.closing(peer)
        return socket_class(near), peer

    def ends(self, rng):
        """Two connected ends."""
        raise NotImplementedError


class Tcp(Transport):
    """TCP over loopback; which side has connected is random."""

    def __init__(self, name, family, host):
        self.name = name
        self._family, self._host = family, host

    def ends(self, rng):
        with socket.socket(self._family) as server, small(socket.socket(self._family)) as client:
            small(server).bind((self._host, 0))
            server.listen(1)
            client.connect(server.getsockname())
            accepted = server.accept()[0]
            ends = [accepted, client.dup()]
        rng.shuffle(ends)
        return ends


def small(sock):
    """Give a TCP socket, before it listens or connects, buffers that are soon full; and have it wait for no ACK."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Unix(Transport):
    """A pair of Unix sockets."""

    name = "unix"

    def ends(self, rng):
        return socket.socketpair()


class Wire(Transport):
    """A connection in memory, on the virtual clock."""

    virtual = True

    def __init__(self, name, family):
        self.name = name
        self._family = family

    def ends(self, rng):
        return wire(rng.choice((1000, 16384, 65536)), family=self._family)


class Tls(Transport):
    """TLS of one version over another transport; our side is the server, or the client. It begins by `start_tls`."""

    cut = "cut"
    refuses_to_steal = RuntimeError

    def __init__(self, name, beneath, version, server_side):
        self.name = name
        self.virtual = beneath.virtual
        self._beneath, self._version, self._server_side = beneath, version, server_side

    def open(self, conversation, socket_class):
        near, far = self._beneath.ends(conversation.rng)
        server, client = server_context(version=self._version), client_context(self._version)
        if self._server_side:
            peer, context, how = TlsPeer(far, client, server_hostname="localhost"), server, {}
        else:
            peer, context, how = TlsPeer(far, server, server_side=True), client, {"server_hostname": "localhost"}
        conversation.closing(peer)
        sock = socket_class(near)
        conversation.sock, conversation.far = sock, peer
        if conversation.rng.randrange(2):
            spawn(sock.start_tls, context, **how)
        else:
            sock.loop.call_soon(partial(sock.start_tls, context, **how))
        conversation.until(lambda: peer.secured and sock.tls is not None)
        return sock, peer


TCP4 = Tcp("tcp4", socket.AF_INET, "127.0.0.1")
TRANSPORTS = [
    TCP4,
    Tcp("tcp6", socket.AF_INET6, "::1"),
    Unix(),
    Wire("wire-tcp", socket.AF_INET),
    Wire("wire-unix", socket.AF_UNIX),
    Tls("tls12-server", TCP4, ssl.TLSVersion.TLSv1_2, True),
    Tls("tls12-client", TCP4, ssl.TLSVersion.TLSv1_2, False),
    Tls("tls13-server", TCP4, ssl.TLSVersion.TLSv1_3, True),
    Tls("tls13-client", TCP4, ssl.TLSVersion.TLSv1_3, False),
    Tls("tls13-wire", Wire("", socket.AF_INET), ssl.TLSVersion.TLSv1_3, True),
]
