"""Who else lives in the thread while a library does its work, and must not be disturbed by it.

No test here looks at the clock: what a library waits for, the answer of a server for one, comes only when each of the
others has gone on. A library that stopped the thread would wait for ever.
"""

from __future__ import annotations

import asyncio

import pytest

import dangagreen as d
from dangagreen.bridge import await_

SECONDS = 60.0  # for what takes milliseconds
ROUNDS = 3


def echo(sock):
    for line in sock:
        sock.write_all(line)


class Company:
    """A block in which a task and a coroutine tick, and a client talks to a server of ours."""

    def __enter__(self):
        self.rounds = {"task": 0, "coroutine": 0, "server": 0}
        self._listener = d.serve(("127.0.0.1", 0), echo)
        self._tasks = [d.spawn(self._tick), d.spawn(await_, self._tick_in_coroutine()), d.spawn(self._talk)]
        self.go_on()
        return self

    def __exit__(self, *_error):
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            task.join()
        self._listener.close()

    def _tick(self):
        while True:
            d.sleep(0.0005)
            self.rounds["task"] += 1

    async def _tick_in_coroutine(self):
        while True:
            await asyncio.sleep(0.0005)
            self.rounds["coroutine"] += 1

    def _talk(self):
        with d.connect(self._listener.address) as sock:
            while True:
                line = b"%d\n" % self.rounds["server"]
                sock.write_all(line)
                assert sock.read_line() == line
                d.sleep(0.0005)
                self.rounds["server"] += 1

    def go_on(self):
        """Parks until each of them has done its work some more times."""
        enough = {name: rounds + ROUNDS for name, rounds in self.rounds.items()}
        with d.timeout(SECONDS):
            while any(self.rounds[name] < enough[name] for name in enough):
                d.sleep(0.0005)

    def until(self, condition):
        """Parks until it is true, while they go on."""
        with d.timeout(SECONDS):
            while not condition():
                self.go_on()

    def waits(self, awaitable):
        """A task that awaits it, and has to: it waits while the others go on."""
        task = d.spawn(await_, awaitable)
        self.go_on()
        assert not task.done
        return task

    def cut_off(self, awaitable, begun=lambda: True):
        """It is awaited until `begun()` is true and the others have gone on; then a time limit ends it."""
        scope = d.timeout(None)
        watcher = d.spawn(self.expire, scope, begun)
        with pytest.raises(TimeoutError), scope:
            await_(awaitable)
        result(watcher)

    def expire(self, scope, begun):
        """The deadline of the scope is now, once `begun()` is true and the others have gone on."""
        self.until(begun)
        self.go_on()
        scope.deadline = 0


def result(task):
    """Parks until a task has ended; returns its result, or raises its exception."""
    task.join(SECONDS)
    return task.result()


def results(tasks):
    return [result(task) for task in tasks]


async def made(make, *args, **kwargs):
    """What has to be made in a coroutine, since it keeps to the asyncio loop that runs."""
    return make(*args, **kwargs)
