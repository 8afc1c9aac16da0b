"""A profile as data: by class, by function and by task, with wall-clock time, and bytes where they are counted."""

import sys

import pytest

import dangagreen as d
from dangagreen import introspect
from tests.connections import Echo


def rows(loop=None):
    return {row.name: row for row in introspect.profile(loop)}


@pytest.fixture
def profiling(active_loop):
    d.Socket.enable_profiling()
    yield
    d.Socket.disable_profiling()


def test_tasks_and_functions_have_rows_of_their_own(loop, profiling, advance):
    def work():
        for _ in range(3):
            d.sleep(1)

    def timed():
        pass

    first, second = d.spawn(work), d.spawn(work)
    second.name = "another"
    loop.add_timer(1, timed)
    loop.call_soon(timed)
    advance(5)
    place = work.__qualname__.removesuffix("work")
    calls = {name: row.calls for name, row in rows().items()}
    assert calls == {
        f"{first.name}-task": 4,
        "another-task": 4,
        f"{place}timed-timer": 1,
        f"{place}timed-call_soon": 1,
        "advance.<locals>.advance.<locals>.<lambda>-timer": 1,
    }


def test_what_runs_within_a_callback_is_not_counted_twice(real_loop, profiling, monkeypatch):
    """The handler of a request is started by `event_read`; what it takes is not the callback's."""
    clock = [0.0]
    monkeypatch.setattr("dangagreen.loop.profiling.perf_counter", lambda: clock[0])

    def request(sock):
        sock.read_line()
        clock[0] += 5
        sock.write_all(b"done\n")

    def main():
        with d.connect(d.serve_requests(("127.0.0.1", 0), request).address) as sock:
            sock.write_all(b"go\n")
            sock.read_line()

    d.run(main)
    seconds = {name: row.seconds for name, row in rows().items()}
    assert seconds.pop(f"{request.__qualname__}-task") == 5
    assert seconds["Socket-read"] == 0
    assert set(seconds.values()) == {0}
    assert introspect.profile()[0].name == f"{request.__qualname__}-task"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not tell")
def test_bytes_by_class_and_by_task(real_loop, profiling):
    def handler(sock):
        for line in sock:
            sock.write_all(line * 2)

    def main():
        callbacks, tasks = d.serve(("127.0.0.1", 0), Echo), d.serve(("127.0.0.1", 0), handler)
        for server, size in (callbacks, 6), (tasks, 12):
            with d.connect(server.address) as sock:
                for _ in range(3):
                    sock.write_all(b"12345\n")
                    sock.read_exactly(size)

    d.run(main)
    seen = rows()
    assert (seen["Echo-read"].bytes_in, seen["Echo-read"].bytes_out) == (18, 18)
    (task,) = (row for name, row in seen.items() if name.endswith("handler-task"))
    assert task.bytes_in == 18
    assert task.bytes_out <= 36


def test_danga_s_form_has_three_figures(loop, profiling, run_turns):
    loop.call_soon(int)
    run_turns(1)
    assert [len(row) for row in d.Socket.profiling_data().values()] == [3]
