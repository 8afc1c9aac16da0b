"""Lints that are switched on late, all of them: what is there already is looked at from then on."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import PREAMBLE, answers
from tests.programs import run_python

pytestmark = pytest.mark.slow_but_first  # each starts a program

IMPORT = "from dangagreen import introspect\n"
HEAD = """
found = []
loop = virtual_loop()
loop.__enter__()
def lint(on=True):
    from dangagreen import introspect
    introspect.lint(on, tell=found.append if on else None)
def kinds():
    return [report.kind for report in found]
def said(*words):
    (report,) = found
    assert all(word in report.what for word in words), report
    return report.place.removeprefix("<string>:")
def numbers(mark):
    lines = enumerate(sys.orig_argv[-1].splitlines(), 1)
    return [str(number) for number, line in lines if line.endswith(f"# {mark}")]
"""


def late(program):
    """A program in which introspect is imported when lints are switched on."""
    assert IMPORT in PREAMBLE
    code, _, complaints = run_python(
        "-X", "dev", "-W", "error", "-c", PREAMBLE.replace(IMPORT, "") + HEAD + program + "\nloop.close()\n"
    )
    assert not complaints, complaints
    assert code == 0


def early(program):
    """A program that has imported introspect at its start."""
    answers(HEAD + program + "\nloop.close()\n")


HELD = """
lock = d.Lock()
def hold():
    with lock:
        d.sleep(20)  # HERE
def other():
    with lock:  # ASKED
        d.sleep(20)  # ALSO
def third():
    with lock:
        pass
def main():
    tasks = [d.spawn(hold), d.spawn(other), d.spawn(third)]
    d.sleep(2)
    lint()
    assert found == []
    loop.add_timer(5.1, lambda: times.append(len(found)))
    for task in tasks:
        task.join()
times = []
"""


@pytest.mark.parametrize(
    ("run", "since"), [(late, "since before lints were switched on 5.0 s ago"), (early, "for 7.0 s")]
)
def test_a_lock_that_is_held_already_though_nothing_else_happens(run, since):
    run(
        HELD
        + f"""
d.run(main)
assert times == [1]
first, second = found
assert "holds a Lock, acquired before lints were switched on, while it waits in sleep, {since}, and 'o" in first.what
assert first.place.endswith(numbers("HERE")[0])
assert second.what.startswith("task 'other' holds a Lock, acquired at <string>:" + numbers("ASKED")[0]), second
assert second.place.endswith(numbers("ALSO")[0])
"""
    )


@pytest.mark.parametrize("run", [late, early])
def test_who_held_it_and_has_ended(run):
    run("""
lock = d.Lock()
def forget():
    lock.acquire()
def other():
    with lock:  # HERE
        pass
def main():
    d.spawn(forget).join()
    task = d.spawn(other)
    d.sleep(9)
    lint()
    d.sleep(20)
    task.cancel()
d.run(main)
place = said("for a Lock, which task 'forget' has acquired before lints were switched on, and not released before it")
assert [place] == numbers("HERE")
""")


def test_tasks_that_go_on_before_the_time_is_over_hold_no_lock_for_too_long():
    late("""
lock = d.Lock()
def hold():
    with lock:
        d.sleep(5)
    d.sleep(20)
    with lock:
        d.sleep(3)
def other():
    with lock:
        d.sleep(3)
    d.Event().wait(20)
def main():
    tasks = [d.spawn(hold), d.spawn(other), d.spawn(other)]
    d.sleep(2)
    lint()
    for _ in range(60):
        d.sleep(1)
    for task in tasks:
        task.join()
d.run(main)
assert found == [], found
""")


CIRCLE = """
mine, yours = d.Lock(), d.Lock()
def transfer(source, target):
    with source:
        d.sleep(1)
        with target:  # HERE
            pass
def limited(source, target):
    with source, d.move_on_after(60):
        d.sleep(1)
        with target:
            pass
def timed(source, target):
    with source:
        d.sleep(1)
        target.acquire(timeout=60)
"""


@pytest.mark.parametrize("run", [late, early])
@pytest.mark.parametrize(("function", "count"), [("transfer", 1), ("limited", 0), ("timed", 0)])
def test_tasks_that_wait_for_each_other_already(run, function, count):
    run(
        CIRCLE
        + f"""
def main():
    tasks = [d.spawn({function}, mine, yours), d.spawn({function}, yours, mine), d.spawn(transfer, mine, yours)]
    d.sleep(2)
    lint()
    assert kinds() == ["deadlock"] * {count}
    for _ in range(20):
        d.sleep(1)
    for task in tasks:
        task.cancel()
d.run(main)
if {count}:
    assert [said("waits for the Lock that 'transfer#", "has acquired before lints were switched on")] == numbers("HERE")
