"""TLS, as an object that looks like a socket: a Socket is made of it, as of an OS socket, and speaks plain text.

Rules: it blocks nowhere: each call does what can be done, and raises BlockingIOError where it cannot go on;
close_notify is sent at the end of a record only, and nobody here waits for the peer's. What does not belong here: whose
turn it is, handshakes with a deadline (net/opening, net/starttls), what is asked of TLS (tls_options).
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from contextlib import suppress
from typing import Any

from dangagreen.sockets.tls_receiving import FED, Decrypting
from dangagreen.sockets.tls_words import TlsInfo

_TICKETS = 65536  # bytes that are received and discarded before close(2), at most


class TlsSocket(Decrypting):
    """A TLS connection over a stream socket that does not block, with the methods of a non-blocking socket.

    Raises TlsError, TruncatedError (EOF without close_notify), and the OSErrors of the socket beneath.
    """

    __slots__ = {
        "_begun": "Whether the handshake has begun, or begins with what the client sends.",
        "_notified": "Whether close_notify was made.",
        "closed": "Whether `close` was called.",
        "may_park": "Whether the handshake calls code of the program's, the `sni_callback` of a server's context.",
    }

    type = socket.SOCK_STREAM

    def __init__(
        self,
        sock: Any,
        context: ssl.SSLContext,
        server_side: bool,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        Decrypting.__init__(self, sock)
        self.ssl_object = context.wrap_bio(self.incoming, self.outgoing, server_side, server_hostname, session)
        self._begun = server_side
        self.may_park = server_side and context.sni_callback is not None
        self._notified = self.closed = False

    @property
    def sni_callback(self) -> object:
        """The program's code that the handshake of a server calls, or None."""
        return self.ssl_object.context.sni_callback

    # -- what a socket has

    def fileno(self) -> int:
        """The fd of the socket beneath."""
        return self.beneath.fileno()  # type: ignore[no-any-return]

    def setblocking(self, flag: bool) -> None:
        """Nothing to do: it never blocks. Raises ValueError for True."""
        if flag:
            raise ValueError("a TLS connection of this library does not block")

    @property
    def family(self) -> Any:
        """The family of the socket beneath."""
        return self.beneath.family

    @property
    def proto(self) -> Any:
        """The protocol of the socket beneath."""
        return self.beneath.proto

    def getpeername(self) -> Any:
        """That of the socket beneath."""
        return self.beneath.getpeername()

    def getsockname(self) -> Any:
        """That of the socket beneath."""
        return self.beneath.getsockname()

    def getsockopt(self, *arguments: Any) -> Any:
        """That of the socket beneath."""
        return self.beneath.getsockopt(*arguments)

    def setsockopt(self, *arguments: Any) -> None:
        """That of the socket beneath."""
        self.beneath.setsockopt(*arguments)

    @property
    def tls(self) -> TlsInfo | None:
        """What was agreed upon; None before that."""
        return TlsInfo(self.ssl_object) if self.secured else None

    # -- the beginning and the end

    def go_on(self) -> TlsSocket:
        """Go on with the handshake; returns itself when that is over.

        Raises BlockingIOError where it waits for the peer, or for room (`wants_write`); TlsError.
        """
        if not self.secured:
            if self.wants_write:
                self._push()
            if self._begun:
                self._receive()
            self._begun = True
            try:
                self.ssl_object.do_handshake()
            except ssl.SSLWantReadError:
                self._push()
                raise BlockingIOError(errno.EAGAIN, "the TLS handshake is not over") from None
            except ssl.SSLError as error:
                self._fail(error)
                raise self.failure() from None
            self.secured = True
            self._begin_receiving()
            if self.ssl_object.server_side:  # what it has to send goes with the first reply, in one send(2)
                return self
        if not self._push() and not self.ssl_object.server_side:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return self

    def shutdown(self, how: int) -> None:
        """shutdown(2); of writing, close_notify goes before the FIN. OSError says ENOBUFS where it has no room now."""
        if how != socket.SHUT_RD and self.is_open():
            self._notify()
            if not self._push():
                raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        self.beneath.shutdown(how)

    def notify(self) -> bool:
        """Send close_notify. Returns False if there is no room for it now."""
        if self.is_open():
            self._notify()
            with suppress(OSError):  # it is broken: nobody is left who would miss it
                return self._push()
        return True

    def _notify(self) -> None:
        """Make close_notify. What was received is decrypted before: OpenSSL would take it for a fault, and drop it."""
        if not self._notified:
            self._notified = True
            self._decrypt_all()
            with suppress(ssl.SSLError):  # WantRead: the peer has not sent its own
                self.ssl_object.unwrap()

    def close(self) -> None:
        """close(2), after close_notify where a record has ended.

        Some late input is discarded before: for unread session tickets the kernel would drop what is being sent, and
        send a reset.
        """
        if self.closed:
            return
        self.closed = True
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.loop.pending_reads.pop(self, None)
        if self.secured:
            with suppress(OSError):
                if self.error is None and not self.wants_write:
                    self._notify()
                    self._push()
                for _ in range(0 if self.incoming.eof else _TICKETS // FED):
                    if len(self.beneath.recv(FED)) < FED:
                        break
        self.beneath.close()
