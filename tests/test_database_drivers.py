"""Libraries that wait by a hook, wait_readable and wait_writable: psycopg and psycopg2, and a real PostgreSQL."""

from __future__ import annotations

import time
from contextlib import ExitStack

import psycopg
import pytest
from psycopg import waiting

import dangagreen as d
from tests.helpers import joined
from tests.programs import needed

pytestmark = pytest.mark.slow


def either(fd):
    """Park until it is readable or writable, whichever is first."""
    with d.TaskGroup() as group:
        ready = [group.spawn(until, group, wait, fd) for wait in (d.wait_readable, d.wait_writable)]
    return sum(bit for task, bit in zip(ready, (waiting.READY_R, waiting.READY_W), strict=True) if came(task))


def until(group, wait, fd):
    wait(fd)
    group.cancel()
    return True


def came(task):
    try:
        return task.result()
    except d.TaskCancelledError:
        return False


def ready(fd, wanted, seconds):
    """What psycopg asks of a wait: which of the two it is; none after so many seconds."""
    with d.move_on_after(seconds or None):
        if wanted == waiting.WAIT_RW:
            return either(fd)
        if wanted == waiting.WAIT_R:
            d.wait_readable(fd)
            return waiting.READY_R
        d.wait_writable(fd)
        return waiting.READY_W
    return waiting.READY_NONE


def parking_wait(generator, fd, interval=0.0, timeout=None):
    """In the place of psycopg.waiting.wait."""
    try:
        wanted = next(generator)
        while True:
            wanted = generator.send(ready(fd, wanted, interval))
    except StopIteration as end:
        return end.value


def parking_wait_conn(generator, interval=0.0, timeout=None):
    """In the place of psycopg.waiting.wait_conn, where the fd may change."""
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        fd, wanted = next(generator)
        while True:
            came = ready(fd, wanted, interval)
            if deadline is not None and time.monotonic() > deadline:
                raise psycopg.errors._WaitTimeout("wait timeout expired")
            if came:
                fd, wanted = generator.send(came)
            else:
                generator.send(came)
    except StopIteration as end:
        return end.value


@pytest.fixture
def patched(monkeypatch):
    calls = {"wait": 0, "wait_conn": 0}

    def counted(name, function):
        def call(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(waiting, "wait", counted("wait", parking_wait))
    monkeypatch.setattr(waiting, "wait_conn", counted("wait_conn", parking_wait_conn))
    return calls


LIMIT = "SET lock_timeout = '20s'"
ASK = "SELECT %s + 1 FROM pg_advisory_xact_lock_shared(1)"
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def all_at_once(database_url, ask):
    """What 8 tasks are answered that ask for `ASK`: no one of them before all wait for that in the database."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(1)")
        tasks = [d.spawn(ask, number) for number in range(8)]
        while connection.execute(WAITING).fetchone() != (8,):
            assert not any(task.done for task in tasks), [task.result() for task in tasks if task.done]
            d.sleep(0.002)
    return [joined(task) for task in tasks]


def test_tasks_wait_for_psycopg_side_by_side(real_loop, database_url, patched):
    def ask(number):
        with psycopg.connect(database_url) as connection:
            connection.execute(LIMIT)
            return connection.execute(ASK, (number,)).fetchone()[0]

    assert all_at_once(database_url, ask) == list(range(1, 9))
    assert patched["wait_conn"] == 9
    assert patched["wait"] >= 8


def test_much_goes_both_ways_through_psycopg(real_loop, database_url, patched):
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        big = "x" * 4_000_000
        assert cursor.execute("SELECT %s::text", (big,)).fetchone() == (big,)
        cursor.execute("CREATE TEMPORARY TABLE t (n int, word text)")
        with cursor.copy("COPY t FROM STDIN") as copy:
            for n in range(2000):
                copy.write_row((n, "w" * 500))
        with cursor.copy("COPY t TO STDOUT") as copy:
            assert sum(1 for _ in copy.rows()) == 2000


def test_a_statement_of_psycopg_is_cancelled_where_it_waits(real_loop, database_url, patched):
    """What the server answers to it is still to come: such a connection is closed, as psycopg says."""
    connection = psycopg.connect(database_url)
    with d.move_on_after(0.05) as scope:
        connection.execute("SELECT pg_sleep(30)")
    assert scope.cancelled_caught
    assert connection.fileno() not in real_loop.handlers
    connection.close()


def test_two_tasks_of_one_psycopg_connection_take_turns(real_loop, database_url, patched):
    """It has a lock of threading's, which would block the loop: so a connection is for one task at a time."""
    connection, lock = psycopg.connect(database_url), d.Lock()

    def ask(number):
        with lock:
            return connection.execute("SELECT %s", (number,)).fetchone()[0]

    assert [joined(task) for task in [d.spawn(ask, number) for number in range(4)]] == [0, 1, 2, 3]
    connection.close()


# -- psycopg2


@pytest.fixture
def psycopg2():
    module = needed("psycopg2")
    from psycopg2 import extensions

    def wait(connection):
        while (state := connection.poll()) != extensions.POLL_OK:
            if state == extensions.POLL_READ:
                d.wait_readable(connection)
            else:
                d.wait_writable(connection)

    extensions.set_wait_callback(wait)
    yield module
    extensions.set_wait_callback(None)


def test_tasks_wait_for_psycopg2_side_by_side(real_loop, database_url, psycopg2):
    def ask(number):
        with ExitStack() as stack:
            connection = psycopg2.connect(database_url)
            stack.callback(connection.close)
            cursor = connection.cursor()
            cursor.execute(LIMIT)
            cursor.execute(ASK, (number,))
            return cursor.fetchone()[0]

    assert all_at_once(database_url, ask) == list(range(1, 9))


def test_an_error_of_the_database_reaches_the_caller_of_psycopg2(real_loop, database_url, psycopg2):
    connection = psycopg2.connect(database_url)
    with pytest.raises(psycopg2.ProgrammingError):
        connection.cursor().execute("SELECT nothing_of_the_kind")
    connection.rollback()
    cursor = connection.cursor()
    big = "y" * 2_000_000
    cursor.execute("SELECT %s::text", (big,))
    assert cursor.fetchone() == (big,)
    connection.close()
