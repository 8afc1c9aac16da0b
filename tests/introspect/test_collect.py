"""Snapshots: what they say of loops, tasks, groups, timers and threads."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import answers
from tests.programs import run_python

pytestmark = pytest.mark.slow_but_first  # each starts a program


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


def test_a_task_is_waiting_until_it_is_woken_then_scheduled_then_busy():
    answers("""
loop = virtual_loop()
def waits(event):
    event.wait()
    loop.clock.jump(7)
    event.clear()
    event.wait()
def main():
    event = d.Event()
    task = d.spawn(waits, event)
    loop.clock.jump(1)  # ready for so long before it first runs
    d.sleep(5)
    event.set()
    loop.clock.jump(2)  # woken for so long before it runs
    d.sleep(10)
    (seen,) = [task for task in introspect.snapshot().tasks if "waits" in task.name]
    assert (seen.waited, seen.scheduled, seen.busy, seen.waiting) == (5.0, 3.0, 7.0, 3.0), seen
    event.set()
    task.join()
    (ended,) = [task for task in introspect.snapshot().ended if "waits" in task.name]
    assert (ended.waited, ended.scheduled, ended.busy) == (8.0, 3.0, 7.0), ended
loop.on_slow = lambda report: None
with loop:
    d.run(main)
""")


def test_a_task_that_an_event_or_a_timer_resumes_is_scheduled_from_the_turn_that_found_it():
    answers("""
loop = virtual_loop()
def reads(sock):
    sock.read_some()
    d.sleep(4)
def main():
    ours, theirs = wire()
    first, sock = d.Socket(theirs), d.Socket(ours)
    task = d.spawn(reads, sock)
    d.sleep(2)
    theirs.peer, sent = theirs.peer, theirs.send(b"x")
    d.sleep(3)
    (seen,) = [task for task in introspect.snapshot().tasks if "reads" in task.name]
    assert (seen.waited, seen.scheduled, seen.waiting) == (2.0, 0.0, 3.0), seen
    task.join()
    first.close(); sock.close()
with loop:
    d.run(main)
""")


def test_who_has_cancelled_what_has_ended():
    answers("""
loop = virtual_loop()
def by_hand(task):
    task.cancel("enough")
def by_a_deadline():
    with d.timeout(3):
        d.sleep(100)
def survives(task):
    with d.move_on_after(1):
        d.sleep(100)
    task.cancel()
    d.sleep(100)
def fails():
    d.sleep(1)
    raise ValueError("no")
def in_a_group():
    with d.TaskGroup() as group:
        group.spawn(d.sleep, 100)
        group.spawn(fails)
def callback(task):
    task.cancel()
def one(): d.sleep(100)
def two(): d.sleep(100)
def three(): d.sleep(100)
def main():
    first, second, third = d.spawn(one), d.spawn(two), d.spawn(three)
    unstarted = d.spawn(print)
    unstarted.cancel()
    survivor = d.spawn(survives, third)
    d.spawn(by_hand, first)
    loop.call_soon(callback, second)
    for task in [d.spawn(by_a_deadline), d.spawn(in_a_group)]:
        task.join()
    survivor.cancel("at last")
    survivor.join()
    seen = {one.name.partition("#")[0]: one for one in introspect.snapshot().ended}
    ended = lambda name: ((one := seen[name]).cancelled_by and one.cancelled_by.partition("#")[0], one.cancelled_at)
    assert ended("one") == ("by_hand", line_of(by_hand, 1)), seen["one"]
    assert ended("two") == (None, line_of(callback, 1)), seen["two"]
    assert ended("three") == ("survives", line_of(survives, 3)), seen["three"]
    assert ended("survives") == ("main", line_of(main, 9)), seen["survives"]
    assert ended("print") == ("main", line_of(main, 3)), seen["print"]
    assert ended("sleep") == ("fails", None), seen["sleep"]
    assert seen["sleep"].outcome == "was cancelled: task 'fails' of its group failed", seen["sleep"]
    assert ended("fails") == ended("by_hand") == ended("by_a_deadline") == (None, None), seen
    assert seen["survives"].outcome == "was cancelled: at last"
    out = io.StringIO()
    introspect.dump(out)
    text, by = out.getvalue(), seen["one"].cancelled_by
    assert f"was cancelled: enough after 0 ms, cancelled by {by}, at {line_of(by_hand, 1)}" in text, text
    assert f"was cancelled after 0 ms, cancelled by a callback, at {line_of(callback, 1)}" in text, text
