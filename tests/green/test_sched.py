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
from dangagreen.loop.loop import here
from dangagreen.testing import StalledError, virtual_loop, wire

var = contextvars.ContextVar("var", default="unset")


class Thing:
    """Something that a weak reference may point to."""


# -- spawn, join, result


def test_a_task_gets_its_arguments_and_hands_back_its_result(loop):
    def work(*args, **kwargs):
        d.sleep(1)
        return args, kwargs

    task = d.spawn(work, 1, 2, function=3)
    task.join()
    assert task.done
    assert task.result() == ((1, 2), {"function": 3})


def test_spawn_does_not_run_the_task_at_once(loop):
    ran = []
    task = d.spawn(ran.append, 1)
    assert ran == []
    assert not task.done
    task.join()
    assert ran == [1]


@pytest.mark.in_order
def test_tasks_start_in_the_order_of_spawning(loop):
    ran = []
    for number in range(10):
        d.spawn(ran.append, number)
    d.sleep(0.1)
    assert ran == list(range(10))


def test_a_task_spawns_a_task(loop):
    def outer():
        inner = d.spawn(lambda: "inner")
        inner.join()
        return inner.result()

    task = d.spawn(outer)
    task.join()
    assert task.result() == "inner"


def test_result_before_the_end_raises_at_once(loop):
    task = d.spawn(d.sleep, 1)
    with pytest.raises(RuntimeError, match="join"):
        task.result()
    task.join()
    assert task.result() is None


def test_result_raises_what_the_task_raised(loop):
    error = KeyError("mine")

    def fail():
        raise error

    task = d.spawn(fail)
    task.join()
    with pytest.raises(KeyError) as caught:
        task.result()
    assert caught.value is error


def test_join_does_not_raise_what_the_task_raised(loop):
    task = d.spawn(lambda: 1 / 0)
    task.join()
    assert task.done


def test_join_of_a_task_that_has_ended_returns_at_once(loop):
    task = d.spawn(int)
    task.join()
    before = loop.clock()
    task.join()
    task.join(timeout=0)
    assert loop.clock() == before


def test_all_who_join_are_woken(loop):
    work = d.spawn(d.sleep, 5)
    joiners = [d.spawn(work.join) for _ in range(3)]
    for joiner in joiners:
        joiner.join()
    assert [joiner.result() for joiner in joiners] == [None] * 3
    assert loop.clock() == 1005


def test_join_times_out_and_leaves_the_task_alone(loop):
    task = d.spawn(d.sleep, 10)
    with pytest.raises(TimeoutError, match="2"):
        task.join(2)
    assert loop.clock() == 1002
    assert not task.done
    task.join(100)
    assert loop.clock() == 1010
    assert len(loop.timers) == 0


def test_a_task_cannot_join_itself(loop):
    def myself():
        d.current_task().join()

    task = d.spawn(myself)
    task.join(1)
    with pytest.raises(RuntimeError, match="itself"):
        task.result()


def test_the_failure_of_a_task_that_nobody_joins_is_reported_once(loop, take_errors):
    def forgotten():
        raise ValueError("nobody sees me")

    task = d.spawn(forgotten)
    d.sleep(1)
    (context,) = take_errors()
    assert isinstance(context.exception, ValueError)
    assert context.exception.__traceback__ is not None
    assert context.subject is task
    assert "forgotten" in context.message
    assert "test_sched.py" in context.message


def test_a_failing_task_harms_no_other(loop, take_errors):
    other = d.spawn(lambda: (d.sleep(1), "fine"))
    d.spawn(lambda: 1 / 0)
    other.join()
    assert other.result() == (None, "fine")
    assert [type(context.exception) for context in take_errors()] == [ZeroDivisionError]


def test_a_task_is_named_after_its_function_and_can_be_renamed(loop):
    def work():
        d.sleep(1)

    task = d.spawn(work)
    assert task.name.endswith("work")
    task.name = "number 5"
    assert task.name == "number 5"
    assert "number 5" in repr(task)
    task.join()
    assert task.name == "number 5"
    other = d.spawn(work)
    other.join()
    assert other.name.endswith("work")


def test_current_task_is_the_one_that_runs(loop):
    task = d.spawn(d.current_task)
    task.join()
    assert task.result() is task
    seen = []
    loop.call_soon(lambda: seen.append(d.current_task()))
    d.sleep(1)
    assert seen == [None]
    assert d.current_task() is None


