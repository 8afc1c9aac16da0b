"""Nodes and pools: where backends are, how they have done so far, and which one to try next.

Rules: a node is one object however many pools it is in, so that what is known of it is known to all; a node that is
dead, or was put aside for its failures, is passed over. What does not belong here: connections to nodes (backends), and
who waits for one (queues).
"""

from __future__ import annotations

import os
import random
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from dangagreen import SocketAddress, Task, in_thread, sleep, spawn
from perlbal.language import CommandError
from perlbal.parameters import POOL_TABLE, PoolParameters

DEAD_SECONDS = 1.0  # after a failure to connect
NOT_VERIFIED_SECONDS = 60.0  # after a verification that was refused: it is used unverified
LOOK_SECONDS = 3.0  # how often a node file is looked at
_IPV4 = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3})(?::(\d+))?\Z")
_IPV6 = re.compile(r"\[([0-9a-fA-F:.]+(?:%\w+)?)\](?::(\d+))?\Z")
_HOST = re.compile(r"([A-Za-z0-9_](?:[\w-]*\w)?(?:\.[\w-]*\w)*\.?)(?::(\d+))?\Z", re.ASCII)


def parse_node(text: str) -> tuple[str, SocketAddress]:
    """The name of a node, which has its port, and its address. Raises ValueError for what is none.

    `ip[:port]`, `[ipv6][:port]`, `host[:port]`, `unix:/path`.
    """
    if text.startswith("unix:/") and "\0" not in text:
        return text, text[5:]
    match = _IPV4.match(text) or _IPV6.match(text) or _HOST.match(text)
    port = int(match[2] or 80) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError(f"{text!r} is no ip:port")
    if match.re is _IPV4 and any(int(part) > 255 for part in match[1].split(".")):
        raise ValueError(f"{text!r} is no ip:port")
    if match.re is _HOST and match[1].rstrip(".").rpartition(".")[2].isdigit():  # the resolver takes 10.1 as 10.0.0.1
        raise ValueError(f"{text!r} is no ip:port")
    name = f"[{match[1]}]:{port}" if match.re is _IPV6 else f"{match[1]}:{port}"
    return name, (match[1], port)


class Node:
    """One backend server, and what is known of it. Times are seconds since 1970, but for those of the loop's clock."""

    def __init__(self, text: str) -> None:
        self.name, self.address = parse_node(text)
        self.attempts = self.connects = self.requests = self.verifies = 0
        self.last_attempt = self.last_connect = self.last_response = 0
        self.codes: deque[int] = deque(maxlen=500)
        self.active = 0  # requests under way
        self.failures = 0  # one after the other
        self.dead_until = self.ejected_until = self.unverified_until = 0.0  # on the loop's clock

    def attempted(self) -> None:
        """A connection is being made."""
        self.attempts += 1
        self.last_attempt = int(time.time())

    def connected(self) -> None:
        self.connects += 1
        self.last_connect = int(time.time())

    def answered(self, code: int) -> None:
        self.last_response = int(time.time())
        self.codes.append(code)
        self.failures = 0

    def has_failed(self, now: float, pool: Pool | None) -> None:
        """A request has failed by it, or a connection could not be made."""
        self.failures += 1
        if pool is not None and 0 < pool.eject_failures <= self.failures:
            self.ejected_until = now + pool.eject_seconds
            self.failures = 0  # it begins anew when it returns

    def __repr__(self) -> str:
        return f"<Node {self.name}>"


class Nodes(dict[str, Node]):
    def named(self, text: str) -> Node:
        """The node of this text. Raises ValueError like `parse_node`."""
        name = parse_node(text)[0]
        if (node := self.get(name)) is None:
            node = self[name] = Node(name)
        return node


