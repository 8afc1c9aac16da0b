"""lint: off it leaves nothing, on it tells of each finding once, and breaks nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.introspect.seeing import answers, linted

pytestmark = pytest.mark.slow_but_first  # each starts a program

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference.md"

SPIN = """
def poll():
    for _ in range(3000):
        d.sleep(0)
def main():
    time_passes()
    d.spawn(poll).join()
"""


def test_after_switching_it_off_everything_is_as_before():
    answers("""
import types
from dangagreen.green import sched
loop = virtual_loop()
def state():
    functions = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("dangagreen"):
            for one in list(vars(module).values()):
                if isinstance(one, type) and one.__module__.startswith("dangagreen"):
                    functions |= {(one, key): value for key, value in vars(one).items()}
    return functions
def differ():
    now = state()
    return [key for key, value in before.items() if now[key] is not value]
with loop:
    d.spawn(d.sleep, 1).join()
    scheduler = loop.green
    before, guards, turned = state(), list(sched._guards), loop.after_turn
    introspect.lint()
    assert differ() and sched._guards != guards and loop.after_turn != turned
    introspect.lint()
    introspect.lint(False)
    assert differ() == []
    assert sched._guards == guards and loop.after_turn == turned
    introspect.lint(False)
    assert loop.timers.heap == []
assert len(threading.enumerate()) == 1
""")


def test_nothing_of_a_class_is_replaced_that_may_be_compiled_to_c():
    answers("""
introspect.lint()
(lints,) = sys.modules["dangagreen.introspect.lint"]._on
replaced = {owner.__module__.removeprefix("dangagreen.") for owner, _, _ in lints._patches._replaced}
assert replaced
compiled = "loop.", "sockets.", "streams.", "green.waiters", "green.parking"
assert [module for module in replaced if module.startswith(compiled)] == []
""")


def test_what_was_put_behind_it_meanwhile_stays():
    linted("""
def poll():
    for _ in range(3000):
        d.sleep(0)
turns = []
ours = loop.after_turn
def turned(loop):
    ours(loop)
    turns.append(loop.turns)
loop.after_turn = turned
introspect.lint(False)
assert loop.after_turn is turned
time_passes()
d.spawn(poll).join()
assert found == [] and len(turns) > 3000
assert d.Condition.wait_for.__parks__
introspect.lint()
assert d.Condition.wait_for.__parks__ and d.Condition.wait_for.__qualname__ == "Condition.wait_for"
""")


def test_a_task_that_is_parked_while_it_is_switched_on_and_off():
    linted("""
lock = d.Lock()
def work():
    d.sleep(1)
    with lock:
        d.sleep(2)
    return "done"
def main():
    tasks = [d.spawn(work) for _ in range(3)]
    for number in range(20):
        d.sleep(0.5)
        introspect.lint(number % 2 == 0)
    introspect.lint(False)
    for task in tasks:
        task.join()
        assert task.result() == "done"
    d.sleep(1)
d.run(main)
d.sleep(1)
""")


def test_each_finding_once_until_it_is_switched_on_anew():
    linted(
        SPIN
        + """
d.run(main)
d.run(main)
assert kinds() == ["self-wake"]
introspect.lint(tell=found.append)
d.run(main)
assert kinds() == ["self-wake"] * 2
introspect.lint(False)
d.run(main)
assert kinds() == ["self-wake"] * 2
"""
    )


def test_a_finding_is_a_line_in_the_log():
    linted(
        SPIN
        + """
import logging
records = []
class Keep(logging.Handler):
    def emit(self, record):
        records.append(record)
logging.getLogger("dangagreen").addHandler(Keep())
introspect.lint()
d.run(main)
(record,) = records
assert record.levelname == "WARNING" and record.name == "dangagreen"
assert record.getMessage().startswith("lint self-wake: task 'poll' wakes itself: 1000 times"), record.getMessage()
assert record.getMessage().endswith(f": {line_of(poll, 2)}"), record.getMessage()
"""
    )


def test_what_tell_raises_is_reported_and_it_may_not_wait():
    linted(
        SPIN
        + """
