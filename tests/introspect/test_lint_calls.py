"""Lints of calls that are made again and again to no effect."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import finds, finds_nothing

pytestmark = pytest.mark.slow_but_first  # each starts a program

ENDED = """
ours, theirs = wire()
theirs.close()
sock = d.Socket(ours)
"""


@pytest.mark.parametrize("call", ["sock.read_line()", "sock.read_some()", "sock.read_some_into(bytearray(9))"])
def test_a_task_that_reads_at_the_end(call):
    finds(
        "eof-loop",
        ENDED
        + f"""
def read():
    for _ in range(1000):
        {call}  # HERE
def main():
    d.spawn(read).join()
    sock.close()
""",
        "task 'read' reads on, 100 times by now, although the connection with 10.0.0.2:",
    )


def test_a_task_that_swallows_the_errors_of_reads():
    finds(
        "eof-loop",
        ENDED
        + """
def read():
    for _ in range(1000):
        try:
            sock.read_exactly(4)  # HERE
        except EOFError:
            pass
def main():
    d.spawn(read).join()
    sock.close()
""",
    )


def test_a_task_that_reads_a_closed_connection():
    finds(
        "eof-loop",
        ENDED
        + """
def read():
    for _ in range(1000):
        try:
            sock.read_line()  # HERE
        except d.ClosedError:
            d.sleep(1)
def main():
    sock.close()
    d.spawn(read).join()
""",
    )


def test_a_callback_that_takes_the_end_for_more_to_come():
    finds(
        "eof-loop",
        """
ours, theirs = wire()
theirs.close()
class Echo(d.Socket):
    __slots__ = ()
    def event_read(self):
        for _ in range(1000):  # it never ends
            data = self.read(4096)  # HERE
            if data == b"":
                break
def main():
    sock = Echo(ours)
    sock.watch_read(True)
    d.sleep(1)
    sock.close()
""",
        "a callback of Echo reads on",
    )


def test_some_reads_at_the_end_and_many_ends():
    finds_nothing("""
def read(sock):
    for _ in range(9):
        sock.read_line()
def main():
    for _ in range(200):
        ours, theirs = wire()
        theirs.close()
        with d.Socket(ours) as sock:
            d.spawn(read, sock).join()
""")


WAITING = """
condition = d.Condition()
count = 0
def wait():
    with condition:
        condition.wait_for(lambda: count > WANTED)  # HERE
def main():
    global count
    task = d.spawn(wait)
    for count in range(WANTED + 10):
        with condition:
            condition.notify_all()
        d.sleep(0)
    task.join()
"""


def test_a_condition_that_is_notified_in_vain():
    finds("idle-wake", WAITING.replace("WANTED", "1500"), "task 'wait' was woken 1000 times by notify")


def test_a_condition_that_is_notified_now_and_then():
    finds_nothing(WAITING.replace("WANTED", "900"))


def test_a_predicate_that_is_none_is_refused_as_ever():
    finds_nothing("""
def main():
    condition = d.Condition()
    with condition:
        for wrong in 1, None, d.sleep(0):
            try:
                condition.wait_for(wrong)
            except TypeError as error:
                assert str(error).startswith("wait_for needs"), error
            else:
                raise AssertionError
""")


SELECTING = """
queue = d.Queue()
def watch(source):
    for number in range(3000):
        if number % EACH == 0:
            queue.put(number)
        if d.select(FIRST, SECOND) is queue:  # HERE
            queue.get()
def main():
    event = d.Event()
    event.set()
    future = d.Future()
    future.set_result(1)
    ended = d.spawn(int)
    timer = loop.add_timer(1, int)
    d.sleep(2)
    d.spawn(watch, {"event": event, "future": future, "task": ended, "timer": timer}[WHICH]).join()
"""


@pytest.mark.parametrize("which", ["future", "task", "timer"])
def test_a_select_that_finds_what_it_has_found_before(which):
    program = SELECTING.replace("EACH", "1").replace("FIRST, SECOND", "source, queue")
    finds("idle-wake", program.replace("WHICH", repr(which)), "task 'watch' has called select 1000 times in a row")


@pytest.mark.parametrize(("each", "which"), [("500", "task"), ("1", "timer"), ("5000", "event")])
def test_a_select_that_finds_others_too_or_what_may_be_cleared(each, which):
    program = SELECTING.replace("EACH", each).replace("FIRST, SECOND", "queue, source")
    finds_nothing(program.replace("WHICH", repr(which)))


# -- time limits that limit nothing


@pytest.mark.parametrize(
    "call", ["timeout(5)", "timeout_at(loop.time() + 5)", "move_on_after(5)", "timeout(seconds=5)"]
)
def test_a_time_limit_whose_block_is_never_entered(call):
    finds(
        "unused-limit",
        f"def main():\n    d.{call}  # HERE\n    d.sleep(9)\n",
        f"a {call.partition('(')[0]}(...) was made, and freed without its block",
    )


def test_a_time_limit_that_is_kept_for_a_while_is_told_where_it_was_made():
    finds(
        "unused-limit",
        """
def wait():
    limit = d.timeout(5)  # HERE in wait, called from
    d.sleep(9)
def main():
    wait()  # HERE
""",
    )


@pytest.mark.parametrize(
    "body",
    [
        "with d.timeout(5): d.sleep(1)",
        "with d.move_on_after(5) as scope: scope.deadline = None",
        "with d.timeout_at(loop.time() + 5): d.sleep(1)",
        "with d.timeout(5), d.move_on_after(1): d.sleep(9)",
        "limit = d.timeout(5); d.sleep(9)\n    with limit: pass",
        "kept.append(d.timeout(5))",
        "d.shield(), d.CancelScope(None), d.TaskGroup()",  # who makes one without a limit may have had reasons
        "refused(lambda: d.timeout('5'), TypeError)",
        "loop.call_soon(lambda: refused(d.timeout(5).__enter__, d.CannotParkError)); d.sleep(1)",
        "d.spawn(d.sleep, 5).join(timeout=9)",
    ],
    ids=["timeout", "move", "at", "two", "later", "kept", "others", "refused", "callback", "join"],
)
def test_time_limits_that_limit_something(body):
    finds_nothing(f"""
kept = []
def refused(call, kind):
    try:
        call()
    except kind:
        return
    raise AssertionError
def main():
    {body}
""")


def test_nothing_is_left_of_it_when_lints_are_off():
    finds_nothing("""
def names():
    kinds = d.timeout, d.timeout_at, d.move_on_after, d.CancelScope
    return [(kind, name, id(vars(kind).get(name))) for kind in kinds for name in ("__init__", "__enter__", "__del__")]
def main():
    introspect.lint(False)
    before = names()
    introspect.lint(tell=found.append)
    limit = d.timeout(5)
    assert names() != before
    introspect.lint(False)
    assert names() == before
    del limit
    d.timeout(5)
    with d.timeout(5):
        d.sleep(1)
""")