loop.on_error = lambda context: None
with loop:
    d.run(main)
""")


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
    task = d.spawn(lambda: d.sleep(3))
    d.sleep(1)
    (timer,) = introspect.snapshot().timers
    assert timer.callback.startswith("resumes ") and timer.callback.endswith(introspect.snapshot().tasks[0].name), timer
    assert (timer.due, timer.place) == (2.0, "<string>:%d" % (sys._getframe().f_lineno - 4)), timer
    task.join()
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
    assert seen.in_turns == 4.0 and seen.in_tasks == 4.0 and seen.in_callbacks == 0.0, seen
    assert seen.longest == 3.0 and seen.longest_by == seen.slowest, seen
    assert seen.lag[2] == 3.0 >= seen.lag[1] >= seen.lag[0], seen
    assert "main" in seen.slowest and "3.000 s" in seen.slowest
    assert seen.turns >= 4 and seen.turns == loop.turns
    assert any(place.endswith(" main") for place in seen.stack)
    loop.on_slow = lambda report: None
loop.on_slow = lambda report: None
with loop:
    d.run(main)
""")


def test_what_is_under_way_counts():
    answers("""
loop = virtual_loop()
loop.slow_seconds = None
wait = loop.poller.wait
seen = {}
def look(name, seconds):
    loop.clock.jump(seconds)
    seen[name] = introspect.snapshot(loop)
def waits(timeout):  # a signal that comes in the midst of it
    if timeout and "wait" not in seen:
        look("wait", 7)
    return wait(timeout)
loop.poller.wait = waits
def child():
    look("first run", 2)
    d.sleep(10)
    look("second run", 3)
    with d.no_parking():
        look("no parking", 4)
def main():
    task = d.spawn(child)
    loop.call_soon(look, "callback", 5)
    task.join()
with loop:
    d.run(main)
def times(name):
    of = seen[name].loop
    return of.in_poll, of.in_turns, of.in_tasks, of.in_callbacks
def child_of(name):
    return next(task for task in seen[name].tasks if task.name == "child#2")
assert times("first run") == (0, 2, 2, 0), times("first run")
assert times("callback") == (0, 7, 2, 5), times("callback")
assert times("wait") == (7, 7, 2, 5), times("wait")
assert times("second run") == (12, 10, 5, 5), times("second run")
assert times("no parking") == (12, 14, 9, 5), times("no parking")
assert [child_of(name).busy for name in seen] == [2, 2, 2, 5, 9], seen
assert [child_of(name).state for name in seen] == ["running", "parked", "parked", "running", "running"]
at_end = introspect.snapshot(loop).loop
assert (at_end.in_poll, at_end.in_turns, at_end.in_tasks) == (12, 14, 9), at_end
""")


def test_the_longest_turn_and_what_was_slowest_in_it():
    answers("""
loop = virtual_loop()
loop.slow_seconds = 0.5
loop.on_slow = lambda report: None
def quick(): loop.clock.jump(0.4)
def slow(): loop.clock.jump(1)
def slower(): loop.clock.jump(1.5)
def main():
    for calls in ([slower], [quick, slow, slow], [quick] * 3):
        for call in calls:
            loop.call_soon(call)
        d.sleep(1)
    seen = introspect.snapshot().loop
    assert abs(seen.longest - 2.4) < 1e-6 and "slow" in seen.longest_by and "1.000 s" in seen.longest_by, seen
    assert "slower" in seen.slowest and seen.in_callbacks > 5, seen
    for call in [quick] * 7:
        loop.call_soon(call)
    d.sleep(1)
    seen = introspect.snapshot().loop
    assert abs(seen.longest - 2.8) < 1e-6 and seen.longest_by is None, seen
with loop:
    d.run(main)
""")


