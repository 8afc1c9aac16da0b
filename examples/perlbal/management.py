"""The management port: a connection sends commands, a line each, and hears what they answer. Sequential style.

A connection whose first line begins like a request of HTTP is one: it gets a page, and is closed. Any bytes at all may
come. What does not belong here: the commands.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any
from urllib.parse import unquote

from dangagreen import LimitError, Listener, Socket, current_loop, serve
from perlbal.commands import Context, execute
from perlbal.services import Role, Service, World

HTTP = (b"GET ", b"HEAD ", b"POST ")
LEAVE = ("quit", "exit")
HEADS = 100  # lines of a request that are read, and not looked at


class Manager(Socket):
    """One connection of the management port."""

    __slots__ = ("created", "service")
    danga_class = "Perlbal::ClientManage"
    max_unsent: int | None = None

    def __init__(self, sock: Any, service: Service) -> None:
        super().__init__(sock)
        self.service = service
        self.created = current_loop().time()

    def as_string(self) -> str:
        return f"{self.danga_class}(R): open to {self.peer_addr_string() or 'a Unix socket'}"


class Management(Role):
    name = "management"

    def listen(self, address: Any) -> Listener:
        return serve(address, self.converse, socket_class=partial(Manager, service=self.service))

    def converse(self, sock: Manager) -> None:
        """Parks until the connection ends."""
        world = self.service.world
        context = Context(verbose=True)
        first = True
        while line := _read_line(sock):
            if first and line.startswith(HTTP):
                _answer_request(world, sock, line)
                return
            first = False
            text = line.decode("latin-1").rstrip("\r\n")
            if text in LEAVE:
                return
            answered: list[str] = []
            execute(world, context, text, answered.append)
            sock.write_all("".join(f"{one}\r\n" for one in answered).encode("latin-1", "replace"))


def _read_line(sock: Manager) -> bytes:
    """Parks until a line is there; b"" at the end, also in the middle of a line. A line without end is refused."""
    try:
        return sock.read_line()
    except EOFError:
        return b""
    except LimitError:
        sock.write_all(b"ERROR: the line is too long\r\n")
        return b""


# -- pages


def _answer_request(world: World, sock: Manager, line: bytes) -> None:
    """Parks until a page was sent."""
    for _ in range(HEADS):
        if _read_line(sock).strip() == b"":
            break
    method, _, rest = line.decode("latin-1").strip().partition(" ")
    path = rest.partition(" ")[0]
    code, kind, text = _page(world, path)
    body = text.encode("utf-8")
    head = f"HTTP/1.0 {code}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    sock.write_all(head.encode() + (b"" if method == "HEAD" else body))


def _page(world: World, path: str) -> tuple[str, str, str]:
    """The status, the type and the text of a page."""
    plain, _, query = path.partition("?")
    if plain in world.pages:
        return "200 OK", *world.pages[plain]()
    commands = {"/socks": ["socks summary", "socks"], "/obj": ["obj"]}
    if path == "/":
        body = _overview(world)
    elif path in commands:
        body = "".join(_shown(world, one) for one in commands[path])
    elif plain == "/service" and query.isidentifier():
        body = _shown(world, f"show service {query}")
    else:
        return "404 Not Found", *_html(f"<h1>404 Not Found</h1><p>{escape(unquote(path))}</p>")
    return "200 OK", *_html(body)


def _overview(world: World) -> str:
    links = [f"<li><a href='{path}'>{path}</a></li>" for path in ("/socks", "/obj", *sorted(world.pages))]
    for name in sorted(world.services):
        service = world.services[name]
        listen = f" ({escape(service.listen)})" if service.listen else ""
        links.append(f"<li><a href='/service?{name}'>{name}</a> - {service.role_name}{listen}</li>")
    return "<h1>perlbal management interface</h1>\n<ul>\n" + "\n".join(links) + "\n</ul>\n"


def _shown(world: World, command: str) -> str:
    lines: list[str] = []
    keep: Callable[[str], object] = lines.append
    execute(world, Context(), command, keep)
    return f"<h2>{escape(command)}</h2>\n<pre>\n{escape(chr(10).join(lines))}\n</pre>\n"


def _html(body: str) -> tuple[str, str]:
    head = (
        "<!DOCTYPE html>\n<html><head><meta charset='utf-8'><title>perlbal management interface</title></head><body>\n"
    )
    return "text/html; charset=utf-8", f"{head}{body}<hr><p><a href='/'>Perlbal management</a></p></body></html>\n"