introspect.lint(tell=lambda report: d.sleep(1))
errors = []
loop.on_error = errors.append
d.run(main)
(context,) = errors
assert isinstance(context.exception, d.CannotParkError)
assert "introspect.lint raised; it was to report: lint self-wake" in context.message
"""
    )


@pytest.mark.parametrize("wrong", ["1", "'x'", "async_function"])
def test_a_tell_that_is_no_function_is_refused(wrong):
    answers(f"""
async def async_function(report): pass
try:
    introspect.lint(tell={wrong})
except TypeError:
    answers["refused"] = True
assert answers["refused"]
""")


def test_loops_that_are_made_later_and_top_level_code():
    linted(
        SPIN
        + """
first = loop
with virtual_loop() as loop:
    d.sleep(1)
    task = d.spawn(poll)
    time_passes()
    task.join()
    assert kinds() == ["self-wake"]
loop = first
"""
    )


def test_a_deadlock_of_all_tasks_is_raised_as_ever():
    linted("""
def main():
    d.Event().wait()
try:
    d.run(main)
except d.Deadlock as error:
    answers["table"] = error.table
assert "main" in answers["table"]
assert found == []
""")


def test_with_the_bridge():
    answers("""
import asyncio
from dangagreen import bridge
introspect.lint()
async def coroutine():
    await asyncio.sleep(0)
    await bridge.to_task(d.sleep, 0.001)
    return 3
def main():
    task = d.spawn(bridge.await_, coroutine())
    task.join()
    return task.result()
assert d.run(main) == 3
introspect.lint(False)
assert d.run(main) == 3
async def wrong():
    d.sleep(1)
try:
    asyncio.run(wrong())
except d.CannotParkError:
    answers["refused"] = True
assert answers["refused"]
""")


def test_the_numbers_are_those_of_the_reference():
    said = answers("""
from dangagreen.introspect import lint_calls, lint_locks, lint_queues, lint_spins, lint_tasks, lint_turns, lint_waits
from dangagreen.introspect import linting
for module in lint_calls, lint_locks, lint_queues, lint_spins, lint_tasks, lint_turns, lint_waits, linting:
    for name, value in vars(module).items():
        number = name.isupper() and name[0] != "_" and type(value) in (int, float)
        if number and name not in ("NOBODY", "READ", "WRITE"):
            answers[f"{module.__name__}.{name}".removeprefix("dangagreen.introspect.")] = value
""")
    rows = re.findall(r"^\| `(\w+\.[A-Z_]+)` \| ([\d.,]+)", REFERENCE.read_text(), re.MULTILINE)
    assert {name: float(value.replace(",", "")) for name, value in rows} == said


def test_a_deadlock_is_raised_at_once_all_the_same():
    linted("""
loop.close()
def main():
    d.spawn(d.Queue().get).join()
with d.Loop() as real:
    try:
        d.run(main)
    except d.Deadlock:
        pass
    else:
        raise AssertionError
    assert real.timers.next_deadline() - real.clock() > 3, "nobody has waited for the timer of the lints"
    assert len(real.onlookers) == 1
    real.reset()
    assert not real.onlookers
""")


def test_no_timer_is_left_when_all_that_waits_was_looked_at_and_a_new_one_when_a_task_waits_again():
    linted("""
def main():
    for _ in range(2):
        loop.add_timer(1, lambda: counts.append(len(loop.onlookers)))
        loop.add_timer(20, lambda: counts.append(len(loop.onlookers)))
        loop.add_timer(70, lambda: counts.append(len(loop.onlookers)))
        d.sleep(100)
counts = []
d.run(main)
assert counts == [1, 1, 0] * 2, counts
""")


def test_wrong_arguments_are_refused_with_the_right_ones():
    answers("""
def refused(function, *args):
    try:
        function(*args)
    except TypeError as error:
        return str(error)
assert "a function is for tell=..." in refused(introspect.lint, print)
assert refused(introspect.lint, "off").startswith("introspect.lint is given True or False, not 'off'")
assert refused(introspect.dump, "/tmp/x") == "introspect.dump prints to a file that is open for text, not to '/tmp/x'"
assert refused(introspect.dump, d.current_loop()).startswith("introspect.dump prints to a file")
""")
