"""Reach: who else can reach what a task waits for. Where there is any doubt, somebody can."""

from __future__ import annotations

import sys

import pytest

import dangagreen as d
from tests.introspect.seeing import answers

pytestmark = [
    pytest.mark.slow_but_first,  # each starts a program
    pytest.mark.skipif(d.compiled and sys.version_info >= (3, 14), reason="what C borrows there is not known"),
]

# Each of these begins tasks, and is left. In `left` what a test keeps.
MADE = """
from contextvars import ContextVar, copy_context
from functools import partial
from types import SimpleNamespace
import weakref
from dangagreen.green.stacks import frames
from dangagreen.introspect.circles import without_limit
from dangagreen.introspect.reach import lost
loop = virtual_loop()
loop.__enter__()
left = []
everybody = d.Event()
variable = ContextVar("variable")

class Worker:
    def __init__(self):
        self.event = d.Event()
    def run(self):
        self.event.wait()

class Owned(d.Event):
    def __init__(self, owner):
        super().__init__()
        self.owner = owner

def wait(event):
    event.wait()

def get(queue):
    queue.get()

def in_turn(mine, yours):
    mine.wait()
    yours.set()

def closure(event):
    def wait_here():
        event.wait()
    return wait_here
"""

LOST = {
    "an argument": "d.spawn(wait, d.Event())",
    "an argument that is passed on": "d.spawn(lambda event: wait(event), d.Event())",
    "an argument that nobody else has": "d.spawn(lambda some: wait(some.pop()), [d.Event()])",
    "a variable and an argument": "d.spawn(passes, d.Event)",
    "a method": "event = d.Event(); d.spawn(keep, event.wait, event)",
    "a partial": "d.spawn(partial(wait, d.Event()))",
    "a closure": "d.spawn(closure(d.Event()))",
    "an object": "d.spawn(Worker().run)",
    "a list of a list": "d.spawn(lambda some: some[0][0].wait(), [[d.Event()]])",
    "a namespace": "d.spawn(lambda some: some.event.wait(), SimpleNamespace(event=d.Event()))",
    "a subclass that refers to itself": "d.spawn(lambda some: some.wait(), self_owned())",
    "a queue": "d.spawn(get, d.Queue())",
    "a queue, iterated": "d.spawn(iterate, d.Queue())",
    "a queue, by a generator in a variable": "d.spawn(step, d.Queue())",
    "a full queue": "d.spawn(lambda queue: (queue.put(1), queue.put(2)), d.Queue(1))",
    "a channel": "d.spawn(lambda channel: channel.receive(), d.Channel())",
    "a future": "d.spawn(lambda future: future.wait(), d.Future())",
    "a semaphore": "d.spawn(lambda semaphore: semaphore.acquire(), d.Semaphore(0))",
    "a barrier": "d.spawn(lambda barrier: barrier.wait(), d.Barrier(2))",
    "several tasks": "event = d.Event(); d.spawn(wait, event); d.spawn(wait, event)",
    "tasks in turn": "one, two = d.Event(), d.Event(); d.spawn(in_turn, one, two); d.spawn(in_turn, two, one)",
    "a group": "d.spawn(lambda event: in_group(event), d.Event())",
    "the end of work on a queue": "queue = d.Queue(); queue.put(1); d.spawn(lambda queue: queue.join(), queue)",
    "a chain of joins": "event = d.Event(); d.spawn(join, d.spawn(wait, event), event)",
}
KEPT = {
    "a global variable": "d.spawn(lambda: everybody.wait())",
    "a list": "event = d.Event(); left.append(event); d.spawn(wait, event)",
    "its method": "event = d.Event(); left.append(event.set); d.spawn(wait, event)",
    "a timer": "event = d.Event(); loop.add_timer(1000, event.set); d.spawn(wait, event)",
    "a call": "event = d.Event(); loop.post_loop_callback = lambda *maps: bool(event); d.spawn(wait, event)",
    "an argument that is passed on": "event = d.Event(); left.append(event); d.spawn(lambda one: wait(one), event)",
    "an argument that nobody else has": "left.append(d.Event()); d.spawn(lambda some: wait(some.pop()), left[:])",
    "a variable and an argument": "d.spawn(passes, lambda: left.append(d.Event()) or left[0])",
    "another closure": "event = d.Event(); left.append(closure(event)); d.spawn(wait, event)",
    "the same closure": "function = closure(d.Event()); left.append(function); d.spawn(function)",
    "the same partial": "call = partial(wait, d.Event()); left.append(call); d.spawn(call)",
    "its object": "worker = Worker(); left.append(worker); d.spawn(worker.run)",
    "a list of a list": "some = [[d.Event()]]; left.append(some); d.spawn(lambda some: some[0][0].wait(), some)",
    "a weak reference": "event = d.Event(); left.append(weakref.ref(event)); d.spawn(wait, event)",
    "a weak reference to its object": "worker = Worker(); left.append(weakref.proxy(worker)); d.spawn(worker.run)",
    "a context": "event = d.Event(); variable.set(event); left.append(copy_context()); d.spawn(wait, event)",
    "a generator": "event = d.Event(); left.append(one for one in [event]); d.spawn(wait, event)",
    "a task that sleeps": "event = d.Event(); d.spawn(lambda event: d.sleep(900), event); d.spawn(wait, event)",
    "a task that has not begun": "event = d.Event(); later(wait, event); d.spawn(wait, event)",
    "one task in turn": "one, two = d.Event(), d.Event(); left.append(one);"
    " d.spawn(in_turn, one, two); d.spawn(in_turn, two, one)",
    "a group with a task that goes on": "d.spawn(lambda event: in_group(event, sleep=True), d.Event())",
    "a join with a limit": "event = d.Event(); d.spawn(join_soon, d.spawn(wait, event), event)",
    "a generator that runs": "queue = d.Queue(); left.append(queue); d.spawn(step, queue)",
    "a thread": "event = d.Event(); thread(event); d.spawn(wait, event)",
}
# Who waits for ever on purpose.
NAMELESS = {
    "an event": "d.spawn(lambda: d.Event().wait())",
    "a method": "d.spawn(d.Event().wait)",
    "a queue": "d.spawn(lambda: d.Queue().get())",
    "a task of a group": "d.spawn(for_ever)",
}
# What cannot be seen, as the interpreter itself holds references.
UNSEEN = {
    "a wait in its block": "d.spawn(enter, d.Semaphore(0))",
    "a named argument": "d.spawn(wait, event=d.Event())",
}
if sys.version_info >= (3, 14):  # an argument that the caller has in a variable too may be a reference, or be none
    UNSEEN["a method"] = LOST.pop("a method")
    LOST["a wait in its block"] = UNSEEN.pop("a wait in its block")
