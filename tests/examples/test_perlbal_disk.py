"""Disk work in threads: the loop goes on, clients may leave meanwhile, and no more threads work than there may."""

from __future__ import annotations

import os
import threading

import pytest

import perlbal.disk
from dangagreen.green.sched import scheduler
from perlbal_talk import Talker, body, fields, get, served


@pytest.fixture
def service(real_loop, tmp_path, run_until):
    real_loop.loop_timeout = 0.001  # the clients go on in each turn, and wake nobody
    (tmp_path / "a.txt").write_bytes(b"content")
    (tmp_path / "large.bin").write_bytes(b"x" * 100_000)
    with served(
        persist_client="on", docroot=tmp_path, enable_put="on", enable_concatenate_get="on", enable_delete="on"
    ) as service:
        service.world.aio_mode = "ioaio"
        yield service
    run_until(lambda: not scheduler(real_loop).tasks, turns=10**9)  # which wait for threads: files are closed by them


@pytest.fixture
def connect(service, tcp_pair, run_turns):
    return lambda: Talker(service, lambda _capacity: tcp_pair(), run_turns, 0)


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
def test_everything_works_in_threads_too(connect, request_, content):
    talker = connect()
    talker.far.send(request_ + get("/a.txt"))
    talker.until(lambda: talker.got.count(b"HTTP/1.0 ") == 2 and talker.got.endswith(b"\r\n\r\ncontent"))
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


def test_a_client_that_leaves_meanwhile_leaves_no_descriptor(connect, held):
    talker = connect()
    descriptors = len(os.listdir("/dev/fd"))
    for number, path in enumerate(("/large.bin", "/??large.bin,large.bin"), 1):
        leaving = connect()
        leaving.far.send(get(path))
        leaving.until(lambda number=number: len(held.seen) == number)
        assert leaving.client.state == "wait_stat"
        leaving.client.close()
        leaving.far.close()
    held.set()
    talker.until(lambda: len(held.seen) == 2 and len(os.listdir("/dev/fd")) == descriptors)
    talker.far.send(get("/a.txt"))
    talker.until(lambda: talker.got.endswith(b"content"))


def test_so_many_threads_as_there_may_be(connect, service, run_turns, held):
    service.world.aio_threads = 2
    talkers = [connect() for _ in range(5)]
    for talker in talkers:
        talker.far.send(get("/a.txt"))
    talkers[0].until(lambda: len(held.seen) == 2)
    run_turns(5)
    assert len(held.seen) == 2
    held.set()
    for talker in talkers:
        talker.until(lambda talker=talker: talker.got.endswith(b"content"))


def test_an_error_of_the_disk_is_answered(connect, monkeypatch):
    def fails(*_args):
        raise OSError(5, "Input/output error")

    talker = connect()
    monkeypatch.setattr(os, "open", fails)
    talker.far.send(get("/a.txt"))
    talker.until(lambda: talker.got)
    assert (fields(talker.got)["code"], body(talker.got)[-18:]) == ("500", b"Input/output error")


def test_an_error_of_the_program_costs_the_connection(connect, monkeypatch, take_errors):
    talker = connect()
    monkeypatch.setattr("perlbal.web_role.answer", None)
    talker.far.send(get("/a.txt"))
    talker.until(lambda: talker.client.closed)
    assert [type(one.exception) for one in take_errors()] == [TypeError]
