"""Instruments: who hears of a loop's work: of turns, callbacks, tasks, their runs, and connections.

Rules: nobody pays where nobody listens: then the turn takes its direct ways, which know nothing of this, and what is
dispatched has no wrapper; an instrument costs for the kinds that it overrides. What raises is removed and reported, and
hurts nobody else; none may park. Who heard of a beginning hears of its end, in the reverse order, unless it was
removed meanwhile. What does not belong here: what is made of it (profiling, `dangagreen.metrics`), and greenlets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from dangagreen import checks
from dangagreen.errors import ErrorContext
from dangagreen.loop.handlers import Handler
from dangagreen.loop.pollers import READ, Events, Poller
from dangagreen.loop.schedule import ContextCall
from dangagreen.loop.slowness import SlowWatch
from dangagreen.loop.timers import Timer

KINDS = {  # with the hooks of each
    "turn": ("turn_began", "turn_ended"),
    "callback": ("callback_began", "callback_ended"),
    "run": ("run_began", "run_ended"),
    "task": ("task_spawned", "task_ended"),
    "connection": ("connection_accepted", "connection_closed"),
}
_NO_EVENT = -1  # no mask of a poller's


class Instrument:
    """What `loop.add_instrument` takes: derive from it, and override what is to be told. Each hook does nothing here.

    Hooks are called in the loop's thread, and may not park. One that raises is reported to `loop.on_error`, and its
    instrument is removed.
    """

    __slots__ = ()

    def turn_began(self, waited: float, events: int) -> object:
        """The loop has waited so many seconds, so many events have come, and it goes to work."""

    def turn_ended(self) -> object:
        """The loop has nothing more to do now: it waits again, or `run` ends."""

    def callback_began(self, subject: Any, event: str) -> object:
        """A callback is about to be called: a hook of a socket ("read", "write", "err", "hup", "connect",
        "connect_failed", "secured"), a server that accepts ("accept"), or a function ("timer", "call_soon", "fd",
        "post_loop"). Context variables are those of the callback.
        """

    def callback_ended(self, subject: Any, event: str) -> object:
        """The callback has returned, or raised."""

    def run_began(self, task: Any) -> object:
        """A task goes on, for the first time or after a wait. Context variables are the loop's, not the task's."""

    def run_ended(self, task: Any) -> object:
        """The task waits, or has ended."""

    def task_spawned(self, task: Any) -> object:
        """A task was made, in the code that has spawned it; its group is not known yet."""

    def task_ended(self, task: Any) -> object:
        """A task has ended, in its own code: `task.result()` returns or raises. Who joins it was not told yet."""

    def connection_accepted(self, sock: Any, listener: Any) -> object:
        """A server has accepted a connection, and its object was made."""

    def connection_closed(self, sock: Any) -> object:
        """A connection, accepted or made, was closed: `sock.close_reason`; in the code that has closed it."""


class ToldCallback(partial[Any]):
    """A function that is called as a callback, which instruments hear of. To others it looks like that function."""

    __slots__ = {"event": "Which event it is called at.", "told": "The instruments.", "told_of": "The function."}

    told: Instruments
    told_of: Callable[..., Any]
    event: str

    def __call__(self, *args: Any) -> Any:
        return self.told.callback(self.told_of, self.event, self.told_of, *args)

    def __repr__(self) -> str:
        return repr(self.told_of)


class Instruments:
    """The instruments of a loop, while it has any."""

    __slots__ = {
        "_of": "Kind to those that override one of its hooks, in the order of their adding.",
        "_in_turn": "Those who were told that the turn in progress has begun.",
        "loop": "The loop.",
        "members": "All of them, in the order of their adding.",
    }

    def __init__(self, loop: Instrumented) -> None:
        self.loop = loop
        self._in_turn: tuple[Instrument, ...] = ()
        self.set_members(())

    def set_members(self, members: tuple[Instrument, ...]) -> None:
        self.members = members
        self._of = {
            kind: tuple(one for one in members if any(_overrides(one, hook) for hook in hooks))
            for kind, hooks in KINDS.items()
        }

    def hear(self, kind: str) -> bool:
        """Whether one of them hears of this kind."""
        return bool(self._of[kind])

    # -- telling

    def tell(self, kind: str, hook: str, *about: Any) -> None:
        """Call this hook of each that hears of its kind."""
        for one in self._of[kind]:
            self._tell(one, hook, about)

    def during(self, kind: str, about: tuple[Any, ...], call: Callable[..., Any], *args: Any) -> Any:
        """Make a call, and tell of its beginning and its end, also where it raises."""
        listeners = self._of[kind]
        began, ended = KINDS[kind]
        for one in listeners:
            self._tell(one, began, about)
        try:
            return call(*args)
        finally:
            for one in reversed(listeners):
                self._tell(one, ended, about)

    def callback(self, subject: object, event: str, call: Callable[..., Any], *args: Any) -> Any:
        """Make the call of a callback."""
        return self.during("callback", (subject, event), call, *args)

    def _tell(self, instrument: Instrument, hook: str, about: tuple[Any, ...]) -> None:
        loop = self.loop
        if instrument not in self.members:  # it was removed meanwhile
            return
        current, loop.current = loop.current, None  # as in a callback: what would park is refused
        try:
            getattr(instrument, hook)(*about)
        except Exception as error:
            loop.drop_instrument(instrument)
            words = f"{hook} of the instrument {checks.shown(instrument)} raised, and it was removed"
            loop.report(ErrorContext(words, error, instrument))
        finally:
            loop.current = current

    # -- turns

    def wait(self, timeout: float | None) -> Events:
        """What a turn waits by: the end of the turn before, the poller's wait, the beginning of this one."""
        loop = self.loop
        self.end_turn()
        began = loop.clock()
        events = loop.batch = loop.poller.wait(timeout)  # a hook may close what there are events of
        self._in_turn = self._of["turn"]
        self.tell("turn", "turn_began", loop.clock() - began, len(events))
        return events

    def end_turn(self) -> None:
        """The turn in progress has ended, if one is."""
        told, self._in_turn = self._in_turn, ()
        for one in reversed(told):
            self._tell(one, "turn_ended", ())

    # -- calls and timers

    def take_call(self) -> Callable[[], object]:
        """The next call of the queue of calls; one of `call_soon` tells."""
        call = self.loop.ready.popleft()
        if isinstance(call, ContextCall) and self._of["callback"]:
            function, *args = call.args
            told = ContextCall(call.context.run, self._telling(function, "call_soon"), *args)
            told.context = call.context
            return told
        return call

    def pop_due(self, now: float, mark: int) -> Timer | None:
        """`Timers.pop_due`; a timer with a context, which those of waits have not, tells."""
        timer = self.loop.timers.pop_due(now, mark)
        if timer is not None and timer.context is not None and timer.callback is not None and self._of["callback"]:
            timer.callback = self._telling(timer.callback, "timer")
        return timer

    def _telling(self, function: Callable[..., Any], event: str) -> ToldCallback:
        told = ToldCallback(function)
        told.told, told.told_of, told.event = self, function, event
        return told

    # -- connections

    def closed(self, handler: Handler) -> None:
        """A handler has closed."""
        if hasattr(handler, "peer_addr_string"):  # a connection
            self.tell("connection", "connection_closed", handler)


