"""Where the code of a test runs."""

from __future__ import annotations

import pytest

from tests.helpers import result_of


@pytest.fixture
def in_task(loop):
    """A function that calls another in a task, and hands back what it returns or raises."""
    return result_of


@pytest.fixture(params=["task", "top-level code"])
def call(request, in_task):
    """`in_task`, and then a function that calls another right here."""
    return in_task if request.param == "task" else lambda function, *args: function(*args)
