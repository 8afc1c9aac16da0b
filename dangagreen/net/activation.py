"""Socket activation: the listening sockets that systemd, or another supervisor, has opened for this process.

The protocol is that of sd_listen_fds(3): descriptors from 3 on, their number in LISTEN_FDS, the process that they are
for in LISTEN_PID, their names in LISTEN_FDNAMES. Rules: each socket is handed out once; children inherit neither the
sockets nor the variables. What does not belong here: serving, and opening sockets.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

_FIRST = 3  # SD_LISTEN_FDS_START
_UNNAMED = "unknown"  # what systemd calls a descriptor without a name
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def listen_fds() -> dict[str, list[socket.socket]]:
    """The sockets that were passed to this process by socket activation, by name; a list of them can be served.

    Empty if there are none, or if they are for another process (LISTEN_PID). The variables are removed from the
    environment, so a second call finds none, and neither does a child. Raises ValueError for variables that make no
    sense, OSError for a descriptor that is not open, or no socket: then none was taken.
    """
    pid, number, names = (os.environ.get(name) for name in _VARIABLES[:3])
    for name in _VARIABLES:
        os.environ.pop(name, None)
    if pid is None or number is None or _count("LISTEN_PID", pid) != os.getpid():
        return {}
    fds = range(_FIRST, _FIRST + _count("LISTEN_FDS", number))
    for fd in fds:
        _check(fd)
    each = names.split(":") if names and fds else [_UNNAMED] * len(fds)
    if len(each) != len(fds):
        raise ValueError(f"LISTEN_FDNAMES has {len(each)} names for {len(fds)} descriptors: {names!r}")
    found: dict[str, list[socket.socket]] = {}
    for fd, name in zip(fds, each, strict=True):
        os.set_inheritable(fd, False)
        found.setdefault(name, []).append(socket.socket(fileno=fd))
    return found


def _count(variable: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise ValueError(f"{variable} is no count: {value!r}")
    return int(value)


def _check(fd: int) -> None:
    """Raise OSError unless the descriptor is an open socket."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError as error:
        raise OSError(error.errno, f"descriptor {fd} of LISTEN_FDS: {error.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.ENOTSOCK, f"descriptor {fd} of LISTEN_FDS is no socket")
