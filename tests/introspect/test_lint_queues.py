"""Lints of what only grows."""

from __future__ import annotations

import pytest

from tests.introspect.seeing import finds, finds_nothing, linted

pytestmark = pytest.mark.slow_but_first  # each starts a program


@pytest.mark.parametrize(
    ("made", "put"),
    [
        ("d.Queue()", "put"),
        ("d.Queue()", "put_nowait"),
        ("d.PriorityQueue()", "put"),
        ("d.Channel(float('inf'))", "send"),
    ],
)
def test_a_queue_that_only_grows(made, put):
    finds(
        "growing-queue",
        f"""
def main():
    queue = {made}  # HERE
    for second in range(60):
        for number in range(50):
            queue.{put}(number)
        d.sleep(1)
""",
        "without a limit, which was made here, only grows: from ",
        "items in 30 s",
    )


@pytest.mark.parametrize(
    ("made", "each"),
    [
        ("d.Queue(5000)", "put(50)"),
        ("d.Queue()", "put(50); second % 20 == 19 and get(900)"),  # it is shorter now and then
        ("d.Queue()", "put(10)"),  # slow
        ("d.Queue()", "second < 20 and put(500)"),  # not for long
    ],
    ids=["limited", "falling", "slow", "short"],
)
def test_queues_that_do_not_only_grow(made, each):
    finds_nothing(f"""
queue = {made}
def put(count):
    for number in range(count):
        queue.put(number)
def get(count):
    for _ in range(count):
        queue.get()
def main():
    for second in range(60):
        {each}
        d.sleep(1)
""")


FEED = """
class Feed(d.Socket):
    __slots__ = ()
ours, theirs = wire()
"""


@pytest.mark.parametrize("how", ["write", "write_soon"])
def test_what_is_queued_for_a_slow_reader(how):
    finds(
        "growing-queue",
        FEED
        + f"""
def publish(sock):
    sock.{how}(b"x" * 100_000)  # HERE in publish, called from
def main():
    sock = Feed(ours)
    for _ in range(60):
        publish(sock)  # HERE
        d.sleep(1)
    sock.close()
    theirs.close()
""",
        "what is written here to Feed, the connection with 10.0.0.2:",
    )


@pytest.mark.parametrize(
    "each",
    ["write_all", "write_some", "write_with_limit", "write_much_once"],
)
def test_readers_that_are_waited_for_or_read(each):
    finds_nothing(
        FEED
        + f"""
def write_all(sock, second):
    with d.move_on_after(0.5):
        sock.write_all(b"x" * 100_000)
def write_some(sock, second):
    sock.write(b"x" * 50_000)
    theirs.recv(1_000_000)
def write_with_limit(sock, second):
    sock.max_unsent = 1_000_000_000
    sock.write(b"x" * 100_000)
def write_much_once(sock, second):
    if not second:
        sock.write(b"x" * 100_000_000)
    theirs.recv(1_000_000)
def main():
    sock = Feed(ours)
    for second in range(60):
        {each}(sock, second)
        d.sleep(1)
    sock.close()
    theirs.close()
"""
    )


def test_queues_are_not_kept():
    linted("""
import weakref
queue = d.Queue()
gone = weakref.ref(queue)
del queue
assert gone() is None
""")
