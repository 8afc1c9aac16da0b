"""CPython's own tests of locks, `test.lock_tests`, by import: with tasks in the place of threads, on the virtual clock.

While a case runs, the names by which that module starts threads, waits for them and asks for the time mean tasks.
Each case runs twice: as plain top-level code that starts tasks, and as a task among them.
"""

from __future__ import annotations

import contextlib
import types
import unittest
from importlib import import_module

import pytest

import dangagreen as d

try:
    lock_tests = import_module("test.lock_tests")
except ModuleNotFoundError:
    lock_tests = None


class RLock(d.RLock):
    """With what the standard library's own modules ask a lock, and nobody else."""

    def _recursion_count(self):
        return self._depth + 1 if self._is_owned() else 0


class LockOfCondition(d.Condition):
    """A condition in the place of its lock. As in threading, it has the lock's methods."""

    def _is_owned(self):
        return self._lock._is_owned()

    def _release_save(self):
        return self._lock._release_save()

    def _recursion_count(self):
        return RLock._recursion_count(self._lock)


# (class of lock_tests, the name by which it knows what it tests, what that is)
APPLIED = [
    ("LockTests", "locktype", d.Lock),
    ("RLockTests", "locktype", RLock),
    ("RLockTests", "locktype", LockOfCondition),  # CPython applies them to Condition as well
    ("EventTests", "eventtype", d.Event),
    ("ConditionTests", "condtype", d.Condition),
    ("SemaphoreTests", "semtype", d.Semaphore),
    ("BoundedSemaphoreTests", "semtype", d.BoundedSemaphore),
    ("BarrierTests", "barriertype", d.Barrier),
]

CANNOT_APPLY = {
    "LockTests.test_at_fork_reinit": "A thread that does not exist in the child cannot release a lock there, so the"
    " standard library's modules force theirs open after a fork. Tasks exist in the child as they do in the parent.",
    "EventTests.test_at_fork_reinit": "The same; and it looks into a lock inside the event, which ours does not have.",
}


def cases():
    return [
        pytest.param(class_name, attribute, kind, name, id=f"{class_name}-{kind.__name__}-{name}")
        for class_name, attribute, kind in APPLIED
        for name in unittest.TestLoader().getTestCaseNames(getattr(lock_tests, class_name))
        if f"{class_name}.{name}" not in CANNOT_APPLY
    ]


def bound(class_name, attribute, kind, name):
    """A case of lock_tests, for one kind of thing."""
    return type(class_name, (getattr(lock_tests, class_name),), {attribute: staticmethod(kind)})(name)


class StandIns:
    """What the names of lock_tests mean while a case runs."""

    def __init__(self, loop, real_support):
        self.loop = loop
        self.tasks = []
        self.start_new_thread = self.start
        self.get_ident = lambda: id(d.current_task())
        self.time = types.SimpleNamespace(sleep=d.sleep, monotonic=loop.clock, time=loop.clock)
        self.threading = types.SimpleNamespace(
            get_ident=self.get_ident, Lock=d.Lock, RLock=d.RLock, BrokenBarrierError=d.BrokenBarrierError
        )
        self.threading_helper = types.SimpleNamespace(
            wait_threads_exit=self.wait_threads_exit,
            threading_setup=lambda: (len(self.tasks),),
            threading_cleanup=lambda before: self.join_from(before),
        )
        self.support = types.SimpleNamespace(
            SHORT_TIMEOUT=real_support.SHORT_TIMEOUT,
            LONG_TIMEOUT=real_support.LONG_TIMEOUT,
            sleeping_retry=self.sleeping_retry,
            busy_retry=self.sleeping_retry,
            reap_children=lambda: None,
        )

    def start(self, function, args):
        task = d.spawn(function, *args)
        self.tasks.append(task)
        return id(task)

    def sleeping_retry(self, timeout, *_words, error=True):
        deadline = self.loop.clock() + timeout
        while self.loop.clock() < deadline:
            yield
            d.sleep(0.01)
        if error:
            raise AssertionError(f"not there after {timeout} s")

    @contextlib.contextmanager
    def wait_threads_exit(self, timeout=None):
        before = len(self.tasks)
        yield
        self.join_from(before)

    def join_from(self, number):
        for task in self.tasks[number:]:
            task.join(60)
            task.result()


@pytest.fixture
def stand_ins(loop, monkeypatch):
    """Put into lock_tests, as far as this version of it knows the names."""
    stand_ins = StandIns(loop, lock_tests.support)
    names = [name for name in vars(stand_ins) if hasattr(lock_tests, name)]
    for name in names:
        monkeypatch.setattr(lock_tests, name, getattr(stand_ins, name))
    return stand_ins


if lock_tests is None:

    def test_cpythons_own_tests_are_there():
        pytest.skip(
            "this Python comes without its own tests, the package `test` (module test.lock_tests), which are applied"
            " here. Install them: libpython3-testsuite on Debian and Ubuntu, python3-test on Fedora, python3-tests on"
            " Alpine; a Python from python.org, pyenv or conda has them unless they were left out"
        )

else:

    @pytest.mark.parametrize("where", ["top-level code", "task"])
    @pytest.mark.parametrize(("class_name", "attribute", "kind", "name"), cases())
    def test_case_of_cpython(class_name, attribute, kind, name, where, stand_ins):
        case = bound(class_name, attribute, kind, name)
        try:
            if where == "task":
                task = d.spawn(case.debug)
                task.join(600)
                task.result()
            else:
                case.debug()
        except unittest.SkipTest as skipped:
            pytest.fail(f"it skips itself, {skipped}: if it cannot apply here, say why in CANNOT_APPLY")

    def test_every_class_of_cpython_is_applied():
        found = {
            name
            for name, thing in vars(lock_tests).items()
            if isinstance(thing, type) and issubclass(thing, unittest.TestCase) and not name.startswith("Base")
        }
        assert found == {class_name for class_name, _, _ in APPLIED}

    @pytest.mark.parametrize("case", CANNOT_APPLY)
    def test_what_cannot_apply_is_there(case):
        class_name, name = case.split(".")
        assert hasattr(getattr(lock_tests, class_name), name)

    def test_a_lock_that_is_none_fails(stand_ins):
        class Open(d.Lock):
            def acquire(self, blocking=True, timeout=-1):
                return True

        with pytest.raises(AssertionError):
            bound("LockTests", "locktype", Open, "test_try_acquire_contended").debug()

    def test_a_case_that_hangs_fails(stand_ins):
        class Shut(d.Semaphore):
            def release(self, n=1):
                pass

        with pytest.raises(AssertionError, match="not there after"):
            bound("SemaphoreTests", "semtype", Shut, "test_default_value").debug()
        d.current_loop().reset()
