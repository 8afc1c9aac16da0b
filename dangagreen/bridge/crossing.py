"""Waiting across the border: a task for what asyncio awaits, a coroutine for a task.

Rules: who is cancelled while it waits for the other side cancels that, once, and goes on when it has ended; a
cancellation that a third party has asked for is an ordinary exception. What does not belong here: how the loops of
both sides are run.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from types import CoroutineType, coroutine
from typing import Any, ParamSpec, TypeVar

from dangagreen import checks
from dangagreen.bridge import call_graph
from dangagreen.bridge.event_loop import EventLoop
from dangagreen.bridge.home import home
from dangagreen.bridge.host import Host
from dangagreen.bridge.sides import (
    AWAIT,
    check_no_loop_runs,
    foreign_loop,
    home_of_context,
    neighbours,
    refuses_to_end,
)
from dangagreen.errors import Cancelled, TaskCancelledError
from dangagreen.frames import CALLER
from dangagreen.green.parking import checkpoint, park
from dangagreen.green.sched import LoopReset
from dangagreen.green.scopes import shield
from dangagreen.green.spawning import spawn
from dangagreen.green.tasks import Task, let_coroutines_await
from dangagreen.green.waiters import Waiter
from dangagreen.loop.loop import Loop, current_loop, here
from dangagreen.parks import parks

Params = ParamSpec("Params")
Result = TypeVar("Result")

_EAGER = sys.version_info >= (3, 12)
_ENDS_THE_PROGRAM = (KeyboardInterrupt, SystemExit)  # raised once: who waits for what raised it is cancelled
_PROGRAM_ENDS = "the program ends"


@parks
def await_(awaitable: Awaitable[Result]) -> Result:
    """Parks until a coroutine, or whatever else asyncio awaits, is done; returns its result or raises its exception.

    A coroutine runs in a copy of this context. If this task is cancelled meanwhile, or a scope around it, the coroutine
    gets CancelledError, once, and this call goes on when it has ended, however long that takes. Raises
    TaskCancelledError if a third party has cancelled it; CannotParkError in a callback, a coroutine, or within
    no_parking(); ForeignThreadError for a future of another thread; TypeError for what cannot be awaited.
    """
    try:
        loop = here.loop or current_loop()
        task: Waiter | None = loop.current
        if task is None or task.interrupt is not None or not next(loop.budget, False):
            task = checkpoint(loop, "await_")
        if asyncio._get_running_loop() is not None:
            check_no_loop_runs("await_")
        if type(awaitable) is CoroutineType:
            aio = _usual_loop(loop)
            if (host := _host(aio)) is not None:
                carried: Any = _carry(awaitable, task)
                carried.__qualname__ = awaitable.__qualname__  # in asyncio's words it is the coroutine
                future: Any = host.borrow((carried, copy_context()))  # in no function of ours: see `Lender`
                if type(future) is not asyncio.Task:
                    raise future
            else:
                future = _begin_later(awaitable, task, aio)
        else:
            future = _begin(awaitable, task, loop)
    except BaseException:
        future = None  # it may be this very exception
        if type(awaitable) is CoroutineType:
            awaitable.close()
        raise
    if not future.done():
        if call_graph.KEPT:
            call_graph.enter(future, task)
        try:
            park(task, AWAIT, future)
            while not future.done():  # it was woken by what it had given up before; or everything is given up
                if neighbours(loop).given_up:
                    raise Cancelled(_PROGRAM_ENDS)
                park(task, AWAIT, future)
        except BaseException as interrupt:
            _see_it_end(future, task, interrupt)
        finally:
            if call_graph.entered:
                call_graph.leave(future, task)
    try:
        result: Result = future.result()
    except asyncio.CancelledError as error:
        reason = error.args[0] if error.args else None
        if reason is _PROGRAM_ENDS:
            raise Cancelled(reason) from None
        raise TaskCancelledError(f"what await_ waited for was cancelled: {future!r}", reason) from None
    except _ENDS_THE_PROGRAM:  # which asyncio has raised already
        raise Cancelled(_PROGRAM_ENDS) from None
    return result


def _host(aio: AbstractEventLoop) -> Host | None:
    """Who can begin a coroutine on this asyncio loop at once: since Python 3.12, if that overtakes nobody there.

    It would starve who waits for what another one has given back just now, such as a connection of a pool.
    """
    if not _EAGER or not isinstance(aio, EventLoop) or aio._ready or aio.get_task_factory() is not None:  # type: ignore[attr-defined]
        return None
    return aio.hosting.parking.host


def _begin_later(awaitable: Any, task: Waiter, aio: AbstractEventLoop) -> asyncio.Future[Any]:
    """Have asyncio begin a coroutine when it is its turn, and wake the task when it is done."""
    if aio.get_task_factory() is not None:
        future = aio.create_task(awaitable)
        future.add_done_callback(lambda _future: _wake(task))
        return future
    carried: Any = _carry_later(awaitable, task)
    carried.__qualname__ = awaitable.__qualname__
    carried.send(None)
    return aio.create_task(carried)


def _begin(awaitable: Any, task: Waiter, loop: Loop) -> asyncio.Future[Any]:
    """The future of what is no coroutine; it wakes the task when it is done."""
    if asyncio.isfuture(awaitable):
        future = _of_this_thread(awaitable, loop)
    elif hasattr(type(awaitable), "__await__"):
        future = asyncio.ensure_future(awaitable, loop=_usual_loop(loop))
    else:
        raise TypeError(f"await_ needs a coroutine, or what else can be awaited, not {checks.shown(awaitable)}")
    future.add_done_callback(lambda _future: _wake(task))
    return future


def _wake(task: Waiter) -> None:
    """What it awaits has ended, or something that it awaited before and has given up."""
    if task.wait is AWAIT:  # `wake`, with nothing to undo: 1 percent of an `await_`
        task.wait = None
        task.loop.runnable.append(task.resume)


async def _carry(awaitable: Coroutine[Any, Any, Result], task: Waiter) -> Result:
    """It wakes the task at its very end, which spares asyncio a pass: an eighth of what `await_` costs."""
    try:
        return await awaitable
    finally:
        if task.wait is AWAIT:  # `_wake`, in line
            task.wait = None
            task.loop.runnable.append(task.resume)


async def _carry_later(awaitable: Coroutine[Any, Any, Result], task: Waiter) -> Result:
    """It is in its block before asyncio begins it, so that a cancellation meanwhile is met there."""
    try:
        await _nothing()
        return await awaitable
    finally:
        awaitable.close()  # if it was not begun
        _wake(task)


@coroutine
def _nothing() -> Generator[None, None, None]:
    yield


def _see_it_end(future: asyncio.Future[Any], task: Waiter, interrupt: BaseException) -> None:
    """Cancel it, and park until it has ended. Raises the interrupt if that has ended it, or comes only once."""
    near = neighbours(task.loop)
    if not future.done() and not future.get_loop().is_closed():
        near.told.add(future)
        future.cancel()
    if isinstance(interrupt, LoopReset):
        raise interrupt
    with shield():
        while not future.done() and not near.given_up:
            park(task, AWAIT, future)
    if not future.done():
        refuses_to_end(future)
        raise interrupt
    if future.cancelled() or not isinstance(interrupt, Cancelled):
        if not future.cancelled():
            future.exception()  # it comes second
        raise interrupt


def _usual_loop(loop: Loop) -> AbstractEventLoop:
    """The asyncio loop on which a coroutine is to run: the host, or that of the context, or the loop's own."""
    near = loop.green.bridge or neighbours(loop)  # type: ignore[union-attr]
    if near.guest_of is not None:
        return near.guest_of
    of_context = home_of_context.get()
    return of_context if of_context is not None and of_context in near.borders else home(loop)


