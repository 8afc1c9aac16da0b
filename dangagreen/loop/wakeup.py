"""The loop's own pair of sockets, by which other threads and signals wake it.

Rules: one byte is on its way at most, however many there are to wake it; it is safe in a signal handler; a loop that is
forgotten without being closed leaves no descriptor behind. What does not belong here: what is to be done then.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import weakref

from dangagreen.loop.handlers import FdHandler, Registrar

_TRIES = 3  # at sending the byte


class WakeupPair(FdHandler):
    """An fd without an object that is ours."""

    __slots__ = {
        "awake": "Whether a byte is on its way, so that nobody need send another one.",
        "ends": "The socket that the loop reads, and the one that others write to.",
    }

    def __init__(self, loop: Registrar) -> None:
        self.awake = False
        self.ends = socket.socketpair()
        for end in self.ends:
            end.setblocking(False)
            weakref.finalize(loop, end.close).atexit = False  # clean-up code may still wait, and a thread wake us
        try:
            super().__init__(loop, self.ends[0].fileno(), self._was_woken)
        except BaseException:
            self._close_fd()
            raise

    def wake(self) -> None:
        """Have the loop's wait return, now or as soon as it begins. From any thread, or from a signal handler."""
        if self.awake:
            return
        self.awake = True  # before the byte is on its way: it may be read at once
        for _ in range(_TRIES):
            try:
                self.ends[1].send(b"\0")
            except BlockingIOError:  # very many are under way
                return
            except OSError:  # the loop was closed meanwhile; or ENOBUFS, ENOMEM, which may pass
                continue
            return
        self.awake = False

    def wake_at_signals(self) -> int | None:
        """Have signals wake the loop, so that their handlers run at once, also when one comes just before the wait or
        is delivered to another thread. Answers the fd that they woke before; None outside the main thread."""
        try:
            return signal.set_wakeup_fd(self.ends[1].fileno(), warn_on_full_buffer=False)
        except ValueError:
            return None

    def _was_woken(self, _mask: int) -> None:
        with contextlib.suppress(OSError):  # what could not be read now announces itself again
            self.ends[0].recv(4096)
        self.awake = False  # not before: else the byte of a thread that comes in between would be read with the others

    def _close_fd(self) -> None:
        for end in self.ends:
            end.close()
