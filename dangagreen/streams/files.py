"""Sending files: sendfile(2) where bytes go out as they are, otherwise pieces that a thread reads.

Rules: a file has its turn in the write queue, as bytes have, and what is written later comes after it; one piece at
most is in memory; the file's position stays where it was; a cancellation leaves a prefix sent, whose length is known;
a file that nobody waits for (`write_file`) costs the connection if it cannot be sent whole.
What does not belong here: what is in the file, and how a protocol announces its length.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from dangagreen import checks
from dangagreen.errors import BROKEN, OUT_OF_BUFFERS, ShortFileError
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.thread_pool import call_in_thread
from dangagreen.parks import parks
from dangagreen.sockets.states import BLOCKED, HELD, IDLE
from dangagreen.streams.writing import StreamSocket
from dangagreen.system_calls import OS_SOCKETS

_AT_ONCE = 256 * 1024  # bytes that one sendfile(2) is asked for: a slow disk holds up the loop for no more than that
_PIECE = 65536  # bytes that a thread reads at once; no more than `high_water`,
_SMALL = 4096  # but so many if that is below

# sendfile(2): the file system, or the kind of socket, does not support it; read(2) does.
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EOVERFLOW}
_OF_THE_SOCKET = BROKEN | OUT_OF_BUFFERS

_progress: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # socket to bytes: others do not pay for a slot


class BinaryFile(Protocol):
    """What is sent: a regular file opened in binary mode, or an object with these methods (io.BytesIO)."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...
    def tell(self) -> int: ...


class FileSocket(StreamSocket):
    """The layer of a socket that sends files."""

    __slots__ = ()

    @property
    def sent_of_file(self) -> int:
        """How many bytes were sent of the file that is being sent, or of one that was cancelled or failed; or 0."""
        return _progress.get(self, 0)

    def write_file(self, file: BinaryFile, offset: int = 0, count: int | None = None) -> bool:
        """Send `count` bytes of a file, from `offset` on, in the order of writes; None: up to its end. Never parks.

        Returns True if all of it went to the kernel, False if anything is queued; True on a closed or finished socket.
        A file of the OS may be closed after the call; its position is left alone. Where the bytes do not go out as they
        are, as with TLS, a thread reads piece after piece. Raises like `send_file` what is known at once. If the file
        becomes shorter, or cannot be read, the socket closes with that error as the reason: its peer would wait for the
        rest.
        """
        self.loop.check_thread("write_file")
        source = _Source(file, checks.count("the offset of write_file", offset), "write_file")
        left = source.left(None if count is None else checks.count("the count of write_file", count))
        return self._is_muted() or _Writing(self, source, left).begin()

    @parks
    def send_file(self, file: BinaryFile, offset: int = 0, count: int | None = None) -> int:
        """Parks until `count` bytes of a file, from `offset` on, were sent; None: up to its end. Returns how many.

        It has its turn in the order of writes, and waits as `write_all` does. The file's position is left alone. Raises
        ShortFileError, an EOFError, if the file has fewer bytes or shrinks; TypeError for a text file, ValueError for
        what is no regular file, the OSError of reading it; ClosedError, or the OSError of send(2), when nothing can be
        sent any more. When it was cancelled, or has failed, the first `sent_of_file` bytes were sent.
        """
        task = checkpoint(self.loop, "send_file")
        source = _Source(file, checks.count("the offset of send_file", offset), "send_file")
        left = source.left(None if count is None else checks.count("the count of send_file", count))
        self._wait_for_room(task, 0)
        sending = _Sending(self, task, source, left)
        try:
            sending.run()
        except BaseException:
            _progress[self] = sending.sent
            sending.done = True
            self._go_on(sending)  # without it
            raise
        finally:
            source.close()
        _progress.pop(self, None)
        return sending.sent


