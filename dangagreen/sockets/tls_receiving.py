"""The receiving half of a TLS connection: records from the kernel, and plain text out of them.

Rules: `recv` does what that of a non-blocking socket does; what was received and not handed out, which no poller
announces, is announced by `_announce`; at most one record is given to OpenSSL at a time. What does not belong here:
handshakes.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from dangagreen.errors import TlsError, TruncatedError
from dangagreen.loop.pollers import READ
from dangagreen.sockets.tls_sending import RECORD, Encrypting
from dangagreen.tracebacks import without_traceback

FED = 16640  # bytes of ciphertext that OpenSSL is given at a time: a record of full size
_RECEIVED = 65536  # bytes that one recv(2) asks for where bulk is read
_CUT = "the peer ended the connection without close_notify: its TLS stream may have been cut short"
_LATE = 65536  # bytes that are looked through for an alert


class Decrypting(Encrypting):
    """The half of a TLS connection that receives."""

    __slots__ = {
        "_dry": "Whether all that was received is decrypted and handed out.",
        "_held": "Whether what ends a server's handshake waits in `outgoing`: for the first reply, or the turn's end.",
        "ended": "Whether the end was met: close_notify, or an error.",
        "incoming": "OpenSSL's memory of ciphertext to decrypt.",
        "_plain": "Plain text that a look has decrypted.",
        "_shake": "What `recv` calls to go on with the handshake; or None, where it is called otherwise.",
        "_rest": "Ciphertext that was received, and OpenSSL was not given; or None.",
        "_slow": "Whether `recv` has more to look at: before the handshake is over, after a look, at the end.",
    }

    def __init__(self, sock: Any) -> None:
        Encrypting.__init__(self, sock)
        self.incoming = ssl.MemoryBIO()
        self._rest: memoryview | None = None
        self._plain = b""
        self._dry = self._slow = True
        self.ended = self._held = False
        self._shake: Callable[[], object] | None = None

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return at most `size` bytes of plain text; b"" after close_notify. With MSG_PEEK they are not taken."""
        if self._slow or flags or size <= 0:
            return self._recv_slowly(size, flags)
        data = None
        while data is None:
            if self._dry:
                self._feed(self.beneath.recv(FED if size <= RECORD else _RECEIVED))
            data = self._decrypt(size)
        if self._dry or self.ended:
            return data
        if len(data) < size:
            data = self._gather(data, size)
        self._announce()
        return data

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:
        """Receive plain text into a writable buffer. Returns how many bytes; 0 after close_notify."""
        with memoryview(buffer).cast("B") as view:
            data = self.recv(nbytes or len(view), flags)
            view[: len(data)] = data
        return len(data)

    def _recv_slowly(self, size: int, flags: int) -> bytes:
        """`recv` before the handshake is over, with MSG_PEEK, after that, and at the end."""
        if size <= 0:
            return b""
        if not self.secured and self.error is None:
            if self._shake is not None:
                self._shake()
            raise BlockingIOError(errno.EAGAIN, "the TLS handshake is not over")
        if flags & socket.MSG_PEEK:
            if not self._plain:
                self._look_further()
                self._announce()
            return self._plain[:size]
        if self._plain:
            data, self._plain = self._plain[:size], self._plain[size:]
            self._slow = bool(self._plain) or self.ended
            self._announce()
            return data
        if self.error is not None:
            raise self.failure()
        return b""

    def _look_further(self) -> bytes:
        """Decrypt a piece, to be taken later, behind the others. Returns it; raises like `recv`."""
        plain, self._plain, self._slow = self._plain, b"", self.ended
        try:
            more = self.recv(RECORD)
            plain += more
        finally:
            self._plain, self._slow = plain, bool(plain) or self.ended
        return more

    def _feed(self, data: bytes) -> None:
        """Give OpenSSL what was received; b"" is the end."""
        self._dry = False
        if not data:
            self.incoming.write_eof()
        elif len(data) <= FED:
            self.incoming.write(data)
        else:
            self._rest = memoryview(data)
            self._feed_more()

    def _feed_more(self) -> bool:
        """Give OpenSSL the next piece of what was received. Returns False if there is none."""
        rest = self._rest
        if rest is None:
            return False
        self.incoming.write(rest[:FED])
        self._rest = rest[FED:] if len(rest) > FED else None
        return True

    def _decrypt(self, size: int) -> bytes | None:
        """Return plain text of one record; b"" at the end; None where more has to be received: then it is dry."""
        asked = min(size, RECORD)
        while True:
            try:
                data = self.ssl_object.read(asked)
            except ssl.SSLWantReadError:
                if self.outgoing.pending and not self._held:  # the answer to a key update, a part of a renegotiation
                    self._send_of_its_own()
                if not self._feed_more():
                    self._dry = True
                    return None
            except ssl.SSLError as error:
                return self._end(error)
            else:
                if not data:
                    return self._end(None)
                if self.outgoing.pending and not self._held:
                    self._send_of_its_own()
                more = self._rest is not None or self.incoming.pending
                self._dry = not more and (len(data) < asked or not self.ssl_object.pending())
                return data

    def _gather(self, data: bytes, size: int) -> bytes:
        """`data`, and what else was received, up to `size` bytes."""
        pieces, room = [data], size - len(data)
        while room and not self._dry and not self.ended:
            try:
                piece = self._decrypt(room)
            except OSError:  # which the next call raises
                break
            if piece:
                pieces.append(piece)
                room -= len(piece)
        return b"".join(pieces)

    def _end(self, error: ssl.SSLError | None) -> bytes:
        """The stream has ended: by close_notify, which returns b"", or by an error, which is raised."""
        self._meet_end()
        self._dry, self._rest = False, None
        if error is None or isinstance(error, ssl.SSLZeroReturnError):
            return b""
        if isinstance(error, ssl.SSLEOFError):
            if self.owner is not None and self.owner._accepts_truncation():
                return b""
            if self.error is None:  # the peer is not told by an alert: it has ended, and would answer by an RST
                self.error = TruncatedError(_CUT)
                raise TruncatedError(_CUT)
        else:
            self._fail(error)
        raise self.failure()

    # -- input that no poller announces

    def attach(self, owner: Any) -> None:
        """Set the Socket that is made of it, which hears of what is left over from now on."""
        self.owner = owner
        if self._held:
            owner.loop.pending_reads[self] = True
        else:
            self._announce()

    def _is_ahead(self) -> bool:
        return bool(self._plain) or not self._dry

    def _announce(self) -> None:
        """Put it into `pending_reads` if there is input, of which no event will tell its owner."""
        if self.owner is not None and (self._plain or not self._dry):
            self.owner.loop.pending_reads[self] = True

    def _run(self, deliver: Any, just_now: bool) -> bool:
        """Called by the loop for what is in `pending_reads`, as of a handler."""
        return deliver(just_now)  # type: ignore[no-any-return]

    def _pushed_back(self, just_now: bool) -> bool:
        """Called by the loop: the owner acts as at a READ event; where nobody hears, its buffer takes the input.

        What has ended the handshake is sent now, unless a reply has taken it along, or will.
        """
        owner = self.owner
        if owner is None:
            return False
        more = self._is_ahead() and self._deliver(owner)
        if self._held:
            self._held = False
            if not owner.unsent:
                self._send_of_its_own()
        return more

    def _deliver(self, owner: Any) -> bool:
        """`_pushed_back` of input."""
        if owner._awaits_input():
            owner.loop.call(owner, partial(owner._events, READ))
            return self._is_ahead() and owner._awaits_input()
        return owner._take_ahead(self._recv_ahead) and self._is_ahead()

    def _hearer(self) -> Any:
        """Called by the loop: the Socket that hears of the input; None after the end."""
        return self.owner

    def _recv_ahead(self) -> bytes:
        """`recv` of what was received already, with no system call."""
        if self._slow:
            return self._recv_slowly(len(self._plain) or 1, 0)
        if not self._dry and (data := self._decrypt(RECORD)) is not None:
            return data if self.ended else self._gather(data, 2 * _RECEIVED)
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    # -- for the other half, the handshake and the end

    def shake_in_recv(self, shake: Callable[[], object]) -> None:
        """Have `recv` call this to go on with the handshake: the Socket does nothing but discard."""
        self._shake = shake

    def _meet_end(self) -> None:
        self._slow = self.ended = True

    def _receive(self) -> None:
        self._feed(self.beneath.recv(FED))

    def _find_alert(self) -> OSError | None:
        try:
            while len(self._plain) <= _LATE and self._look_further():
                pass
        except (TlsError, ConnectionResetError) as error:  # a reset is told once, and the reader is to hear of it
            return without_traceback(error)
        except OSError:
            pass
        return None

    def _begin_receiving(self) -> None:
        """The handshake is over; more may have come with it. A server's session tickets wait for its first reply."""
        self._held = self.ssl_object.server_side
        self._slow, self._dry, self._shake = False, not self.incoming.pending, None

    def _decrypt_all(self) -> None:
        """Decrypt all that was received, to be taken later."""
        with suppress(OSError):  # which is kept
            while not self._dry and not self.ended:
                self._plain += self._decrypt(RECORD) or b""
        if self._plain:
            self._slow = True
            self._announce()
