"""A world of perlbal with one service, and raw clients of it, in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from perlbal.clients import Client, clients_of
from perlbal.services import Service, World
from perlbal.web_role import WebRole


def make_service(role: str = "web_server", **parameters: object) -> Service:
    """A service of a world of its own, enabled, without a listener; disk work is done in place."""
    world = World()
    world.roles["web_server"] = WebRole
    world.aio_mode = "none"
    service = world.create_service("test")
    service.set("role", role)
    for key, value in parameters.items():
        service.set(key, str(value))
    service.enable()
    return service


@contextmanager
def served(role: str = "web_server", **parameters: object) -> Iterator[Service]:
    """`make_service`, and its end: neither a client nor a timer is left.

    Clients may be idle for ever: a virtual clock jumps ahead while a thread works.
    """
    limits = dict.fromkeys(("idle_timeout", "head_timeout", "client_stall_timeout"), 0)
    service = make_service(role, **limits | parameters)
    yield service
    for one in service.world.services.values():
        if one.enabled:
            one.disable()
        if one.log is not None:
            one.set("access_log", "none")
    for client in clients_of(service.world):
        client.close()
    if service.world.sweeping is not None:
        service.world.sweeping.cancel()


class Talker:
    """One client: what it sends arrives at once, and what it has got is everything it was sent."""

    def __init__(self, service: Service, wires: Callable[..., Any], run_turns: Callable[[int], None], capacity: int):
        near, self.far = wires(capacity)
        self.far.setblocking(False)
        self.run_turns = run_turns
        self.client = Client(near, service)
        self.client.watch_read(True)
        self.got = b""
        self.ended = False

    def take(self) -> None:
        if self.far.fileno() < 0:
            return
        try:
            while data := self.far.recv(65536):
                self.got += data
            self.ended = True
        except BlockingIOError:
            pass
        except ConnectionError:
            self.ended = True

    def say(self, *pieces: bytes, turns: int = 3) -> bytes:
        """Send pieces, each in turns of its own. Returns what has come since the last call."""
        before = len(self.got)
        for piece in pieces:
            if piece:
                self.far.send(piece)
            for _ in range(turns):
                self.run_turns(1)
                self.take()
        return self.got[before:]

    def ask(self, request: bytes) -> bytes:
        """Send a request, and wait for its response, whose Content-Length says how long it is."""
        before = len(self.got)
        answer = self.say(request)
        size = int(fields(answer).get("content-length", 0)) if request[:4] != b"HEAD" else 0
        self.until(lambda: self.ended or len(body(self.got[before:])) >= size)
        return self.got[before:]

    def until(self, condition: Callable[[], object]) -> None:
        """Read, and run the loop, until it is true: threads may work for it."""
        give_up = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < give_up
            self.run_turns(1)
            self.take()


def fields(response: bytes) -> dict[str, str]:
    """The fields of a response's head, by name in lower case; the status code is `code`."""
    first, *lines = response.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    return {"code": first.split(" ")[1]} | {
        name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
    }


def body(response: bytes) -> bytes:
    return response.partition(b"\r\n\r\n")[2]


def get(path: str = "/", *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request, with a Host field."""
    head: Iterable[str] = (f"{method} {path} HTTP/{version}", "Host: example.com", *lines, "", "")
    return "\r\n".join(head).encode("latin-1")
