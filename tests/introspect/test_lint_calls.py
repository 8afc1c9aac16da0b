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
