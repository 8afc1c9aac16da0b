"""A fork inside a running loop: in the child the task that has forked goes on, alone.

Rules: no code of another task runs in the child, its `finally` blocks included, since what they would clean up is the
parent's; to the child those tasks have ended. A task of `run` goes on to its end as ever; any other one, or a callback,
ends the child when nothing is left to do. What does not belong here: what becomes of descriptors (loop).
"""

from __future__ import annotations

import os
import signal
from functools import partial

from dangagreen.green.sched import Scheduler
from dangagreen.green.scopes import set_deadline_anew
from dangagreen.green.tasks import Task
from dangagreen.green.waiters import Waiter
from dangagreen.loop.loop import Loop, here
from dangagreen.loop.sigint import SignalHandler
from dangagreen.loop.signal_chain import ChainedHandler

_left: list[object] = []  # greenlets of the parent: to free one would run the `finally` blocks of its task


def _after_fork_in_child() -> None:
    loop = here.loop
    if loop is not None and loop.running and loop.green is not None:
        _go_on_alone(loop.green)  # type: ignore[arg-type]


def _go_on_alone(sched: Scheduler) -> None:
    """The loop has a new poller already, and has forgotten its timers and calls."""
    loop = sched.loop
    me: Waiter | None = loop.current if sched.no_parking is None else sched.no_parking.task
    running = [worker.task for worker in sched.workers if worker.task is not None]
    others = [one for one in dict.fromkeys((*sched.tasks, *running, sched.top_level)) if one not in (me, None)]
    for worker in list(sched.workers):
        if worker.task is not None and worker.task is not me:
            del sched.workers[worker]
            _left.append(worker)
    for one in others:
        _forget_wait(one)
    if sched.main in others:  # it has no end here: `run` is the parent's
        sched.tasks.pop(sched.main, None)
        others.remove(sched.main)
    for one in others:  # when none of them waits any more, so that none is woken by the end of another one
        one._leave_to_parent()
    sched.forevers.clear()
    if sched.signals is not None:
        sched.signals.close()
    if me is not None and me is sched.main:
        loop._go_on_after_run()
    else:
        _put_handlers_back(loop)
        loop._end_child_with(partial(_status, me))
    if me is not None:
        me.unflushed_socket = None
        set_deadline_anew(me)
    if isinstance(me, Task):
        me._go_on_alone()


def _forget_wait(waiter: Waiter) -> None:
    """Undo what a wait of the parent has arranged."""
    wait, waiter.wait = waiter.wait, None
    if wait is not None and not wait.due:
        wait.undo(waiter.subject, waiter)


def _put_handlers_back(loop: Loop) -> None:
    """What the parent has installed is for the parent; a signal that came meanwhile may be for this process."""
    for number in signal.valid_signals():
        while isinstance(handler := signal.getsignal(number), ChainedHandler):
            ChainedHandler.restore(handler)  # nothing more: what it watches by a thread is not watched here
            if isinstance(handler, SignalHandler) and handler.pending:
                loop.ready.append(partial(signal.raise_signal, number))


def _status(task: Waiter | None) -> int:
    """The exit status of the child: 1 if the task that has forked has failed, which was reported."""
    if isinstance(task, Task) and task.done:
        try:
            task.result()
        except BaseException as error:
            return int(isinstance(error, Exception))
    return 0


os.register_at_fork(after_in_child=_after_fork_in_child)
