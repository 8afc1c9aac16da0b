"""The wake-up pair: a pair of sockets by which other threads and signals wake the loop (the self-pipe trick).

Rules: at most one byte is in flight, however many threads wake the loop; safe in a signal handler; a loop that is freed
without being closed leaves no descriptor open. What does not belong here: what the loop does then.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import weakref

from dangagreen.loop.handlers import FdHandler, Registrar

_TRIES = 3  # attempts to send the byte


class WakeupPair(FdHandler):
    """The handler of the end that the loop reads."""

    __slots__ = {
        "awake": "Whether a byte is in flight, so that no other one need be sent.",
        "ends": "The two sockets: the one that the loop reads, and the one that threads and signals write to.",
    }

    def __init__(self, loop: Registrar) -> None:
        self.awake = False
        self.ends = socket.socketpair()
        for end in self.ends:
            end.setblocking(False)
            weakref.finalize(loop, end.close).atexit = False  # not atexit: clean-up code may still run the loop
        try:
            super().__init__(loop, self.ends[0].fileno(), self._was_woken)
        except BaseException:
            self._close_fd()
            raise

    def wake(self) -> None:
        """Have the loop's wait return, now or when it next begins. May be called from any thread or signal handler."""
        if self.awake:
            return
        self.awake = True  # before the byte is sent: it may be read at once
        for _ in range(_TRIES):
            try:
                self.ends[1].send(b"\0")
            except BlockingIOError:  # the buffer is full of bytes
                return
            except OSError:  # the loop was closed meanwhile; or ENOBUFS, ENOMEM, which are transient
                continue
            return
        self.awake = False

    def wake_at_signals(self) -> int | None:
        """Have signals wake the loop, so that their handlers run at once, also if one comes just before the wait or is
        delivered to another thread. Returns the former wakeup fd; None, and does nothing, outside the main thread."""
        try:
            return signal.set_wakeup_fd(self.ends[1].fileno(), warn_on_full_buffer=False)
        except ValueError:
            return None

    def _was_woken(self, _mask: int) -> None:
        with contextlib.suppress(OSError):  # level-triggered: unread bytes bring another event
            self.ends[0].recv(4096)
        self.awake = False  # after the read: a byte sent in between would be read with the others

    def _close_fd(self) -> None:
        for end in self.ends:
            end.close()