def test_a_parked_task_says_what_it_waits_for(loop, pair):
    sock, far = pair()
    sleeper, reader = d.spawn(d.sleep, 5), d.spawn(sock.read_line)
    joiner = d.spawn(sleeper.join)
    d.sleep(1)
    assert "sleep" in sleeper.waits_for
    assert "read_line" in reader.waits_for
    assert repr(sock) in reader.waits_for
    assert "join" in joiner.waits_for
    far.send(b"x\n")
    joiner.join()
    assert sleeper.waits_for is None


# -- sleep


def test_sleep_takes_as_long_as_it_was_told(loop):
    d.sleep(1.5)
    assert loop.clock() == 1001.5


@pytest.mark.in_order
def test_sleepers_wake_in_the_order_of_their_deadlines(loop):
    woken = []

    def sleeper(seconds, name):
        d.sleep(seconds)
        woken.append((name, loop.clock()))

    for seconds, name in ((3, "c"), (1, "a"), (2, "b"), (1, "a2")):
        d.spawn(sleeper, seconds, name)
    d.sleep(10)
    assert woken == [("a", 1001), ("a2", 1001), ("b", 1002), ("c", 1003)]


@pytest.mark.in_order
@pytest.mark.parametrize("seconds", [0, -1])
def test_sleeping_for_nothing_lets_everybody_else_run_once(loop, seconds):
    steps = []

    def stepper(name):
        for number in range(3):
            steps.append(f"{name}{number}")
            d.sleep(seconds)

    one, two = d.spawn(stepper, "a"), d.spawn(stepper, "b")
    one.join()
    two.join()
    assert steps == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert loop.clock() == 1000


def test_a_task_that_yields_for_ever_does_not_starve_timers(loop):
    task = d.spawn(lambda: [d.sleep(0) for _ in range(100)])
    fired = []
    loop.add_timer(0, lambda: fired.append(task.done))
    task.join()
    assert fired == [False]


# -- cancel


def test_cancel_raises_at_the_wait_with_the_reason(loop):
    caught = []

    def work():
        try:
            d.sleep(100)
        except d.Cancelled as error:
            caught.append((error.reason, loop.clock()))
            raise

    task = d.spawn(work)
    d.sleep(1)
    assert task.cancel("enough") is True
    task.join()
    assert caught == [("enough", 1001)]
    assert len(loop.timers) == 0


def test_result_of_a_cancelled_task_is_an_ordinary_exception(loop):
    task = d.spawn(d.sleep, 100)
    d.sleep(1)
    task.cancel("enough")
    task.join()
    with pytest.raises(d.TaskCancelledError, match="enough") as caught:
        task.result()
    assert isinstance(caught.value, Exception)
    assert not isinstance(caught.value, d.Cancelled)
    assert caught.value.reason == "enough"


def test_cancelled_is_not_caught_by_except_exception(loop):
    def stubborn():
        try:
            d.sleep(100)
        except Exception:
            return "caught"

    task = d.spawn(stubborn)
    d.sleep(1)
    task.cancel()
    task.join()
    with pytest.raises(d.TaskCancelledError):
        task.result()


def test_a_cancelled_task_is_no_failure(loop, take_errors):
    task = d.spawn(d.sleep, 100)
    d.sleep(1)
    task.cancel()
    d.sleep(1)
    assert task.done
    assert take_errors() == []


def test_a_task_cancelled_before_its_start_never_runs(loop):
    ran = []
    task = d.spawn(ran.append, 1)
    task.cancel("changed my mind")
    task.join()
    assert ran == []
    with pytest.raises(d.TaskCancelledError, match="changed my mind"):
        task.result()


def test_every_later_wait_of_a_cancelled_task_raises_again(loop, pair):
    sock, far = pair()
    far.send(b"there is input, and still\n")
    ended = d.spawn(int)
    ended.join()
    waits = [
        lambda: d.sleep(1),
        lambda: d.sleep(0),
        lambda: ended.join(),
        lambda: sock.read_exactly(1),
        lambda: sock.read_exactly(0),
        lambda: sock.read_line(),
        lambda: sock.read_until(b";"),
        lambda: sock.read_some(),
        lambda: sock.read_to_end(),
        lambda: next(iter(sock)),
        lambda: sock.write_all(b"x"),
        lambda: sock.drain(),
        lambda: d.connect(("127.0.0.1", 1)),
    ]
    raised = []

    def work():
        for wait in waits:
            try:
                wait()
            except d.Cancelled as error:
                raised.append(error.reason)
        return "through"

    task = d.spawn(work)
    d.sleep(0.5)
    task.cancel("now")
    task.join()
    assert raised == ["now"] * len(waits)
    assert task.result() == "through"
    assert sock.read_line() == b"there is input, and still\n"
    assert bytes(far._incoming) == b""