"""
    )


@pytest.mark.parametrize(
    ("run", "since"), [(late, "since before lints were switched on 30.0 s ago"), (early, "for 130.0 s")]
)
def test_a_wait_that_nobody_can_end_any_more_though_nothing_else_happens(run, since):
    run(f"""
def consume(queue):
    queue.get()  # HERE
def work():
    d.spawn(consume, d.Queue())
def main():
    work()
    d.sleep(100)
    lint()
    loop.add_timer(31, lambda: times.append(len(found)))
    d.sleep(300)
times = []
d.run(main)
assert times == [1] or sys.version_info >= (3, 14)
if times == [1]:
    assert [said("task 'consume' has waited in get of a Queue {since}, and will for ever")] == numbers("HERE")
""")


@pytest.mark.parametrize("run", [late, early])
@pytest.mark.parametrize(
    ("queue", "put"),
    [("Queue()", "put"), ("Queue()", "put_nowait"), ("PriorityQueue()", "put"), ("Channel(float('inf'))", "send")],
)
def test_a_queue_that_was_made_before(run, queue, put):
    run(f"""
def produce(queue):
    for number in range(70):
        for _ in range(100):
            add(queue, number)
        d.sleep(1)
def add(queue, number):
    queue.{put}(number)  # HERE
def main():
    task = d.spawn(produce, d.{queue})
    d.sleep(9.5)
    lint()
    task.join()
d.run(main)
place = said("without a limit, which was made before lints were switched on, into which this puts, only grows: from ")
assert place.startswith(numbers("HERE")[0] + " in add, called from <string>:"), place
""")


def test_a_queue_while_a_task_waits_already_and_the_loop_never_rests():
    early("""
class Deaf(d.Socket):
    def event_read(self):
        pass
queue = d.Queue()
def main():
    waiting = d.spawn(d.Event().wait)
    ours, theirs = wire()
    with Deaf(ours) as sock:
        d.sleep(1)
        lint()
        sock.watch_read(True)
        theirs.send(b"x")
        for number in range(40):
            for _ in range(100):
                queue.put(number)
            d.sleep(1)
        waiting.cancel()
    theirs.close()
loop.post_loop_callback = lambda *_maps: loop.clock.jump(0.01) or True
d.run(main)
assert "growing-queue" in kinds(), kinds()
""")


def test_a_queue_that_was_made_before_and_is_emptied_or_has_a_limit():
    late("""
def produce(queue):
    for number in range(9000):
        queue.put(number)
        if number % 100 == 0:
            d.sleep(1)
def consume(queue):
    while queue.get() != 8999:
        pass
def main():
    queues = d.Queue(), d.Queue(100_000)
    tasks = [d.spawn(produce, one) for one in queues] + [d.spawn(consume, queues[0])]
    d.sleep(5)
    lint()
    for task in tasks:
        task.join()
d.run(main)
assert found == [], found
""")


BUSY = {
    "self-wake of a task": """
def work():
    while not done:
        d.sleep(0)  # HERE
""",
    "self-wake of a callback": """
def again():  # HERE
    if not done:
        loop.call_soon(again)
def work():
    loop.call_soon(again)
    while not done:
        d.sleep(30)
""",
    "idle-wake of a wait_for": """
condition = d.Condition()
def consume():
    with condition:
        condition.wait_for(lambda: done)  # HERE
def work():
    d.spawn(consume)
    while not done:
        d.sleep(0.01)
        with condition:
            condition.notify_all()
""",
    "idle-wake of a select": """
def work():
    ended, other = d.spawn(int), d.Event()
    ended.join()
    while not done:
        d.select(ended, other)  # HERE
        d.sleep(0.01)
""",
    "idle-wake of an event_read": """
class Deaf(d.Socket):
    def event_read(self):  # HERE
        pass
def work():
    ours, theirs = wire()
    with Deaf(ours) as sock:
        sock.watch_read(True)
        theirs.send(b"hello")
        while not done:
            d.sleep(0.01)
        sock.read(10)
    theirs.close()
""",
    "idle-wake of an event_write": """
class Wakeful(d.Socket):
    def event_write(self):  # HERE
        pass
def work():
    ours, theirs = wire()
    with Wakeful(ours) as sock:
        sock.watch_write(True)
        while not done:
            d.sleep(0.01)
        sock.watch_write(False)
    theirs.close()
""",
    "eof-loop": """
def work():
    ours, theirs = wire()
    theirs.close()
    with d.Socket(ours) as sock:
        while not done:
            sock.read_line()  # HERE
            d.sleep(0.01)
""",
    "long-run": """
def work():
    while not done:
        d.sleep(1)
        loop.clock.jump(0.03)
        d.sleep(1)  # HERE
""",
    "growing-queue of a socket": """
