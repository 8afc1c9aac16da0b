"""Whether there is input to be delivered, in the buffer or in the kernel: without taking it.

Rules: to look at input consumes none, and notes an error that the OS reports only once. What does not belong here: the
calls of hooks (sock).
"""

from __future__ import annotations

import socket

from dangagreen.sockets.receiving import Receiving


class Delivery(Receiving):
    """The layer of a socket that tells whether there is input."""

    __slots__ = ()

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