def test_cancelling_twice_keeps_the_first_reason(loop):
    task = d.spawn(d.sleep, 100)
    d.sleep(1)
    task.cancel("first")
    task.cancel("second")
    task.join()
    with pytest.raises(d.TaskCancelledError, match="first"):
        task.result()


def test_cancel_of_a_task_that_has_ended_does_nothing(loop):
    task = d.spawn(lambda: 5)
    task.join()
    assert task.cancel() is False
    assert task.result() == 5


def test_a_task_that_cancels_itself_ends_at_its_next_wait(loop):
    steps = []

    def work():
        d.current_task().cancel("me")
        steps.append("goes on")
        d.sleep(0)
        steps.append("never")

    task = d.spawn(work)
    task.join()
    assert steps == ["goes on"]
    with pytest.raises(d.TaskCancelledError, match="me"):
        task.result()


def test_a_cancelled_join_leaves_the_joined_task_alone(loop):
    work = d.spawn(lambda: (d.sleep(5), "done")[1])
    joiner = d.spawn(work.join)
    d.sleep(1)
    joiner.cancel()
    joiner.join()
    work.join()
    assert work.result() == "done"


def test_cancel_undoes_a_sleep_of_no_seconds(loop):
    task = d.spawn(d.sleep, 0)
    loop.call_soon(lambda: task.cancel("now"))
    task.join()
    with pytest.raises(d.TaskCancelledError):
        task.result()
    d.sleep(1)


def test_an_ended_task_and_the_timeout_of_its_joiner_wake_the_joiner_once(loop):
    work = d.spawn(d.sleep, 1)
    seen = []

    def joiner():
        try:
            work.join(1)
            seen.append("ended")
        except TimeoutError:
            seen.append("timeout")
        d.sleep(5)
        seen.append(loop.clock())

    task = d.spawn(joiner)
    task.join()
    assert len(seen) == 2
    assert seen[1] == 1006


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


@pytest.mark.in_order
def test_its_arguments_go_before_a_joiner_is_woken(loop):
    order, gone = [], d.Event()

    class Leaves:
        def __del__(self):
            gone.set()

    def use(_thing):
        pass

    def wait():
        gone.wait()
        order.append("told by the argument")

    def join():
        d.spawn(use, Leaves()).join()
        order.append("joiner")

    for task in [d.spawn(wait), d.spawn(join)]:
        task.join()
    assert order == ["told by the argument", "joiner"]


def test_a_done_task_lets_go_of_its_function_and_arguments(loop):
    thing = Thing()
    ref = weakref.ref(thing)
    task = d.spawn(lambda argument: None, thing)
    task.join()
    del thing
    gc.collect()
    assert ref() is None
    assert task.result() is None


# -- calls that wait, made in a callback


class Reader(d.Socket):
    """Calls what it is told from `event_read`, and keeps what that raised."""

    __slots__ = ("call", "raised")

    def event_read(self):
        self.read(100)
        try:
            self.call(self)
        except BaseException as error:
            self.raised = error


ended_tasks = []
PARKING = {
    "sleep": lambda sock: d.sleep(1),
    "join": lambda sock: ended_tasks[0].join(),
    "read_exactly": lambda sock: sock.read_exactly(1),
    "read_line": lambda sock: sock.read_line(),
    "read_until": lambda sock: sock.read_until(b";"),
    "read_some": lambda sock: sock.read_some(),
    "read_to_end": lambda sock: sock.read_to_end(),
    "write_all": lambda sock: sock.write_all(b"x"),
    "drain": lambda sock: sock.drain(),
    "connect": lambda sock: d.connect(("127.0.0.1", 1)),
}


@pytest.mark.parametrize("call", PARKING)
def test_a_parking_call_in_a_callback_names_callback_call_and_cure(loop, pair, call):
    ended = d.spawn(int)
    ended.join()
    ended_tasks[:] = [ended]
    sock, far = pair(Reader)
    sock.call, sock.raised = PARKING[call], None
    sock.watch_read(True)
    far.send(b"input")
    d.sleep(1)
    assert isinstance(sock.raised, d.CannotParkError)
    message = str(sock.raised)
    assert call in message
    assert "Reader.event_read" in message
    assert "spawn(" in message
    ended_tasks.clear()


