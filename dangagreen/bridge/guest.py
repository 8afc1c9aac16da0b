"""Our loop as the guest of an asyncio loop, or of uvloop's, that runs already.

Rules: one turn of ours for each wake, so that each side gets its share; what wakes us is our poller's own descriptor,
one timer for our next deadline, and whatever is put on our schedule outside of a turn: no thread, and no polling. Other
threads and signal handlers wake our poller, and call nothing of the host's. The host is never blocked. What does not
belong here: who waits for what across the border.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

from dangagreen.bridge.event_loop import EventLoop
from dangagreen.bridge.sides import Border, neighbours
from dangagreen.errors import Deadlock
from dangagreen.green.run import close_descriptors, close_listeners, end_closers
from dangagreen.green.sched import scheduler
from dangagreen.green.waiters import end_forevers
from dangagreen.loop.loop import current_loop
from dangagreen.loop.timers import Timer, Timers

Result = TypeVar("Result")

_ENDED = "guest() ended"


class _Kicking:
    """A queue of the loop's that tells when something is put into it, in this thread and outside of signal handlers."""

    kick: Callable[[], object] = staticmethod(bool)

    def append(self, item: Any) -> None:
        super().append(item)  # type: ignore[misc]
        self.kick()

    def extend(self, items: Any) -> None:
        super().extend(items)  # type: ignore[misc]
        self.kick()

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)  # type: ignore[misc]
        self.kick()

    def setdefault(self, key: Any, value: Any = None) -> Any:
        self.kick()
        return super().setdefault(key, value)  # type: ignore[misc]


class _Deque(_Kicking, deque[Any]):
    """`ready`, `runnable`."""


class _List(_Kicking, list[Any]):
    """`to_flush`, `interest_changed`, `to_close`."""


class _Dict(_Kicking, dict[Any, Any]):
    """`pending_reads`."""


class _Timers(Timers):
    """Timers that share all they hold with the loop's own."""

    __slots__ = {"_kick": "Asks for a turn."}

    def __init__(self, timers: Timers, kick: Callable[[], object]) -> None:
        super().__init__(timers.owner)
        self.share(timers)
        self._kick = kick

    def add(self, deadline: float, callback: Callable[[], object], context: Any = None) -> Timer:
        self._kick()
        return super().add(deadline, callback, context)

    def add_first(self, deadline: float, callback: Callable[[], object]) -> Timer:
        self._kick()
        return super().add_first(deadline, callback)


class _Ends:
    """Cancels tasks, and has a future done when all have ended. `report` then reports failures that reach no caller."""

    def __init__(self, tasks: list[Any], future: asyncio.Future[None]) -> None:
        self.future = future
        self._tasks = tasks
        self._left = len(tasks)
        for task in tasks:
            task._watch(self)
            task.cancel(_ENDED)

    def _on_task_end(self, _task: Any) -> None:
        self._left -= 1
        if not self._left:
            self.future.set_result(None)

    def report(self) -> None:
        for task in self._tasks:
            task._unwatch(self)
            task._report_if_unretrieved()


_QUEUES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {  # with what stands there otherwise
    "ready": (_Deque, deque),
    "runnable": (_Deque, deque),
    "to_flush": (_List, list),
    "interest_changed": (_List, list),
    "to_close": (_List, list),
    "pending_reads": (_Dict, dict),
}
_STOPPED = "the loop was stopped"


def _exchange(loop: Any, name: str, queue: Any) -> Any:
    """Put an empty queue in the place of the loop's, and into it what that holds. Threads may queue calls meanwhile."""
    held = getattr(loop, name)
    setattr(loop, name, queue)  # first: nothing comes into the old one any more
    if isinstance(queue, deque):
        queue.extendleft(reversed(held))  # before what has come since
    elif isinstance(queue, list):
        queue[:0] = held
    else:
        queue.update(held)
    return queue


