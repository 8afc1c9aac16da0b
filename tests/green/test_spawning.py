"""spawn: what it is given, where its tasks say they come from, and which loop they run on."""

import inspect
import pickle
import threading

import pytest

import dangagreen as d
from dangagreen.loop.loop import here
from dangagreen.testing import virtual_loop


def line():
    return inspect.currentframe().f_back.f_lineno


def test_a_task_knows_where_it_was_spawned(loop):
    task = d.spawn(int)
    assert task.spawned_at == f"{__file__}:{line() - 1}"
    task.join()


def test_a_spawn_by_c_code_is_that_of_its_caller(loop):
    (task,) = map(d.spawn, [int])
    assert task.spawned_at == f"{__file__}:{line() - 1}"
    task.join()


def test_arguments_are_those_of_the_function(loop):
    task = d.spawn(dict, [("a", 1)], function=2, args=3)
    task.join()
    assert task.result() == {"a": 1, "function": 2, "args": 3}


def test_it_looks_like_the_function_that_it_is():
    assert str(inspect.signature(d.spawn)).startswith("(function")
    assert [kind.name for kind in (one.kind for one in inspect.signature(d.spawn).parameters.values())] == [
        "POSITIONAL_ONLY", "VAR_POSITIONAL", "VAR_KEYWORD"
    ]  # fmt: skip
    assert (d.spawn.__module__, d.spawn.__qualname__) == ("dangagreen", "spawn")
    assert pickle.loads(pickle.dumps(d.spawn)) is d.spawn


def test_what_cannot_run_is_refused(loop):
    async def coroutine():
        pass

    def generator():
        yield

    for wrong in (3, None, coroutine, generator):
        with pytest.raises(TypeError, match="spawn"):
            d.spawn(wrong)
    with pytest.raises(TypeError):
        d.spawn()


def test_it_is_the_current_loop_that_runs_the_task_whichever_runs_elsewhere(loop):
    def main():
        tasks.append(d.spawn(int))
        with d.Loop() as other:
            tasks.append(d.spawn(int))
            tasks[-1].cancel()
        tasks.append(d.spawn(int))
        return other

    tasks = []
    task = d.spawn(main)
    task.join()
    assert [one.loop for one in tasks] == [loop, task.result(), loop]


def test_loops_that_run_at_once_in_two_threads_each_get_the_tasks_of_theirs():
    barrier = threading.Barrier(2, timeout=10)
    wrong = []

    def program():
        here.loop = mine = virtual_loop()
        try:
            d.run(main, mine)
        finally:
            mine.close()

    def main(mine):
        for _ in range(20):
            barrier.wait()
            with d.timeout(10) as scope:
                task = d.spawn(int)
                task.join()
            wrong.extend(one for one in (task.loop, d.current_loop()) if one is not mine)
            assert scope.deadline is not None

    threads = [threading.Thread(target=program) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
