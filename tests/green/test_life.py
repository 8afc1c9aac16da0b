"""The life of a task: what it holds and lets go of, and what is noted of its end."""

import weakref

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
