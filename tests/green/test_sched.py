"""Tasks: spawn, join, result, cancel, sleep, their contexts, and where a call that waits may be made."""

from __future__ import annotations

import contextvars
import gc
import socket
import sys
import threading
import weakref

import greenlet
import pytest

import dangagreen as d
from dangagreen.green import sched as sched_module
from dangagreen.green import tasks as tasks_module
from dangagreen.green.sched import drop_guard, guard_parking, scheduler
from dangagreen.loop.loop import here
from dangagreen.testing import virtual_loop, wire
from tests.helpers import Thing
from tests.inside import run_tasks

var = contextvars.ContextVar("var", default="unset")


# -- contexts and recycled greenlets


def test_a_task_runs_in_a_copy_of_the_spawners_context(loop):
    def work():
        seen = [var.get()]
        var.set("the task's own")
        d.sleep(1)
        seen.append(var.get())
        return seen

    token = var.set("the spawner's")
    task = d.spawn(work)
    var.set("set later")
    task.join()
    assert task.result() == ["the spawner's", "the task's own"]
    assert var.get() == "set later"
    var.reset(token)


def test_tasks_do_not_see_each_others_context(loop):
    def work(name):
        var.set(name)
        d.sleep(1)
        return var.get()

    tasks = [d.spawn(work, name) for name in "abc"]
    for task in tasks:
        task.join()
    assert [task.result() for task in tasks] == ["a", "b", "c"]


def test_timers_and_call_soon_run_in_the_context_they_were_made_in(loop):
    seen = []

    def work():
        var.set("the task's")
        loop.add_timer(1, lambda: seen.append(var.get()))
        loop.call_soon(lambda: seen.append(var.get()))
        var.set("set later")

    d.spawn(work)
    d.sleep(2)
    assert seen == ["the task's", "the task's"]
    assert var.get() == "unset"


def run_one_after_the_other(*functions):
    """Run each in a task that begins when the one before has ended; answer their results."""
    results = []
    for function in functions:
        task = d.spawn(function)
        task.join()
        results.append(task.result())
    return results


def test_greenlets_are_recycled(loop):
    first, second = run_one_after_the_other(greenlet.getcurrent, greenlet.getcurrent)
    assert first is second


def test_a_recycled_greenlet_carries_no_context_over(loop):
    def first():
        var.set("left behind")
        return greenlet.getcurrent()

    def second():
        return greenlet.getcurrent(), var.get()

    one, (other, value) = run_one_after_the_other(first, second)
    assert one is other
    assert value == "unset"


def test_a_recycled_greenlet_carries_no_exception_over(loop):
    def first():
        raise ValueError("left behind")

    def second():
        try:
            raise KeyError
        except KeyError as error:
            return sys.exc_info()[0], error.__context__

    failed = d.spawn(first)
    failed.join()
    assert run_one_after_the_other(sys.exception, second) == [None, (KeyError, None)]


def test_a_task_that_parks_while_handling_an_exception_keeps_it_to_itself(loop):
    def handler():
        try:
            raise KeyError("mine")
        except KeyError:
            d.sleep(2)
            return sys.exception()

    task, other = d.spawn(handler), d.spawn(lambda: (d.sleep(1), sys.exception())[1])
    other.join()
    assert other.result() is None
    assert sys.exception() is None
    task.join()
    assert isinstance(task.result(), KeyError)


def test_a_recycled_greenlet_keeps_nothing_of_its_last_task_alive(loop):
    kept = []

    def work(argument):
        local = Thing()
        kept.append(weakref.ref(local))
        kept.append(weakref.ref(argument))
        var.set(Thing())
        kept.append(weakref.ref(var.get()))
        d.sleep(1)

    task = d.spawn(work, Thing())
    kept.append(weakref.ref(task))
    task.join()
    del task
    d.sleep(1)
    gc.collect()
    assert [ref() for ref in kept] == [None] * 4


# -- one run of the loop and the next


def test_a_task_parked_while_one_loop_run_ended_goes_on_in_the_next(loop):
    task = d.spawn(lambda: (d.sleep(10), "slept")[1])
    loop.add_timer(1, loop.stop)
    loop.run()
    assert not task.done
    task.join()
    assert task.result() == "slept"


