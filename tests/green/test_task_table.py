"""The table of tasks: one line for each, at any time, whatever there is to describe."""

from __future__ import annotations

import re
import threading

import pytest

import dangagreen as d
from dangagreen.green.task_table import telling_apart


def rows(table):
    """The lines below the headings, as lists of columns."""
    headings, *lines = table.splitlines()
    assert re.split("  +", headings) == ["task", "state", "waits for", "spawned at"]
    return [re.split("  +", line) for line in lines]


def test_there_is_nothing_to_say_of_a_loop_without_tasks(loop):
    assert d.task_table() == ""
    d.spawn(int).join()
    assert d.task_table() == ""


def test_every_task_has_its_line(loop, pair, run_turns):
    sock, far = pair()
    reader = d.spawn(sock.read_line)
    sleeper = d.spawn(d.sleep, 7)
    sleeper.name = "the sleeper"
    line = sleeper.spawned_at.rpartition(":")[2]
    run_turns(1)
    late = d.spawn(int)
    assert rows(d.task_table()) == [
        ["Socket.read_line", "parked", f"read_line of {sock!r}", reader.spawned_at],
        ["the sleeper", "parked", "sleep until 1007.000", f"{__file__}:{line}"],
        ["int", "not started", "-", late.spawned_at],
    ]
    far.send(b"\n")
    d.sleep(10)


@pytest.mark.in_order
def test_a_task_may_ask_and_sees_itself_running_and_others_ready(loop):
    tables = []

    def woken():
        d.sleep(100)

    def asking():
        other.cancel()
        tables.append(d.task_table())

    other = d.spawn(woken)
    d.spawn(asking).join()
    assert [row[:3] for row in rows(tables[0])] == [
        ["top-level code", "parked", f"join of task {asking.__qualname__!r}"],
        [woken.__qualname__, "ready", "-"],
        [asking.__qualname__, "running", "-"],
    ]


def test_a_callback_may_ask(loop):
    tables = []
    task = d.spawn(d.sleep, 2)
    loop.add_timer(1, lambda: tables.append(d.task_table()))
    task.join()
    assert [row[1] for row in rows(tables[0])] == ["parked", "parked"]


def test_another_thread_may_ask_for_the_loop_that_it_names(loop, in_thread, run_turns):
    task = d.spawn(d.sleep, 1)
    run_turns(1)
    assert rows(in_thread(d.task_table, loop))[0][0] == "sleep"
    task.join()


def test_the_task_of_run_knows_where_it_was_run(loop):
    (row,) = rows(d.run(d.task_table))
    assert row[0] == "task_table"
    assert row[3].startswith(f"{__file__}:")


def test_tasks_that_wait_for_each_other_are_described_all_the_same(loop, run_turns):
    tasks = []
    for name in ("one", "other"):
        tasks.append(d.spawn(lambda: tasks[len(tasks) - 1 - tasks.index(d.current_task())].join()))
        tasks[-1].name = name
    run_turns(1)
    assert [row[:3] for row in rows(d.task_table())] == [
        ["one", "parked", "join of task 'other'"],
        ["other", "parked", "join of task 'one'"],
    ]
    assert "join of task 'other'" in repr(tasks[0])
    for task in tasks:
        task.cancel()
    d.sleep(0)


def test_a_description_that_fails_costs_only_itself(loop, pair, run_turns):
    class Broken(d.Socket):
        __slots__ = ()

        def __repr__(self):
            raise ZeroDivisionError

    sock, far = pair(Broken)
    d.spawn(sock.read_line)
    d.spawn(d.sleep, 1).name = "in two\nlines"
    run_turns(1)
    broken, sleeper = rows(d.task_table())
    assert "ZeroDivisionError" in broken[2]
    assert sleeper[0] == "in two lines"
    far.send(b"\n")
    d.sleep(1)


def test_threads_have_tables_of_their_own(loop, run_turns):
    seen = []

    def other():
        with d.Loop():
            d.run(lambda: seen.append(d.task_table()))

    task = d.spawn(d.sleep, 1)
    run_turns(1)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join(30)
    (row,) = rows(seen[0])
    assert "lambda" in row[0]
    task.join()


