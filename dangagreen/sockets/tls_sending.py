"""The sending half of a TLS connection: plain text into records, and records to the kernel.

Rules: what `send` has counted has gone to the kernel as ciphertext; a call that was cut short has lost nothing, so that
it can be given up at any point; at most one record goes through OpenSSL's memory at a time, since that keeps its
largest size for life; the first error is the one that counts. What does not belong here: input, handshakes.
"""

from __future__ import annotations

import errno
import ssl
from contextlib import suppress
from typing import Any

from dangagreen.errors import BROKEN, OUT_OF_BUFFERS
from dangagreen.sockets.tls_words import explained, is_plain_http
from dangagreen.tracebacks import without_traceback

RECORD = 16384  # bytes of plain text in a record, at most
_BATCH = 65536  # bytes of plain text that one send(2) takes, at most
_SENT_AT_ONCE = 1024 * 1024  # bytes of plain text that one call of `send` encrypts, at most
_AGAIN_SECONDS = 0.02  # until ciphertext that goes with no data, and had no room, is sent again
_PLAIN_HTTP = (
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS, and the request came in plain HTTP: use https.\n"
)


class Encrypting:
    """The half of a TLS connection that sends, and what both halves have."""

    __slots__ = {
        "_cipher": "Ciphertext that the kernel has not taken.",
        "error": "The first error, which every later call raises again; or None.",
        "outgoing": "OpenSSL's memory of ciphertext to send.",
        "_owed": "Bytes of plain text that are in `_cipher`, and were not counted as sent.",
        "owner": "The Socket that is made of it; None before, and once it is closed.",
        "secured": "Whether the handshake is over.",
        "beneath": "The socket beneath.",
        "_trying_again": "Whether a timer sends what had no room.",
        "ssl_object": "OpenSSL's connection.",
    }

    ssl_object: ssl.SSLObject

    def __init__(self, sock: Any) -> None:
        self.beneath = sock
        self.outgoing = ssl.MemoryBIO()
        self._cipher: bytes | memoryview = b""
        self._owed = 0
        self.secured = self._trying_again = False
        self.error: OSError | None = None
        self.owner: Any = None

    @property
    def wants_write(self) -> bool:
        """Whether ciphertext waits for room in the kernel."""
        return len(self._cipher) > 0

    def is_open(self) -> bool:
        """Whether it may send: the handshake is over, and nothing has failed."""
        return self.secured and self.error is None

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Encrypt and send. Returns how many bytes of plain text are with the kernel, as ciphertext.

        After a short send, or BlockingIOError, the next call has the rest of the data again: some of it is encrypted.
        """
        size = len(data)
        if self._cipher or not 0 < size <= RECORD or self.error is not None or not self.secured:
            return self._send_slowly(memoryview(data)) if size else 0
        try:
            self.ssl_object.write(data)
        except ssl.SSLError as error:
            self._encrypt_after(error, data)
        cipher = self.outgoing.read()
        try:
            sent: int = self.beneath.send(cipher)
        except OSError as error:
            raise self._not_sent(error, cipher, size) from None
        return size if sent == len(cipher) else self._keep(cipher, sent, size)

    def _send_slowly(self, data: memoryview) -> int:
        """`send` of more than a record, or where ciphertext waits."""
        if self.error is not None:
            raise self.failure()
        if not self.secured:
            raise BlockingIOError(errno.EAGAIN, "the TLS handshake is not over")
        done = 0
        if self._cipher:
            done = self._send_kept()
            if self._cipher:
                return done
        end = min(len(data), done + _SENT_AT_ONCE)
        try:
            while done < end:
                size = min(_BATCH, end - done)
                sent = self._send_batch(data[done : done + size])
                done += sent
                if sent < size:
                    break
        except BlockingIOError:
            if not done:
                raise
        return done

    def _send_batch(self, data: memoryview) -> int:
        """Encrypt up to `_BATCH` bytes, a record at a time, and send them at once. Returns like `send`."""
        size, pieces, write, read = len(data), [], self.ssl_object.write, self.outgoing.read
        start = 0
        try:
            for start in range(0, size, RECORD):
                write(data[start : start + RECORD])
                pieces.append(read())
        except ssl.SSLError as error:
            if start:  # what is encrypted has to leave; the next call meets the error
                size = start
                if not isinstance(error, ssl.SSLWantReadError):
                    self._fail(error)
            else:
                self._encrypt_after(error, data[:RECORD])
                pieces.append(read())
                size = min(size, RECORD)
        try:
            sent = self._send_pieces(pieces)
        except OSError as error:
            raise self._not_sent(error, b"".join(pieces), size) from None
        return size if sent == sum(map(len, pieces)) else self._keep(b"".join(pieces), sent, size)

    def _send_pieces(self, pieces: list[bytes]) -> int:
        """send(2); of several pieces sendmsg(2), which spares a copy, where the socket beneath has it."""
        if len(pieces) > 1 and (sendmsg := getattr(self.beneath, "sendmsg", None)) is not None:
            return int(sendmsg(pieces))
        return int(self.beneath.send(b"".join(pieces)))

    def _encrypt_after(self, error: ssl.SSLError, data: bytes | memoryview) -> None:
        """Encrypt a record after OpenSSL has refused that once.

        A renegotiation waits for input, which is then received; where there is none, OSError says ENOBUFS, and the
        socket is left alone for a while: the kernel would report that it may be written.
        """
        while isinstance(error, ssl.SSLWantReadError):
            self._push()
            try:
                self._receive()
            except BlockingIOError:
                raise OSError(errno.ENOBUFS, "a TLS renegotiation waits for the peer") from None
            try:
                self.ssl_object.write(data)
                return
            except ssl.SSLError as another:
                error = another
        self._fail(error)
        raise self.failure() from None

    def _not_sent(self, error: OSError, cipher: bytes, size: int) -> OSError:
        """send(2) has failed: keep the ciphertext. Returns what is raised."""
        self._keep(cipher, 0, size)
        return self._told_why(error)

    def _keep(self, cipher: bytes | memoryview, sent: int, size: int) -> int:
        """The kernel has taken `sent` bytes of ciphertext, of `size` bytes of plain text: keep the rest.

        Returns how many bytes of plain text count as sent: in proportion, and never all of them.
        """
        counted = min(size * sent // len(cipher), max(size - 1, 0))
        self._cipher = memoryview(cipher)[sent:]
        self._owed = size - counted
        return counted

    def _send_kept(self) -> int:
        """Send the ciphertext that is kept. Returns how many bytes of plain text count as sent by that."""
        cipher, owed = self._cipher, self._owed
        try:
            sent: int = self.beneath.send(cipher)
        except OSError as error:
            raise self._told_why(error) from None
        if sent < len(cipher):
            return self._keep(cipher, sent, owed)
        self._cipher, self._owed = b"", 0
        return owed

    def _told_why(self, error: OSError) -> OSError:
        """What an error of send(2) is raised as: of a broken connection the peer may have said why, in an alert."""
        why = self._find_alert() if error.errno in BROKEN else None
        return error if why is None else why

    def _push(self) -> bool:
        """Send ciphertext that goes with no data: handshakes, alerts. Returns whether nothing waits to be sent."""
        if self.outgoing.pending:
            self._cipher = bytes(self._cipher) + self.outgoing.read()
        if not self._cipher:
            return True
        if self._owed:  # the next call of `send` takes it along
            return False
        try:
            sent: int = self.beneath.send(self._cipher)
        except OSError as error:
            if isinstance(error, BlockingIOError) or error.errno in OUT_OF_BUFFERS:
                return False
            raise
        self._cipher = memoryview(self._cipher)[sent:] if sent < len(self._cipher) else b""
        return not self._cipher

    def _send_of_its_own(self) -> None:
        """Send what OpenSSL has made by itself while it read, sooner or later."""
        with suppress(OSError):  # who writes next meets the error again
            if not self._push() and not self._owed and not self._trying_again and self.owner is not None:
                self._trying_again = True
                loop = self.owner.loop
                loop.timers.add(loop.clock() + _AGAIN_SECONDS, self._try_again, None)

    def _try_again(self) -> None:
        self._trying_again = False
        if self.owner is not None:
            self._send_of_its_own()

    # -- errors

    def failure(self) -> OSError:
        """The first error, which every later call raises."""
        assert self.error is not None
        return without_traceback(self.error)

    def _fail(self, error: ssl.SSLError) -> None:
        """Keep the first error, and tell the peer: OpenSSL has made an alert."""
        self._meet_end()
        if self.error is None:
            self.error = explained(error, self.ssl_object, self.beneath)
            with suppress(OSError):  # the peer has gone: it need not hear why
                if is_plain_http(error):
                    self.beneath.send(_PLAIN_HTTP)
                self._push()

    # -- what the other half does

    def _meet_end(self) -> None:
        """Note that nothing more is to be received."""
        raise NotImplementedError

    def _receive(self) -> None:
        """Receive ciphertext, for a renegotiation. Raises BlockingIOError where there is none."""
        raise NotImplementedError

    def _find_alert(self) -> OSError | None:
        """The connection is broken: read what there is. Returns the peer's alert, or a reset, if there was one."""
        raise NotImplementedError