# -- what leaves the loop


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_and_system_exit_in_a_task_leave_the_loop(loop, kind):
    def work():
        d.sleep(1)
        raise kind("out")

    task = d.spawn(work)
    with pytest.raises(kind, match="out"):
        d.sleep(100)
    assert loop.clock() == 1001
    assert task.done
    with pytest.raises(kind):
        task.result()
    d.sleep(1)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_and_system_exit_in_a_callback_leave_the_loop(loop, kind):
    def callback():
        raise kind("out")

    loop.add_timer(1, callback)
    survivor = d.spawn(d.sleep, 5)
    with pytest.raises(kind, match="out"):
        loop.run()
    assert not loop.running
    survivor.join()
    assert survivor.result() is None


def test_reset_ends_every_task_where_it_is(loop):
    ended = []

    def work():
        try:
            d.sleep(100)
        finally:
            ended.append("cleaned up")

    parked, unstarted = d.spawn(work), None
    d.sleep(1)
    unstarted = d.spawn(work)
    loop.reset()
    assert ended == ["cleaned up"]
    assert parked.done
    assert unstarted.done
    d.sleep(1)
    assert len(loop.timers) == 0


# -- threads


def test_two_loops_in_two_threads_do_not_see_each_other():
    barrier = threading.Barrier(2, timeout=10)
    seen = {}

    def program(name):
        loop = virtual_loop()
        here.loop = loop
        try:
            d.run(conversation, name, loop)
        finally:
            loop.close()

    def conversation(name, loop):
        near, far = wire()
        sock = d.Socket(near)
        var.set(name)
        tasks = []
        for number in range(20):
            tasks.append(d.spawn(lambda: (d.sleep(0.01), var.get())[1]))
            far.send(f"{name}{number}\n".encode())
            if number % 5 == 0:
                barrier.wait()
            assert sock.read_line() == f"{name}{number}\n".encode()
            d.sleep(0.001)
            assert d.current_loop() is loop
        for task in tasks:
            task.join()
        seen[name] = {task.result() for task in tasks}, [type(h).__name__ for h in d.Socket.descriptor_map().values()]
        barrier.wait()

    threads = [threading.Thread(target=program, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == {"one": ({"one"}, ["Socket"]), "two": ({"two"}, ["Socket"])}


def test_each_thread_gets_a_loop_of_its_own(loop, in_thread):
    def ours():
        other = d.current_loop()
        assert other is d.current_loop()
        other.close()
        return other

    assert d.current_loop() is loop
    assert in_thread(ours) is not loop


FOREIGN = {
    "watch_read": lambda sock, task: sock.watch_read(True),
    "watch_write": lambda sock, task: sock.watch_write(True),
    "close": lambda sock, task: sock.close(),
    "finish": lambda sock, task: sock.finish(),
    "write_soon": lambda sock, task: sock.write_soon(b"x"),
    "push_back_read": lambda sock, task: sock.push_back_read(b"x"),
    "write": lambda sock, task: sock.write(b"more than fits"),
    "read_exactly": lambda sock, task: sock.read_exactly(1),
    "read_line": lambda sock, task: sock.read_line(),
    "read_some": lambda sock, task: sock.read_some(),
    "write_all": lambda sock, task: sock.write_all(b"x"),
    "drain": lambda sock, task: sock.drain(),
    "join": lambda sock, task: task.join(),
    "cancel": lambda sock, task: task.cancel(),
    "call_soon": lambda sock, task: sock.loop.call_soon(print),
    "add_timer": lambda sock, task: sock.loop.add_timer(1, print),
    "steal_socket": lambda sock, task: sock.steal_socket(),
}


@pytest.mark.parametrize("call", FOREIGN)
def test_a_foreign_thread_is_refused_and_both_are_named(loop, pair, in_thread, call):
    sock, _ = pair(capacity=4)
    task = d.spawn(d.sleep, 1)
    d.sleep(0.5)
    with pytest.raises(d.ForeignThreadError) as caught:
        in_thread(FOREIGN[call], sock, task)
    assert "the other one" in str(caught.value)
    assert threading.current_thread().name in str(caught.value)
    assert not sock.closed
    task.join()
    assert task.result() is None


@pytest.mark.parametrize("call", [name for name in FOREIGN if name != "write"])
def test_a_foreign_thread_is_refused_while_the_loop_runs(loop, pair, in_thread, call):
    sock, _ = pair()
    task = d.spawn(d.sleep, 1)
    raised = []

    def callback():
        try:
            in_thread(FOREIGN[call], sock, task)
        except d.ForeignThreadError as error:
            raised.append(error)

    loop.call_soon(callback)
    waiter = d.spawn(lambda: callback())
    waiter.join()
    task.join()
    assert len(raised) == 2
    assert not sock.closed


def test_a_foreign_write_all_is_refused_also_when_a_task_runs_and_has_written(loop, pair, in_thread):
    sock, far = pair()

    def work():
        sock.write_all(b"ours")
        with pytest.raises(d.ForeignThreadError):
            in_thread(sock.write_all, b"theirs")
        sock.drain()

    task = d.spawn(work)
    task.join()
    task.result()
    assert far.recv(100) == b"ours"


def test_call_soon_threadsafe_is_the_way_in(real_loop):
    done = []
    reader, writer = socket.socketpair()
    sock = d.Socket(reader)
    loop = d.current_loop()
    task = d.spawn(sock.read_line)
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(lambda: done.append(writer.send(b"hi\n"))))
    d.sleep(0)
    thread.start()
    task.join(30)
    thread.join()
    assert task.result() == b"hi\n"
    assert done == [3]
    sock.close()
    writer.close()


# -- run


def test_thousands_of_tasks_need_one_greenlet_when_they_follow_each_other(loop):
    greenlets = {id(greenlet) for greenlet in run_one_after_the_other(*[greenlet.getcurrent] * 2000)}
    assert len(greenlets) == 1


def test_after_a_rush_most_greenlets_are_let_go(loop):
    refs = []
    tasks = [d.spawn(lambda: (refs.append(weakref.ref(greenlet.getcurrent())), d.sleep(1))) for _ in range(1000)]
    while tasks:
        tasks.pop().join()
    d.sleep(1)
    gc.collect()
    assert len(refs) == 1000
    assert sum(ref() is not None for ref in refs) <= 256


def test_the_cleaning_up_of_a_task_that_reset_ends_cannot_wait(loop):
    steps = []

    def work():
        try:
            d.sleep(100)
        finally:
            try:
                d.sleep(1)
            except d.Cancelled:
                steps.append("cannot wait")

    task = d.spawn(work)
    d.sleep(1)
    loop.reset()
    assert task.done
    assert steps == ["cannot wait"]


def raised_at(wait, *errors):
    """Make the call while a KeyError is being handled; the context of what it raises."""
    try:
        raise KeyError("being handled")
    except KeyError:
        try:
            wait()
        except errors as error:
            return error.__context__
    raise AssertionError("it raised nothing")


@pytest.mark.parametrize("style", ["task", "top level"])
@pytest.mark.parametrize("what", ["timeout", "cancelled", "closed"])
def test_an_error_that_comes_while_a_task_waits_keeps_the_one_that_it_was_handling(loop, pair, style, what):
    sock, _far = pair()
    other = d.spawn(d.sleep, 9)

    def waits():
        if what == "timeout":
            return raised_at(lambda: other.join(1), TimeoutError)
        if what == "closed":
            loop.add_timer(1, sock.close)
            return raised_at(sock.read_line, d.ClosedError)
        scope = d.move_on_after(1)
        with scope:
            seen.append(raised_at(lambda: d.sleep(5), d.Cancelled))
        return seen.pop()

    seen = []
    if style == "top level":
        context = waits()
    else:
        task = d.spawn(waits)
        task.join()
        context = task.result()
    assert repr(context) == "KeyError('being handled')"
    other.cancel()


def test_an_error_that_was_raised_at_a_wait_keeps_nothing_of_the_task(loop):
    """Nothing but the error's own traceback refers to it, also where the wait was made by top-level code."""
    import gc
    import weakref

    class Local:
        pass

    def waits():
        local = Local()
        gone.append(weakref.ref(local))
        with d.move_on_after(1):
            d.sleep(5)

    gone = []
    gc.disable()
    try:
        waits()
        d.spawn(waits).join()
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


# -- cancelled while it gives way


def test_to_cancel_tasks_that_give_way_takes_nothing_out_of_the_queues(loop, run_turns):
    """That would take as long as the queues are, for each of them."""
    begun, ended = [], []

    def work(number):
        begun.append(number)
        try:
            d.sleep(0)
        finally:
            ended.append(number)

    tasks = [d.spawn(work, number) for number in range(50)]
    run_tasks(loop)
    waiting = len(loop.runnable) + len(loop.ready)
    for task in tasks[:40]:
        task.cancel()
    assert len(loop.runnable) + len(loop.ready) == waiting
    run_turns(3)
    assert sorted(ended) == sorted(begun)
    for task in tasks[:40]:
        with pytest.raises(d.TaskCancelledError):
            task.result()
    assert [task.result() for task in tasks[40:]] == [None] * 10


@pytest.mark.parametrize("how", ["timeout", "scope", "group", "reset"])
def test_what_ends_a_task_that_gives_way(loop, run_turns, how):
    seen = []

    def give_way():
        try:
            while True:
                d.sleep(0)
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    def work():
        if how == "timeout":
            with pytest.raises(TimeoutError), d.timeout(0.5):
                give_way()
        elif how == "scope":
            with d.move_on_after(None) as scope:
                loop.call_soon(scope.cancel)
                give_way()
        elif how == "group":
            with d.TaskGroup() as group:
                for _ in range(3):
                    group.spawn(give_way)
                d.sleep(0)
                group.cancel()
        else:
            give_way()

    task = d.spawn(work)
    run_turns(2)
    loop.clock.jump(1)
    run_turns(4)
    if how == "reset":
        assert not task.done
        loop.reset()
    assert task.done
    assert set(seen) == {"Cancelled"} or how == "reset"
    assert len(seen) == (3 if how == "group" else 1)
    assert not loop.ready
    assert not loop.runnable


# -- what the bridge to asyncio fills in


def test_a_guard_stands_before_each_switch_of_tasks_and_of_top_level_code(loop, monkeypatch):
    monkeypatch.setattr(sched_module, "_guards", [])
    d.sleep(0)
    switches = []

    def guard(switch):
        def park():
            switches.append(d.current_task())
            return switch()

        return park

    early = d.spawn(lambda: (d.sleep(1), d.sleep(1)))
    d.sleep(0)
    before = scheduler(loop).top_level.to_hub
    guard_parking(guard)
    d.sleep(5)
    late = d.spawn(d.sleep, 1)
    late.join()
    assert early.done
    assert len(switches) == 4  # two of top-level code, one of each task
    waiting = d.spawn(lambda: (d.sleep(1), d.sleep(1)))
    d.sleep(0.5)
    drop_guard(guard)
    switches.clear()
    waiting.join()
    d.spawn(d.sleep, 1).join()
    assert switches == []
    assert scheduler(loop).top_level.to_hub == before
    assert scheduler(loop).from_tasks == scheduler(loop).to_hub


def test_closers_are_called_when_all_tasks_have_ended_and_before_sockets_close(loop):
    near, far = wire()
    sock, seen = d.Socket(near), []
    sched = scheduler(loop)

    def close():
        sched.closers.remove(close)
        seen.append((len(sched.tasks), sock.closed))

    def main():
        d.spawn(d.sleep, 100)
        sched.closers.append(close)

    d.run(main)
    assert seen == [(0, False)]
    assert sock.closed
    far.close()


def test_a_task_is_awaited_only_where_the_bridge_is(loop, monkeypatch):
    monkeypatch.setattr(tasks_module, "_crossing", None)
    task = d.spawn(d.sleep, 0)
    with pytest.raises(TypeError, match=r"dangagreen\.bridge"):
        task.__await__()
    task.join()
