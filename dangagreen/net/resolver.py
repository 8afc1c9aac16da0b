"""Name look-ups: getaddrinfo(3) in threads, a few at a time; or a resolver of the program's own.

Rules: equal look-ups (host, port, family) that are under way are asked once, and of an answer nothing is kept; a
look-up that nobody waits for any more is not begun; in a thread, which cannot be interrupted, it keeps its place until
it ends; a resolver is asked for names in ASCII alone. What does not belong here: which address is tried first.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from dangagreen import checks
from dangagreen.green.spawning import spawn
from dangagreen.green.tasks import Task
from dangagreen.loop.loop import Loop
from dangagreen.loop.thread_pool import call_in_thread
from dangagreen.sockets.addresses import HostAndPort

THREADS = 8  # look-ups of a loop in threads at a time, unless the resolver has `threads`
Key = tuple[str, int, int]  # host, port, family
Then = Callable[[Any, BaseException | None], object]  # a function of the answer, or of None and the error


class LookUp:
    """One look-up, until it is answered."""

    __slots__ = {
        "askers": "The functions to call with the outcome.",
        "key": "Host, port and family.",
        "task": "The task that makes it, if the resolver parks; None: a thread does, or will.",
    }

    def __init__(self, key: Key) -> None:
        self.key = key
        self.askers: list[Then] = []
        self.task: Task[None] | None = None


class LookUps:
    """The look-ups of a loop."""

    __slots__ = {
        "_in_threads": "Those that threads make: changed by the threads as well.",
        "_loop": "The loop.",
        "_queue": "Those that wait for a thread, in order.",
        "_under_way": "All of them: changed by the threads as well.",
    }

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._under_way: dict[Key, LookUp] = {}
        self._queue: dict[Key, LookUp] = {}
        self._in_threads: set[LookUp] = set()

    def ask(self, name: HostAndPort, then: Then) -> LookUp:
        """Have `then(answer, error)` called, by the loop, once the name is looked up."""
        key = name.host, name.port, name.family
        lookup = self._under_way.get(key)
        if lookup is None:
            resolver = self._loop.resolver
            lookup = self._under_way[key] = LookUp(key)
            if getattr(resolver, "parks", False):
                lookup.task = spawn(self._look_up_in_task, lookup, resolver.getaddrinfo)
                lookup.task.name = f"look up {name.host}"
            else:
                self._queue[key] = lookup
                self._fill_threads()
        lookup.askers.append(then)
        return lookup

    def give_up(self, lookup: LookUp, then: Then) -> None:
        """Have `then` not called, if it was not yet."""
        if then in lookup.askers:
            lookup.askers.remove(then)
            if not lookup.askers:
                if lookup.task is not None:
                    self._drop(lookup)
                    lookup.task.cancel("nobody waits for this look-up any more")
                elif self._queue.pop(lookup.key, None) is lookup:
                    self._drop(lookup)

    def awaits_thread(self) -> bool:
        """Whether a thread makes a look-up that has not been given up."""
        return any(lookup.askers for lookup in list(self._in_threads))

    def after_fork(self) -> None:
        """In a forked child, which has no thread: have its own threads make the look-ups that threads were to make."""
        asked = [lookup for lookup in self._under_way.values() if lookup.task is None]
        for lookup in asked:
            self._drop(lookup)
        self._queue = {lookup.key: lookup for lookup in asked if lookup.askers}
        self._under_way |= self._queue
        self._in_threads.clear()
        if self._queue:
            self._loop.call_soon(self._fill_threads)

    def _drop(self, lookup: LookUp) -> None:
        """An equal look-up is asked anew from now on."""
        self._under_way.pop(lookup.key, None)

    # -- in threads

    def _fill_threads(self) -> None:
        """Have threads make the look-ups that wait for one, as many as may be under way."""
        resolver = self._loop.resolver
        most = getattr(resolver, "threads", THREADS)
        while self._queue and len(self._in_threads) < most:
            lookup = self._queue.pop(next(iter(self._queue)))
            self._in_threads.add(lookup)
            call = partial(self._look_up_in_thread, lookup, resolver.getaddrinfo)
            try:
                call_in_thread(self._loop, f"look up {lookup.key[0]}", call, partial(self._thread_answered, lookup))
            except RuntimeError as error:  # no thread can be started
                self._leave_thread(lookup)
                self._loop.call_soon(self._answer, lookup, None, socket.gaierror(socket.EAI_AGAIN, str(error)))

    def _look_up_in_thread(self, lookup: LookUp, getaddrinfo: Callable[..., Any]) -> list[Any]:
        """Called in a thread, which leaves its place itself: the loop may be reset before it hears of the answer."""
        try:
            return _ask(lookup.key, getaddrinfo)
        finally:
            self._leave_thread(lookup)

    def _leave_thread(self, lookup: LookUp) -> None:
        self._in_threads.discard(lookup)
        self._drop(lookup)

    def _thread_answered(self, lookup: LookUp, answer: Any, error: BaseException | None) -> None:
        self._answer(lookup, answer, error)
        self._fill_threads()

    # -- in tasks

    def _look_up_in_task(self, lookup: LookUp, getaddrinfo: Callable[..., Any]) -> None:
        """The function of the task: one of its own, so that one of those who wait may be cancelled, and not the others.

        Parks if the resolver does.
        """
        answer: list[Any] | None = None
        error: BaseException | None = OSError(errno.ECANCELED, "the look-up was cancelled")
        try:
            answer, error = _ask(lookup.key, getaddrinfo), None
        except Exception as failure:
            error = failure
        finally:
            if self._under_way.get(lookup.key) is lookup:
                self._drop(lookup)
            self._answer(lookup, answer, error)

    def _answer(self, lookup: LookUp, answer: Any, error: BaseException | None) -> None:
        askers, lookup.askers = lookup.askers, []
        for then in askers:
            then(answer, error)


def _ask(key: Key, getaddrinfo: Callable[..., Any]) -> list[Any]:
    """Call the resolver's function. Raises what that raises, and TypeError where it answers no iterable."""
    answer = getaddrinfo(*key, socket.SOCK_STREAM)
    if not isinstance(answer, Iterable):
        raise TypeError(f"loop.resolver has answered {checks.shown(answer)}, which is not what getaddrinfo answers")
    return list(answer)


def look_ups(loop: Loop) -> LookUps:
    """The look-ups of a loop."""
    if loop.look_ups is None:
        loop.look_ups = LookUps(loop)
    return loop.look_ups  # type: ignore[return-value]
