"""Worlds of perlbal for its tests, and what commands answer in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import dangagreen as d
from perlbal.commands import Context, execute
from perlbal.program import make_world
from perlbal.services import Role, Service, World

# A service of each role; `backend` is the port of the one node.
EACH_ROLE = """
CREATE POOL b
CREATE POOL a
POOL a ADD 127.0.0.1:{backend}
CREATE SERVICE rp
SET role = reverse_proxy
SET listen = 127.0.0.1:0
SET pool = a
SET persist_backend = on
SET persist_client = on
ENABLE rp
CREATE SERVICE ws
SET role = web_server
SET docroot = /
CREATE SERVICE sel
SET role = selector
ENABLE sel
"""


def ask(world: World, *lines: str, context: Context | None = None) -> list[str]:
    """What the commands of a management connection answer."""
    answers: list[str] = []
    context = context or Context(verbose=True)
    for line in lines:
        execute(world, context, line, answers.append)
    return answers


def configured(text: str, world: World | None = None) -> World:
    """A world with this configuration, which has to be right."""
    world = world or make_world()
    assert [line for line in ask(world, *text.splitlines()) if line != "OK"] == []
    return world


@contextlib.contextmanager
def serving(text: str) -> Iterator[World]:
    """A world with this configuration, whose listeners are closed at the end; the loop is this test's."""
    d.Socket.reset()
    world = configured(text)
    try:
        yield world
    finally:
        world.stopping = True
        for service in world.services.values():
            if service.enabled:
                service.enabled = False
                if service.listener is not None:
                    service.listener.close()
                service.role.closed()
        d.Socket.reset()


def address(world: World, name: str) -> tuple[str, int]:
    return world.services[name].listener.address


def exchange(world: World, name: str, *pieces: bytes | str, seconds: float = 10) -> bytes:
    """What a client of a service hears for these bytes, until the service ends the connection."""
    with d.connect(address(world, name)) as sock, d.timeout(seconds):
        for piece in pieces:
            sock.write_all(piece if isinstance(piece, bytes) else piece.encode("latin-1"))
            sock.drain()
        return sock.read_to_end(1 << 22)


def get(world: World, name: str, path: str = "/", *lines: str) -> tuple[int, dict[str, str], bytes]:
    """The status, the fields and the body of an answer."""
    request = "\r\n".join([f"GET {path} HTTP/1.0", *lines, "", ""])
    head, _, body = exchange(world, name, request).partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    return int(status.split(" ")[1]), dict(field.split(": ", 1) for field in fields), body


def web(tmp_path: Path, name: str = "ws", plugins: str = "none", *lines: str) -> str:
    """The configuration of a web server with one file."""
    (tmp_path / "index.html").write_text("hello\n")
    return "\n".join(
        [
            f"CREATE SERVICE {name}",
            "SET role = web_server",
            "SET listen = 127.0.0.1:0",
            f"SET docroot = {tmp_path}",
            f"SET plugins = {plugins}",
            *lines,
            f"ENABLE {name}",
        ]
    )


def context(name: str) -> Context:
    """Of a connection that has used this service."""
    return Context(name, True)


class Asking:
    """As much of a client as these hooks look at."""

    def __init__(self, uri: str, host: str = "") -> None:
        self.head = self
        self.uri, self.host = uri, host


CONFIGURATION = """
# a comment
CREATE POOL a
  POOL a ADD 127.0.0.1:19000
CREATE SERVICE rp
  SET role = reverse_proxy
  SET pool = a
CREATE SERVICE ws
  SET role = web_server
  SET docroot = /tmp/
ENABLE ws
CREATE SERVICE sel
  SET role = selector
CREATE SERVICE mgmt
  SET role = management
"""


class Inert(Role):
    """A role that does nothing, and notes what it is told."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.told: list[str] = []

    def opened(self) -> None:
        self.told.append("opened")

    def closed(self) -> None:
        self.told.append("closed")

    def changed(self, key: str) -> None:
        self.told.append(key)


def inert_world() -> World:
    """A world in which roles do nothing."""
    world = make_world()
    for name in ("reverse_proxy", "web_server", "selector", "management"):
        world.roles[name] = type(name, (Inert,), {"name": name})
    return world
