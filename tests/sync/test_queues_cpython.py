"""CPython's own tests of `queue`, applied to our queues, with tasks in the place of threads.

They come from the standard library's `test.test_queue` as this Python has it; only what they know of threads and of
time is replaced for as long as a test runs, so that they run on the virtual clock.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import types
import unittest

import pytest

import dangagreen as d

try:
    from test import test_queue as theirs
except ImportError as error:
    theirs, missing = None, error
else:
    missing = None

CLASSES = ("QueueTest", "LifoQueueTest", "PriorityQueueTest", "FailingQueueTest")

# The cases that cannot apply as they are: the reason, and what is done instead.
SPINNING = "its readers call get(False) in a loop that never waits, so that no other task would ever run"
ADAPTED = {
    f"{name}.test_shutdown{immediate}_all_methods_in_many_threads": (SPINNING, "let_others_run_when_empty")
    for name in CLASSES[:3]
    for immediate in ("", "_immediate")
}


class Thread:
    """`threading.Thread`, but a task."""

    def __init__(self, target=None, args=()):
        self.target = target
        self.args = args
        self.task = None

    def run(self):
        self.target(*self.args)

    def start(self):
        self.task = d.spawn(self.run)

    def join(self, timeout=None):
        with contextlib.suppress(TimeoutError):
            self.task.join(timeout)

    def is_alive(self):
        return not self.task.done


class TriggerThread(Thread):
    """Their `_TriggerThread`, which derives from the real Thread."""

    def __init__(self, function, args):
        super().__init__(function, args)
        self.startedEvent = Event()

    def run(self):
        d.sleep(0.1)
        self.startedEvent.set()
        super().run()


class Event:
    def __init__(self):
        self.happened = d.Future()

    def set(self):
        if not self.happened.done:
            self.happened.set_result(True)

    def is_set(self):
        return self.happened.done

    def wait(self, timeout=None):
        return self.happened.wait(timeout)


class Barrier:
    def __init__(self, parties):
        self.missing = parties
        self.complete = Event()

    def wait(self):
        self.missing -= 1
        if not self.missing:
            self.complete.set()
        self.complete.wait()


@contextlib.contextmanager
def start_threads(threads):
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


STAND_INS = {
    # what is done under their lock never waits
    "threading": types.SimpleNamespace(Thread=Thread, Event=Event, Barrier=Barrier, Lock=contextlib.nullcontext),
    "time": types.SimpleNamespace(sleep=d.sleep),
    "threading_helper": types.SimpleNamespace(join_thread=Thread.join, start_threads=start_threads),
    "_TriggerThread": TriggerThread,
}
OURS = {
    "Queue": d.Queue,
    "LifoQueue": d.LifoQueue,
    "PriorityQueue": d.PriorityQueue,
    "Empty": queue.Empty,
    "Full": queue.Full,
    "ShutDown": d.ShutDown,
}


def let_others_run_when_empty(queue_class):
    """A queue whose `get(False)` does that before it raises Empty."""

    class Yielding(queue_class):
        def get(self, block=True, timeout=None):
            if not block and not self.ready:
                d.sleep(0)
            return super().get(block, timeout)

    return Yielding


def cases():
    """The names of all cases: of the classes above, and of the one for SimpleQueue, most of whose shape ours have."""
    for name in (*CLASSES, "BaseSimpleQueueTest"):
        for case in unittest.TestLoader().getTestCaseNames(getattr(theirs, name)):
            yield f"{name}.{case}"


def test_the_package_with_the_tests_is_there():
    if missing is not None:
        pytest.skip(
            f"CPython's own tests cannot be applied, because the package `test` of its standard library is missing or"
            f" incomplete ({missing}). Debian and Ubuntu have it in libpython{sys.version_info[0]}."
            f"{sys.version_info[1]}-testsuite, Fedora in python3-test; a Python built from source has it"
        )


def test_the_table_of_adapted_cases_names_cases_that_exist():
    if sys.version_info >= (3, 13) and theirs is not None:
        assert set(ADAPTED) <= set(cases())


@pytest.mark.slow
@pytest.mark.parametrize("case", list(cases()) if theirs is not None else ["none.is_there"])
def test_case(loop, monkeypatch, case):
    test_the_package_with_the_tests_is_there()
    class_name, method = case.split(".")
    ours = dict(OURS)
    if case in ADAPTED:
        adapt = globals()[ADAPTED[case][1]]
        ours |= {name: adapt(ours[name]) for name in ("Queue", "LifoQueue", "PriorityQueue")}
    for name, stand_in in STAND_INS.items():
        monkeypatch.setattr(theirs, name, stand_in)
    body = {"queue": types.SimpleNamespace(**ours), "type2test": d.Queue}
    test = type(class_name, (getattr(theirs, class_name), unittest.TestCase), body)(method)
    task = d.spawn(test.debug)
    task.join()
    task.result()
