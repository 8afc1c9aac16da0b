"""The access log: a line for each request in combined format, and, if that is asked for, where its time went.

Lines are collected for a second, or until there are many, and a thread appends them: the loop waits for no disk. A file
that was renamed or removed (log rotation) is opened anew. What does not belong here: when a request is over (clients).
"""

from __future__ import annotations

import logging
import os
import time
from functools import lru_cache
from typing import Any

from dangagreen import current_loop, in_thread, spawn

FLUSH_SECONDS = 1.0
MANY = 1000  # lines that are written at once
_QUOTED = str.maketrans({code: f"\\x{code:02x}" for code in (*range(32), 34, 92, *range(127, 256))})
_log = logging.getLogger("perlbal")


class AccessLog:
    """The log of one service, or of several that name the same file."""

    def __init__(self, path: str, times: bool) -> None:
        """Raises OSError if the file cannot be opened."""
        self.path, self.times = path, times
        self._file = _open(path)
        self._lines: list[str] = []
        self._timer: Any = None
        self._writing = self._closed = False

    def note(self, client: Any) -> None:
        """The request of a Client was answered."""
        self._lines.append(self._line(client))
        if client.service.world.stopping or self._closed:
            self.flush()
        elif self._timer is None:
            self._timer = current_loop().add_timer(FLUSH_SECONDS, self._begin_writing)
        elif len(self._lines) == MANY:
            self._begin_writing()

    def _line(self, client: Any) -> str:
        head, exchange = client.head, client.exchange
        request, referer, agent = "-", "-", "-"
        if head is not None:
            request = f"{head.first_line()}".translate(_QUOTED)
            referer = head.get("referer", "-").translate(_QUOTED)
            agent = head.get("user-agent", "-").translate(_QUOTED)
        line = (
            f"{client.peer_ip_string() or '-'} - - [{_stamp(int(time.time()))}]"
            f' "{request}" {client.code} {client.sent} "{referer}" "{agent}"'
        )
        if self.times:
            queue, connect, answer, node = 0.0, 0.0, 0.0, ""
            if exchange is not None:
                queue, connect, answer = exchange.queue_seconds, exchange.connect_seconds, exchange.response_seconds
                node = exchange.node
            total = client.loop.clock() - client.began
            line += f" node={node or '-'} queue={queue:.6f} connect={connect:.6f} answer={answer:.6f} total={total:.6f}"
        return line + "\n"

    # -- to the file

    def _begin_writing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines and not self._writing:
            self._writing = True
            spawn(self._write)

    def _write(self) -> None:
        """A task: has a thread write what there is, and what has come meanwhile."""
        try:
            while self._lines:
                in_thread(self._append, self._take())
        finally:
            self._writing = False
            if self._closed:
                self.close()

    def _take(self) -> bytes:
        lines, self._lines = self._lines, []
        return "".join(lines).encode("latin-1")

    def _append(self, data: bytes) -> None:
        """Called in a thread."""
        try:
            if not self._is_in_place():
                if self._file >= 0:
                    os.close(self._file)
                self._file = _open(self.path)
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            _log.error("the access log %s cannot be written: %s", self.path, error.strerror)

    def _is_in_place(self) -> bool:
        if self._file < 0:
            return False
        try:
            there, ours = os.stat(self.path), os.fstat(self._file)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def flush(self) -> None:
        """Write what there is, in place: the program is about to end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            self._append(self._take())

    def close(self) -> None:
        """Write what there is, and close the file, unless a thread is writing: then that is awaited."""
        self._closed = True
        self.flush()
        if not self._writing and self._file >= 0:
            os.close(self._file)
            self._file = -1


def open_log(path: str, times: bool) -> AccessLog | None:
    """The log that parameters ask for, or None. Raises OSError."""
    return AccessLog(path, times) if path not in ("none", "") else None


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


@lru_cache(maxsize=4)
def _stamp(seconds: int) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(seconds))
