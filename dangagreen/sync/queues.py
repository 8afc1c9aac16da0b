"""Queues of the shape that the standard library's `queue` has: Queue, PriorityQueue, LifoQueue.

Rules: a call that may park has the name that it has there; `put_nowait`, `get_nowait`, `task_done` and `shutdown`
never park and work in callbacks. What does not belong here: how items find those who wait for them (that is passage).
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from heapq import heappop, heappush
from queue import Empty, Full
from typing import Any

from dangagreen import checks
from dangagreen.errors import ShutDown
from dangagreen.green.parking import checkpoint, park, parks
from dangagreen.green.sched import Waiter, WaitKind, wake
from dangagreen.loop.loop import Loop
from dangagreen.sync.handoff import Handoff, Item, leave_getters, leave_putters


class Queue(Handoff[Item]):
    """Items go in at one end and come out at the other, between the tasks and callbacks of one loop.

    `maxsize` is how many it holds, 0 or less is no limit; it may be assigned. Those who wait are served in the order
    in which they came. A `get` that is cancelled or times out has taken nothing; a `put` that raises has put nothing.
    Other orders of items are made as with the standard library, by overriding `_init`, `_put` and `_get`; `queue` is
    what holds the items, and has a length. What changes it raises ForeignThreadError in another thread.
    """

    __slots__ = {
        "_joiners": None,
        "unfinished_tasks": "How many items were put in for which `task_done` was not called.",
    }

    def __init__(self, maxsize: int = 0, *, loop: Loop | None = None) -> None:
        room = _room(maxsize)
        super().__init__(loop)
        self._joiners: dict[Waiter, None] = {}
        self.unfinished_tasks = 0
        self._room = room
        self._init(maxsize)

    def _init(self, maxsize: int) -> None:
        self.queue = deque()

    @property
    def maxsize(self) -> int:
        """How many items it takes; 0 is no limit. May be assigned."""
        return 0 if self._room == sys.maxsize else int(self._room)

    @maxsize.setter
    def maxsize(self, maxsize: int) -> None:
        self._check("assigning maxsize")
        self._room = _room(maxsize)
        self._fill()

    @property
    def is_shutdown(self) -> bool:
        """Whether `shutdown` was called."""
        return self._ended

    def qsize(self) -> int:
        """How many items it holds. Those that were given to a task that waits for one have left it."""
        return len(self.queue)

    def empty(self) -> bool:
        """Whether nothing is in it."""
        return not self.queue

    def full(self) -> bool:
        """Whether it holds `maxsize` items."""
        return len(self.queue) >= self._room

    # -- in and out

    @parks
    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        """Parks until there is room, then puts the item in.

        Raises `queue.Full` after `timeout` seconds (None is no limit), or at once, without ever parking, if `block`
        is false; ShutDown once the queue was shut down, also while parked. If it raises, nothing was put in.
        """
        if not block:
            return self.put_nowait(item)
        task = checkpoint(self.loop, "put")
        if timeout is not None:
            timeout = _checked("put", timeout)
        if not self._pass_on(item):
            try:
                self._wait_to_put(task, _PUT, item, timeout)
            except TimeoutError:
                raise Full from None
        return None

    def put_nowait(self, item: Item) -> None:
        """Put the item in, or raise `queue.Full`. Never parks. Raises ShutDown once the queue was shut down."""
        if get_ident() != self.loop.thread:
            self._check("put_nowait")
        if self._attentive or len(self.queue) >= self._room:
            if not self._pass_on(item):
                raise Full
        else:
            self._put(item)
            self.unfinished_tasks += 1

    @parks
    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Parks until there is an item, and takes it.

        Raises `queue.Empty` after `timeout` seconds (None is no limit), or at once, without ever parking, if `block`
        is false; ShutDown if nothing is left and the queue was shut down, also while parked.
        """
        if not block:
            return self.get_nowait()
        task = checkpoint(self.loop, "get")
        if timeout is not None:
            timeout = _checked("get", timeout)
        if self.ready:
            return self._take()
        try:
            return self._wait_to_get(task, _GET, timeout)
        except TimeoutError:
            raise Empty from None

    def get_nowait(self) -> Item:
        """Take an item, or raise `queue.Empty`. Never parks. Raises ShutDown if nothing is left after a shutdown."""
        if get_ident() != self.loop.thread:
            self._check("get_nowait")
        if self.queue and not self._putters:
            return self._get()
        if not self.ready:
            raise Empty
        return self._take()

    @parks
    def __iter__(self) -> Iterator[Item]:
        """Parks until there is an item, time and again, as `get()` does, until the queue is shut down and empty."""
        with suppress(ShutDown):
            while True:
                yield self.get()

    def _let_in(self, item: Item) -> None:
        self._put(item)
        self.unfinished_tasks += 1

    # -- when all is done

    def task_done(self) -> None:
        """Say that an item which was taken has been dealt with. Raises ValueError if more are done than were put in."""
        self._check("task_done")
        if not self.unfinished_tasks:
            raise ValueError("task_done() was called more often than items were put in")
        self.unfinished_tasks -= 1
        self._wake_joiners()

    @parks
    def join(self) -> None:
        """Parks until `task_done()` was called for every item that was put in."""
        task = checkpoint(self.loop, "join")
        if self.unfinished_tasks:
            self._joiners[task] = None
            park(task, _JOIN, self)

    def _wake_joiners(self) -> None:
        if not self.unfinished_tasks:
            for task in list(self._joiners):
                wake(task)

    # -- the end

    def shutdown(self, immediate: bool = False) -> None:
        """Let nothing in any more: whoever puts something in, or is parked in a `put`, gets ShutDown.

        What is there can still be taken; after that whoever takes something gets ShutDown too. If `immediate`, what
        is there is dropped, and counts as done.
        """
        self._check("shutdown")
        self._end()
        if immediate:
            while self.queue:
                self._get()
                self.unfinished_tasks -= self.unfinished_tasks > 0
            self._wake_joiners()

    def _refusal(self) -> Exception:
        return ShutDown(f"{self!r} was shut down")

    _nothing_more = _refusal

    def _check(self, call: str) -> None:
        self.loop.check_thread(call)

    def __repr__(self) -> str:
        size = f"{self.qsize()} of {self.maxsize}" if self.maxsize else f"{self.qsize()}"
        return f"<{type(self).__name__}, {size} items{', shut down' if self._ended else ''}>"


