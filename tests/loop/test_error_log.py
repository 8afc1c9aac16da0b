"""What the default on_error logs, and what it leaves out when there is too much of the same."""

from __future__ import annotations

import logging
import socket

import pytest

import dangagreen as d
from dangagreen.errors import ErrorContext
from dangagreen.loop.error_log import KINDS, MOST, SECONDS, ErrorLog


def failure(kind=ValueError, message="no"):
    try:
        raise kind(message)
    except kind as error:
        return error


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock, caplog):
    """The log, and what it said since the last time."""
    log = ErrorLog(clock)

    def said():
        records = [(record.levelname, record.getMessage()) for record in caplog.records]
        caplog.clear()
        return records

    return log, said


def test_a_flood_of_one_kind_is_told_so_often_and_counted(clock, log):
    log, said = log
    for _ in range(1000):
        log(ErrorContext("a callback raised", failure()))
    records = said()
    assert records[:MOST] == [("ERROR", "a callback raised")] * MOST
    assert [level for level, _ in records[MOST:]] == ["WARNING"]
    assert "ValueError at " in records[-1][1]
    clock.now += SECONDS
    log(ErrorContext("a callback raised", failure()))
    left_out, told = said()
    assert left_out[0] == "ERROR"
    assert left_out[1].endswith(f": {1000 - MOST} more of these were left out")
    assert told == ("ERROR", "a callback raised")


def test_another_kind_is_told_in_full_beside_it(log):
    log, said = log
    for _ in range(1000):
        log(ErrorContext("one", failure()))
    said()
    log(ErrorContext("another type", failure(KeyError)))
    try:
        raise ValueError("another place")
    except ValueError as error:
        log(ErrorContext("another place", error))
    assert [message for _, message in said()] == ["another type", "another place"]


def test_the_count_is_told_at_the_end(log, loop, caplog):
    fresh = d.Loop()
    for _ in range(MOST + 5):
        fresh.report(ErrorContext("x", failure()))
    caplog.clear()
    fresh.close()
    (record,) = caplog.records
    assert record.getMessage().endswith(": 5 more of these were left out")


def test_kinds_without_number_take_no_memory(log):
    log, said = log
    for number in range(3 * KINDS):
        for _ in range(2):
            log(ErrorContext("x", type(f"Error{number}", (Exception,), {})()))
    assert len(log._kinds) <= KINDS
    assert len(said()) == 6 * KINDS


def test_an_on_error_of_ones_own_gets_all(loop, take_errors):
    for _ in range(1000):
        loop.report(ErrorContext("x", failure()))
    assert len(take_errors()) == 1000


@pytest.fixture
def default_log(loop):
    """The loop reports as it does by default."""
    check, loop.on_error = loop.on_error, ErrorLog(loop.clock)
    yield
    loop.on_error = check


def slow_scope(sock):
    with d.timeout(1):
        sock.read_line()


def slow_iteration(sock):
    with d.timeout(1):
        for _ in sock:
            pass


def slow_writing(sock):
    with d.timeout(1):
        while True:
            sock.write_all(b"x" * 65536)


@pytest.mark.parametrize(
    ("handler", "call"),
    [(slow_scope, "read_line"), (slow_iteration, "read_line"), (slow_writing, "write_all")],
    ids=["reading", "lines", "writing"],
)
def test_a_peer_that_is_slow_is_one_line(loop, default_log, caplog, handler, call):
    listener = d.serve(("127.0.0.1", 0), handler)
    with d.connect(listener.address):
        d.sleep(2)
    listener.close()
    (record,) = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    told = record.getMessage()
    assert "\n" not in told
    assert told.startswith(f"'{handler.__name__}' gave up on the connection with 127.0.0.1:")
    assert f", in {call}: " in told


def slow_in_a_group(sock):
    def read():
        with d.timeout(1):
            sock.read_line()

    with d.TaskGroup() as group:
        group.spawn(read)
        group.spawn(d.sleep, 60)


def slow_and_wrong_in_a_group(sock):
    def fail():
        try:
            d.sleep(60)
        finally:
            raise KeyError("wrong")

    with d.TaskGroup() as group:
        group.spawn(fail)
        group.spawn(slow_scope, sock)


def test_a_peer_that_is_slow_is_one_line_also_for_a_handler_of_several_tasks(loop, default_log, caplog):
    for handler in (slow_in_a_group, slow_and_wrong_in_a_group):
        listener = d.serve(("127.0.0.1", 0), handler)
        with d.connect(listener.address):
            d.sleep(2)
        listener.close()
    slow, wrong = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert (slow.levelname, slow.exc_info, "\n" in slow.getMessage()) == ("WARNING", None, False)
    assert slow.getMessage().endswith(", in read_line: the limit of 1 s has passed")
    assert wrong.levelname == "ERROR"
    assert wrong.exc_info is not None


def a_queue(_sock):
    with d.timeout(1):
        d.Queue().get()


def another_connection(_sock):
    with socket.create_server(("127.0.0.1", 0)) as server, d.connect(server.getsockname()) as other, d.timeout(1):
        other.read_line()


def of_the_handler(_sock):
    raise TimeoutError("mine")


@pytest.mark.parametrize("handler", [a_queue, another_connection, of_the_handler], ids=lambda handler: handler.__name__)
def test_a_timeout_of_something_else_has_its_traceback(loop, default_log, caplog, handler):
    listener = d.serve(("127.0.0.1", 0), handler, max_connections=1)
    with d.connect(listener.address):
        d.sleep(2)
    listener.close()
    (record,) = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert record.exc_info[0] is TimeoutError
