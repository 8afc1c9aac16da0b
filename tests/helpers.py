"""What several test files need of tasks: work for them to do, how it ended, and things to use with them.

Sockets and servers are in tests/connections.py, programs in tests/programs.py, fixtures in conftest.py.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import os
import threading
import warnings
from collections import deque

import pytest

import dangagreen as d
from dangagreen.green.waiters import wake

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


def spawn_all(function, arguments):
    """A task that attempts it for each of the arguments, all parked."""
    tasks = [d.spawn(attempt, function, argument) for argument in arguments]
    d.sleep(0)
    assert all(task.waits_for for task in tasks)
    return tasks


# -- how it ended


def attempt(function, *args):
    """What it returns, or the exception that it raises."""
    try:
        return function(*args)
    except Exception as error:
        return error


def in_callback(loop, function, *args):
    """Call it on the loop itself, and hand back what it returns; what it raises is reported."""
    answer = []
    loop.call_soon(lambda: answer.append(function(*args)))
    d.sleep(0)
    return answer[0] if answer else None


def joined(task):
    """Wait for the task's end, and hand back its result or raise what it raised."""
    task.join()
    return task.result()


def result_of(function, *args):
    """Call the function in a task of its own, and hand back what it returns or raises."""
    return joined(d.spawn(function, *args))


def results(tasks):
    """What each of them returned, once they have all ended."""
    return [joined(task) for task in tasks]


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


# -- other threads


class OtherThread:
    """Calls a function; `answer` is what it has returned or raised."""

    def __init__(self, function, *args, **kwargs):
        self.answer = None
        self.thread = threading.Thread(target=self.work, args=(function, args, kwargs), daemon=True)
        self.thread.start()

    def work(self, function, args, kwargs):
        try:
            self.answer = function(*args, **kwargs)
        except BaseException as error:
            self.answer = error

    def join(self):
        """Run the loop until the thread has ended."""
        while self.thread.is_alive():
            d.sleep(0.001)
        return self.answer

    def ended(self):
        """Wait for its end without the loop."""
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.answer


# -- locks


def is_free(lock):
    """Whether nobody holds it; of a condition, its lock."""
    if not lock.acquire(False):
        return False
    lock.release()
    return True


# -- scopes that may expire

SCOPES = {
    "timeout": lambda seconds: d.timeout(seconds),
    "timeout_at": lambda seconds: d.timeout_at(d.current_loop().clock() + seconds),
    "move_on_after": lambda seconds: d.move_on_after(seconds),
}
any_scope = pytest.mark.parametrize("scope_of", SCOPES.values(), ids=SCOPES)


# -- what may be selected


class Box:
    """A source: items go in and are taken out. It counts how often it was watched and unwatched."""

    def __init__(self, *items):
        self.items = deque(items)
        self.watchers = []
        self.watched = self.unwatched = 0

    @property
    def ready(self):
        return bool(self.items)

    def _watch(self, task):
        self.watched += 1
        self.watchers.append(task)

    def _unwatch(self, task):
        self.unwatched += 1
        if task in self.watchers:
            self.watchers.remove(task)

    def put(self, item):
        self.items.append(item)
        for task in list(self.watchers):
            wake(task)

    def undone(self):
        """Is nobody left, and was each arrangement undone once?"""
        return not self.watchers and self.watched == self.unwatched


# -- functions whose call runs nothing


async def coroutine_function(*_args):
    raise AssertionError("this never runs")


def generator_function(*_args):
    yield


async def async_generator(*_args):
    yield


# -- what is quick


def first_quick(values, count):
    """Parameters of a test, of which the first ones are quick, and all others slow."""
    return [pytest.param(value, marks=[pytest.mark.slow] * (number >= count)) for number, value in enumerate(values)]


# -- sources


@functools.cache
def nodes(source):
    """All nodes of the tree of a source, from its module on: parsed once for all tests that read it."""
    return tuple(ast.walk(ast.parse(source)))


# -- garbage


def collect():
    """Collect garbage, and have no later collection look at what is alive now: thousands of tests, for one."""
    gc.collect()
    gc.freeze()


class Thing:
    """Something that a weak reference may point to."""


class Dying:
    """In a cycle: the collector calls its `__del__`, which calls `last_words`."""

    def __init__(self, last_words):
        self.last_words = last_words
        self.itself = self

    def __del__(self):
        self.last_words()


# -- children


def fork():
    """Fork, also where there are other threads, of which Python warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def exit_code_of(pid):
    """Wait for the child's end, while the loop does not run."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# -- code


def of_ours(source, **names):
    """The function that this source is, as if it stood in a module of the package."""
    return eval(compile(source, os.path.join(os.path.dirname(d.__file__), "a_test.py"), "eval"), names)
