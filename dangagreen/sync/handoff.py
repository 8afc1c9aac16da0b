"""Handing items from task to task: what queues and channels have in common, and what `select` can watch.

Rules: FIFO on both sides, and nobody overtakes. An item that is put in while a task is parked for one is handed to that
task, before it has run again; room that becomes free is filled at once by the first parked putter. So getters are
parked only while there is no item, and putters only while there is no room. What does not belong here: the names and
the errors of Queue and Channel.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any, Generic, TypeVar

from dangagreen.green.parking import park_for
from dangagreen.green.waiters import Waiter, WaitKind, wake
from dangagreen.loop.loop import Loop, loop_or_current

Item = TypeVar("Item")


class Watchable:
    """Base class of what `select` can wait for: it has a state, `ready`, and wakes the tasks that watch it."""

    __slots__ = {
        "__weakref__": "Weak references to it work.",
        "_watchers": "The tasks that are parked in a `select` with it, or in a `Future.wait`, in order.",
        "loop": "The loop whose tasks wait for it.",
    }

    def __init__(self, loop: Loop | None) -> None:
        self.loop = loop_or_current(loop)
        self._watchers: dict[Waiter, None] = {}

    @property
    def ready(self) -> bool:
        """Whether a wait for it would return at once."""
        raise NotImplementedError

    def _watch(self, task: Waiter) -> None:
        """Have the task woken when this becomes ready."""
        self._watchers[task] = None

    def _unwatch(self, task: Waiter) -> None:
        """Undo `_watch`; harmless when the task does not watch."""
        self._watchers.pop(task, None)

    def _wake_watchers(self) -> None:
        """Wake every task that watches."""
        for task in list(self._watchers):
            wake(task)


class Handoff(Watchable, Generic[Item]):
    """A bounded buffer of items, with a wait queue on each side: getters, and putters with their items.

    Subclasses give the buffer another order by `_put` and `_get`.
    """

    __slots__ = {
        "_ended": "Whether the end has come: closed, or shut down. Nothing is put in any more.",
        "_getters": "The tasks that are parked for an item, in order, each with a list to lay it in.",
        "_max_items": "How many items the buffer holds at most.",
        "_putters": "The tasks that are parked for room, in order, each with its item.",
        "_slow_put": "False: no getter, no watcher, no end, so that a put is `_put` and nothing else.",
        "queue": "The buffer, which has a length.",
    }

    queue: Any
    _max_items: float

    def __init__(self, loop: Loop | None) -> None:
        super().__init__(loop)
        self._watchers = OrderedDict()  # a dict's first key takes longer and longer to find
        self._getters: OrderedDict[Waiter, list[Item]] = OrderedDict()
        self._putters: OrderedDict[Waiter, Item] = OrderedDict()
        self._slow_put = self._ended = False

    def _put(self, item: Item) -> None:
        """Put the item into the buffer."""
        self.queue.append(item)

    def _get(self) -> Item:
        """Take the next item out of the buffer, which is not empty."""
        return self.queue.popleft()  # type: ignore[no-any-return]

    def _put_counted(self, item: Item) -> None:
        """Put the item into the buffer, which has room, and count it."""
        self._put(item)

    def _closed_error(self) -> Exception:
        """What a put raises after the end."""
        raise NotImplementedError

    def _exhausted_error(self) -> Exception:
        """What a get raises when nothing is left after the end."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether a get would not wait: there is an item, or the end has come."""
        return bool(self.queue or self._putters or self._ended)

    def _watch(self, task: Waiter) -> None:
        super()._watch(task)
        self._slow_put = True

    def _wake_watcher(self) -> None:
        """Wake the first task that watches, for one item: all of them would be a thundering herd.

        If the item is still there in the next turn (the task was cancelled, or took something else), wake the next one.
        """
        wake(next(iter(self._watchers)))
        if self._watchers:
            self.loop.ready.append(self._wake_next_watcher)

    def _wake_next_watcher(self) -> None:
        if self._watchers and self.ready:
            self._wake_watcher()

    # -- in

    def _put_or_hand_over(self, item: Item) -> bool:
        """Put the item in, or hand it to the first parked getter. Returns False, and does neither, without room."""
        if self._ended:
            raise self._closed_error()
        if len(self.queue) >= self._max_items and not self._getters:
            return False
        self._put_counted(item)
        if self._slow_put:
            self._serve_getters()
        return True

    def _serve_getters(self) -> None:
        """Hand the items that are there to parked getters, then wake a watcher for what is left."""
        while self.queue and self._getters:
            task, slot = self._getters.popitem(last=False)
            try:
                slot.append(self._get())
            except Exception as error:  # raised in the getter: the putter has done nothing wrong
                wake(task, error)
            else:
                wake(task)
        if self._watchers and self.ready:
            self._wake_watcher()
        self._slow_put = bool(self._getters or self._watchers or self._ended)

    def _wait_to_put(self, task: Waiter, wait: WaitKind, item: Item, timeout: float | None = None) -> None:
        """Parks until the item is put in. Raises TimeoutError after `timeout` seconds: then it was not."""
        self._putters[task] = item
        if self._watchers and self._max_items < 1:
            self._wake_watcher()
        park_for(task, wait, self, timeout)

    # -- out

    def _get_and_refill(self) -> Item:
        """Take the next item, and fill its place from the first parked putter. Only when `ready`.

        Raises what `_exhausted_error` answers when nothing is left after the end.
        """
        while not self.queue and self._putters:  # capacity 0: straight from the putter
            self._admit_putter()
        if not self.queue:
            raise self._exhausted_error()
        item = self._get()
        if self._putters:
            self._admit_putters()
        return item

    def _admit_putters(self) -> None:
        """Put in the items of parked putters, as many as there is room for, and wake those."""
        while self._putters and len(self.queue) < self._max_items:
            self._admit_putter()

    def _admit_putter(self) -> None:
        """Put in the item of the first parked putter, and wake it."""
        task, item = self._putters.popitem(last=False)
        try:
            self._put_counted(item)
        except Exception as error:  # raised in the putter: the getter has done nothing wrong
            wake(task, error)
        else:
            wake(task)

    def _wait_to_get(self, task: Waiter, wait: WaitKind, timeout: float | None = None) -> Item:
        """Parks until an item is handed to the task, and returns it. Raises TimeoutError after `timeout` seconds."""
        slot: list[Item] = []
        self._getters[task] = slot
        self._slow_put = True
        try:
            park_for(task, wait, self, timeout)
        except BaseException:
            if slot:  # Ctrl-C in top-level code, or a reset of the loop, after the item was handed over
                self._put_back(slot[0])
            raise
        return slot[0]

    def _put_back(self, item: Item) -> None:
        """Undo a hand-over: the item is the next one again."""
        if isinstance(self.queue, deque):
            self.queue.appendleft(item)
        else:
            self._put(item)
        self._serve_getters()

    # -- the end

    def _end(self) -> None:
        """Close or shut down: wake every getter and putter with its error, and every watcher."""
        self._ended = self._slow_put = True
        for task in list(self._getters):
            wake(task, self._exhausted_error())
        for task in list(self._putters):
            wake(task, self._closed_error())
        self._wake_watchers()


def leave_getters(handoff: Handoff[Any], task: Waiter) -> None:
    """Take a parked getter out of its wait queue."""
    handoff._getters.pop(task, None)


def leave_putters(handoff: Handoff[Any], task: Waiter) -> None:
    """Take a parked putter out of its wait queue."""
    handoff._putters.pop(task, None)
