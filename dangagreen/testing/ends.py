"""Open descriptors in words, for the leak check: what each is, where it was opened, which two are one connection.

Rules: two ends of one connection are one line, as one fault has left both. What does not belong here: which are leaks.
"""

from __future__ import annotations

import fcntl
import gc
import os
import socket
import tracemalloc
from collections.abc import Iterable
from io import FileIO
from typing import Any, NamedTuple

from dangagreen.loop.births import Birth
from dangagreen.loop.handlers import Handler
from dangagreen.sockets.endpoint import in_words, peer_of

_HAVE_FD = socket.socket, FileIO
_LIBRARY = os.path.dirname(os.__file__) + os.sep  # the standard library


class End(NamedTuple):
    """An open descriptor."""

    what: str
    local: str | None = None  # its addresses, if it is an end of a connection
    peer: str | None = None


def in_pairs(ends: Iterable[End]) -> list[str]:
    """A line for each of these, and one for both ends of a connection."""
    lines: list[str] = []
    single: dict[tuple[str | None, str | None], int] = {}  # addresses of an end, to its line
    for end in ends:
        if end.local and end.peer and (place := single.pop((end.peer, end.local), None)) is not None:
            lines[place] += f"; its other end: {end.what.removeprefix('socket: ')}"
            continue
        single[end.local, end.peer] = len(lines)
        lines.append(end.what)
    return lines


def end_of_handler(handler: Handler, birth: Birth | None) -> End:
    """A socket, or something else that is registered; `birth` is None if it is not known."""
    sock: Any = handler
    connection = hasattr(handler, "peer_addr_string")
    local, peer = (sock.local_addr_string(), sock.peer_addr_string()) if connection else (None, None)
    opened = ""
    if birth is not None and birth.place is not None:
        opened = f", opened at {birth.place}" + ("" if birth.task is None else f" by task {birth.task!r}")
    elif birth is not None and local:
        opened = f", accepted at {local}"
    return End(f"socket: {handler!r}, fd {handler.fd}{opened}", local, peer)


def end_of_fd(fd: int, what: str) -> End:
    """A descriptor that is not registered; `what` is what the system calls it."""
    made = _made_at(fd)
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return _end_of_file(fd, what, made)
    try:
        local, peer = in_words(_name_of(sock)), in_words(peer_of(sock))
    finally:
        sock.detach()
    to = f" to {peer}" if peer else ""
    return End(f"fd {fd}: {what}" + (f", {local}{to}" if local or peer else "") + made, local, peer)


def _end_of_file(fd: int, what: str, made: str) -> End:
    if not what.startswith("pipe:["):
        return End(f"fd {fd}: {what}{made}")
    ways = [f"{what} to write", f"{what} to read"]
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        ways.reverse()
    return End(f"fd {fd}: {ways[0]}{made}", *ways)


def _made_at(fd: int) -> str:
    """Where the program has made the object that has this fd, in words, while tracemalloc notes that; otherwise ""."""
    if tracemalloc.is_tracing():
        for one in gc.get_objects():
            if not issubclass(type(one), _HAVE_FD) or _fd_of(one) != fd:
                continue
            if traced := tracemalloc.get_object_traceback(one):
                places = [(frame.filename, frame.lineno) for frame in reversed(traced)]  # the innermost first
                of_program = (place for place in places if not _is_of_library(place[0]))
                return ", made at {}:{}".format(*next(of_program, places[0]))
    return ""


def _is_of_library(file: str) -> bool:
    return file.startswith(_LIBRARY) and "-packages" not in file


def _fd_of(one: Any) -> int:
    if isinstance(one, socket.socket):
        return socket.socket.fileno(one)
    try:
        return FileIO.fileno(one)
    except ValueError:  # it is closed
        return -1


def _name_of(sock: socket.socket) -> Any:
    try:
        return sock.getsockname()
    except OSError:
        return None
