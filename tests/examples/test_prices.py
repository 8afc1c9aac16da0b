"""examples/prices.py, from the outside: over HTTP and over lines, on asyncio's loop and on uvloop's."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from programs import SECONDS, Program, connected, expect, run
from tests.programs import needed

for module in ("fastapi", "uvicorn", "uvloop"):
    needed(module)


@pytest.fixture(params=["asyncio", "uvloop"])
def ports(start: Callable[..., list[int]], request: pytest.FixtureRequest) -> list[int]:
    """Those of HTTP and of the lines."""
    return start("prices", "--port", "0", "--line-port", "0", "--loop", request.param, lines=2)


def http(port: int, path: str, data: object = None) -> tuple[int, Any]:
    """The status, and what comes as JSON; a PUT if there are data."""
    body = None if data is None else json.dumps(data).encode()
    headers = {"Content-Type": "application/json"}
    method = "GET" if data is None else "PUT"
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


def ask(ends: tuple[socket.socket, Any], line: str) -> str:
    ends[0].sendall(f"{line}\n".encode())
    return read_line(ends)


def read_line(ends: tuple[socket.socket, Any]) -> str:
    return str(ends[1].readline().decode())


def test_what_one_protocol_changes_the_other_shows(ports: list[int]) -> None:
    with connected(ports[1]) as client:
        assert ask(client, "tea") == "3.50\n"
        assert http(ports[0], "/price/tea") == (200, 3.5)
        assert http(ports[0], "/price/tea", 2.25) == (200, 0)
        assert ask(client, "tea") == "2.25\n"
        assert ask(client, "löffel 7") == "ok 0\n"
        assert http(ports[0], "/price/l%C3%B6ffel") == (200, 7.0)


def test_who_watches_is_told(ports: list[int]) -> None:
    """In the same order, before whoever has changed a price has the answer."""
    with connected(ports[1]) as one, connected(ports[1]) as two, connected(ports[1]) as other:
        assert ask(one, "watch") == ask(two, "watch") == "ok\n"
        assert http(ports[0], "/price/tea", 2) == (200, 2)
        assert ask(other, "cake 9.999") == "ok 2\n"
        two[0].sendall(b"tea 5\n")
        told = ["tea 2.00\n", "cake 10.00\n", "tea 5.00\n"]
        assert [read_line(two) for _ in range(4)] == [*told, "ok 2\n"]
        assert [read_line(one) for _ in range(3)] == told
    expect(lambda: http(ports[0], "/price/tea", 3) == (200, 0))  # they have gone


def test_many_of_both_at_a_time(ports: list[int]) -> None:
    """Each change is told to each who watches, and to all of them in one order."""
    with contextlib.ExitStack() as stack:
        watchers = [stack.enter_context(connected(ports[1])) for _ in range(5)]
        assert {ask(watcher, "watch") for watcher in watchers} == {"ok\n"}

        def change_over_http(n: int) -> None:
            for price in range(1, 11):
                assert http(ports[0], f"/price/web{n}", price) == (200, 5)

        def change_over_lines(n: int) -> None:
            with connected(ports[1]) as client:
                for price in range(1, 11):
                    assert ask(client, f"line{n} {price}") == "ok 5\n"

        threads = [
            threading.Thread(target=f, args=(n,)) for n in range(3) for f in (change_over_http, change_over_lines)
        ]
        for thread in threads:
            thread.start()
        heard = [[read_line(watcher) for _ in range(60)] for watcher in watchers]
        for thread in threads:
            thread.join()
    assert all(lines == heard[0] for lines in heard)
    assert set(heard[0]) == {
        f"{kind}{n} {price}.00\n" for kind in ("web", "line") for n in range(3) for price in range(1, 11)
    }


def test_one_who_watches_and_does_not_read_is_not_waited_for_for_long(ports: list[int]) -> None:
    item = "x" * 12_000  # h11 takes a head of 16 KiB that comes in pieces, and no longer one
    with connected(ports[1]) as slow, connected(ports[1]) as watcher, connected(ports[1]) as client:
        assert ask(slow, "watch") == ask(watcher, "watch") == "ok\n"
        for n in range(1, 5000):  # up to 60 MB, far beyond what the kernel keeps for it
            status, told = http(ports[0], f"/price/{item}", n)
            assert status == 200
            assert read_line(watcher) == f"{item} {n}.00\n"
            if told == 1:
                break
            assert told == 2
        else:
            raise AssertionError("it was told all of that")
        assert ask(client, "cake") == "4.25\n"


def test_nonsense_changes_nothing(ports: list[int]) -> None:
    with connected(ports[1]) as client:
        for line in ("salt", "tea -1", "tea nan", "tea inf", "tea 0", "a b c"):
            assert ask(client, line) == "error: ITEM, ITEM PRICE, watch\n", line
        assert http(ports[0], "/price/salt") == (404, None)
        assert http(ports[0], "/price/tea", -1) == (422, None)
        assert http(ports[0], "/price/tea", "much") == (422, None)
        assert ask(client, "tea") == "3.50\n"
        client[0].sendall(b"x" * 2000)
        assert client[1].read().startswith(b"error: a line has 1000 bytes at most")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end(tmp_path: Path, number: signal.Signals) -> None:
    program = Program("prices", ("--port", "0", "--line-port", "0"), 2, tmp_path / "errors")
    try:
        with connected(program.ports[1]) as client, connected(program.ports[1]) as watcher:
            assert ask(watcher, "watch") == "ok\n"
            assert ask(client, "tea") == "3.50\n"
            program.process.send_signal(number)
            output, _ = program.process.communicate(timeout=SECONDS)
            assert (client[1].read(), watcher[1].read()) == (b"", b"")
        assert (output, program.process.returncode, program.complaints()) == ("bye\n", 0, "")
    finally:
        program.process.kill()
        program.process.communicate()


@pytest.mark.parametrize("option", ["--port", "--line-port"])
def test_a_port_in_use_is_told_in_a_line(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, output, complaint = run(
            "prices", "--port", "0", "--line-port", "0", option, str(taken.getsockname()[1])
        )
    assert (status, output) == (1, "")
    assert complaint.startswith("prices: ")
    assert complaint.count("\n") == 1
