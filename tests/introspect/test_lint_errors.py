"""The lint of errors that are lost."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import finds, finds_nothing

pytestmark = pytest.mark.slow_but_first  # each starts a program

FAIL = """
def fail(error=KeyError("mine")):
    d.sleep(1)
    raise error  # HERE
"""


@pytest.mark.parametrize(
    "waits",
    [
        "d.spawn(fail).join()",
        "d.wait([d.spawn(fail)])",
        "list(d.as_completed([d.spawn(fail), d.spawn(d.sleep, 1)]))",
        "d.select(d.spawn(fail))",
    ],
    ids=["join", "wait", "as_completed", "select"],
)
def test_the_error_of_a_task_that_was_waited_for_and_not_asked(waits):
    finds(
        "lost-error",
        f"{FAIL}\ndef main():\n    {waits}\n    d.sleep(1)\n",
        "task 'fail' has failed, by KeyError, and who has waited for it has not asked for its result()",
    )


@pytest.mark.parametrize(
    "waits",
    [
        "attempt(d.spawn(fail))",
        "task = d.spawn(fail); task.join(); d.sleep(60); attempt(task)",
        "task = d.spawn(fail); task.cancel(); task.join()",
        "d.spawn(d.sleep, 1).join()",
        "d.spawn(in_group).join()",
        "task = d.spawn(fail); d.spawn(task.join).cancel(); d.sleep(2)",  # reported, as it reaches no caller
        "task = d.spawn(fail); d.select(d.spawn(d.sleep, 0.5), task); d.sleep(2)",  # likewise
        "kept.append(d.spawn(fail)); kept[0].join(); d.sleep(60)",  # it may be asked yet
    ],
    ids=["asked", "later", "cancelled", "returned", "group", "cancelled-join", "another-selected", "kept"],
)
def test_errors_that_are_not_lost(waits):
    finds_nothing(f"""
{FAIL}
kept = []
loop.on_error = lambda context: None
def attempt(task):
    task.join()
    try:
        task.result()
    except KeyError:
        pass
def in_group():
    try:
        with d.TaskGroup() as group:
            group.spawn(fail)
    except* KeyError:
        pass
def main():
    {waits}
""")


def test_of_a_task_that_is_freed_when_lints_are_off_nothing_is_told():
    finds_nothing(f"""
{FAIL}
def main():
    task = d.spawn(fail)
    task.join()
    introspect.lint(False)
    del task
    d.sleep(1)
""")


@pytest.mark.parametrize(
    "program",
    [
        "def main():\n    d.Future().set_exception(KeyError(1))  # HERE",
        """
def lose():
    future = d.Future()
    try:
        {}["no"]  # HERE
    except KeyError as error:
        future.set_exception(error)  # whose traceback refers to this frame, and that to the future
def main():
    lose()
    gc.collect()
""",
        """
def main():
    future = d.Future()
    loop.add_timer(1, lambda: future.set_exception(KeyError(1)))  # HERE
    try:
        future.wait(0.5)
    except TimeoutError:
        pass
    d.sleep(1)
    del future
    d.sleep(1)
""",
        """
def main():
    future = d.Future()
    loop.add_timer(1, lambda: future.set_exception(KeyError(1)))  # HERE
    assert d.select(future) is future
    d.sleep(1)
""",
    ],
    ids=["nobody", "raised", "late", "selected"],
)
def test_the_exception_of_a_future_that_nobody_has_asked_for(program):
    finds("lost-error", program, "a Future was given an exception, KeyError, and nobody has asked for it")


def test_of_futures_in_one_place_one_is_told():
    finds("lost-error", "def main():\n    for _ in range(9):\n        d.Future().set_exception(KeyError(1))  # HERE\n")


@pytest.mark.parametrize(
    "body",
    [
        "future.set_exception(KeyError(1)); asked(future.result)",
        "future.set_exception(KeyError(1)); asked(future.wait)",
        "loop.add_timer(1, lambda: future.set_exception(KeyError(1))); asked(future.wait)",
        "future.set_exception(KeyError(1)); d.select(future); d.sleep(9); asked(future.result)",
        "future.set_exception(KeyError(1)); kept.append(future)",  # it may be asked yet
        "future.set_exception(d.Cancelled()); d.sleep(1)",  # a cancellation is no failure
        "future.set_result(1)",
        "future.set_result(1); asked(lambda: future.set_exception(KeyError(1)), RuntimeError)",
        "asked(lambda: future.set_exception(1), TypeError)",
    ],
    ids=["result", "set-before", "wait", "later", "kept", "cancelled", "value", "twice", "no-exception"],
)
def test_futures_whose_exceptions_are_not_lost(body):
    finds_nothing(f"""
kept = []
def asked(call, kind=KeyError):
    try:
        call()
    except kind:
        return
    raise AssertionError("nothing was raised")
def main():
    future = d.Future()
    {body}
    del future
    d.sleep(1)
""")
