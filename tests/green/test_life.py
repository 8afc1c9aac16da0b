"""The life of a task: what it holds and lets go of, and what is noted of its end."""

import contextvars
import weakref

import greenlet
import pytest

import dangagreen as d


def test_what_a_task_asks_of_its_life_is_called_by_the_name_of_the_task():
    assert (d.Task.join.__module__, d.Task.join.__qualname__) == ("dangagreen", "Task.join")


def test_a_task_that_has_ended_holds_neither_its_function_nor_its_worker(loop):
    class Held:
        pass

    def use(_held):
        pass

    held = Held()
    seen = weakref.ref(held)
    task = d.spawn(use, held)
    assert task.function() is not None
    del held
    task.join()
    assert seen() is None
    assert task.function() is task.worker is task.context is None


def test_it_is_noted_which_task_has_ended_last(loop):
    def one():
        raise d.Cancelled

    def other():
        d.sleep(1)

    tasks = d.spawn(one), d.spawn(other)
    for task in tasks:
        task.join()
        assert (loop.green.ended, loop.green.ended_from) == (task.name, task.origin)


def test_a_task_that_never_ran_leaves_the_current_one_alone(loop):
    def never():
        raise AssertionError

    def parent():
        task = d.spawn(never)
        task.cancel()
        task.join()
        return d.current_task()

    task = d.spawn(parent)
    task.join()
    assert task.result() is task


def test_what_a_task_has_written_leaves_when_it_ends(loop, wires, run_turns):
    one, other = wires()
    sock = d.Socket(one)
    d.spawn(sock.write_all, b"x").join()
    run_turns(1)
    assert other.recv(10) == b"x"
    sock.close()


# -- tasks that follow each other in one worker


@pytest.fixture
def switches():
    """The switches of greenlets of this thread, in order."""
    seen = []
    before = greenlet.settrace(lambda event, greenlets: seen.append(greenlets))
    yield seen
    greenlet.settrace(before)


def test_tasks_that_do_not_park_follow_each_other_without_a_switch(loop, switches):
    def main():
        switches.clear()
        tasks = [d.spawn(ran.append, n) for n in range(50)]
        for task in tasks:
            task.join()
        return len(switches)

    ran = []
    main_task = d.spawn(main)
    main_task.join()
    assert ran == list(range(50))
    assert main_task.result() == 4  # to the hub, to a worker, and back to where it began
    assert len(loop.green.workers) == 2


def test_each_has_a_context_and_a_name_of_its_own(loop):
    var = contextvars.ContextVar("var", default="none")

    def look(n):
        seen.append((var.get(), d.current_task().name))
        var.set("of a task before")

    seen = []
    tasks = []
    for n in range(3):
        var.set(n)
        tasks.append(d.spawn(look, n))
        tasks[-1].name = f"task {n}"
    for task in tasks:
        task.join()
    assert seen == [(n, f"task {n}") for n in range(3)]


def test_what_was_woken_earlier_runs_earlier(loop):
    def wait(event, word):
        event.wait()
        order.append(word)

    def main():
        first, second = d.Event(), d.Event()
        d.spawn(wait, first, "woken first")
        d.spawn(wait, second, "woken second")
        d.sleep(0)
        d.spawn(order.append, "started first")
        first.set()
        d.spawn(order.append, "started second")
        d.spawn(order.append, "started third")
        second.set()
        d.spawn(order.append, "started fourth").join()

    order = []
    d.spawn(main).join()
    assert order == [
        "started first", "woken first", "started second", "started third", "woken second", "started fourth"
    ]  # fmt: skip


def test_one_that_parks_is_resumed_where_it_is(loop):
    def sleepy(n):
        d.sleep(n)
        return n

    tasks = [d.spawn(int), d.spawn(sleepy, 1), d.spawn(int), d.spawn(sleepy, 2)]
    assert [(task.join(), task.result())[1] for task in tasks] == [0, 1, 0, 2]


def test_one_that_was_cancelled_before_its_turn_never_runs(loop):
    ran = []
    tasks = [d.spawn(ran.append, n) for n in range(5)]
    tasks[2].cancel()
    d.spawn(ran.append, 5).join()
    assert ran == [0, 1, 3, 4, 5]
    with pytest.raises(d.TaskCancelledError):
        tasks[2].result()


def test_one_that_fails_is_reported_and_the_next_one_runs(loop, take_errors):
    def fail():
        raise KeyError("x")

    ran = []
    for function in (int, fail, int):
        d.spawn(function)
    d.spawn(ran.append, 1).join()
    assert ran == [1]
    (context,) = take_errors()
    assert isinstance(context.exception, KeyError)


def test_one_that_ends_the_loop_does_so_and_the_next_one_runs_in_the_next_run(loop):
    def interrupt():
        raise KeyboardInterrupt

    ran = []
    d.spawn(ran.append, 1)
    d.spawn(interrupt)
    last = d.spawn(ran.append, 2)
    with pytest.raises(KeyboardInterrupt):
        loop.run(lambda: last.done)
    assert ran == [1]
    assert loop.task_call is None
    assert list(loop.task_looks) == []
    last.join()
    assert ran == [1, 2]


def test_a_turn_runs_64_tasks_at_most(loop, run_turns):
    ran = []
    for n in range(100):
        d.spawn(ran.append, n)
    run_turns(1)
    assert ran == list(range(64))
    run_turns(1)
    assert ran == list(range(100))


def test_a_turn_runs_tasks_for_a_millisecond_and_looks_at_each_eighth(loop, run_turns, virtual_clock):
    def work():
        virtual_clock.now += 0.0002
        ran.append(None)

    ran = []
    for _ in range(40):
        d.spawn(work)
    counts = []
    for _ in range(5):
        run_turns(1)
        counts.append(len(ran))
    assert counts == [7, 14, 21, 28, 35]


def test_a_slow_one_is_named_and_not_the_first_of_its_worker(loop, run_turns, virtual_clock):
    def quick():
        pass

    def slow():
        virtual_clock.now += 0.5

    reports = []
    loop.slow_seconds = 0.1
    loop.on_slow = reports.append
    for function in (quick, quick, slow, quick, slow, quick):
        d.spawn(function)
    run_turns(3)
    assert [report.what for report in reports] == [f"task {slow.__qualname__!r}, before it ended,"] * 2
    assert [report.seconds for report in reports] == [0.5] * 2


def test_instruments_hear_of_each_run(loop):
    class Runs(d.Instrument):
        def run_began(self, task):
            heard.append(task.name)

    heard = []
    loop.add_instrument(Runs())
    tasks = [d.spawn(int) for _ in range(3)]
    for n, task in enumerate(tasks):
        task.name = str(n)
    tasks[-1].join()
    assert heard[:3] == ["0", "1", "2"]
