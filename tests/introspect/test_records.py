"""The tables that take notes: they behave as the dicts that they replace, and forget what has gone."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import answers
from tests.programs import run_python

pytestmark = pytest.mark.slow_but_first  # each starts a program


def test_a_descriptor_number_that_is_used_again_is_young():
    answers("""
loop = virtual_loop()
with loop:
    ours, theirs = wire()
    first = d.Socket(ours)
    fd = first.fd
    d.sleep(5)
    table = loop.handlers
    assert table.birth(first).time == loop.clock() - 5.0
    class Other:
        pass
    other = Other()
    other.fd = fd
    assert table.birth(other) is None
    first.close()
    theirs.close()
""")


def test_nothing_of_a_task_is_kept_but_its_record():
    answers("""
import weakref
loop = virtual_loop()
class Big: pass
def work(big):
    d.sleep(1)
    return big
with loop:
    task = d.spawn(work, Big())
    task.join()
    big, gone = weakref.ref(task.result()), weakref.ref(task)
    del task
    d.sleep(1)
    assert big() is None and gone() is None
    assert introspect.snapshot().ended[0].outcome == "returned"
    for _ in range(300):
        d.spawn(int).join()
    assert len(introspect.snapshot().ended) == 100
    assert loop.green.tasks.records == {}
""")


def test_with_the_bridge_both_guards_stand_before_a_switch():
    answers("""
import asyncio
from dangagreen import bridge
async def wrong():
    d.sleep(1)
try:
    asyncio.run(wrong())
except d.CannotParkError:
    answers["refused"] = True
assert answers["refused"]
async def right():
    await bridge.to_task(d.sleep, 0.001)
    return 3
def main():
    task = d.spawn(bridge.await_, right())
    task.join()
    assert task.result() == 3
    return introspect.snapshot().ended
ended = d.run(main)
assert any(one.name.startswith("await_") for one in ended)
""")


def test_loops_that_are_made_later_and_other_threads():
    answers("""
seen = []
def body():
    d.run(d.sleep, 0.001)
    seen.extend(introspect.snapshot().ended)
thread = threading.Thread(target=body)
thread.start()
thread.join()
assert seen and seen[0].outcome == "returned"
""")


def test_a_loop_that_runs_in_another_thread_is_watched_from_there():
    code, _, complaints = run_python(
        "-X",
        "dev",
        "-c",
        """
import sys, threading
import dangagreen as d
sys.setswitchinterval(1e-5)
loops, spawned, seen = [], threading.Event(), []
def body():
    loop = d.current_loop()
    loops.append(loop)
    while not (seen and loop.green.tasks.ended):
        d.spawn(int).join()
        spawned.set()
    seen.append(introspect.snapshot())
thread = threading.Thread(target=d.run, args=(body,))
thread.start()
spawned.wait(20)
from dangagreen import introspect
assert loops[0].running
loops[0].call_soon_threadsafe(seen.append, 0)
thread.join()
assert seen[1].loop.running and seen[1].ended, seen
assert [task.state for task in seen[1].tasks] == ["running"], seen
""",
    )
    assert (code, complaints) == (0, "")


def test_a_loop_that_only_asks_for_events_does_not_wait_for_them():
    """A task that spins in sleep(0) was shown as waiting for a quarter of the time: that of epoll_wait(2)."""
    program = """
loop = d.current_loop()
ticks = iter(range(1, 10**9))
slow = d.Loop(clock=lambda: float(next(ticks)))  # each look at the clock takes a second
def spin():
    for _ in range(100):
        d.sleep(0)
    seen = introspect.snapshot().loop
    answers["spin"] = seen.in_poll, seen.in_turns
with slow:
    d.spawn(spin).join()
"""
    waited, worked = answers(program)["spin"]
    assert waited < 10 < 100 < worked
