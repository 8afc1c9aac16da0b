"""bind(2): listening OS sockets for the addresses of one server.

Rules: everything is checked, and looked up, before anything is opened; where one address cannot be had, the sockets
and files of those before it go again, and the error names it. The file of a Unix socket has its mode and owner before
listen(2), so that nobody connects meanwhile whom they keep out. What does not belong here: accepting.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable
from typing import Any, NamedTuple

from dangagreen import checks
from dangagreen.sockets.addresses import host_and_port, is_path, unix_path

Owner = tuple[str | int | None, str | int | None]

_OTHERS = "a path, a listening socket, or a list of these"
_OF_ANOTHER_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # this host lacks it, and may have the next one
_PATH_ONLY = getattr(os, "O_PATH", 0)  # Linux's
_PORT_ATTEMPTS = 32  # free ports of the first family that are tried, until one is free in the others as well


class Binding(NamedTuple):
    """How addresses are bound: the arguments of `serve`."""

    backlog: int = 1024
    reuse_port: bool = False
    ipv6_only: bool = True
    mode: int | None = None
    owner: Owner | None = None


class SocketFile:
    """The file of a Unix socket that was bound here."""

    __slots__ = {
        "_identity": "Device, inode, and process id: after a fork the child must not unlink the file.",
        "_path": "Its absolute path: the program may go to another folder, as daemons do.",
    }

    def __init__(self, path: str | bytes) -> None:
        self._path = os.path.abspath(path)
        self._identity = self._look()

    def _look(self) -> tuple[int, int, int]:
        status = os.stat(self._path)
        return status.st_dev, status.st_ino, os.getpid()

    def permit(self, mode: int | None, owner: Any) -> None:
        """chmod(2) and chown(2), in this order: who has given it away may not be allowed to change its mode.

        In a folder where others may rename, a link in its place must not have them change another file: on Linux they
        are of the very file that was bound, by a descriptor of it.
        """
        with contextlib.ExitStack() as undo:
            path: str | bytes = self._path
            if _PATH_ONLY:
                fd = os.open(path, _PATH_ONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                undo.callback(os.close, fd)
                if os.path.exists(by_number := f"/proc/self/fd/{fd}"):
                    path = by_number
            status = os.stat(path)
            if (status.st_dev, status.st_ino) != self._identity[:2]:
                raise OSError(errno.ESTALE, "another file has taken its place")
            if mode is not None:
                os.chmod(path, mode)
            if owner is not None:
                os.chown(path, *owner)

    def remove(self) -> None:
        """Unlink it, unless another process has taken the name; errors are ignored."""
        with contextlib.suppress(OSError):
            if self._look() == self._identity:
                os.unlink(self._path)


class Bound(NamedTuple):
    """A listening OS socket, its file if it has one, and whether it was opened here."""

    sock: Any
    file: SocketFile | None
    is_ours: bool

    def undo(self) -> None:
        """Close it, and remove its file; nothing, if it listened already."""
        if self.is_ours:
            self.sock.close()
            if self.file is not None:
                self.file.remove()


class Target(NamedTuple):
    """One address of a server, looked up."""

    address: Any
    is_same: object  # equal for equal addresses
    candidates: list[tuple[int, Any]]  # families and OS addresses, the first that this host has; none: it listens

    def wants_any_port(self) -> bool:
        """Whether it is of IP, with port 0."""
        return any(family != socket.AF_UNIX and not sockaddr[1] for family, sockaddr in self.candidates)

    def bind(self, binding: Binding, port: int) -> Bound:
        """Open the OS socket, in the place of port 0 on `port`. Raises OSError, naming the address."""
        if not self.candidates:
            return Bound(self.address, None, is_ours=False)
        *first, last = self.candidates
        for family, sockaddr in first:
            try:
                return _bind_one(family, sockaddr, binding, port)
            except OSError as error:
                if error.errno not in _OF_ANOTHER_ADDRESS:
                    raise
        return _bind_one(*last, binding, port)


def bind(address: Any, binding: Binding) -> list[Bound]:
    """Open a listening OS socket for each address: (host, port), a path, or a socket that listens already.

    All that have port 0 get the same port. The file of a Unix socket of a dead server is replaced. Raises OSError,
    naming the address, if bind(2), listen(2), chmod(2) or chown(2) fails; TypeError or ValueError for what is no
    address, for no or equal addresses, and for options that mean nothing for any of them. Nothing is left open then.
    """
    addresses = address if isinstance(address, list) else [address]
    if not addresses:
        raise ValueError("there is no address to listen on: the list is empty")
    binding = _checked(binding)
    targets = [_target(one) for one in addresses]
    _check_differ(targets)
    _check_meaning(binding, targets)
    for _ in range(_PORT_ATTEMPTS):
        if (bound := _bind_all(targets, binding)) is not None:
            return bound
    raise OSError(errno.EADDRINUSE, f"cannot listen on {address!r}: no port was found that is free for each of them")


# -- what was given


def _checked(binding: Binding) -> Binding:
    """Counts as int, names of users and groups as numbers."""
    mode, owner = binding.mode, binding.owner
    backlog = min(checks.count("the backlog", binding.backlog), 0x7FFFFFFF)  # the kernel has a limit far below it
    if mode is not None and (mode := checks.count("mode", mode)) > 0o777:
        raise ValueError(f"mode is not between 0 and 0o777: {mode:#o}")
    if owner is not None:
        if not isinstance(owner, tuple) or len(owner) != 2:
            raise TypeError(f"owner is a pair (user, group), not {checks.shown(owner)}")
        user, group = owner
        owner = (
            _number("user", user, lambda name: pwd.getpwnam(name).pw_uid),
            _number("group", group, lambda name: grp.getgrnam(name).gr_gid),
        )
    return binding._replace(backlog=backlog, mode=mode, owner=owner)


def _number(what: str, name: str | int | None, look_up: Callable[[str], int]) -> int:
    """The number of a user or a group; -1, which chown(2) leaves as it is, for None."""
    if name is None:
        return -1
    if not isinstance(name, str):
        return checks.count(f"the {what} of owner", name)
    try:
        return look_up(name)
    except (KeyError, ValueError):  # ValueError: it holds a NUL, or cannot be encoded
        raise ValueError(f"owner: there is no {what} {name!r}") from None


def _target(address: Any) -> Target:
    if isinstance(address, socket.socket):
        _check_listening(address)
        return Target(address, address.fileno(), [])
    if is_path(address):
        path = unix_path(address)
        return Target(address, os.fsencode(path), [(socket.AF_UNIX, path)])
    name = host_and_port(address, _OTHERS)
    if not name.host:
        name = name._replace(host="::" if name.family else "0.0.0.0")
    candidates = name.look_up(address, socket.AI_PASSIVE)
    return Target(address, tuple(candidates), candidates)


def _check_listening(sock: socket.socket) -> None:
    if sock.fileno() < 0:
        raise ValueError(f"{sock!r} is closed")
    if sock.type != socket.SOCK_STREAM:
        raise TypeError(f"a server needs a stream, and {sock!r} is for datagrams")
    try:
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:  # EBADF: its descriptor was closed by other means
        raise OSError(error.errno, f"cannot listen on {sock!r}: {error.strerror}") from None
    if not listens:
        raise ValueError(f"{sock!r} is not listening: call its listen(), or pass an address")


def _check_differ(targets: list[Target]) -> None:
    known = set()
    for target in targets:
        if target.is_same in known:
            raise ValueError(f"{target.address!r} is given twice")
        known.add(target.is_same)


def _check_meaning(binding: Binding, targets: list[Target]) -> None:
    """Raise ValueError for options that mean nothing for any of the addresses."""
    ours = [candidate for target in targets for candidate in target.candidates]
    if not ((binding.mode is None and binding.owner is None) or any(makes_file(*one) for one in ours)):
        raise ValueError("mode and owner are for the path of a Unix socket, and there is none to be made")
    if not (binding.ipv6_only or any(family == socket.AF_INET6 for family, _ in ours)):
        raise ValueError("ipv6_only=False is for an IPv6 address, such as ('::', 80), and there is none to be opened")


def makes_file(family: int, sockaddr: Any) -> bool:
    """Whether to bind it makes a file: a Unix socket that is not abstract."""
    return family == socket.AF_UNIX and os.fsencode(sockaddr)[:1] != b"\0"


# -- opening


def _bind_all(targets: list[Target], binding: Binding) -> list[Bound] | None:
    """Open them in order. Returns None if the port that was free for the first one with port 0 is not for another."""
    bound: list[Bound] = []
    port = 0
    with contextlib.ExitStack() as undo:
        for target in targets:
            try:
                bound.append(target.bind(binding, port))
            except OSError as error:
                if port and error.errno == errno.EADDRINUSE and target.wants_any_port():
                    return None
                raise
            undo.callback(bound[-1].undo)
            if not port and target.wants_any_port():
                port = bound[-1].sock.getsockname()[1]
        undo.pop_all()
    return bound


def _bind_one(family: int, sockaddr: Any, binding: Binding, port: int) -> Bound:
    if family != socket.AF_UNIX and not sockaddr[1]:
        sockaddr = (sockaddr[0], port, *sockaddr[2:])
    file: SocketFile | None = None
    try:
        if makes_file(family, sockaddr):
            _remove_stale(sockaddr)
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            _set_options(sock, binding)
            sock.bind(sockaddr)
            if makes_file(family, sockaddr):
                file = SocketFile(sockaddr)
                undo.callback(file.remove)
                if binding.mode is not None or binding.owner is not None:
                    file.permit(binding.mode, binding.owner)
            sock.listen(binding.backlog)
            undo.pop_all()
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {sockaddr!r}: {error.strerror or error}") from None
    return Bound(sock, file, is_ours=True)


def _set_options(sock: socket.socket, binding: Binding) -> None:
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if binding.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(binding.ipv6_only)))


def _remove_stale(path: str | bytes) -> None:
    """Unlink the file of a Unix socket on which no process listens (ECONNREFUSED); nothing else."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)  # its owner may be busy, with a full queue
                if probe.connect_ex(path) == errno.ECONNREFUSED:
                    os.unlink(path)