class Pool(PoolParameters):
    """A set of nodes, with a count of how often each was chosen (`uses`). Each parameter is an attribute."""

    look_seconds = LOOK_SECONDS

    def __init__(self, name: str, nodes: Nodes) -> None:
        self.name = name
        self.nodes = nodes
        self.uses: dict[Node, int] = {}
        self.services = 0  # how many use it
        self.on_change: list[Callable[[], object]] = []  # called when nodes were removed
        self._turn = 0
        self._context: ssl.SSLContext | None = None  # of connections to its nodes
        self._watching: Task[None] | None = None
        self._mtime = 0.0
        for row in POOL_TABLE.values():
            setattr(self, row.name, row.initial(self))

    def set(self, key: str, text: str) -> None:
        """Set a parameter as a command does. Raises CommandError, and then has changed nothing."""
        row = POOL_TABLE.get(key)
        if row is None:
            raise CommandError(f"Unknown pool parameter '{key}'")
        value = row.parse(self, text)
        if key == "nodefile":
            return self.set_nodefile(None if text == "none" else text)
        before = getattr(self, key)
        setattr(self, key, value)
        if key.startswith("tls"):
            try:
                self._context = self._make_context() if self.tls else None
            except OSError as error:
                setattr(self, key, before)
                raise CommandError(f"{text}: {error.strerror or error}") from None
        return None

    def _make_context(self) -> ssl.SSLContext:
        """What TLS to the nodes is to be like. Raises OSError."""
        context = ssl.create_default_context(cafile=self.tls_ca_file)
        if not self.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    # -- its nodes

    def add(self, text: str) -> Node:
        """Add a node, or replace it: its count of uses is 0 then. Raises ValueError for what is no node."""
        node = self.nodes.named(text)
        self.uses[node] = 0
        return node

    def remove(self, text: str) -> None:
        """Remove a node; nothing, if it is not there. Raises ValueError for what is no node."""
        if self.uses.pop(self.nodes.named(text), None) is not None:
            self._has_changed()

    def replace(self, names: Iterable[str]) -> None:
        """Have these nodes and no others; those that stay keep their counts."""
        wanted = [self.nodes.named(name) for name in names]
        self.uses = {node: self.uses.get(node, 0) for node in wanted}
        self._has_changed()

    def tls_options(self, node: Node) -> dict[str, Any]:
        """The arguments of `connect_to` that make a connection to a node a TLS one."""
        if self._context is None:
            return {}
        host = node.address[0] if isinstance(node.address, tuple) else None
        return {"tls": self._context, "server_hostname": self.tls_name or host or "localhost"}

    def _has_changed(self) -> None:
        for tell in self.on_change:
            tell()

    # -- choosing

    def choose(self, now: float, but: Callable[[Node], bool] = lambda node: False) -> Node | None:
        """The next node to try, `but` for those for which this is true; None if none may be tried now.

        Those that were put aside for their failures are taken if there are no others.
        """
        able = [node for node in self.uses if node.dead_until <= now and not but(node)]
        able = [node for node in able if node.ejected_until <= now] or able
        if not able:
            return None
        if self.balance_method == "least_used":
            least = min(node.active for node in able)
            node = random.choice([node for node in able if node.active == least])
        elif self.balance_method == "round_robin":
            self._turn += 1
            node = min(able, key=self._distance)
            self._turn = list(self.uses).index(node)
        else:
            node = random.choice(able)
        self.uses[node] += 1
        return node

    def _distance(self, node: Node) -> int:
        """How many steps it is from the one whose turn it is."""
        return (list(self.uses).index(node) - self._turn) % len(self.uses)

    # -- a file with the nodes

    def set_nodefile(self, path: str | None) -> None:
        """Have the nodes that a file lists; None: no file any more. Raises CommandError if it is not there."""
        if path is None:
            self.nodefile = None
        else:
            try:
                mtime, names = read_nodefile(path)
            except OSError:
                raise CommandError("File not found") from None
            self.nodefile, self._mtime = path, mtime
            self.replace(names)
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def watch_nodefile(self) -> None:
        """Begin to look whether the file has changed, if there is one; called when the loop runs."""
        if self.nodefile is not None and (self._watching is None or self._watching.done):
            self._watching = spawn(self._watch, self.nodefile)

    def _watch(self, path: str) -> None:
        """Parks for ever: reads the file again each time that it has changed. An error changes nothing."""
        while True:
            sleep(self.look_seconds)
            try:
                if in_thread(os.stat, path).st_mtime != self._mtime:
                    self._mtime, names = in_thread(read_nodefile, path)
                    self.replace(names)
            except OSError:  # it may be about to be replaced
                continue


def read_nodefile(path: str) -> tuple[float, list[str]]:
    """When the file was changed, and its nodes: `ip[:port]` on lines of their own; other lines are skipped."""
    with open(path, encoding="latin-1") as file:
        mtime = os.fstat(file.fileno()).st_mtime
        names = []
        for line in file:
            try:
                names.append(parse_node(line.partition("#")[0].strip())[0])
            except ValueError:
                continue
    return mtime, list(dict.fromkeys(names))