class _InQueue:
    """A file in the write queue: called when its turn has come, and again until all of it was sent."""

    __slots__ = {
        "done": "Whether there is nothing more to do for it: all was sent, it has failed, or was given up.",
        "error": "What reading the file has raised; or None.",
        "feeds": "Whether its turn has come, and the next piece is to be read.",
        "left": "How many bytes are still to be sent; None: all up to the end, wherever that is.",
        "sent": "How many bytes the kernel has taken, or the write queue.",
        "sock": "The socket.",
        "source": "The file.",
    }

    def __init__(self, sock: FileSocket, source: _Source, left: int | None) -> None:
        self.sock, self.source, self.left = sock, source, left
        self.sent = 0
        self.done = left == 0
        self.feeds = False
        self.error: BaseException | None = None

    def _tell(self) -> None:
        """What comes next: the end, or the reading of a piece."""
        raise NotImplementedError

    def _stand_in_queue(self) -> None:
        """Append it to the queue, and send: that may be all, without a wait."""
        sock = self.sock
        sock._enqueue(self)
        try:
            sock._flush()
        except Exception as error:  # of a callable in the queue: it costs the socket, and is not the caller's
            sock.loop.handler_failed(sock, error)
        if not self.done:
            self.source.keep()

    def _reading(self) -> Callable[[], bytes]:
        """A function for a thread, which reads the next piece."""
        sock = self.sock
        most = min(max(_SMALL, min(_PIECE, sock.high_water)), sock.max_unsent or _PIECE)
        return self.source.reading(self.sent, most if self.left is None else min(most, self.left))

    def _feed(self, piece: bytes) -> None:
        """Put a piece before it into the queue; b"" is the end of the file."""
        if not isinstance(piece, bytes):
            raise TypeError(f"{self.source.call}: {self.source.name} is read as {type(piece).__name__}, not as bytes")
        if self.sock._is_sent():  # the socket has closed, or is broken: nothing is queued any more
            raise self.sock._cannot_write()
        if piece:
            self.feeds = False
            self._count(len(piece))
        elif self.left is None:
            self.done = True
        else:
            raise ShortFileError(self.source.name, self.sent, self.left)
        self.sock._go_on(self, piece)

    # -- when its turn has come, in whatever flushes the queue

    def __call__(self) -> None:
        """Everything before it was sent: go on with it."""
        if self.done:
            return
        if self.left == 0:
            self._finish()
        elif self.source.goes_directly(self.sock):
            self._send_directly(min(self.left or 0, _AT_ONCE))
        else:
            self.feeds = True
            self.sock._keep_place(self, HELD)
            self._tell()

    def _send_directly(self, size: int) -> None:
        """Have sendfile(2) send up to `size` bytes."""
        source = self.source
        try:
            sent = os.sendfile(self.sock.fd, source.fd, source.offset + self.sent, size)
        except OSError as error:
            if isinstance(error, BlockingIOError) or error.errno in _OF_THE_SOCKET:
                if self.sock._not_sent(error) == 0:
                    self.sock._keep_place(self, BLOCKED)
            elif error.errno in _NOT_SUPPORTED:
                source.direct = False
                self()
            else:
                self._finish(error)
            return None
        if not sent:
            return self._finish(ShortFileError(source.name, self.sent, self.left or 0))
        self._count(sent)
        self.sock._heard()
        if self.left == 0:
            return self._finish()
        return self.sock._keep_place(self, BLOCKED if sent < size else IDLE)

    def _finish(self, error: BaseException | None = None) -> None:
        self.done, self.error = True, error
        self._tell()

    def _count(self, size: int) -> None:
        """Note that so many bytes more are sent, or queued."""
        self.sent += size
        if self.left is not None:
            self.left -= size
        if self.left != 0:  # a small file is sent by one call, and has no progress to tell of
            _progress[self.sock] = self.sent


class _Writing(_InQueue):
    """A file of `write_file`: nobody waits for it."""

    __slots__ = ()

    def begin(self) -> bool:
        """Send it, as far as that goes now. Returns like `write`."""
        if not self.done:
            self._stand_in_queue()
        return self.sock._is_sent()

    def _tell(self) -> None:
        if self.done:
            self._end()
        else:
            call_in_thread(self.sock.loop, "write_file", self._reading(), self._was_read)
            self.sock._hold()

    def _was_read(self, piece: Any, error: BaseException | None) -> None:
        """Called by the loop, with what the thread has read, or None and what it has raised."""
        self.sock._release_hold()
        if self.sock._is_sent():
            return self._end()
        try:
            if error is not None:
                raise error
            self._feed(piece)
        except Exception as failure:
            self.error = failure
        if self.done or self.error is not None:
            self._end()
        return None

    def _end(self) -> None:
        _progress.pop(self.sock, None)
        self.source.close()
        if self.error is not None:
            self.sock.close(self.error)


class _Sending(_InQueue):
    """A file of `send_file`: a task waits for it, and has its pieces read."""

    __slots__ = {
        "piece": "What a thread has read last.",
        "reads": "Whether the outcome of a thread that reads is awaited.",
        "task": "The task that sends it.",
    }

    def __init__(self, sock: FileSocket, task: Waiter, source: _Source, left: int | None) -> None:
        _InQueue.__init__(self, sock, source, left)
        self.task = task
        self.reads = False
        self.piece = b""

    def run(self) -> None:
        """Parks until all of it was sent. Raises what prevents that."""
        if not self.done:
            self.sock._task_writes()
            self._stand_in_queue()
        while not self.done:
            if self.feeds:
                self._feed(self._read())
            else:
                self._wait(_SEND_FILE)
        if self.error is not None:
            raise self.error

    def _wait(self, kind: WaitKind) -> None:
        """Parks until something was done for it. Raises the error of a write when nothing can be sent any more."""
        if not self.sock._ask_for_flush(self.task):
            park(self.task, kind, self.sock)

    def _read(self) -> bytes:
        """Parks until a thread has read the next piece."""
        sock = self.sock
        self.reads = True
        sock._hold()  # the peer has no part in the wait for a disk
        try:
            call_in_thread(sock.loop, "send_file", self._reading(), self._was_read)
            while self.reads:
                self._wait(_READ_FILE)
        finally:
            sock._release_hold()
        if self.error is not None:
            raise self.error
        return self.piece

    def _was_read(self, piece: Any, error: BaseException | None) -> None:
        """Called by the loop, with what the thread has read, or None and what it has raised."""
        self.reads = False
        self.piece, self.error = piece, error
        if not self.done:  # otherwise it was given up meanwhile
            wake(self.task)

    def _tell(self) -> None:
        wake(self.task)