def test_functions_in_threads_with_who_waits_for_them():
    answers("""
over = threading.Event()
def blocks():
    over.wait(20)
def main():
    limiter = d.ThreadLimiter(3)
    task = d.spawn(lambda: d.in_thread(blocks, limiter=limiter))
    left = d.spawn(lambda: d.in_thread(blocks, limiter=limiter, abandon_on_cancel=True))
    d.sleep(0.01)
    left.cancel()
    left.join()
    while not all(thread.stack for thread in introspect.snapshot().threads):
        d.sleep(0.001)
    a, b = introspect.snapshot().threads
    assert a.runs == b.runs == a.name == "blocks" and a.limit == b.limit == (2, 3), (a, b)
    assert "lambda" in a.task and b.task is None and a.seconds > 0, (a, b)
    assert a.stack == (line_of(blocks, 1) + " blocks",), a
    out = io.StringIO()
    introspect.dump(out)
    lines = [line for line in out.getvalue().splitlines() if line.startswith("thread ")]
    assert lines[0].startswith("thread 'blocks' runs blocks for ") and "2 of 3 threads in use" in lines[0], lines
    assert "for nobody" in lines[1], lines
    over.set()
    task.join()
    d.sleep(0.01)
    while any(thread.runs for thread in introspect.snapshot().threads):
        d.sleep(0.001)
    assert {thread.name for thread in introspect.snapshot().threads} <= {"dangagreen, idle"}
d.run(main)
""")


def test_threads_by_name_and_a_loop_of_another_thread_is_refused():
    answers("""
loops, begun, over = [], threading.Event(), threading.Event()
def body():
    loops.append(d.current_loop())
    loops[0].call_soon_threadsafe(lambda: None)
    begun.set()
    over.wait(20)
thread = threading.Thread(target=body, name="the other")
thread.start()
begun.wait(20)
(other,) = introspect.snapshot().threads
assert (other.name, other.runs, other.task, other.limit) == ("the other", None, None, None), other
assert other.stack[0] == line_of(body, 4) + " body", other
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
    assert loop.turns == 1  # these are always counted
    d.sleep(0)
    assert loop.turns == 2
    assert not [name for name in sys.modules if name.startswith("dangagreen.introspect")]
d.run(main)
""",
    )
    assert (code, complaints) == (0, "")


def test_of_very_many_those_come_first_that_are_stuck_or_have_much_to_send():
    answers("""
def main():
    locks = [d.Lock(), d.Lock()]
    def transfer(one, other):
        with one:
            d.sleep(1)
            with other:
                pass
    idle = [d.spawn(d.sleep, 100) for _ in range(150)]
    stuck = [d.spawn(transfer, *pair) for pair in (locks, locks[::-1])]
    pairs = [wire(capacity=10) for _ in range(150)]
    socks = [d.Socket(near) for near, _ in pairs]
    socks[-1].write(b"x" * 1000)
    socks[-2].write(b"x" * 500)
    d.sleep(2)
    seen = introspect.snapshot(most=20)
    assert (len(seen.tasks), len(seen.sockets)) == (20, 20), seen
    assert [task.name.partition("#")[0] for task in seen.tasks][-2:] == ["main.<locals>.transfer"] * 2, seen.tasks
    assert [sock.queued for sock in seen.sockets][-2:] == [490, 990], seen.sockets
    assert "DEADLOCK" in introspect.text.as_text(seen)
    for sock in socks: sock.close()
    for task in [*idle, *stuck]: task.cancel()
with virtual_loop():
    d.run(main)
""")


def test_a_negative_number_of_things_is_refused():
    answers("""
for look in (introspect.snapshot, introspect.dump, introspect.to_json):
    try:
        look(most=-1)
    except ValueError as error:
        assert str(error) == "most cannot be negative: -1", error
    else:
        raise AssertionError(look)
assert introspect.snapshot(most=0).timers == ()
""")


