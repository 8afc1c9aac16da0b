"""The other end of a conversation: a raw, non-blocking socket, or a wire end, that the test drives.

Rules: a peer knows nothing of dangagreen; it does what the case has told it, one small step for each turn of the loop.
What does not belong here: what our side is expected to find.
"""

from __future__ import annotations

import socket
import ssl
import struct

LARGE = 65536
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds


class Peer:
    """The peer of a plain connection.

    `got`: what it has received; `ended`: None, or how its input has ended, "eof", "cut" (without the protocol's own
    end) or "reset". `reading`: whether it reads. `most`: bytes that one step receives, and sends, at most.
    """

    def __init__(self, sock):
        self.sock = sock
        sock.setblocking(False)
        self.got = bytearray()
        self.ended = None
        self.closed = False
        self.reading = True
        self.most = LARGE
        self._outbox = bytearray()
        self._then = None  # what follows when the outbox is empty
        self._broken = False

    # -- what a case tells it

    def send(self, data):
        """Send bytes, from the next step on."""
        self._outbox += data

    def half_close(self):
        """End this side, in the way of the protocol, when all is sent; go on reading."""
        self._then = self._half_close

    def cut(self):
        """End this side when all is sent, below the protocol: a FIN and no more."""
        self._then = self._fin

    def close(self):
        """End both sides when all is sent, in the way of the protocol."""
        self._then = self.end

    def reset(self):
        """Break the connection, when all is sent, so that the other side finds an error and no end."""
        self._then = self._reset

    @property
    def unsent(self):
        """How many bytes it has not sent yet."""
        return len(self._outbox)

    @property
    def idle(self):
        """Whether it has done all that it was told."""
        return not self._outbox and self._then is None

    # -- what it does

    def step(self):
        """Go on with everything as far as it goes. Returns whether anything has happened."""
        moved = False
        if self._outbox and not self._broken and not self.closed:
            moved = self._send_some()
        if self._then is not None and (not self._outbox or self._broken) and self._is_flushed():
            then, self._then = self._then, None
            then()
            moved = True
        if self.reading and self.ended is None and not self.closed:
            moved = self._read_some() or moved
        return moved

    def _send_some(self):
        try:
            sent = self._send(bytes(self._outbox[: self.most]))
        except BlockingIOError:
            return False
        except OSError:
            self._broken = True  # which reading tells, too
            return True
        del self._outbox[:sent]
        return sent > 0

    def _read_some(self):
        try:
            data = self._recv(self.most)
        except BlockingIOError:
            return False
        except ConnectionError:
            self.ended = "reset"
            return True
        if data:
            self.got += data
        else:
            self.ended = "eof"
        return True

    def _is_flushed(self):
        return True

    # -- the system calls, and the ends

    def _send(self, data):
        return self.sock.send(data)

    def _recv(self, n):
        return self.sock.recv(n)

    def _fin(self):
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._broken = True

    _half_close = _fin

    def _reset(self):
        """Over TCP an RST; a Unix socket resets if it is closed with input unread, which the case sees to."""
        if hasattr(self.sock, "reset"):
            self.sock.reset()
        else:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        self.end()

    def end(self):
        """Close now, whatever is left."""
        self.closed = True
        self.sock.close()


class TlsPeer(Peer):
    """The peer of a TLS connection: CPython's SSLObject over a raw TCP socket."""

    def __init__(self, sock, context, **how):
        super().__init__(sock)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, **how)
        self.secured = False
        self._cipher = bytearray()  # what is to go to the socket
        self._raw_end = False

    def step(self):
        moved = self._pump()
        if not self.secured:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            else:
                self.secured = moved = True
            return self._pump() or moved
        return super().step() or moved

    def _pump(self):
        """Move ciphertext between the socket and the BIOs; input only while it reads. Returns whether any has moved."""
        if self.closed:
            return False
        moved = self._flush_cipher()
        if (self.reading or not self.secured) and not self._raw_end and self._in.pending < LARGE:
            try:
                data = self.sock.recv(LARGE)
            except BlockingIOError:
                pass
            except ConnectionError:
                self.ended = self.ended or "reset"
                self._raw_end = moved = True
            else:
                moved = True
                if data:
                    self._in.write(data)
                else:
                    self._raw_end = True
                    self._in.write_eof()
        return moved

    def _flush_cipher(self):
        self._cipher += self._out.read()
        moved = False
        while self._cipher:
            try:
                sent = self.sock.send(self._cipher)
            except BlockingIOError:
                break
            except OSError:
                self._broken = True
                self._cipher.clear()
                break
            del self._cipher[:sent]
            moved = True
        return moved

    def _is_flushed(self):
        self._flush_cipher()
        return not self._cipher

    def _send(self, data):
        self._flush_cipher()
        if self._cipher:
            raise BlockingIOError
        sent = self.tls.write(data)
        self._flush_cipher()
        return sent

    def _read_some(self):
        """One record, or a part of one."""
        try:
            data = self.tls.read(self.most)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLZeroReturnError:
            data = b""
        except ssl.SSLEOFError:
            self.ended = "cut"
            return True
        except ssl.SSLError:  # an alert: OpenSSL answers a cut with one
            self.ended = "reset"
            return True
        if data:
            self.got += data
        else:
            self.ended = "eof"
        return True

    def _half_close(self):
        """close_notify, and no FIN: the connection itself may be needed for more."""
        self._notify()
        self._flush_cipher()

    def _notify(self):
        """Send close_notify, and do not wait for the other side's.

        What has come is read before: unwrap would take it for an error, and lose it.
        """
        while self.ended is None and self._read_some():
            pass
        try:
            self.tls.unwrap()
        except (ssl.SSLError, OSError):  # WantRead: theirs has not come; or data has, which is read as ever
            pass

    def close(self):
        """close_notify, then the end of the socket once that is sent."""
        self._then = self._close_in_order

    def _close_in_order(self):
        self._notify()
        self._then = self.end  # once close_notify was sent