def test_two_tasks_that_select_on_each_other_are_described_and_a_timeout_on_one_comes(loop):
    box = []
    box.extend(d.spawn(lambda at=at: d.select(box[at])) for at in (1, 0))
    d.sleep(0)
    assert [row[1] for row in rows(d.task_table())[-2:]] == ["parked", "parked"]
    assert "RecursionError" not in d.task_table()
    assert "select" in repr(box[0])
    with pytest.raises(TimeoutError, match="longer than 1 s"):
        box[0].join(1)
    for task in box:
        task.cancel()


def test_a_timeout_comes_whatever_the_description_of_the_object_does(loop, pair):
    class Mute(d.Socket):
        __slots__ = ()

        def __repr__(self):
            raise ValueError("no words")

    sock, _ = pair(Mute)
    reader = d.spawn(sock.read_line)
    with pytest.raises(TimeoutError, match="join of task"):
        reader.join(1)
    assert "ValueError in its description" in repr(reader)
    reader.cancel()
    reader.join()


@pytest.mark.in_order
def test_who_runs_inside_no_parking_is_running(loop):
    def asking():
        with d.no_parking():
            return d.task_table()

    task = d.spawn(asking)
    task.join()
    assert rows(task.result())[-1][1] == "running"


def test_a_table_with_a_bound_says_how_many_more_there_are(loop, run_turns):
    tasks = [d.spawn(d.sleep, 5) for _ in range(7)]
    run_turns(1)
    lines = d.task_table(most=5).splitlines()
    assert len(lines) == 1 + 5 + 1
    assert lines[-1] == "... and 2 more"
    assert d.task_table(most=7) == d.task_table(most=70) == d.task_table()
    for task in tasks:
        task.cancel()
    run_turns(2)


def test_tasks_of_one_name_are_told_apart(loop):
    tasks = [d.spawn(d.sleep, 7), d.spawn(int), d.spawn(d.sleep, 8)]
    assert [row[0] for row in rows(d.task_table())] == ["sleep#1", "int", "sleep#2"]
    for task in tasks:
        task.cancel()


def test_a_deadlock_tells_tasks_of_one_name_apart(loop):
    def wait():
        d.Event().wait()

    with pytest.raises(d.Deadlock) as caught:
        d.wait([d.spawn(wait), d.spawn(wait)])
    names = [row[0] for row in rows(caught.value.table)]
    assert names == ["top-level code", f"{wait.__qualname__}#1", f"{wait.__qualname__}#2"]
    loop.reset()


def test_a_table_tells_apart_whom_a_task_waits_for_too(loop, run_turns):
    def work(wait):
        wait()

    lock = d.Lock()
    first = d.spawn(work, lambda: lock.acquire() and d.sleep(9))
    second = d.spawn(work, first.join)
    others = d.spawn(work, lock.acquire), d.spawn(work, lambda: d.select(first, second))
    run_turns(2)
    name = work.__qualname__
    assert [row[0] for row in rows(d.task_table())] == [f"{name}#{n}" for n in (1, 2, 3, 4)]
    joins, acquires, waits = [row[2] for row in rows(d.task_table())][1:]
    assert joins == f"join of task '{name}#1'"
    assert f"'{name}#1'" in acquires
    assert f"task '{name}#1', task '{name}#2'" in waits
    last = rows(d.task_table(most=2))[1]
    assert last[2] == f"join of task '{name}#1'"
    assert second.waits_for == f"join of task '{name}'"  # by itself it has its own name
    for task in (first, second, *others):
        task.cancel()
    run_turns(3)


def test_of_whom_no_row_is_shown_is_told_apart_too(loop, run_turns):
    def work(wait):
        wait()

    joining = d.spawn(work, lambda: last.join())
    last = d.spawn(work, lambda: d.sleep(9))
    run_turns(2)
    (row,) = rows(d.task_table(most=1))[:1]
    assert row[::2] == [f"{work.__qualname__}#1", f"join of task '{work.__qualname__}#2'"]
    for task in (joining, last):
        task.cancel()
    run_turns(3)


def test_what_is_told_apart_in_a_table_is_so_nowhere_else(loop):
    seen = []
    with telling_apart(lambda task: "another"):
        task = d.spawn(int)
        seen.append(task.called)
        thread = threading.Thread(target=lambda: seen.append(task.called))
        thread.start()
        thread.join()
    assert (seen, task.called) == (["another", "int"], "int")
    task.cancel()
