"""A trial: a test in a task, on a loop of its own, and what it is told to have left behind."""

from __future__ import annotations

import traceback

import pytest

import dangagreen as d
from dangagreen.testing import StalledError, virtual_loop, wire
from dangagreen.testing.trial import LeftBehindError, Trial


@pytest.fixture
def trial():
    with Trial(virtual_loop) as trial:
        trial.loop.poller.patience = 0
        yield trial


def leak():
    d.current_loop().add_timer(100, print)


def test_the_loop_is_current_in_the_block_and_closed_after_it():
    before = d.current_loop()
    with Trial(virtual_loop) as trial:
        assert d.current_loop() is trial.loop
    assert trial.loop.closed
    assert d.current_loop() is before


def test_a_function_runs_in_a_task_of_the_name_that_is_given(trial):
    task = trial.run("the name", d.current_task)
    assert task.name == "the name"
    assert task.done
    assert __file__ in trial.run("the name", lambda: d.current_task().spawned_at)


def test_or_right_here(trial):
    assert trial.run("", d.current_task, in_task=False) is None


@pytest.mark.parametrize("in_task", [True, False])
@pytest.mark.parametrize("error", [ValueError(), SystemExit(), GeneratorExit(), pytest.skip.Exception("because")])
def test_it_raises_what_the_function_raises(trial, error, in_task):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        trial.run("", fail, in_task=in_task)
    assert caught.value is error


@pytest.mark.parametrize("in_task", [True, False])
def test_what_the_function_leaves_is_told_once(trial, in_task):
    with pytest.raises(LeftBehindError, match=r"^left behind:\n  timer: print \(print\), due in 100 s$"):
        trial.run("", leak, in_task=in_task)  # the end of the trial does not tell it again


def test_what_was_there_before_is_not_the_functions_and_is_told_at_the_end():
    def tried():
        with Trial(virtual_loop) as trial:
            leak()
            trial.run("", lambda: None)

    with pytest.raises(LeftBehindError, match="timer: print"):
        tried()


def test_what_is_exempt_is_told_by_nobody():
    near, _ = wire()
    with Trial(virtual_loop) as trial:

        def function():
            with trial.exempt():
                trial.at_end.append(d.Socket(near).close)

        trial.run("", function)
        assert not near.closed
    assert near.closed


def test_what_a_failed_function_has_left_is_noted():
    def function():
        leak()
        d.spawn(lambda: 1 / 0)
        raise KeyError

    with Trial(virtual_loop) as trial:
        with pytest.raises(KeyError):
            trial.run("", function)
        assert len(trial.left) == 2
        assert "ZeroDivisionError: division by zero" in trial.errors[0]


def test_a_stall_is_raised_where_the_function_waits_and_it_may_clean_up(trial):
    cleaned_up = []

    def function():
        try:
            d.Event().wait()
        finally:
            d.sleep(1)
            cleaned_up.append(True)

    with pytest.raises(StalledError) as caught:
        trial.run("", function)
    assert cleaned_up
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "function"


def test_a_test_that_waits_for_ever_in_stalls_is_given_up(trial):
    def function():
        while True:
            try:
                d.Event().wait()
            except d.Deadlock:
                pass

    with pytest.raises(StalledError):
        trial.run("", function)


def test_a_loop_that_is_stopped_is_an_error_and_ends_serve_forever(trial):
    def function():
        trial.loop.stop()
        d.sleep(1)

    with pytest.raises(RuntimeError, match="stopped before the test had ended"):
        trial.run("", function)

    def serving():
        trial.loop.add_timer(5, trial.loop.stop)
        d.serve_forever(d.serve(("127.0.0.1", 0), print))

    trial.judged = False
    trial.run("", serving)


def test_errors_of_other_loops_count():
    with Trial(virtual_loop) as trial:
        trial.elsewhere.append(lambda: [d.ErrorContext("elsewhere", ValueError("there"))])
        with pytest.raises(LeftBehindError, match="unhandled error: elsewhere: ValueError"):
            trial.run("", lambda: None)


def test_a_function_that_returns_a_coroutine_is_refused(trial):
    async def coroutine():
        pass

    with pytest.raises(TypeError, match="coroutine"):
        trial.run("", lambda: coroutine())
