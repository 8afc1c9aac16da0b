"""Certificates of an authority made for the tests, contexts with them, and TLS connections in memory or by hand."""

from __future__ import annotations

import ssl
from functools import cache

import trustme

from dangagreen.sockets.tls import TlsSocket

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()  # whom nobody trusts


@cache
def certificate(*names, authority=AUTHORITY):
    """A certificate for these names, issued once."""
    return authority.issue_cert(*names)


def server_context(*names, version=None, authority=AUTHORITY):
    """A context for a server with a certificate, of one version of TLS if it is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate(*(names or ("localhost", "127.0.0.1", "::1")), authority=authority).configure_cert(context)
    return of_version(context, version)


def client_context(version=None):
    """A context for a client that trusts the authority alone: to read the system's authorities takes 20 ms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    return of_version(context, version)


def of_version(context, version):
    """The context, with one version of TLS only, if it is given."""
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def versions():
    """TLS 1.2 and 1.3, as parameters of a test."""
    return [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def shake_hands(*ends):
    """Have TLS ends in one process go on with their handshake until all are through."""
    for _ in range(10000):
        over = 0
        for end in ends:
            try:
                end.go_on()
            except BlockingIOError:
                continue
            over += 1
        if over == len(ends):
            return
    raise AssertionError("the handshake does not end")


def secured(ends, version=None, client=None, server=None):
    """Two TLS ends over two connected sockets, after their handshake: the client, the server."""
    first, second = ends
    mine = TlsSocket(first, client or client_context(version), False, "localhost")
    other = TlsSocket(second, server or server_context(version=version), True)
    shake_hands(mine, other)
    other.go_on()  # its session tickets leave now, and not with its first reply
    return mine, other


class ByHand:
    """A TLS peer made by hand of an `ssl.SSLObject`, over a socket-like object: it can lie, and stop anywhere."""

    def __init__(self, sock, context, server_side=False, server_hostname=None):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side, server_hostname)

    def take(self):
        """Receive what is there. Returns whether there was any."""
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return False
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        return bool(data)

    def give(self, most=None):
        """Send what OpenSSL has made, or at most so many bytes of it. Returns how many."""
        data = self.outgoing.read() if most is None else self.outgoing.read(most)
        sent = 0
        while sent < len(data):
            sent += self.sock.send(data[sent:])
        return sent

    def go_on(self):
        """A step of the handshake: BlockingIOError as long as it is not over."""
        self.take()
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.give()
            raise BlockingIOError from None
        self.give()
        return self

    def write(self, data):
        """Encrypt and send."""
        for start in range(0, len(data), 16384):
            self.tls.write(data[start : start + 16384])
        self.give()

    def read(self):
        """All plain text that has come; with the end, or an error, after it as the last item."""
        self.take()
        got = bytearray()
        try:
            while piece := self.tls.read(65536):
                got += piece
        except ssl.SSLWantReadError:
            return bytes(got)
        except ssl.SSLZeroReturnError:
            pass
        return bytes(got)
