"""Disk work in threads: the loop goes on, clients may leave meanwhile, and no more threads work than there may."""

from __future__ import annotations

import os
import threading

import pytest

import perlbal.disk
from perlbal_talk import Talker, body, fields, get, served


@pytest.fixture
def service(loop, advance, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"content")
    (tmp_path / "large.bin").write_bytes(b"x" * 100_000)
    with served(
        advance, persist_client="on", docroot=tmp_path, enable_put="on", enable_concatenate_get="on", enable_delete="on"
    ) as service:
        service.world.aio_mode = "ioaio"
        yield service


@pytest.fixture
def connect(service, wires, run_turns):
    return lambda: Talker(service, wires, run_turns, 1 << 20)


def until(talker, run_until, condition):
    def seen():
        talker.take()
        return condition()

    run_until(seen)


@pytest.mark.parametrize(
    ("request_", "content"),
    [
        (get("/a.txt"), b"content"),
        (get("/none"), b"<h1>404 - Not Found</h1>\n"),
        (get("/"), b"<h1>200 - OK</h1>\nDirectory listing disabled"),
        (get("/large.bin"), b"x" * 100_000),
        (get("/??a.txt,large.bin"), b"content" + b"x" * 100_000),
        (get("/new", "Content-Length: 3", method="PUT") + b"new", b"<h1>200 - OK</h1>\n"),
        (get("/none", method="DELETE"), b"<h1>404 - Not Found</h1>\n"),
    ],
)
def test_everything_works_in_threads_too(connect, run_until, request_, content):
    talker = connect()
    talker.far.send(request_ + get("/a.txt"))
    until(talker, run_until, lambda: talker.got.endswith(b"\r\n\r\ncontent") and content in talker.got)
    assert body(talker.got).startswith(content)


@pytest.fixture
def held(monkeypatch):
    """Disk work begins when this event is set; `seen` has the names of its threads."""
    event, seen, inner = threading.Event(), [], perlbal.disk.attempt

    def held_up(work):
        seen.append(threading.current_thread().name)
        event.wait(10)
        return inner(work)

    monkeypatch.setattr(perlbal.disk, "attempt", held_up)
    event.seen = seen
    yield event
    event.set()


def test_a_client_that_leaves_meanwhile_leaves_no_descriptor(connect, run_until, run_turns, held):
    talker = connect()
    descriptors = len(os.listdir("/dev/fd"))
    for path in ("/large.bin", "/??large.bin,large.bin"):
        leaving = connect()
        leaving.far.send(get(path))
        run_until(lambda: held.seen)
        assert leaving.client.state == "wait_stat"
        leaving.client.close()
        leaving.far.close()
    held.set()
    run_until(lambda: len(held.seen) == 2 and len(os.listdir("/dev/fd")) == descriptors)
    talker.far.send(get("/a.txt"))
    until(talker, run_until, lambda: talker.got.endswith(b"content"))


def test_so_many_threads_as_there_may_be(connect, service, run_until, run_turns, held):
    service.world.aio_threads = 2
    talkers = [connect() for _ in range(5)]
    for talker in talkers:
        talker.far.send(get("/a.txt"))
    run_until(lambda: len(held.seen) == 2)
    run_turns(5)
    assert len(held.seen) == 2
    held.set()
    for talker in talkers:
        until(talker, run_until, lambda talker=talker: talker.got.endswith(b"content"))


def test_an_error_of_the_disk_is_answered(connect, run_until, monkeypatch):
    def fails(*_args):
        raise OSError(5, "Input/output error")

    talker = connect()
    monkeypatch.setattr(os, "open", fails)
    talker.far.send(get("/a.txt"))
    until(talker, run_until, lambda: talker.got)
    assert (fields(talker.got)["code"], body(talker.got)[-18:]) == ("500", b"Input/output error")


def test_an_error_of_the_program_costs_the_connection(connect, run_until, monkeypatch, take_errors):
    talker = connect()
    monkeypatch.setattr("perlbal.web_role.answer", None)
    talker.far.send(get("/a.txt"))
    run_until(lambda: talker.client.closed)
    assert [type(one.exception) for one in take_errors()] == [TypeError]