def test_how_many_descriptors_the_process_has_and_may_have():
    answers("""
import resource
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
count, most = introspect.snapshot().loop.open_files
assert most == limit and (count or sys.platform != "linux"), (count, most)
if sys.platform == "linux":
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 3, limit))
    more = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    try:
        os.open("/dev/null", os.O_RDONLY)
    except OSError:
        pass
    assert introspect.snapshot().loop.open_files == (count + 3, count + 3)
    text = introspect.text.as_text(introspect.snapshot())
    assert f"  the process has {count + 3} of at most {count + 3} descriptors open\\n" in text
    for fd in more:
        os.close(fd)
""")


def test_a_timer_of_a_connection_names_it_and_one_of_a_bare_call_the_place_of_the_spawn():
    answers("""
loop = virtual_loop()
class Limited(d.Socket):
    __slots__ = ()
    idle_timeout = 60
with loop:
    ours, theirs = wire()
    sock = Limited(ours)
    task = d.spawn(d.sleep, 100)
    d.sleep(1)
    timers = {timer.callback: timer.place for timer in introspect.snapshot().timers}
    (limit,) = [name for name in timers if not name.startswith("resumes ")]
    assert limit.endswith(f" of fd {sock.fd}"), timers
    assert timers["resumes sleep#1"] == task.spawned_at, timers
    task.cancel(); task.join()
    sock.close(); theirs.close()
""")


def test_a_snapshot_keeps_nothing_of_what_it_has_looked_at():
    answers("""
import weakref
gc.collect()
gc.disable()
loop = virtual_loop()
def waits(sock):
    sock.read_line()
with loop:
    ours, theirs = wire()
    sock = d.Socket(ours)
    task = d.spawn(waits, sock)
    d.sleep(1)
    introspect.snapshot()
    introspect.dump(io.StringIO())
    introspect.to_json()
    kept = [weakref.ref(sock), weakref.ref(task)]
    theirs.close()
    task.join()
    sock.close()
    del sock, task
    d.sleep(1)
    assert [one() for one in kept] == [None, None], kept
    assert introspect.snapshot().loop.not_freed == ()
""")


def test_tasks_of_one_name_have_the_same_numbers_in_a_dump_in_the_table_and_in_the_report_of_leaks():
    answers("""
from dangagreen.testing import LeakCheck
with virtual_loop() as loop:
    check = LeakCheck(loop)
    d.spawn(int).join()
    tasks = [d.spawn(d.sleep, 7), d.spawn(d.sleep, 8), d.spawn(d.sleep, 9)]
    tasks.pop(0).cancel()
    d.sleep(1)
    names = [task.name for task in introspect.snapshot().tasks if task.name.startswith("sleep#")]
    assert len(names) == 2
    for text in (d.task_table(), str(check.leaks())):
        assert all(name in text for name in names), (names, text)
    for task in tasks:
        task.cancel()
    d.sleep(0)
    check.finish()
""")


def test_timers_that_only_look_on_are_not_listed():
    answers("""
introspect.lint()
def main():
    waits = d.spawn(d.sleep, 60)
    d.sleep(0.01)
    seen = introspect.snapshot()
    assert [timer.callback.partition("#")[0] for timer in seen.timers] == ["resumes sleep"], seen.timers
    assert seen.loop.timers == 1
    waits.cancel()
d.run(main)
""")


def test_who_is_waited_for_has_the_name_that_tells_it_apart():
    program = """
def work(wait):
    wait()
lock = d.Lock()
first = d.spawn(work, lambda: lock.acquire() and d.sleep(9))
d.spawn(work, first.join)
d.spawn(work, lock.acquire)
d.sleep(0)
seen = {task.name: task for task in introspect.snapshot().tasks}
answers["joins"] = seen["work#2"].waits_for
answers["acquires"] = seen["work#3"].waits_for
for task in list(d.current_loop().green.tasks):
    task.cancel()
"""
    told = answers(program)
    assert told["joins"] == "join of task 'work#1'"
    assert "'work#1'" in told["acquires"]
