"""Snapshots: what they say of loops, sockets, tasks, groups, timers and servers."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import answers
from tests.programs import run_python

pytestmark = pytest.mark.slow  # starts programs


def test_tasks_with_their_chain_their_stack_and_their_times():
    said = answers("""
loop = virtual_loop()
def leaf():
    with d.timeout(50):
        d.sleep(10)
def branch():
    d.sleep(1)
    d.spawn(leaf).join()
def main():
    root = d.spawn(branch)
    unstarted = None
    d.sleep(3)
    d.spawn(print)
    seen = introspect.snapshot()
    tasks = {task.name.partition("#")[0].rpartition(".")[2]: task for task in seen.tasks}
    assert set(tasks) == {"main", "branch", "leaf", "print"}, tasks
    leaf_, branch_ = tasks["leaf"], tasks["branch"]
    assert branch_.spawned_by == tasks["main"].name and leaf_.spawned_by == branch_.name
    assert branch_.spawned_at == line_of(main, 1) and leaf_.spawned_at == line_of(branch, 2)
    assert (leaf_.state, leaf_.waiting, leaf_.age, leaf_.deadline) == ("parked", 2.0, 2.0, 48.0)
    assert (branch_.state, branch_.waiting, branch_.age, branch_.deadline) == ("parked", 2.0, 3.0, None)
    assert leaf_.waits_for.startswith("sleep") and "leaf" in branch_.waits_for
    assert leaf_.stack == (line_of(leaf, 2) + " leaf",)
    assert branch_.stack == (line_of(branch, 2) + " branch",)
    assert tasks["main"].state == "running" and tasks["main"].stack[0].endswith(" main")
    assert tasks["print"].state == "not started" and tasks["print"].stack == ()
    root.cancel()
    root.join()
with loop:
    d.run(main)
answers["done"] = True
""")
    assert said == {"done": True}


def test_names_are_unique():
    answers("""
loop = virtual_loop()
with loop:
    tasks = [d.spawn(d.sleep, 1) for _ in range(3)]
    names = [task.name for task in introspect.snapshot().tasks]
    assert len(set(names)) == 3 and all(name.startswith("sleep#") for name in names), names
    tasks[0].join()
""")


def test_busy_time_and_tasks_that_have_ended():
    answers("""
loop = virtual_loop()
def work(outcome):
    loop.clock.jump(2)
    d.sleep(1)
    loop.clock.jump(3)
    if outcome == "raise":
        raise ValueError("no")
    d.sleep(100)
def main():
    tasks = [d.spawn(work, "raise"), d.spawn(work, "wait")]
    d.sleep(50)
    (task,) = [task for task in introspect.snapshot().tasks if "work" in task.name]
    assert task.busy == 5.0, task
    tasks[1].cancel("enough")
    tasks[1].join()
    d.sleep(4)
    (cancelled, raised) = introspect.snapshot().ended
    assert raised.outcome == "raised ValueError('no')" and raised.busy == 5.0, raised
    assert cancelled.outcome == "was cancelled: enough" and cancelled.seconds == 4.0, cancelled
    assert cancelled.name == task.name
loop.on_error = lambda context: None
with loop:
    d.run(main)
    assert introspect.snapshot().ended[0].outcome == "returned"
""")


def test_sockets_of_both_styles_and_who_reads_them():
    answers("""
loop = virtual_loop()
class Echo(d.Socket):
    __slots__ = ()
    def event_read(self): pass
with loop:
    ours, theirs = wire()
    echo, other = Echo(ours), d.Socket(theirs)
    echo.watch_read(True)
    def reader():
        other.read_exactly(5)
    task = d.spawn(reader)
    d.sleep(2)
    echo.write(b"abc")
    d.sleep(1)
    seen = {sock.kind: sock for sock in introspect.snapshot().sockets}
    a, b = seen["Echo"], seen["Socket"]
    assert (a.style, a.state, a.interest, a.buffered, a.queued, a.reader) == ("callbacks", "open", "R", 0, 0, None), a
    assert (b.interest, b.buffered) == ("R", 3), b
    assert b.reader.startswith("reader#"), b
    assert (a.age, b.age) == (3.0, 3.0) and a.peer == echo.peer_addr_string() and a.local == echo.local_addr_string()
    task.cancel(); task.join()
    echo.close(); other.close()
""")


def test_servers_with_their_limits():
    answers("""
def main():
    listener = d.serve(("127.0.0.1", 0), lambda sock: sock.read_some(), max_connections=2)
    socks = [d.connect(listener.address) for _ in range(2)]
    d.sleep(0.01)
    (seen,) = introspect.snapshot().listeners
    assert (seen.state, seen.accepted, seen.current, seen.limit) == ("full", 2, 2, 2), seen
    assert seen.addresses == (str(listener.address),)
    socks[0].close()
    while listener.connections == 2:
        d.sleep(0.001)
    (seen,) = introspect.snapshot().listeners
    assert (seen.state, seen.accepted, seen.current) == ("accepting", 2, 1), seen
    socks[1].close()
    listener.drain()
d.run(main)
""")


def test_groups_are_a_tree():
    answers("""
loop = virtual_loop()
def inner():
    with d.TaskGroup() as group:
        group.spawn(d.sleep, 5)
