"""The watchdog names the line that blocks a loop, while it does; not a loop that waits, or is merely busy."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import answers

pytestmark = pytest.mark.slow_but_first  # each starts a program


# What is told of these functions; a machine that is busy with others may hold up any other line as well.
TELL = """
told = []
def tell(text):
    told.extend((name, text) for name in names for line in text.splitlines() if line.endswith(" " + name))
guard = introspect.watchdog(0.05, tell)
def until(ready):
    began = time.monotonic()
    while not ready() and time.monotonic() < began + 30:
        pass
"""


@pytest.mark.parametrize("how", ["task", "callback", "sleep"])
def test_the_stack_of_what_blocks(how):
    answers(
        f"how, names = {how!r}, ['blocks']"
        + TELL
        + """
def blocks():
    if how == "sleep":
        while not told:
            time.sleep(0.3)
    else:
        until(lambda: told)
def main():
    if how == "callback":
        d.current_loop().call_soon(blocks)
        d.sleep(0.001)
    else:
        d.spawn(blocks).join()
d.current_loop().slow_seconds = None
d.run(main)
guard.cancel()
((_, text),) = told
lines = text.splitlines()
assert lines[0] == "a loop is blocked for more than 0.05 s, in", text
functions = [line.rpartition(" ")[2] for line in lines[1:]]
assert "blocks" in functions[:1 if how == "sleep" else 3], text
"""
    )


@pytest.mark.parametrize("how", ["call", "timer", "task", "socket"])
def test_a_slow_destructor_of_what_the_loop_itself_has_dropped(how):
    """Which callback that was nobody knows any more; the stack tells the class, and the line."""
    answers(
        f"how, names = {how!r}, ['Slow.__del__']"
        + TELL
        + """
class Slow:
    def __del__(self):
        until(lambda: told)
class Holder(d.Socket):
    __slots__ = ("held",)
def main():
    if how == "call":
        d.current_loop().call_soon(lambda slow: None, Slow())
    elif how == "timer":
        d.current_loop().add_timer(0, lambda slow=Slow(): None)
    elif how == "task":
        d.spawn(lambda slow: None, Slow())
    else:
        import socket
        ours, theirs = socket.socketpair()
        holder = Holder(ours)
        holder.held = Slow()
        d.current_loop().call_soon(holder.close)
        del holder
        theirs.close()
    d.sleep(0.01)
    gc.collect()
d.current_loop().slow_seconds = None
d.run(main)
guard.cancel()
((_, text),) = told
assert text.splitlines()[0] == "a loop is blocked for more than 0.05 s, in", text
"""
    )


@pytest.mark.parametrize(
    ("how", "slow_seconds"), [("tasks", 0.01), ("tasks", None), ("callbacks", 0.01), ("events", 0.01)]
)
def test_each_of_several_that_block_one_after_the_other(how, slow_seconds):
    answers(
        f"how, slow_seconds, names = {how!r}, {slow_seconds!r}, ['first', 'second', 'third']"
        + TELL
        + """
def blocks(name):
    until(lambda: [one for one, _ in told if one == name])
    for _ in range(10):  # it is told once
        guard.look(loop)
def first(*_): blocks("first")
def second(*_): blocks("second")
def third(*_): blocks("third")
functions = (first, second, third)
def main():
    if how == "tasks":
        for task in [d.spawn(one) for one in functions]:
            task.join()
    elif how == "callbacks":
        for one in functions:
            loop.call_soon(one)
        d.sleep(0.001)
    else:
        pairs = [os.pipe() for _ in functions]
        loop.add_other_fds({end: make(end, one) for (end, _), one in zip(pairs, functions)})
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
assert [name for name, _ in told] == ["first", "second", "third"], told
"""
    )


# Looks that the test takes itself, so that it does not matter for how long a busy machine holds up the loop.
LOOKS = """
texts = []
guard = introspect.watchdog(1000, texts.append)  # whose own ones are far apart
loop = d.current_loop()
"""


def test_a_loop_that_waits_is_not_blocked():
    answers(
        LOOKS
        + """
def looks():
    for _ in range(10_000):  # until it waits, which it then does until this has returned
        if guard.look(loop) == 0:
            break
        time.sleep(0.001)
    texts.clear()
    return [guard.look(loop) for _ in range(20)]
assert set(d.run(d.in_thread, looks)) == {0}
guard.cancel()
assert texts == [], texts
assert not [thread for thread in threading.enumerate() if "watchdog" in thread.name]
"""
    )


def test_a_loop_that_turns_is_not_blocked():
    answers(
        LOOKS
        + """
def main():
    for _ in range(20):
        guard.look(loop)
        d.sleep(0)
d.run(main)
guard.cancel()
assert texts == [], texts
"""
    )


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
