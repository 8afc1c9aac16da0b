"""One turn of the loop: wait, dispatch, timers, calls, tasks, pushed-back input, flush, close, post-loop callbacks.

Rules: a turn does a bounded amount of each (fairness); only the loop calls `event_*`; a callback that raises costs its
own socket only. The loop knows its handlers by the `Handler` protocol alone. What does not belong here: how a loop
begins and ends, sockets, buffers, greenlets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from itertools import islice

from dangagreen import checks
from dangagreen.checks import RESUMED
from dangagreen.errors import ErrorContext
from dangagreen.loop.handlers import Handler
from dangagreen.loop.instruments import Instrumented
from dangagreen.loop.pollers import LONGEST_WAIT, READ, WRITE, Poller
from dangagreen.loop.profiling import Profile
from dangagreen.loop.schedule import ContextCall
from dangagreen.places import with_place
from dangagreen.system_calls import run_in

_CALLS_PER_TURN = 64  # calls, tasks, timers and pending reads, of each kind: more would starve the others
_LOOKS = (*(False,) * 7, True) * (_CALLS_PER_TURN // 8)  # the clock is read before each eighth of these
_EVENTS = 16  # events dispatched between two looks at the timers
LONG_TURN = 0.001  # seconds for one kind of work, or for one task: the rest is for the next turn


class Turning(Instrumented):
    """The turn of a loop: base class of `Loop`."""

    __slots__ = {
        "_stop": "Whether `run` is to end after this turn.",
        "_struck": "The handler whose callback raised what left `run` (Ctrl-C), and may do so again; None otherwise.",
        "budget": "An iterator: one item for each call that may park, until the clock has to be read again.",
        "interest_changed": "Handlers whose registration with the poller has to be updated at the end of the turn.",
        "measurements": "What profiling has measured.",
        "to_flush": "Handlers whose write queue is to be sent at the end of the turn.",
        "loop_timeout": "The longest that a turn may wait for events, in seconds; None is no limit.",
        "task_call": "The call that has started or resumed the task that runs, while this turn runs tasks; or None.",
        "task_looks": "An iterator: one item for each task that this turn may still run. Empty while it runs no tasks.",
        "tasks_since": "The clock's time when this turn began to run tasks.",
        "now": "The clock's time when this turn's events were collected.",
    }

    def __init__(self, clock: Callable[[], float], poller: Poller) -> None:
        super().__init__(clock, poller)
        self.now = clock()
        self.to_flush: list[Handler] = []
        self.interest_changed: list[Handler] = []
        self.budget: Iterator[bool] = iter(())
        self.task_looks: Iterator[bool] = iter(())
        self.task_call: Callable[[], object] | None = None
        self.tasks_since = self.now
        self._stop = False
        self._struck: Handler | None = None
        self.loop_timeout: float | None = None
        self.measurements = Profile()

    def stop(self) -> None:
        """End `run()` at the end of this turn."""
        self._stop = True
        if self.green is not None:
            self.green.stopping()

    def _begin_run(self) -> None:
        """Forget what an earlier `run` has left."""
        Instrumented._begin_run(self)
        self._forget_stop()
        self._struck = None

    def _forget_stop(self) -> None:
        self._stop = False

    def take_struck(self) -> Handler | None:
        """The handler whose callback raised what left `run`, if one did; it is answered once."""
        struck, self._struck = self._struck, None
        return struck

    def _turn(self) -> bool:
        """One turn. Returns whether `run` is to go on."""
        # To read a slot and call it in one expression costs the interpreter twice as much.
        wait, clock, heap = (self.instruments or self.poller).wait, self.clock, self.timers.heap
        self.batch = batch = wait(self._patience())
        self.now = self.looked = clock()
        if batch and self.pending_reads:
            batch[:] = self._without_pending_reads(batch)  # in place: `unregister` strikes events out of it
        if batch:
            self._dispatch(batch) if len(batch) <= _EVENTS else self._dispatch_many()
        if heap and not heap[0][0] > self.now:  # `not >`: a NaN deadline is due too, and does no harm
            self._run_timers()
        if self.ready:
            self._run_calls(_LOOKS[: len(self.ready)])
        if self.runnable:  # also those that tasks start or wake, without asking the kernel in between
            self._run_tasks()
        if self.pending_reads:
            self._run_pending_reads()
        if self.to_flush:
            self._flush_all()
        if self.interest_changed:
            self._update_registrations()
        if self.to_close:
            of, count = type(self.to_close[-1]), len(self.to_close)
            self._close_all()
            if (now := clock()) > self.suspect_after:  # what these sockets alone have held is freed here
                what = "closing a socket, and a __del__ perhaps, of class"
                if count > 1:
                    what = f"closing {count} sockets, and a __del__ perhaps, the first of class"
                self.call_took(self.looked, now, of, what)
            self.looked = now
        if self.post_loop_callback is not None or self.object_callbacks:
            if not self._run_post_loop_callbacks():
                self._stop = True
        if self.after_turn is not None:
            self.after_turn(self)
        return not self._stop

    def _patience(self) -> float | None:
        """How long this turn may wait for events, in seconds; 0 if there is work to do, None without a limit."""
        if (
            self.ready
            or self.runnable
            or self.pending_reads
            or self.to_flush
            or self.interest_changed
            or self.to_close
            or self._stop
        ):
            return 0
        patience = None
        if self.timers.heap and (deadline := self.timers.next_deadline()) is not None:
            patience = deadline - self.clock()
            if not 0.0 < patience < LONGEST_WAIT:
                patience = LONGEST_WAIT if patience > 0.0 else 0.0
        if self.loop_timeout is None or (patience is not None and patience < self.loop_timeout):
            if patience is None or patience > 1:
                awaited = self.awaited  # read first and then called, as in `_turn`
                handler = awaited()
                if handler is None or not (
                    handler._registered_mask & READ and (handler._watch_read or handler._reader is not None)
                ):  # nor any other?
                    if self._seems_that_no_fd_can_wake():
                        self.end_turn()
                        return self._look_for_a_stall(patience)
            return patience
        return self.loop_timeout

    def _without_pending_reads(self, batch: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """The events, without READ events of handlers whose pushed-back input is delivered later in this turn.

        That delivery includes the new input. With the event as well, a connection that pushes back in each turn would
        be served twice in each, and first.
        """
        for fd, mask in batch:
            handler = self.handlers.get(fd)
            if mask == READ and handler in self.pending_reads and handler._hears_by_event_read():
                continue
            yield fd, mask

    def _dispatch_many(self) -> None:
        """Dispatch a large batch in portions, and fire timers that become due between them."""
        events = iter(self.batch)  # of the list itself: `unregister` strikes events out of it
        for _ in range(0, len(self.batch), _EVENTS):
            self._dispatch(islice(events, _EVENTS))
            self.now = self.looked
            self._run_timers()

    def _dispatch(self, events: Iterable[tuple[int, int]]) -> None:
        handlers, direct, clock = self.handlers, self.direct, self.clock
        last, suspect = self.looked, self.suspect_after
        for fd, mask in events:
            try:
                handler = handlers[fd]
            except KeyError:
                self._unknown_fd(fd)
                continue
            reader = handler._reader
            try:
                if mask == direct and reader is not None:
                    resume = reader.resume  # read first and then called, as in `_turn`
                    resume()
                elif mask == direct and handler._watch_read:
                    if (result := run_in(handler._context, handler.event_read)) is not None:
                        checks.outcome("event_read", result)
                    if handler._timer is not None:  # its own work is no idle time
                        handler._was_at_work()
                else:
                    handler._context.run(handler._events, mask)
            except Exception as error:
                self.handler_failed(handler, error)
            except BaseException:
                self._struck = handler
                raise
            if (now := clock()) > suspect:
                suspect = self.handler_took(last, now, handler, mask, reader)
            last = now
        self.looked = last

    def _run_timers(self) -> None:
        mark, clock = self.timers.mark(), self.clock
        pop_due = (self.instruments or self.timers).pop_due
        began, suspect = self.looked, self.suspect_after
        last = began
        for look in _LOOKS:
            if (look and last - began > LONG_TURN) or (timer := pop_due(self.now, mark)) is None:
                break
            what, context = timer.callback, timer.context
            try:
                timer.fire()
            except Exception as error:
                self._report_in(context, f"a timer's callback raised: {with_place(what)}", error)
            if (now := clock()) > suspect:
                suspect = self.call_took(last, now, what, "the timer's callback")
            last = now
        self.looked = last

    def _run_calls(self, looks: Iterable[bool]) -> None:
        calls, clock = self.ready, self.clock
        take = calls.popleft if self.instruments is None else self.instruments.take_call
        began, suspect = self.looked, self.suspect_after
        last = began
        for look in looks:
            if not calls or (look and last - began > LONG_TURN):
                break
            call = take()
            try:
                if (result := call()) is not None and result is not RESUMED:
                    checks.outcome("it", result)
            except Exception as error:
                self._call_failed(call, error)
            if (now := clock()) > suspect:
                suspect = self.call_took(last, now, call, "the call_soon callback")
            last = now
        self.looked = last

    def _run_tasks(self) -> None:
        """Start or resume tasks. Unlike `_run_calls` it looks at no results: that would be 2 percent of a spawn."""
        calls, clock = self.runnable, self.clock
        suspect = self.suspect_after
        last = began = self.tasks_since = self.looked
        self.task_looks = looks = iter(_LOOKS)
        try:
            for look in looks:
                if not calls or (look and last - began > LONG_TURN):
                    break
                self.task_call = call = calls.popleft()
                try:
                    call()
                except Exception as error:
                    self._call_failed(call, error)
                if (now := clock()) > suspect:  # of what its worker has run after it the last one
                    suspect = self.call_took(max(last, self.looked), now, self.task_call, "the call")
                last = now
        finally:
            self.looked = last
            self.task_call, self.task_looks = None, iter(())

    def next_task(self) -> Callable[..., object] | None:
        """What is next in the queue of tasks, taken out of it, for a worker whose task has ended.

        None if that is for the hub to do: there is no time left for it in this turn, the task has run for long,
        instruments hear of runs, or the queue has an order of its own.
        """
        now = self.clock()
        calls, looks = self.runnable, self.task_looks
        if now > self.suspect_after or self.instruments is not None or type(calls) is not deque:
            return None
        for look in looks:
            if look and now - self.tasks_since > LONG_TURN:
                break
            self.looked = now
            self.task_call = call = calls.popleft()
            return call
        for _ in looks:  # the rest is for the next turn
            pass
        return None

    def _call_failed(self, call: Callable[[], object], error: Exception) -> None:
        context = call.context if isinstance(call, ContextCall) else None
        self._report_in(context, f"a call_soon callback raised: {with_place(call)}", error)

    def _is_long_since(self, began: float) -> bool:
        """Whether one kind of work has taken longer than its share of the turn, since `began`."""
        return self.clock() - began > LONG_TURN

    def _report_in(self, context: Context | None, message: str, error: Exception) -> None:
        """Report an error in the context of the call that failed, if it had one, so that log lines name its request."""
        if context is None:
            context = copy_context()
        context.run(self.report, ErrorContext(message, error))

    def _run_pending_reads(self) -> None:
        clock, suspect = self.clock, self.suspect_after
        began = last = self.looked
        for handler, look in zip(list(islice(self.pending_reads, _CALLS_PER_TURN)), _LOOKS, strict=False):
            if look and last - began > LONG_TURN:
                break
            just_now = self.pending_reads.pop(handler, None)
            if just_now is None:  # it was closed meanwhile, or this is a forked child
                continue
            try:
                if not handler.closed and handler._run(handler._pushed_back, just_now):
                    self.pending_reads.setdefault(handler, False)
            except Exception as error:
                self.handler_failed(handler, error)
            except BaseException:
                self.pending_reads[handler] = just_now
                raise
            if (now := clock()) > suspect:
                suspect = self.handler_took(last, now, handler._hearer(), READ)
            last = now
        self.looked = last

    def _flush_all(self) -> None:
        due, self.to_flush = self.to_flush, []
        clock, suspect, last = self.clock, self.suspect_after, self.looked
        while due:
            handler = due.pop()
            if handler._queue is None:  # sent when the task parked, or dropped
                continue
            try:
                run_in(handler._context, handler._flush)
            except Exception as error:
                self.handler_failed(handler, error)
            except BaseException:
                self.to_flush += [handler, *due]
                raise
            if (now := clock()) > suspect:
                suspect = self.handler_took(last, now, handler, WRITE)
            last = now
        self.looked = last

    def _run_post_loop_callbacks(self) -> bool:
        """Call them all. Returns whether each of them has answered that the loop is to go on."""
        all_go_on = True
        for callback, arguments in self.post_loop_calls():
            began = self.clock()
            try:
                if self.instruments is None:
                    go_on = callback(*arguments)
                else:
                    go_on = self.instruments.callback(callback, "post_loop", callback, *arguments)
                checks.outcome("it", go_on)
            except Exception as error:
                self.report(ErrorContext(f"a post-loop callback raised: {with_place(callback)}", error))
                continue
            self.call_took(began, self.clock(), callback, "the post-loop callback")
            if not go_on:
                all_go_on = False
        return all_go_on

    def _forget_closed(self) -> None:
        for pending in (self.to_flush, self.interest_changed):
            if 0 < len(pending) <= _CALLS_PER_TURN:  # with very many each close would take linear time
                pending[:] = [handler for handler in pending if not handler.closed]

    def _update_registrations(self) -> None:
        while self.interest_changed:
            handler = self.interest_changed.pop()
            try:
                handler._update_registration()
            except Exception as error:
                self.handler_failed(handler, error)


class Latest:
    """Where the loop that has begun to run last is found without a look-up by thread, unless its thread is another."""

    __slots__ = {"loop": "That loop, while it runs, and is the current one of its `thread`; None otherwise."}

    def __init__(self) -> None:
        self.loop: Turning | None = None


latest = Latest()