class _Source:
    """A file, from an offset on. One with a descriptor is read by that, which moves no position."""

    __slots__ = {
        "_file": "The file object.",
        "_kept": "`fd` in a list, if it is a duplicate: `pop` is atomic, and who has it closes it.",
        "_over": "Whether it is no longer needed: a thread that reads closes the duplicate.",
        "_reads": "Whether a thread reads.",
        "call": "What was called, in messages.",
        "direct": "Whether sendfile(2) may be tried.",
        "fd": "The file descriptor; -1: it has none.",
        "name": "The file in messages.",
        "offset": "Where in the file the first byte is.",
    }

    def __init__(self, file: Any, offset: int, call: str) -> None:
        self._kept: list[int] = []
        self._over = self._reads = False
        self._file, self.offset, self.call = file, offset, call
        self.name = checks.shown(getattr(file, "name", file))
        if isinstance(file, io.TextIOBase):
            raise TypeError(f"{call} sends bytes: open {self.name} in binary mode")
        raw = getattr(getattr(file, "file", file), "raw", file)  # of a tempfile, of a buffered one
        self.fd = raw.fileno() if isinstance(raw, io.FileIO) else -1
        if self.fd >= 0 and not raw.readable():
            raise io.UnsupportedOperation(f"{call} reads {self.name}, which is open for writing only")
        self.direct = self.fd >= 0 and hasattr(os, "sendfile")
        if self.direct and not stat.S_ISREG(os.fstat(self.fd).st_mode):
            raise ValueError(f"{call} sends regular files, and {self.name} is none: read it, and write_all that")
        if self.fd < 0 and not all(callable(getattr(file, name, None)) for name in ("read", "seek", "tell")):
            raise TypeError(f"{call} needs a file, with read, seek and tell, not {checks.shown(file)}")

    def left(self, count: int | None) -> int | None:
        """How many bytes are to be sent; None: as many as there are. Raises ShortFileError if there are fewer."""
        if self.fd < 0:
            return count
        there = max(0, os.fstat(self.fd).st_size - self.offset)
        if count is not None and count > there:
            raise ShortFileError(self.name, 0, count, there)
        return there if count is None else count

    def keep(self) -> None:
        """Have a descriptor of its own: the file may be closed meanwhile, and its number be another file's."""
        if self.fd >= 0:
            self.fd = os.dup(self.fd)
            self._kept.append(self.fd)

    def reading(self, at: int, size: int) -> Callable[[], bytes]:
        """`read`, for a thread: the file stays open for that."""
        self._reads = True
        return partial(self.read, at, size)

    def close(self) -> None:
        """Close the duplicate, unless a thread reads: then that does so afterwards."""
        self._over = True
        if not self._reads:
            with suppress(IndexError):
                os.close(self._kept.pop())

    def __del__(self) -> None:
        self._reads = False  # no thread could be started
        self.close()

    def goes_directly(self, sock: FileSocket) -> bool:
        """Whether the OS socket sends bytes as they are."""
        return self.direct and type(sock.sock) in OS_SOCKETS and not sock._has_writer()

    def read(self, at: int, size: int) -> bytes:
        """Read up to `size` bytes, b"" at the end. Called in a thread."""
        try:
            if self.fd >= 0:
                return os.pread(self.fd, size, self.offset + at)
            return self._read_object(self.offset + at, size)
        finally:
            self._reads = False
            if self._over:
                self.close()

    def _read_object(self, offset: int, size: int) -> bytes:
        """`read` of a file without a descriptor, whose position is put back."""
        file = self._file
        before = file.tell()
        try:
            file.seek(offset)
            piece: bytes = file.read(size)
        finally:
            file.seek(before)
        return piece


_SEND_FILE = WaitKind("send_file", FileSocket._leave_wait_queue)
_READ_FILE = WaitKind("send_file", FileSocket._leave_wait_queue, "{0} of {1!r}: reading the file", by_thread=True)