TABLES = {"kept": KEPT, "unseen": UNSEEN, "on purpose": NAMELESS}
ALL = {f"{kind}: {how}": code for kind, table in TABLES.items() for how, code in table.items()}
HELPERS = """
def for_ever():
    with d.TaskGroup() as group:
        group.spawn(lambda: d.Event().wait())

def passes(make):
    event = make()
    wait(event)

def keep(wait, event):
    wait()

def self_owned():
    event = Owned(None)
    event.owner = event
    return event

def in_group(event, sleep=False):
    with d.TaskGroup() as group:
        group.spawn(wait, event)
        if sleep:
            group.spawn(lambda event: d.sleep(900), event)

def join(task, event):
    task.join()
    event.set()

def join_soon(task, event):
    task.join(900)

def iterate(queue):
    for item in queue:
        pass

def step(queue):
    items = iter(queue)
    next(items)

def later(function, event):
    group = d.TaskGroup(limit=1)
    def hold():
        with group:
            group.spawn(d.sleep, 900)
            group.spawn(function, event)
    d.spawn(hold)

def thread(event):
    over = threading.Event()
    left.append(over)
    threading.Thread(target=lambda: (over.wait(), event)).start()

def enter(semaphore):
    with semaphore:
        pass

def suspects():
    waiting = [one for one in loop.green.tasks if one.wait and one.worker and isinstance(one.subject, KINDS)]
    return without_limit(waiting)

KINDS = d.Event, d.Queue, d.Channel, d.Future, d.Semaphore, d.Barrier, d.Task, d.TaskGroup
def main():
    begin()
    d.sleep(1)
    tasks = suspects()
    assert tasks
    for _ in range(2):  # the look itself leaves nothing behind
        found = lost(tasks)
        waiting = [task for task in tasks if not isinstance(task.subject, (d.Task, d.TaskGroup))]
        assert found == (waiting if EXPECTED else []), (tasks, found)
    for one in left:
        if isinstance(one, threading.Event):
            one.set()
    loop.post_loop_callback = None
d.run(main)
loop.close()
"""


@pytest.mark.parametrize("how", LOST)
def test_what_only_the_tasks_themselves_can_reach(how):
    answers(f"{MADE}\ndef begin():\n    {LOST[how]}\n{HELPERS}".replace("EXPECTED", "True"))


@pytest.mark.parametrize("how", ALL)
def test_what_other_code_can_reach(how):
    answers(f"{MADE}\ndef begin():\n    {ALL[how]}\n{HELPERS}".replace("EXPECTED", "False"))


def test_what_a_function_that_runs_can_reach():
    answers(
        MADE
        + """
def main():
    event, queue = d.Event(), d.Queue()
    def wait_here():
        event.wait()
    tasks = [d.spawn(wait_here), d.spawn(get, queue), d.spawn(get, d.Queue())]
    d.sleep(1)
    assert lost(tasks) == [tasks[2]]
    event.set()
    queue.put(1)
    tasks[2].cancel()
d.run(main)
loop.close()
"""
    )


def test_the_look_changes_no_variable_and_keeps_none():
    answers(
        MADE
        + """
class Big:
    pass
gone = []
def work(event):
    big = Big()
    gone.append(weakref.ref(big))
    event.wait(50)
    assert isinstance(big, Big)
    del big
    event.wait()
def main():
    task = d.spawn(work, d.Event())
    d.sleep(1)
    lost([task])
    d.sleep(60)
    assert gone[0]() is None
    task.cancel()
d.run(main)
loop.close()
"""
    )


def test_elsewhere_nothing_is_claimed():
    answers(
        MADE
        + """
from dangagreen.introspect import reach
def main():
    task = d.spawn(wait, d.Event())
    d.sleep(1)
    assert lost([task]) == [task]
    reach.COUNTS = False
    assert lost([task]) == []
    task.cancel()
d.run(main)
loop.close()
"""
    )
