"""Whether there is input to be delivered, in the buffer or in the kernel: without taking it.

Rules: to look at input consumes none, and notes an error that the OS reports only once. What does not belong here: the
calls of hooks (sock).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import ClassVar

from dangagreen.sockets.receiving import Receiving


class Delivery(Receiving):
    """The layer of a socket that tells whether there is input.

    Class attribute: `accept_truncated_tls` (whether a FIN without TLS's close_notify is an end like any other).
    """

    __slots__ = ()

    accept_truncated_tls: ClassVar[bool] = False

    # -- a transport that holds input, as TLS does, which no event announces

    def _awaits_input(self) -> bool:
        """Whether input is heard of: by a parked task, `event_read`, or a lingering close."""
        return not self._is_at_eof() and (self._is_watched() or self._awaits_end())

    def _take_ahead(self, recv: Callable[[], bytes]) -> bool:
        """Receive into the buffer what the transport holds: nobody hears of it. Returns whether to do so again."""
        if self._is_at_eof() or self._is_over():
            return False
        try:
            data = recv()
        except OSError as error:
            if not self._ends_input(error):
                return False
            data = b""
        if not data:
            self._meet_eof()
            return False
        self._heard()
        self._put_behind(data)
        return True

    def _accepts_truncation(self) -> bool:
        """Whether EOF without close_notify is taken for an end: by `accept_truncated_tls`, and in a lingering close."""
        return self.accept_truncated_tls or self._is_over()

    # -- whether there is input

    @property
    def ready(self) -> bool:
        """Whether a read would not wait: there is input or EOF, or the socket was closed. For `select`.

        False while a task is parked in a read: the input is for that task.
        """
        if self.buffered or self._is_at_eof() or self._is_over():
            return True
        if self._has_reader():
            return False
        there = self._peek()
        if there is None:  # the OS tells it but once
            self._meet_eof()
        return there != 0

    def _has_input(self) -> bool:
        """Whether there is unread input, in the buffer or in the kernel; True if the kernel has no memory to tell."""
        return self.buffered > 0 or self._peek() == 1 or self._is_paused()

    def _peek(self) -> int | None:
        """recv(2) with MSG_PEEK of one byte. Returns 1; 0: nothing yet; -1: EOF; None: an error, which is kept."""
        try:
            return len(self.sock.recv(1, socket.MSG_PEEK)) or -1
        except OSError as error:
            return None if self._ends_input(error) else 0

    def _waits_in_vain(self) -> bool:
        """Whether a wait for input is idle: the kernel has neither input nor EOF; or nothing waits for input."""
        if self._is_at_eof() or not (self._is_watched() or self._has_reader()):
            return True
        return self._peek() == 0 and not self._is_paused()

    def _may_be_read(self) -> bool:
        """Whether it may still be read, so that a read will find the end."""
        if self._is_over() or self._is_at_eof():
            return self.buffered > 0
        return self._is_watched() or self._has_reader() or not self._is_callback_style() or self._has_input()