class guest:  # noqa: N801  # a block, as contextlib names its own
    """`async with guest():` runs this thread's dangagreen loop on the asyncio loop, or uvloop, until the block ends.

    Servers, tasks, callbacks and timers of ours run meanwhile. At its end listeners are closed, tasks cancelled and
    waited for, and sockets closed, as `dangagreen.run` does; the host goes on. `Loop.stop()` has `serve_forever` drain,
    or else ends the block quietly. Raises Deadlock when all tasks and, so far as it can be seen, all of asyncio wait
    and nothing can wake them. Raises RuntimeError where the loop is running already, as a guest too, in a hosted
    `EventLoop`, and with poll and select, which cannot be watched.
    """

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._turning = False
        self._handle: asyncio.Handle | None = None  # of a turn that is to come at once
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None  # of that timer, by our clock
        self._turns = 0
        self._look: asyncio.TimerHandle | None = None  # for a deadlock
        self._block: asyncio.Task[Any] | None = None  # whose block it is, while that has not ended
        self._cancels = 0  # of that task, before the block
        self._ended_by: BaseException | str | None = None  # what has cancelled it: Deadlock, or _STOPPED
        self._ends: _Ends | None = None  # what the end of the block waits for

    async def __aenter__(self) -> None:
        self._aio = aio = asyncio.get_running_loop()
        self._loop = loop = current_loop()
        self._turning = False
        near = neighbours(loop)
        if isinstance(aio, EventLoop):
            raise RuntimeError(f"{aio!r} runs on a loop of dangagreen already, and needs no guest()")
        if near.guest_of is not None:
            raise RuntimeError(f"guest(): this thread's loop is the guest of {near.guest_of!r} already")
        if loop.running:
            raise RuntimeError("guest(): this thread's loop is running already")
        fileno = getattr(loop.poller, "fileno", None)
        if fileno is None:
            raise RuntimeError(
                f"guest(): {type(loop.poller).__name__} has no descriptor that could be watched: use epoll"
            )
        self._fd = fileno()
        with self._undo as undo:  # in case that something of it fails
            loop.begin(undo)
            undo.callback(setattr, loop, "loop_timeout", loop.loop_timeout)
            loop.loop_timeout = 0
            self._border = Border(loop, aio, (None, None))
            near.borders[aio], near.guest_of, near.kick = self._border, aio, self.kick
            undo.callback(self._part, near)
            self._listen()
            self._border.begin_beyond()
            aio.add_reader(self._fd, self._turn)
            self._undo = undo.pop_all()
        self._block, self._ended_by = asyncio.current_task(), None
        self._cancels = self._block.cancelling() if self._block is not None else 0
        self.kick()

    async def __aexit__(self, kind: type[BaseException] | None, *_error: object) -> bool:
        loop, block, cancelled = self._loop, self._block, None
        self._block = None
        try:
            self._on_our_side(lambda: close_listeners(loop, _ENDED))
            with neighbours(loop).limit_clean_up(loop):
                while tasks := list(scheduler(loop).tasks):
                    ends = self._ends = _Ends(tasks, self._aio.create_future())
                    try:
                        while not ends.future.done():
                            try:
                                await asyncio.shield(ends.future)
                            except asyncio.CancelledError as error:
                                cancelled = error
                    finally:
                        ends.report()
            self._on_our_side(lambda: end_closers(loop))
            self._on_our_side(lambda: close_descriptors(loop, _ENDED))
        finally:
            self._ends = None
            self._undo.close()
        if cancelled is not None:
            raise cancelled
        by_us = self._ended_by is not None and block is not None and block.uncancel() <= self._cancels
        if not by_us or (kind is not None and not issubclass(kind, asyncio.CancelledError)):
            return False
        if isinstance(self._ended_by, BaseException):
            raise self._ended_by
        return True

    def _end_block(self, why: BaseException | str) -> None:
        """Cancel the task in whose block this is, as asyncio.timeout does, or have the end of the block raise it."""
        if self._block is not None and self._ended_by is None:
            self._ended_by = why
            self._block.cancel()
        elif self._ends is not None and isinstance(why, BaseException) and not self._ends.future.done():
            self._ends.future.set_exception(why)

    # -- turns

    def kick(self) -> None:
        """A turn is needed soon."""
        if not self._turning and self._handle is None:
            self._handle = self._aio.call_soon(self._turn)

    def _turn(self) -> None:
        try:
            self._make_turn()
        except BaseException:  # Ctrl-C, which may have struck in the middle of what arranges the next turn
            self._turning = False
            self._handle = self._aio.call_soon(self._turn)
            raise

    def _make_turn(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._turns += 1
        if not self._on_our_side(self._loop.turn) and not end_forevers(self._loop):
            self._end_block(_STOPPED)
        self._arrange_next()

    def _arrange_next(self) -> None:
        loop = self._loop
        if type(loop.to_flush) is list:  # it is a new one after each flush
            self._listen_to("to_flush")
        if loop.ready or loop.runnable or loop.pending_reads or loop.to_flush or loop.interest_changed or loop.to_close:
            return self.kick()
        if (deadline := loop.timers.next_deadline()) != self._deadline:
            self._wake_at(deadline)
        if deadline is None and self._look is None:
            self._suspect()
        return None

    def _on_our_side(self, call: Callable[[], Result]) -> Result:
        self._turning = True
        self._border.to_ours()
        try:
            return call()
        finally:
            self._border.to_asyncio()
            self._turning = False

    def _wake_at(self, deadline: float | None) -> None:
        before, self._timer = self._timer, None
        if before is not None:
            before.cancel()
        if deadline is not None:
            self._timer = self._aio.call_at(self._aio.time() + deadline - self._loop.clock(), self._at_deadline)
        self._deadline = deadline  # not before there is a timer for it

    def _at_deadline(self) -> None:
        self._timer = self._deadline = None
        self._turn()

    # -- deadlocks

    def _suspect(self) -> None:
        """If all our tasks wait and nothing of ours can wake them: look again later, at asyncio too."""
        seconds = self._loop.deadlock_seconds
        if seconds is not None and self._loop.seems_stalled():
            self._look = self._aio.call_later(seconds, self._look_again, self._turns)

    def _look_again(self, turns: int) -> None:
        self._look = None
        if turns != self._turns or not self._host_waits_for_nothing():
            return self._suspect()
        try:
            self._on_our_side(self._loop.look_for_a_stall)
        except Deadlock as error:
            self._end_block(error)
        return None

    def _host_waits_for_nothing(self) -> bool:
        """Whether asyncio has nothing to do either; its own wake-up pipe is nobody. Of uvloop it cannot be seen."""
        if not isinstance(self._aio, asyncio.SelectorEventLoop):
            return False
        aio: Any = self._aio
        if aio._ready or not all(map(TimerHandle.cancelled, aio._scheduled)):
            return False
        return aio._selector.get_map().keys() <= {self._fd, aio._ssock.fileno()}  # type: ignore[no-any-return]

    # -- what is put on the schedule

    def _listen(self) -> None:
        for name in _QUEUES:
            self._listen_to(name)
        self._loop.timers = _Timers(self._loop.timers, self.kick)

    def _listen_to(self, name: str) -> None:
        _exchange(self._loop, name, _QUEUES[name][0]()).kick = self.kick

    def _part(self, near: Any) -> None:
        """Take back what `__aenter__` has done to the two loops."""
        loop = self._loop
        self._aio.remove_reader(self._fd)
        self._turning = True
        for handle in (self._handle, self._timer, self._look):
            if handle is not None:
                handle.cancel()
        self._handle = self._timer = self._deadline = self._look = None
        self._border.end_beyond()
        for name, (_, plain) in _QUEUES.items():
            _exchange(loop, name, plain())
        timers = Timers(loop.timers.owner)
        timers.share(loop.timers)
        loop.timers = timers
        near.guest_of, near.kick = None, bool
        near.borders.pop(self._aio, None)