def test_a_parking_call_that_need_not_wait_raises_in_a_callback_too(loop, pair):
    sock, _ = pair(Reader)
    sock.call, sock.raised = lambda sock: sock.read_exactly(0), None
    sock.push_back_read(b"buffered")
    sock.watch_read(True)
    d.sleep(1)
    assert isinstance(sock.raised, d.CannotParkError)


def test_a_parking_call_in_a_timer_names_the_timers_callback(loop, take_errors):
    def my_timer_callback():
        d.sleep(1)

    loop.add_timer(1, my_timer_callback)
    d.sleep(2)
    (context,) = take_errors()
    assert isinstance(context.exception, d.CannotParkError)
    assert "my_timer_callback" in str(context.exception)


def test_a_parking_call_in_a_call_soon_or_post_loop_callback_raises(loop, take_errors):
    def my_soon_callback():
        d.sleep(1)

    def my_post_loop_callback(handlers, other_fds):
        loop.post_loop_callback = None
        d.sleep(1)

    loop.call_soon(my_soon_callback)
    loop.post_loop_callback = my_post_loop_callback
    d.sleep(2)
    errors = take_errors()
    assert [type(context.exception) for context in errors] == [d.CannotParkError] * 2
    assert "my_soon_callback" in str(errors[0].exception)
    assert "my_post_loop_callback" in str(errors[1].exception)


def test_a_callback_may_spawn_what_waits(loop, pair):
    sock, far = pair(Reader)
    got = []
    sock.call = lambda sock: d.spawn(lambda: got.append((d.sleep(1), loop.clock())[1]))
    sock.watch_read(True)
    far.send(b"input")
    d.sleep(5)
    assert len(got) == 1
    assert 1001 <= got[0] < 1002


# -- top-level code


def test_top_level_code_sleeps_joins_and_reads_while_tasks_run(loop, pair):
    sock, far = pair()
    steps = []

    def work():
        for number in range(3):
            d.sleep(1)
            steps.append(number)
        far.send(b"line\n")

    task = d.spawn(work)
    d.sleep(1.5)
    assert steps == [0]
    assert sock.read_line() == b"line\n"
    task.join()
    assert steps == [0, 1, 2]
    assert not loop.running


def test_top_level_code_after_a_failed_wait_can_wait_again(loop):
    task = d.spawn(d.sleep, 5)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            task.join(1)
    task.join()
    assert loop.clock() == 1005


def test_top_level_code_that_waits_for_nothing_is_told(loop, pair):
    loop.poller.patience = 0
    sock, _ = pair()
    with pytest.raises(StalledError):
        sock.read_line()
    assert sock.as_string()
    d.sleep(1)


