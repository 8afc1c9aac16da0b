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