def work():
    ours, theirs = wire()
    with d.Socket(ours) as sock:
        while not done:
            sock.write(b"x" * 100_000)  # HERE
            d.sleep(1)
        sock.close()
    theirs.close()
""",
}


@pytest.mark.parametrize("run", [late, early])
@pytest.mark.parametrize("fault", BUSY)
def test_what_goes_on_already(run, fault):
    run(
        BUSY[fault]
        + f"""
done = []
def main():
    task = d.spawn(work)
    d.sleep(20)
    lint()
    d.sleep(60)
    lint(False)
    assert kinds() == [{fault.split()[0]!r}], found
    done.append(1)
    task.join()
loop.post_loop_callback = lambda *_maps: loop.clock.jump(0.01) or True
d.run(main)
assert [said()] == numbers("HERE")
"""
    )


def test_switched_off_nothing_is_left_and_on_again_it_begins_anew():
    late(
        HELD
        + """
def state():
    from dangagreen.green import sched
    return list(sched._guards), loop.after_turn, len(loop.timers)
def main():
    from dangagreen import introspect
    tasks = [d.spawn(hold), d.spawn(other)]
    d.sleep(1)
    before = state()
    for _ in range(3):
        lint()
        assert state() != before
        lint(False)
        lint(False)
        assert state() == before
    d.sleep(7)
    assert found == []
    lint()
    d.sleep(6)
    assert kinds() == ["held-lock"]
    lint()
    assert len(loop.timers) == 2, "one that sleeps, and that of the lints"
    d.sleep(5.5)
    assert kinds() == ["held-lock"] * 2
    lint(False)
    for task in tasks:
        task.cancel()
d.run(main)
"""
    )


def test_nothing_is_kept_of_tasks_that_were_there_and_have_ended():
    late("""
import weakref
def work(lock, condition):
    with lock:
        d.sleep(2)
    with condition:
        condition.wait_for(lambda: False, timeout=3)
def main():
    lock, condition = d.Lock(), d.Condition()
    tasks = [d.spawn(work, lock, condition) for _ in range(3)]
    d.sleep(1)
    lint()
    for task in tasks:
        task.join()
    return [weakref.ref(task) for task in tasks]
gone = d.run(main)
d.sleep(10)
gc.collect()
assert [ref() for ref in gone] == [None] * 3
assert found == [], found
""")


def test_a_loop_that_was_there_and_is_closed_is_not_kept():
    late("""
import weakref
def work(lock):
    with lock:
        d.sleep(100)
def gone():
    with virtual_loop() as loop:
        lock = d.Lock()
        tasks = [d.spawn(work, lock) for _ in range(3)]
        d.sleep(1)
        lint()
        assert len(loop.timers) == 2, "one that sleeps, and that of the lints"
        del tasks
        return weakref.ref(loop)
loop_is_gone = gone()
gc.collect()
assert loop_is_gone() is None
lint(False)
""")


# -- from where it is switched on

FROM = """
loop.close()
loop = d.current_loop()
from dangagreen.introspect import lint_locks
lint_locks.HELD_SECONDS = 0.05
mine, yours, third = d.Lock(), d.Lock(), d.Lock()
def transfer(source, target):
    with source:
        d.sleep(0.01)
        with target:
            pass
def hold():
    with third:
        d.Event().wait(30)
def other():
    with third:
        pass
def begin():
    d.spawn(transfer, mine, yours), d.spawn(transfer, yours, mine), d.spawn(hold), d.spawn(other)
def until(condition):
    with d.timeout(20):
        while not condition():
            d.sleep(0.001)
def both():
    return {"deadlock", "held-lock"} <= set(kinds())
"""


def test_from_another_thread_as_a_console_has_it():
    early(
        FROM
        + """
def console(on):
    thread = threading.Thread(target=lint, args=(on,))
    thread.start()
    d.in_thread(thread.join)
def main():
    begin()
    d.sleep(0.1)
    console(True)
    until(both)
    assert all(report.subject.loop is loop for report in found)
    console(False)
    until(lambda: len(loop.timers) == 2)  # the limits of `until` and of `hold`
    assert not d.Lock.acquire.__code__.co_freevars
d.run(main)
"""
    )


def test_from_the_handler_of_a_signal_while_a_task_runs():
    early(
        FROM
        + """
signal.signal(signal.SIGUSR1, lambda *_: lint())
def main():
    begin()
    d.sleep(0.1)
    signal.raise_signal(signal.SIGUSR1)
    until(both)
d.run(main)
"""
    )


def test_in_a_program_of_asyncio():
    early(
        FROM
        + """
import asyncio
from dangagreen import bridge
async def main():
    async with bridge.guest():
        begin()
        await asyncio.sleep(0.1)
        lint()
        await bridge.to_task(until, both)
asyncio.run(main())
"""
    )