def main():
    with d.TaskGroup(limit=1) as group:
        group.spawn(inner)
        group.spawn(d.sleep, 1)
        d.sleep(1)
        seen = introspect.snapshot()
        outside, inside = seen.groups
        assert outside.owner.partition("#")[0] == "main" and inside.owner in outside.tasks
        assert (len(outside.tasks), outside.deferred, outside.cancelled) == (2, 1, False), outside
        by_name = {task.name: task for task in seen.tasks}
        assert by_name[inside.tasks[0]].group == inside.name
        group.cancel()
        assert introspect.snapshot().groups[0].cancelled
with loop:
    d.run(main)
""")


def test_timers_in_the_order_of_their_times():
    answers("""
loop = virtual_loop()
def later(): pass
with loop:
    late, soon = loop.add_timer(5, later), loop.add_timer(2, print)
    seen = introspect.snapshot().timers
    assert [(timer.due, timer.callback) for timer in seen] == [(2.0, "print"), (5.0, "later")], seen
    assert seen[1].place == line_of(later)
    assert len(introspect.snapshot(most=1).timers) == 1
    late.cancel(); soon.cancel()
""")


def test_the_loop_with_its_times():
    answers("""
loop = virtual_loop()
loop.slow_seconds = 0.1
def main():
    for seconds in (0.0, 1.0, 0.0, 3.0):
        loop.clock.jump(seconds)
        d.sleep(2)
    seen = introspect.snapshot().loop
    assert seen.thread == "MainThread" and seen.running and seen.poller == "VirtualPoller"
    assert seen.seconds == 12.0 and seen.in_poll == 8.0, seen
    assert seen.in_turns == 4.0 and seen.in_tasks == 4.0, seen
    assert seen.lag[2] == 3.0 >= seen.lag[1] >= seen.lag[0], seen
    assert "main" in seen.slowest and "3.000 s" in seen.slowest
    assert seen.turns >= 4 and seen.turns == loop.turns
    assert any(place.endswith(" main") for place in seen.stack)
    loop.on_slow = lambda report: None
loop.on_slow = lambda report: None
with loop:
    d.run(main)
""")


def test_threads_by_name_and_a_loop_of_another_thread_is_refused():
    answers("""
loops, over = [], threading.Event()
def body():
    loops.append(d.current_loop())
    loops[0].call_soon_threadsafe(lambda: None)
    over.wait(20)
thread = threading.Thread(target=body, name="the other")
thread.start()
while not loops:
    time.sleep(0.001)
assert "the other" in introspect.snapshot().threads
try:
    introspect.snapshot(loops[0])
except d.ForeignThreadError as error:
    answers["refused"] = str(error)
over.set()
thread.join()
""")


def test_what_is_older_than_the_import_is_seen_without_its_age():
    code, _, complaints = run_python(
        "-c",
        """
import dangagreen as d
def main():
    task = d.spawn(d.sleep, 100)
    d.sleep(0.01)
    from dangagreen import introspect
    listener = d.serve(("127.0.0.1", 0), lambda sock: sock.read_some())
    old, me = introspect.snapshot().tasks[1], introspect.snapshot().tasks[0]
    assert old.age is None and old.waiting is None and old.name.startswith("sleep#"), old
    d.sleep(0.01)
    new = d.spawn(d.sleep, 100)
    d.sleep(0.01)
    assert introspect.snapshot().tasks[-1].waiting > 0
    task.cancel(); new.cancel(); task.join(); new.join()
    assert [ended.outcome for ended in introspect.snapshot().ended] == ["was cancelled"] * 2
    listener.close()
d.run(main)
""",
    )
    assert (code, complaints) == (0, "")


def test_without_the_import_nothing_is_noted():
    code, _, complaints = run_python(
        "-c",
        """
import sys
import dangagreen as d
def main():
    loop = d.current_loop()
    assert type(loop.handlers) is dict and type(loop.green.tasks) is dict and loop.after_turn is None
    assert loop.turns == 0
    d.sleep(0)
    assert loop.turns > 0  # these are always counted
    assert not [name for name in sys.modules if name.startswith("dangagreen.introspect")]
d.run(main)
""",
    )
    assert (code, complaints) == (0, "")


def test_ten_thousand_tasks_and_sockets_are_dumped_without_holding_up_a_ticker():
    said = answers("""
loop = virtual_loop()
def main():
    ends = [wire() for _ in range(5000)]
    socks = [d.Socket(end) for pair in ends for end in pair]
    tasks = [d.spawn(sock.read_some) for sock in socks]
    d.sleep(1)
    began = time.process_time()
    out = io.StringIO()
    introspect.dump(out)
    spent = time.process_time() - began
    began = time.process_time()
    whole = introspect.snapshot()
    answers["ratio"] = (time.process_time() - began) / spent
    answers["lines"] = len(out.getvalue().splitlines())
    assert len(whole.sockets) == 10000 and len(whole.tasks) == 10001
    for sock in socks: sock.close()
    for task in tasks: task.join()
loop.on_error = lambda context: None
with loop:
    d.run(main)
""")
    assert said["lines"] < 500
    assert said["ratio"] > 5  # what is shown decides what it takes, not what there is
