"""Lints of calls to no effect: again and again, as reads at the end of a stream, waits whose condition never holds, and
a select that finds what it has found before; or once, as a time limit whose block is never entered.

Rules: what is watched are functions that are called at an end, or when a task waits, not where bytes are moved. What
does not belong here: loops that wait (lint_tasks, lint_turns).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, ref

from dangagreen.errors import connection
from dangagreen.green.deadlines import move_on_after, timeout, timeout_at
from dangagreen.green.scopes import CancelScope
from dangagreen.green.tasks import Task
from dangagreen.green.waiters import Waiter
from dangagreen.introspect.linting import Findings, LintReport, Patches, name_of, place_here
from dangagreen.introspect.stacks import Step, chain, steps_here
from dangagreen.loop.loop import here
from dangagreen.loop.timers import Timer
from dangagreen.net.sock import Socket
from dangagreen.sockets.sock import CallbackSocket
from dangagreen.sync.channels import Future
from dangagreen.sync.events import Condition
from dangagreen.sync.multiwait import Selection

READS_AT_END = 100  # reads of one socket that were answered with the end of its stream
SELECTED = 1000  # calls of select by one task, in a row, that return one and the same source, which stays ready
VAIN_WAKES = 1000  # notifications for one `wait_for` whose predicate was false each time


class CallLints:
    """What is noted of calls."""

    def __init__(self, findings: Findings, patches: Patches) -> None:
        self._findings = findings
        self._ends: WeakKeyDictionary[CallbackSocket, int] = WeakKeyDictionary()
        for name in ("_check_input", "_tell_eof"):
            patches.put(Socket, name, self._watch_ends)
        self._selected: WeakKeyDictionary[Waiter, tuple[ref[Any], int]] = WeakKeyDictionary()  # source, how often
        self._vain: WeakKeyDictionary[Waiter, int] = (
            WeakKeyDictionary()
        )  # how often the predicate of the wait_for of a task was false, in a row
        patches.put(Condition, "_holds", self._watch_predicates)
        patches.put(Condition, "wait", self._watch_notifications)
        patches.put(Selection, "first_ready", self._watch_select)

    def _watch_ends(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def at_end(sock: CallbackSocket) -> Any:
            self._read_at_end(sock)
            return original(sock)

        return at_end

    def _read_at_end(self, sock: CallbackSocket) -> None:
        """A read finds the end of the stream, or a closed socket."""
        count = self._ends[sock] = self._ends.get(sock, 0) + 1
        if count == READS_AT_END:
            task = sock.loop.current
            who = f"task {name_of(task)!r}" if task is not None else f"a callback of {type(sock).__name__}"
            what = (
                f"{who} reads on, {count} times by now, although {connection(sock)} has ended, which a read tells"
                f" by b'' or an error, and read() by None"
            )
            self._findings.add(sock.loop, LintReport("eof-loop", what, place_here(), sock))

    def _watch_select(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def first_ready(selection: Selection) -> Any:
            source = original(selection)
            task = selection.loop.current
            if task is not None:
                if isinstance(source, (Task, Timer, Future)):
                    self._was_selected(task, source)
                elif self._selected:
                    self._selected.pop(task, None)
            return source

        return first_ready

    def _was_selected(self, task: Waiter, source: Any) -> None:
        before, count = self._selected.get(task, (None, 0))
        count = count + 1 if before is not None and before() is source else 1
        self._selected[task] = ref(source), count
        if count == SELECTED:
            what = (
                f"task {name_of(task)!r} has called select {SELECTED} times in a row, and got one and the same"
                f" {type(source).__name__}, which stays ready; leave it out from then on"
            )
            self._findings.add(task.loop, LintReport("idle-wake", what, place_here(), task))

    # -- woken for nothing

    def _watch_predicates(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def holds(condition: Condition, predicate: Callable[[], object]) -> bool:
            answer: bool = original(condition, predicate)
            if (task := condition.loop.current) is not None:
                if answer:
                    self._vain.pop(task, None)
                else:
                    self._was_false(task)
            return answer

        return holds

    def _watch_notifications(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def wait(condition: Condition, *args: Any, **kwargs: Any) -> bool:
            notified = False
            try:
                notified = bool(original(condition, *args, **kwargs))
            finally:
                if not notified and (task := condition.loop.current) is not None:
                    self._vain.pop(task, None)
            return notified

        return wait

    def _was_false(self, task: Waiter) -> None:
        """What a task waits for in `wait_for` is not so: at first, or after a notification."""
        count = self._vain[task] = self._vain.get(task, 0) + 1
        if count > VAIN_WAKES:
            del self._vain[task]
            what = (
                f"task {name_of(task)!r} was woken {VAIN_WAKES} times by notify, and what it waits for in wait_for was"
                f" true not once; a Condition of its own, or notify(1), would spare that"
            )
            self._findings.add(task.loop, LintReport("idle-wake", what, place_here(), task))


class ScopeLints:
    """What is noted of time limits: where each was made, until its block is entered."""

    def __init__(self, findings: Findings, patches: Patches) -> None:
        self._findings = findings
        self._made: dict[int, tuple[Step, ...]] = {}  # by their ids
        for kind in (timeout, timeout_at, move_on_after):
            patches.put(kind, "__init__", self._watch_making)
            patches.put(kind, "__enter__", self._watch_entering)
            patches.put(kind, "__del__", self._watch_ends)  # which they have for as long as lints are on

    def _watch_making(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def make(scope: CancelScope, *args: Any, **kwargs: Any) -> None:
            original(scope, *args, **kwargs)
            self._made[id(scope)] = steps_here()

        return make

    def _watch_entering(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def enter(scope: CancelScope) -> Any:
            self._made.pop(id(scope), None)
            return original(scope)

        return enter

    def _watch_ends(self, _no_original: None) -> Callable[..., Any]:
        def freed(scope: CancelScope) -> None:
            made = self._made.pop(id(scope), None)
            if made is not None and (loop := here.loop) is not None:
                call = f"{type(scope).__name__}(...)"
                what = f"a {call} was made, and freed without its block: it limits nothing without a with statement"
                self._findings.add(loop, LintReport("unused-limit", what, chain(made), None))

        return freed
