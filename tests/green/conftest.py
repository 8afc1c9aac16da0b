"""Where the code of a test runs."""

from __future__ import annotations

import pytest

import dangagreen as d


@pytest.fixture
def in_task(loop):
    """A function that runs another in a task, and hands back what it returns or raises."""

    def in_task(function, *args):
        task = d.spawn(function, *args)
        task.join()
        return task.result()

    return in_task


@pytest.fixture(params=["task", "top-level code"])
def call(request, in_task):
    """`in_task`, and then a function that calls another right here."""
    return in_task if request.param == "task" else lambda function, *args: function(*args)