class LifoQueue(Queue[Item]):
    """A queue from which the item that was put in last comes out first."""

    __slots__ = ()

    def _init(self, maxsize: int) -> None:
        self.queue = []

    def _get(self) -> Item:
        return self.queue.pop()  # type: ignore[no-any-return]


class PriorityQueue(Queue[Item]):
    """A queue from which the smallest item comes out first. Items are often pairs (number, what it is about).

    Items that cannot be compared raise what their comparison raises; none is lost by that, nor put in by halves.
    """

    __slots__ = ()

    def _init(self, maxsize: int) -> None:
        self.queue = []

    def _put(self, item: Item) -> None:
        try:
            heappush(self.queue, item)
        except BaseException:
            _undo_push(self.queue, item)
            raise

    def _get(self) -> Item:
        heap: list[Any] = self.queue
        first, last = heap[0], heap[-1]
        try:
            return heappop(heap)  # type: ignore[no-any-return]
        except BaseException:
            _undo_pop(heap, first, last)
            raise


def _undo_push(heap: list[Any], item: object) -> None:
    """A push that failed has left the item somewhere on the way from the last place to the first."""
    way = [len(heap) - 1]
    while heap[way[-1]] is not item:
        way.append((way[-1] - 1) // 2)
    for to, origin in zip(way[:0:-1], way[-2::-1], strict=True):
        heap[to] = heap[origin]
    heap.pop()


def _undo_pop(heap: list[Any], first: object, last: object) -> None:
    """A pop that failed has let go of the first item, and left the last one somewhere on a way from the first place."""
    place = next(place for place, item in enumerate(heap) if item is last)
    while place:
        heap[place] = heap[(place - 1) // 2]
        place = (place - 1) // 2
    heap[0] = first
    heap.append(last)


def _room(maxsize: int) -> int:
    maxsize = checks.count("the maxsize of a queue", maxsize, None)
    return maxsize if maxsize > 0 else sys.maxsize


def _checked(call: str, timeout: float | None) -> float | None:
    if timeout is not None:
        timeout = checks.seconds(f"the timeout of {call}", timeout)
        if timeout < 0:
            raise ValueError(f"the timeout of {call} is a non-negative number, not {timeout}")
    return timeout


_PUT = WaitKind("put", leave_putters)
_GET = WaitKind("get", leave_getters)
_JOIN = WaitKind("join", lambda queue, task: queue._joiners.pop(task, None))