def _overrides(instrument: Instrument, hook: str) -> bool:
    return getattr(type(instrument), hook) is not getattr(Instrument, hook)


class Instrumented(SlowWatch):
    """A loop that can be listened to: base class of `Loop`."""

    __slots__ = {
        "current": "The task that runs now; None while a callback, or the loop itself, does.",
        "direct": "The events that go straight to `event_read` or a parked reader: READ, or none while callbacks tell.",
    }

    def __init__(self, clock: Callable[[], float], poller: Poller) -> None:
        super().__init__(clock, poller)
        self.current: Any = None
        self.direct = READ

    def add_instrument(self, instrument: Instrument) -> None:
        """Tell this instrument, after those that were added before, of what the loop does from now on.

        Does nothing if it is there already. Raises TypeError for what is no `Instrument`, ForeignThreadError in another
        thread, RuntimeError after `close()`.
        """
        if not isinstance(instrument, Instrument):
            raise TypeError(f"add_instrument needs an Instrument, not {checks.shown(instrument)}")
        self._check_open("add_instrument")
        members = () if self.instruments is None else self.instruments.members
        if instrument not in members:
            self._set_instruments((*members, instrument))

    def remove_instrument(self, instrument: Instrument) -> None:
        """Tell this instrument no more, from this moment on. Does nothing if it is not there."""
        self.check_thread("remove_instrument")
        self.drop_instrument(instrument)

    def drop_instrument(self, instrument: Instrument) -> None:
        """`remove_instrument`, wherever it is called."""
        if self.instruments is not None and instrument in self.instruments.members:
            self._set_instruments(tuple(one for one in self.instruments.members if one is not instrument))

    def _set_instruments(self, members: tuple[Instrument, ...]) -> None:
        instruments = self.instruments or Instruments(self)
        instruments.set_members(members)
        self.instruments = instruments if members else None
        self.direct = _NO_EVENT if instruments.hear("callback") else READ
        if self.green is not None:
            self.green.listen(self.instruments)

    def end_turn(self) -> None:
        """`run` ends, perhaps by an error in the middle of a turn."""
        if self.instruments is not None:
            self.instruments.end_turn()
