"""Who hears of input, and whether there is any: without taking it.

Rules: a parked reader goes before `event_read`; what is put back and not new is delivered once; to look at input
consumes none, and notes an error that the OS reports only once. What does not belong here: hang-ups.
"""

from __future__ import annotations

import socket

from dangagreen.sockets.receiving import Receiving


class Delivery(Receiving):
    """A socket whose input is delivered."""

    __slots__ = ()

    def _readable(self) -> None:
        """There is input or EOF: resume the parked reader, or call `event_read`."""
        if (reader := self._reader) is not None:
            self._hook("read", reader.resume)
        elif self._event_read_is_due():
            self._hook("read", self.event_read)
            self._has_worked()

    def _deliver_read_ahead(self, just_now: bool) -> bool | None:
        """Call `event_read` for input that was pushed back or read ahead.

        Returns True if there is more for the next turn; None if `event_read` has left it until something new comes.
        A parked task knows what is in the buffer, unless it was pushed back `just_now`.
        """
        if self._has_reader():
            if just_now:
                self._readable()
            return False
        if not (self._is_watched() and self._has_news()):
            return False
        before, ended, mark = self.buffered, self._eof, self._mark()
        self._hook("read", self.event_read)
        new = self._has_heard_since(mark) or self._eof != ended
        self._has_worked()
        left, reads = self.buffered, self._is_watched() and not self._has_reader()
        if new or left < before or not reads or not left:  # without a buffer the end is to be told
            return reads and self._has_news()
        return None

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
