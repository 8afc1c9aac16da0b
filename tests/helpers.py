"""What several test files need: work for tasks to do, and how it ended. Fixtures are in conftest."""

from __future__ import annotations

import contextlib

import pytest

import dangagreen as d

# -- work


def nap(seconds, value=None):
    """Sleep, then return it."""
    d.sleep(seconds)
    return value


def fail(error, seconds=0.0):
    """Sleep, then raise it."""
    d.sleep(seconds)
    raise error


def protected(seconds, error=None):
    """Sleep where nothing can cancel it, then raise it."""
    with d.shield():
        d.sleep(seconds)
        if error is not None:
            raise error


def stays(seconds, log):
    """Wait for ever; when cancelled, take so long to clean up, and say when that was done."""
    try:
        d.sleep(1_000_000)
    finally:
        with d.shield():
            d.sleep(seconds)
        log.append(d.current_loop().clock())


# -- how it ended


def outcome(task):
    """How a task that has ended did: its result, or the class of what it raised."""
    assert task.done
    try:
        return task.result()
    except Exception as error:
        return type(error)


def end_of(task):
    """Wait for the task's end, and answer its outcome."""
    task.join()
    return outcome(task)


def in_group(raised):
    """The exceptions in the group that pytest has caught."""
    assert isinstance(raised.value, BaseExceptionGroup)
    return set(raised.value.exceptions)


@contextlib.contextmanager
def fails(*kinds):
    """The block raises an ExceptionGroup of just these kinds, in this order."""
    with pytest.raises(ExceptionGroup) as caught:
        yield caught
    assert [type(error) for error in caught.value.exceptions] == list(kinds)


# -- scopes that may expire

SCOPES = {
    "timeout": lambda seconds: d.timeout(seconds),
    "timeout_at": lambda seconds: d.timeout_at(d.current_loop().clock() + seconds),
    "move_on_after": lambda seconds: d.move_on_after(seconds),
}
any_scope = pytest.mark.parametrize("scope_of", SCOPES.values(), ids=SCOPES)