def _of_this_thread(future: asyncio.Future[Any], loop: Loop) -> asyncio.Future[Any]:
    """Raise ForeignThreadError for one of another thread, RuntimeError for one of a loop that is nobody's neighbour."""
    aio, near = future.get_loop(), neighbours(loop)
    if aio not in near.borders and aio is not near.home:
        raise foreign_loop(f"{future!r} belongs to {aio!r}", aio, f"which neither runs on {loop!r} nor hosts it")
    return future


class _TaskFuture(asyncio.Future[Any]):
    """A task of ours, as a future of asyncio's. To cancel it is to cancel the task."""

    def __init__(self, task: Task[Any], aio: AbstractEventLoop) -> None:
        super().__init__(loop=aio)
        self.of_task = task
        self._asked = False  # this very future was cancelled
        if task.done:
            self._on_task_end(task)
            return
        task._watch(self, cares=True)

    if call_graph.KEPT:

        def add_done_callback(self, callback: Callable[[Any], object], /, *, context: Context | None = None) -> None:
            """A coroutine that calls it, as each that awaits does, waits for the task."""
            super().add_done_callback(callback, context=context)
            if self.of_task.wait is AWAIT:
                call_graph.add(self.of_task.subject, self.of_task, asyncio.current_task(self.get_loop()))

    def _on_task_end(self, task: Task[Any]) -> None:
        if self.done():
            return
        if self.get_loop().is_closed():  # it cannot tell its callbacks, nor who might have asked for a failure
            task._report_anyway()
            return
        try:
            self.set_result(task.result())
        except TaskCancelledError as error:
            if self._asked or error.reason is _PROGRAM_ENDS:
                super().cancel(error.reason)
            else:
                self.set_exception(error)
                if task.was_cancelled:
                    self.exception()  # if nobody awaits it, that is as quiet as a cancelled task of asyncio's
        except StopIteration as error:
            failure = RuntimeError(f"{task!r} raised {error!r}")
            failure.__cause__ = error
            self.set_exception(failure)
        except _ENDS_THE_PROGRAM:
            super().cancel(_PROGRAM_ENDS)
        except BaseException as error:
            task.error_retrieved = task.error_retrieved or not isinstance(error, LoopReset)  # the hub need not raise it
            self.set_exception(error)

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the task. True unless it has ended; this future is done when it has ended."""
        if self.done():
            return False
        self._asked = True
        return self.of_task.cancel("the coroutine that awaits it was cancelled" if msg is None else msg)


def as_future(task: Task[Result]) -> asyncio.Future[Result]:
    """A future of a task, for `asyncio.wait`, `gather`, `shield` and done-callbacks. In a coroutine only.

    Raises RuntimeError outside of coroutines, ForeignThreadError for a task of another thread.
    """
    if not isinstance(task, Task):
        raise TypeError(f"as_future needs a task of spawn, not {checks.shown(task)}")
    aio = _running_aio("as_future", "a task waits for another one by join()")
    near = neighbours(task.loop)
    if aio not in near.borders:
        words = f"which neither hosts {aio!r} nor is its guest: see bridge.guest()"
        raise foreign_loop(f"{task!r} belongs to {task.loop!r}", task.loop, words)
    return _TaskFuture(task, aio)


def _running_aio(call: str, elsewhere: str) -> asyncio.AbstractEventLoop:
    """The loop of asyncio that runs here. Raises RuntimeError, which tells what to do elsewhere."""
    if (aio := asyncio._get_running_loop()) is None:
        raise RuntimeError(f"{call} was called outside of a coroutine, for which alone it is: {elsewhere}")
    return aio


def to_task(
    function: Callable[Params, Result], /, *args: Params.args, **kwargs: Params.kwargs
) -> asyncio.Future[Result]:
    """Run `function(*args, **kwargs)` in a task, in a copy of this context; `await` it for its result."""
    _running_aio("to_task", "elsewhere a task is made by spawn(f, x)")
    task = spawn(function, *args, **kwargs)
    caller = sys._getframe(CALLER)
    task.origin = caller.f_code, caller.f_lasti
    try:
        return as_future(task)
    except BaseException:
        task.cancel()
        raise


def _await_task(task: Task[Any]) -> Generator[Any, None, Any]:
    return as_future(task).__await__()


let_coroutines_await(_await_task)
