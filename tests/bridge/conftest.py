"""Where the code of a test runs: in each of the ways in which asyncio and dangagreen share a thread."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import warnings
from contextlib import contextmanager

import pytest

import dangagreen as d
from dangagreen import bridge
from dangagreen.loop import deadlock as deadlock_module
from dangagreen.loop.loop import Loop, here
from dangagreen.testing import virtual_loop
from dangagreen.testing.leaks import _open_fds
from tests.helpers import collect

VIRTUAL = ["in a task", "in run", "top-level code"]
REAL = ["guest of asyncio", "guest of uvloop"]


def _host(hosting):
    """What runs a coroutine on somebody else's loop."""
    if hosting == "guest of uvloop":
        return pytest.importorskip("uvloop").run
    return asyncio.run


@contextmanager
def _owned(make_loop):
    """A thread's loop and what the bridge has made beside it, until both have ended: nothing is left then."""
    collect()
    before, hooks = _open_fds(), sys.get_asyncgen_hooks()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        here.loop = loop = make_loop()
        errors = []
        loop.on_error = errors.append
        try:
            yield loop, errors
        finally:
            loop.close()
            here.loop = None
        gc.collect()
    left = [f"fd {fd}: {what}" for fd, what in _open_fds().items() if fd not in before]
    left += [f"unhandled: {context.message}: {context.exception!r}" for context in errors]
    heard = [str(warning.message) for warning in caught]
    left += [f"warning: {message}" for message in heard if "use of fork()" not in message]
    left += [f"hooks: {now!r}" for was, now in zip(hooks, sys.get_asyncgen_hooks(), strict=True) if now is not was]
    assert not left, "left behind:\n" + "\n".join(left)
    assert asyncio._get_running_loop() is None


@pytest.fixture(params=VIRTUAL + REAL)
def hosting(request):
    """Each of them, by name. The thread has a fresh loop, on the virtual clock where nobody else's loop hosts it."""
    if request.param == "guest of uvloop":
        _host(request.param)(asyncio.sleep(0))  # what it opens once for all
    with _owned(virtual_loop if request.param in VIRTUAL else Loop) as (_, errors):
        request.node.unhandled = errors
        yield request.param


@pytest.fixture
def vloop():
    """A loop on the virtual clock, which ends with what the bridge has made on it."""
    with _owned(virtual_loop) as (loop, _):
        yield loop


@pytest.fixture
def rloop():
    """A loop on the real clock, which ends with what the bridge has made on it."""
    with _owned(Loop) as (loop, _):
        yield loop


@pytest.fixture
def unhandled(request, hosting):
    """`unhandled()` answers what has reached `on_error` since the last time; what is not taken fails the test."""

    def unhandled():
        errors, request.node.unhandled[:] = list(request.node.unhandled), []
        return errors

    return unhandled


@pytest.fixture
def unit(hosting):
    """Seconds that are long enough to tell what is first from what is second."""
    return 1.0 if hosting in VIRTUAL else 0.02


@pytest.fixture
def ours(hosting):
    """`ours(function, *args)` calls it where it may park, and answers what it returns or raises."""

    def ours(function, *args):
        if hosting == "top-level code":
            return function(*args)
        if hosting == "in run":
            return d.run(functools.partial(function, *args))
        if hosting == "in a task":
            task = d.spawn(function, *args)
            task.join()
            return task.result()

        async def main():
            async with bridge.guest():
                return await bridge.to_task(function, *args)

        return _host(hosting)(main())

    return ours


@pytest.fixture
def theirs(hosting):
    """`theirs(coroutine)` runs it where tasks of ours can be awaited."""

    def theirs(coroutine):
        if hosting == "top-level code":
            return bridge.run(coroutine)
        if hosting == "in run":
            return d.run(functools.partial(bridge.run, coroutine))
        if hosting == "in a task":
            task = d.spawn(bridge.await_, coroutine)
            task.join()
            return task.result()

        async def main():
            async with bridge.guest():
                return await coroutine

        return _host(hosting)(main())

    return theirs


@pytest.fixture
def alone(rloop, monkeypatch):
    """Nothing outside the loop might wake it, whatever the test runner has installed."""
    monkeypatch.setattr(deadlock_module, "external_wakers", lambda: iter(()))
