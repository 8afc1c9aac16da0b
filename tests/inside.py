"""What tests look at inside the package, where nothing public shows it: each such name stands here once."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import contextmanager
from copy import copy

import dangagreen
from dangagreen.green import sched, waiters
from dangagreen.loop import loop as loops
from dangagreen.loop.profiling import count_bytes_by

WAIT_QUEUES = ("_waiters", "_getters", "_putters", "_joiners", "_watchers")  # of locks, events, queues, channels, tasks


def waiting_for(thing):
    """How many tasks a thing has in its wait queues: those that have gone must have left them."""
    return sum(len(getattr(thing, name, None) or ()) for name in WAIT_QUEUES)


def run_tasks(loop):
    """Run the tasks that are ready, and nothing else of a turn."""
    loop._run_tasks()


def snapshot(thing):
    """What all of its slots hold, with containers copied: equal to a later one if nothing has changed in between."""
    kinds = (dict, list, set, deque)
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ()) if name != "__weakref__"]
    values = {name: getattr(thing, name, None) for name in slots}
    return {name: copy(value) if isinstance(value, kinds) else value for name, value in values.items()}


def incoming(end):
    """What has come to an end of the in-memory wire and was not received yet; what is added to it has come too."""
    return end._incoming


@contextmanager
def notes_that_end():
    """What introspect does to the process by its import, if it is imported in this block, is undone at its end."""
    kept = [(them, them[:]) for them in (loops._watchers, waiters._notes)]
    guards, table = sched._guards, sched._new_table
    before = guards[:]
    try:
        yield
    finally:
        for them, former in kept:
            them[:] = former
        for guard in guards[len(before) :]:
            sched.drop_guard(guard)
        sched.keep_tasks_in(table)
        count_bytes_by(lambda _sock: None)
        for name in [name for name in sys.modules if name.startswith("dangagreen.introspect")]:
            del sys.modules[name]
        vars(dangagreen).pop("introspect", None)


def own_settings(loop):
    """The settings that single sockets of the loop were given, by the sockets' ids."""
    return loop.own_settings


def has_reader(sock):
    """Whether somebody is parked in a read of it, or in a `select` with it."""
    return sock._reader is not None
