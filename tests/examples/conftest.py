"""The examples, run as a user runs them: as programs on a port of their own, ended by Ctrl-C, without a complaint."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import dangagreen as d
from dangagreen.loop.loop import Loop
from dangagreen.testing import virtual_loop
from lock_clients import in_memory
from miniredis import keys as keys_module
from miniredis.clients import everybody, monitors, topics
from miniredis.commands import keys as key_commands
from miniredis.commands import strings
from miniredis.portions import in_portions
from perlbal.services import World
from perlbal_talk import Talker, get
from perlbal_worlds import configured, serving, web
from programs import SECONDS, Program
from proxy_wires import Proxy
from sites import Quiet


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., list[int]]]:
    """`start(name, *options, lines=1)` runs an example, which prints a line for each port, and answers the ports."""
    programs: list[Program] = []

    def start(name: str, *options: str, lines: int = 1) -> list[int]:
        programs.append(Program(name, options, lines, tmp_path / f"stderr{len(programs)}"))
        return programs[-1].ports

    try:
        yield start
        for program in programs:
            program.end()
    finally:
        for program in programs:
            program.process.kill()
            program.process.communicate()


@pytest.fixture
def ask(loop, wires, run_turns, service):
    """`ask(path, *lines, method="GET")`: what perlbal's `service` answers, on a connection of its own that stays."""

    def ask(path, *lines, **options):
        talker = Talker(service, wires, run_turns, 1 << 20)
        answer = talker.ask(get(path, *lines, **options))
        assert not talker.ended
        return answer

    return ask


@pytest.fixture
def memory() -> Iterator[Any]:
    """ddlockd on a virtual clock, without a listener: the loop."""
    with in_memory() as loop:
        yield loop


@pytest.fixture
def ddlockd(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """`ddlockd(*options, port=0, freed=0)` starts ddlockd; `freed`: it says, on so many lines, what it has freed."""
    programs: list[Program] = []

    def start(*options: str, port: int = 0, freed: int = 0) -> Program:
        arguments = (f"--port={port}", "--bind=127.0.0.1", *options)
        program = Program("ddlockd", arguments, 1, tmp_path / f"stderr{len(programs)}", before=freed)
        programs.append(program)
        return program

    try:
        yield start
        for program in programs:
            if program.process.returncode is None:
                program.end()
    finally:
        for program in programs:
            program.process.kill()
            program.process.communicate()


# -- miniredis


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """The clients of miniredis that are entered here are gone at its end, and have left nothing behind."""
    d.Socket.reset()
    with contextlib.ExitStack() as stack:
        yield stack
    d.Socket.reset()
    assert (topics, everybody, monitors, keys_module.keys.watchers) == ({b"": {}, b"p": {}}, {}, {}, {})


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[keys_module.Keys]:
    """The keys that the commands are about, on a virtual clock."""
    with virtual_loop():
        keys = keys_module.Keys()
        for module in key_commands, strings:
            monkeypatch.setattr(module, "keys", keys)
        yield keys
        in_portions(keys.clear())


@pytest.fixture
def miniredis(start: Callable[..., list[int]]) -> list[int]:
    """A miniredis; its port, and that of its status page."""
    return start("miniredis", "--port", "0", "--status-port", "0", lines=2)


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(miniredis: list[int], request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """The redis package's, of a miniredis of its own, by either protocol."""
    with redis.Redis(port=miniredis[0], protocol=request.param, socket_timeout=SECONDS, client_name="test") as client:
        yield client


# -- the crawler


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server, and the directory that it serves."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = lambda *arguments: Quiet(*arguments, directory=str(folder))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", folder
        finally:
            server.shutdown()
            thread.join()


# -- perlbal

SELECTOR = """
LOAD vhosts
CREATE SERVICE mgmt
SET role = management
CREATE SERVICE sel
SET role = selector
SET listen = 127.0.0.1:0
SET plugins = vhosts
VHOST a.com = one
VHOST *.b.com = TWO
VHOST m.com = mgmt
VHOST gone.com = gone
VHOST x.com;using:Y.com = one
VHOST sel s.com = sel
ENABLE sel
"""


@pytest.fixture
def selector(tmp_path: Path) -> Iterator[World]:
    """A selector with Vhosts before two web servers, each of which serves its name."""
    for name in "one", "two":
        (tmp_path / name).mkdir()
    text = web(tmp_path / "one", "one") + "\n" + web(tmp_path / "two", "two")
    with serving(SELECTOR + text) as world:
        (tmp_path / "one" / "index.html").write_text("one")
        (tmp_path / "two" / "index.html").write_text("two")
        yield world


@pytest.fixture
def proxied() -> Iterator[tuple[World, list[str]]]:
    """A reverse proxy, and the requests that its backend has got."""
    requests: list[str] = []

    def answer(sock: d.Socket) -> None:
        while True:
            requests.append(sock.read_until(b"\r\n\r\n").decode("latin-1"))
            sock.write_all(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi")

    d.Socket.reset()
    backend = d.serve(("127.0.0.1", 0), answer)
    world = configured(
        f"""
        LOAD stats
        LOAD xffextras
        LOAD queues
        LOAD throttle
        LOAD highpri
        LOAD accesscontrol
        CREATE POOL a
        POOL a ADD 127.0.0.1:{backend.address[1]}
        CREATE SERVICE rp
        SET role = reverse_proxy
        SET listen = 127.0.0.1:0
        SET pool = a
        SET persist_backend = on
        ENABLE rp
        """
    )
    yield world, requests
    world.services["rp"].listener.close()
    configured("DISABLE rp", world)
    backend.close()
    d.Socket.reset()


@pytest.fixture
def proxy(
    loop: Loop, run_turns: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, advance: Callable[[float], None]
) -> Iterator[Proxy]:
    """perlbal's reverse proxy in memory."""
    proxy = Proxy(loop, run_turns, monkeypatch)
    yield proxy
    proxy.end()
    advance(6)  # lingering closes
