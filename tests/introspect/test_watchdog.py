"""The watchdog names the line that blocks a loop, while it does; not a loop that waits, or is merely busy."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import answers

pytestmark = pytest.mark.slow_but_first  # each starts a program


@pytest.mark.parametrize("how", ["task", "callback", "sleep"])
def test_the_stack_of_what_blocks(how):
    answers(
        f"how = {how!r}"
        + """
texts = []
guard = introspect.watchdog(0.05, texts.append)
def until_seen():
    began = time.monotonic()
    while not texts and time.monotonic() < began + 30:
        pass
def blocks():
    if how == "sleep":
        while not texts:
            time.sleep(0.3)
    else:
        until_seen()
def main():
    if how == "callback":
        d.current_loop().call_soon(blocks)
        d.sleep(0.001)
    else:
        d.spawn(blocks).join()
d.current_loop().slow_seconds = None
d.run(main)
guard.cancel()
(text,) = texts
lines = text.splitlines()
assert lines[0] == "a loop is blocked for more than 0.05 s, in", text
assert lines[1 if how == "sleep" else 2].endswith(" blocks"), text
"""
    )


@pytest.mark.parametrize(
    ("how", "slow_seconds"), [("tasks", 0.01), ("tasks", None), ("callbacks", 0.01), ("events", 0.01)]
)
def test_each_of_several_that_block_one_after_the_other(how, slow_seconds):
    answers(
        f"how, slow_seconds = {how!r}, {slow_seconds!r}"
        + """
texts = []
guard = introspect.watchdog(0.05, texts.append)
def until(told):
    began = time.monotonic()
    while len(texts) < told and time.monotonic() < began + 30:
        pass
    time.sleep(0.05)  # some looks more: it is told once
def first(*_): until(1)
def second(*_): until(2)
def third(*_): until(3)
blocks = (first, second, third)
def main():
    if how == "tasks":
        for task in [d.spawn(one) for one in blocks]:
            task.join()
    elif how == "callbacks":
        for one in blocks:
            loop.call_soon(one)
        d.sleep(0.001)
    else:
        pairs = [os.pipe() for _ in blocks]
        loop.add_other_fds({end: make(end, one) for (end, _), one in zip(pairs, blocks)})
        for _, end in pairs:
            os.write(end, b"x")
        d.sleep(0.001)
        for ends in pairs:
            loop.remove_other_fd(ends[0])
            for end in ends:
                os.close(end)
def make(end, one):
    def readable(_mask):
        os.read(end, 1)
        one()
    return readable
loop = d.current_loop()
loop.slow_seconds, loop.on_slow = slow_seconds, lambda report: None
d.run(main)
guard.cancel()
assert len(texts) == 3, texts
names = [line.rpartition(" ")[2] for text in texts for line in text.splitlines()]
assert [name for name in names if name in ("first", "second", "third")] == ["first", "second", "third"], texts
"""
    )


def test_a_loop_that_waits_or_turns_is_not_blocked():
    answers("""
texts = []
guard = introspect.watchdog(0.05, texts.append)
def main():
    d.sleep(0.3)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        d.sleep(0)
d.run(main)
guard.cancel()
assert texts == [], texts
assert not [thread for thread in threading.enumerate() if "watchdog" in thread.name]
""")


def test_its_thread_is_no_reason_to_hope_in_a_deadlock():
    answers("""
guard = introspect.watchdog()
try:
    d.run(d.Event().wait)
except d.Deadlock as error:
    answers["table"] = error.table
guard.cancel()
assert answers["table"]
""")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1"])
def test_a_time_that_makes_no_sense_is_refused(seconds):
    answers(
        f"seconds = float('nan') if {seconds != seconds} else {seconds!r}\n"
        + """
try:
    introspect.watchdog(seconds)
except (TypeError, ValueError):
    answers["refused"] = True
assert answers["refused"]
assert len(threading.enumerate()) == 1
"""
    )