def test_top_level_read_can_be_repeated_after_an_exception_left_the_loop(loop, pair):
    sock, far = pair()

    def interrupt():
        raise KeyboardInterrupt

    loop.add_timer(1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        sock.read_line()
    far.send(b"still there\n")
    assert sock.read_line() == b"still there\n"


def test_the_loop_ends_and_top_level_calls_start_it_again(loop):
    loop.call_soon(loop.stop)
    loop.run()
    d.sleep(1)
    loop.call_soon(loop.stop)
    loop.run()
    d.sleep(1)
    assert loop.clock() == 1002


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
        thread.join(10)
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
    task.join(10)
    thread.join()
    assert task.result() == b"hi\n"
    assert done == [3]
    sock.close()
    writer.close()


# -- run


def test_run_returns_the_result_of_main(loop):
    assert d.run(lambda *args: (d.sleep(1), args)[1], 1, 2) == (1, 2)


def test_run_raises_what_main_raises(loop, take_errors):
    def main():
        d.sleep(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        d.run(main)
    assert take_errors() == []


def test_run_can_be_called_again(loop):
    assert [d.run(lambda: (d.sleep(1), loop.clock())[1]) for _ in range(2)] == [1001, 1002]


def test_run_within_run_raises(loop):
    def main():
        d.run(int)

    with pytest.raises(RuntimeError, match="spawn"):
        d.run(main)


def test_when_main_ends_the_other_tasks_are_cancelled_and_waited_for(loop):
    steps = []

    def other():
        try:
            d.sleep(1000)
        except d.Cancelled as error:
            steps.append(f"cancelled: {error.reason}")
            raise
        finally:
            steps.append("cleaned up")

    def main():
        d.spawn(other)
        d.sleep(1)
        steps.append("main ends")

    d.run(main)
    assert steps == ["main ends", "cancelled: run() ended", "cleaned up"]
    assert loop.clock() == 1001


def test_when_main_ends_listeners_are_closed_first_and_sockets_last(loop, pair):
    sock, _ = pair()
    seen = []

    def other(listener):
        try:
            sock.read_line()
        finally:
            seen.append((listener.closed, sock.closed))

    def main():
        listener = d.serve(("127.0.0.1", 0), lambda sock: None)
        d.spawn(other, listener)
        d.sleep(1)
        return listener

    listener = d.run(main)
    assert seen == [(True, False)]
    assert listener.closed
    assert sock.closed


def test_when_main_fails_the_rest_is_wound_up_too(loop):
    ended = []

    def other():
        try:
            d.sleep(1000)
        finally:
            ended.append(True)

    def main():
        d.spawn(other)
        d.sleep(1)
        raise ValueError

    with pytest.raises(ValueError):
        d.run(main)
    assert ended == [True]


def test_a_task_spawned_while_winding_up_is_ended_too(loop):
    def late():
        d.sleep(1000)

    def other():
        try:
            d.sleep(1000)
        finally:
            d.spawn(late)

    def main():
        d.spawn(other)
        d.sleep(1)

    d.run(main)
    assert loop.clock() == 1001


def test_system_exit_of_main_leaves_run(loop):
    def main():
        d.sleep(1)
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        d.run(main)
    assert caught.value.code == 3


def test_an_interrupt_that_meets_the_end_of_a_join_wakes_no_later_wait(loop):
    def interrupt():
        raise KeyboardInterrupt

    task = d.spawn(int)
    loop.call_soon(interrupt)
    with pytest.raises(KeyboardInterrupt):
        task.join()
    d.sleep(10)
    assert loop.clock() == 1010


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


def test_what_a_task_raises_keeps_no_greenlet_of_another_alive(loop):
    kept = []

    def fail():
        local = Thing()
        kept.append(weakref.ref(local))
        raise ValueError("with a traceback")

    task = d.spawn(fail)
    task.join()
    with pytest.raises(ValueError):
        task.result()
    del task
    gc.collect()
    assert kept[0]() is None


@pytest.mark.parametrize("seconds", [30 * 24 * 3600.0, 1e12, float("inf")])
def test_a_sleep_longer_than_the_system_can_count_is_no_error(real_loop, seconds):
    task = d.spawn(d.sleep, seconds)
    d.sleep(0.01)
    assert not task.done
    task.cancel()
    task.join(5)
    assert task.done


def test_join_with_no_time_left_times_out_and_a_task_that_ends_in_time_does_not(loop):
    task = d.spawn(d.sleep, 1)
    with pytest.raises(TimeoutError):
        task.join(0)
    task.join(1.5)
    assert loop.clock() == 1001


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


def test_system_exit_of_another_task_leaves_run_and_winds_up(loop):
    ended = []

    def leave():
        d.sleep(1)
        raise SystemExit(4)

    def main():
        d.spawn(leave)
        try:
            d.sleep(100)
        finally:
            ended.append(loop.clock())

    with pytest.raises(SystemExit) as caught:
        d.run(main)
    assert caught.value.code == 4
    assert ended == [1001]


@pytest.mark.parametrize("timer_first", [True, False])
def test_a_cancel_by_a_timer_at_the_very_deadline_of_a_sleep_wakes_once(loop, timer_first):
    woken = []

    def work():
        for _ in range(2):
            try:
                d.sleep(1)
                woken.append("slept")
            except d.Cancelled:
                woken.append("cancelled")

    task = d.spawn(work)
    if timer_first:
        loop.add_timer(1, task.cancel)
    d.sleep(0)
    if not timer_first:
        loop.add_timer(1, task.cancel)
    task.join()
    assert woken == (["cancelled", "cancelled"] if timer_first else ["slept", "cancelled"])


def test_a_yielding_task_that_is_cancelled_by_the_call_before_it_leaves_the_queue_in_order(loop):
    ran = []

    def yields():
        loop.call_soon(lambda: task.cancel("by the call before"))
        d.sleep(0)

    def main():
        task.join()
        loop.call_soon(ran.append, "later")
        d.sleep(0)

    task = d.spawn(yields)
    d.run(main)
    assert ran == ["later"]
    with pytest.raises(d.TaskCancelledError, match="by the call before"):
        task.result()


def test_a_task_that_exits_in_its_clean_up_does_not_keep_the_others_from_theirs(loop, pair):
    steps = []
    sock, _ = pair()

    def cleans_up(words, error):
        try:
            d.sleep(100)
        finally:
            steps.append(words)
            if error is not None:
                raise error

    def main():
        for number in range(4):
            d.spawn(cleans_up, number, SystemExit(number) if number % 2 else None)
        d.sleep(1)

    with pytest.raises(SystemExit) as caught:
        d.run(main)
    assert caught.value.code in (1, 3)
    assert sorted(steps) == [0, 1, 2, 3]
    assert sock.closed
    assert d.task_table() == ""


@pytest.mark.parametrize("call", ["join", "wait"])
def test_to_wait_for_a_task_that_exits_does_not_keep_it_from_leaving_the_loop(loop, call):
    def leaves():
        d.sleep(1)
        raise SystemExit(3)

    def main():
        task = d.spawn(leaves)
        task.join() if call == "join" else d.wait([task])
        d.sleep(100)

    with pytest.raises(SystemExit) as caught:
        d.run(main)
    assert caught.value.code == 3
    assert loop.clock() == 1001


@pytest.mark.in_order
def test_a_failure_that_an_interrupted_join_did_not_see_is_reported(loop, take_errors):
    def leave(error):
        raise error

    task = d.spawn(leave, ValueError("seen by nobody"))
    d.spawn(leave, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        task.join()
    assert [str(context.exception) for context in take_errors()] == ["seen by nobody"]


def test_the_loop_does_not_run_inside_no_parking(loop):
    with d.no_parking():
        with pytest.raises(RuntimeError, match="no_parking"):
            d.run(int)
        with pytest.raises(RuntimeError, match="no_parking"):
            d.Socket.event_loop()
    loop.reset()


@pytest.mark.parametrize("seconds", [0, 1])
def test_a_callback_that_exits_at_each_turn_does_not_keep_run_from_ending(loop, pair, seconds):
    class Leaves(d.Socket):
        __slots__ = ()

        def event_read(self):
            raise SystemExit(3)

    steps = []
    sock, far = pair(Leaves)
    sock.watch_read(True)

    def other():
        try:
            d.sleep(100)
        finally:
            steps.append("cleaned up")

    def main():
        d.spawn(other)
        d.sleep(0)
        far.send(b"x")
        d.sleep(seconds)

    with pytest.raises(SystemExit):
        d.run(main)
    assert steps == ["cleaned up"]
    assert sock.closed


@pytest.mark.in_order
@pytest.mark.parametrize("how", ["cancelled", "timed out", "seen by another", "in a group"])
def test_a_failure_is_reported_once_where_a_joiner_goes_in_the_same_turn(loop, take_errors, how):
    gate = d.Event()

    def fails():
        gate.wait()
        raise ValueError("once")

    def joins(task):
        with d.timeout(1 if how == "timed out" else 5):
            task.join()

    def scene(spawn):
        task = spawn(fails)
        joiner = d.spawn(joins, task)
        another = d.spawn(task.join) if how == "seen by another" else None
        d.sleep(0.5)
        if how == "timed out":
            loop.add_timer(0.5, gate.set)
        else:
            gate.set()
            joiner.cancel()
        joiner.join()
        if another is not None:
            another.join()

    def main():
        if how == "in a group":
            with pytest.raises(ExceptionGroup), d.TaskGroup() as group:
                scene(group.spawn)
        else:
            scene(d.spawn)

    task = d.spawn(main)
    task.join()
    task.result()
    reports = [str(context.exception) for context in take_errors()]
    assert reports == ([] if how in ("seen by another", "in a group") else ["once"])


def test_a_failure_that_was_handed_back_keeps_nothing_else_alive(loop):
    def fails():
        raise ValueError

    class Large:
        pass

    def makes():
        large = Large()
        refs.append(weakref.ref(large))
        d.sleep(5)
        return large

    refs = []
    failed, other = d.spawn(fails), d.spawn(makes)
    assert d.wait([failed, other], until="first")[0] == {failed}
    other.join()
    del other
    gc.collect()
    assert refs[0]() is None
    assert failed.context is None


def test_what_answers_to_every_name_is_a_function_and_what_is_called_by_await_is_none(loop):
    class Proxy:
        def __getattr__(self, name):
            return Proxy()

        def __call__(self):
            return "called"

    class Async:
        async def __call__(self):
            """Never runs."""

    task = d.spawn(Proxy())
    task.join()
    assert task.result() == "called"
    with pytest.raises(TypeError, match="async def"):
        d.spawn(Async())


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
    loop._run_tasks()
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
