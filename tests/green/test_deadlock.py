"""A loop that nothing can wake: an error where that is certain, one warning where somebody outside might, no other."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from functools import partial

import pytest

import dangagreen as d
from dangagreen.loop import deadlock
from dangagreen.loop.pollers import READ
from dangagreen.testing import StalledError, VirtualClock, virtual_loop
from tests.helpers import first_quick
from tests.programs import start_python

SOON = 0.02  # seconds after which a warning is due in these tests
PROGRAM_SECONDS = 30
LONG = 30  # seconds after which what should have been there long since is waited for no longer


class Scripted:
    """A poller that never waits: `steps` are called one after the other, each for the answer to one `wait`.

    `asked` is how long each of them was to wait.
    """

    def __init__(self):
        self.steps = []
        self.asked = []

    def add(self, fd, mask):
        pass

    modify = add

    def remove(self, fd):
        pass

    close = list

    def wait(self, timeout):
        self.asked.append(timeout)
        return self.steps.pop(0)()


@pytest.fixture
def alone(monkeypatch):
    """Nobody outside the loop might wake it, whatever the test runner has installed."""
    monkeypatch.setattr(deadlock, "external_wakers", lambda: iter(()))


@pytest.fixture
def in_company(monkeypatch):
    """Somebody might."""
    monkeypatch.setattr(deadlock, "external_wakers", lambda: iter(["the neighbour"]))


def woken():
    """The events of a loop that another thread has woken."""
    return [(d.current_loop().wakeup_pair.fd, READ)]


@pytest.fixture
def scripted():
    """`scripted(*steps)` adds to what the poller of this test's loop will answer; see there."""
    poller = Scripted()

    def scripted(*steps):
        poller.steps.extend(steps)

    scripted.asked = poller.asked
    with d.Loop(clock=VirtualClock(), poller=poller):
        yield scripted
        scripted(*[list] * 5)
        d.sleep(0)


@pytest.fixture
def knot():
    """Two tasks that wait for each other, when they are run; they end with the test."""
    tasks = []

    def join(other):
        tasks[other].join()

    def tie():
        tasks[:] = [d.spawn(join, 1), d.spawn(join, 0)]
        tasks[0].name, tasks[1].name = "one", "other"
        return tasks

    yield tie
    for task in tasks:
        task.cancel()


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def wake_from_a_thread(loop, seconds, call=lambda: None):
    """Have another thread wake the loop, some time from now."""
    thread = threading.Timer(seconds, loop.call_soon_threadsafe, [call])
    thread.start()
    return thread


def wake_when_warned(loop, caplog, call):
    """Have another thread wake the loop when there is a warning."""

    def wake():
        give_up = time.monotonic() + LONG
        while not warnings_of(caplog) and time.monotonic() < give_up:
            time.sleep(0.001)
        loop.call_soon_threadsafe(call)

    thread = threading.Thread(target=wake)
    thread.start()
    return thread


# -- certain


def test_a_timeout_that_is_over_does_not_put_the_report_off(alone, scripted):
    """Its alarm is kept for the next one, and would wake the loop an hour later for nothing."""

    def forgetful():
        with d.timeout(3600):
            d.sleep(0)
        d.Event().wait()

    task = d.spawn(forgetful)
    scripted(*[list] * 6)
    with pytest.raises(d.Deadlock, match="forgetful"):
        task.join()
    assert 3600 not in scripted.asked
    task.cancel()


def test_a_timeout_that_is_not_over_is_no_deadlock(alone, scripted):
    def patient():
        with d.timeout(3600):
            d.Event().wait()

    task = d.spawn(patient)
    scripted(list, lambda: d.current_loop().clock.jump(3600) or [], list)
    task.join()
    with pytest.raises(TimeoutError):
        task.result()


def test_run_raises_with_the_table(real_loop, alone, knot):
    ended = []

    def main():
        try:
            knot()[0].join()
        finally:
            ended.append(d.current_task())

    with pytest.raises(d.Deadlock) as caught:
        d.run(main)
    assert isinstance(caught.value, RuntimeError)
    table = caught.value.table
    assert table in str(caught.value)
    assert [line.split("  ")[0] for line in table.splitlines()] == ["task", main.__qualname__, "one", "other"]
    assert "join of task 'one'" in table
    assert table.count(f"{__file__}:") == 3
    assert len(ended) == 1


def test_a_waiting_call_of_top_level_code_raises(real_loop, alone, knot):
    task = knot()[0]
    for _ in range(2):
        with pytest.raises(d.Deadlock, match=r"top-level code +parked +join of task 'one'"):
            task.join()
    assert d.spawn(int, 5).join() is None


def test_a_callback_loop_that_has_nothing_to_wait_for_raises(real_loop, alone):
    with pytest.raises(d.Deadlock) as caught:
        real_loop.run()
    assert caught.value.table == ""


@pytest.mark.parametrize("what", ["timer", "fd", "socket", "limit"])
def test_what_the_loop_itself_waits_for_is_no_deadlock(real_loop, alone, unix_pair, what):
    near, _far = unix_pair()
    if what == "timer":
        real_loop.add_timer(SOON, real_loop.stop)
    elif what == "limit":
        turns = iter(range(3))
        real_loop.loop_timeout = 0.001
        real_loop.post_loop_callback = lambda *_: next(turns, None) is not None
    else:
        wake_from_a_thread(real_loop, SOON, real_loop.stop)
        if what == "fd":
            real_loop.add_other_fds({near.fileno(): print})
        else:  # one that watches nothing may still report a hang-up
            sock = d.Socket(near)
    real_loop.run()
    if what == "fd":
        real_loop.other_fds({})
    elif what == "socket":
        sock.close()
    elif what == "limit":
        real_loop.loop_timeout = None
        real_loop.post_loop_callback = None


def test_a_descriptor_that_goes_leaves_a_deadlock_behind(real_loop, alone, unix_pair, knot):
    near, _far = unix_pair()
    sock = d.Socket(near)
    real_loop.add_timer(SOON, sock.close)
    with pytest.raises(d.Deadlock):
        knot()[0].join()


def test_whoever_woke_the_loop_and_went_is_heard(real_loop, knot, monkeypatch):
    """A thread that calls and ends while the loop looks around leaves a call behind, and nobody outside."""
    task = knot()[0]
    called = []

    def external_wakers():
        if not called:
            called.append(True)
            real_loop.call_soon_threadsafe(task.cancel)
        return iter(())

    monkeypatch.setattr(deadlock, "external_wakers", external_wakers)
    task.join()
    assert task.done


def test_it_is_not_looked_for_if_nobody_wants_to(real_loop, alone, knot, caplog):
    real_loop.deadlock_seconds = None
    task = knot()[0]
    wake_from_a_thread(real_loop, SOON, task.cancel)
    task.join()
    assert warnings_of(caplog) == []


# -- doubtful


def test_one_warning_and_then_the_waiting_goes_on(scripted, in_company, knot, caplog):
    one, _other = knot()
    scripted(list, list, woken, woken, lambda: one.cancel() and [])
    one.join()
    assert scripted.asked == [0, 5.0, None, None, None]
    (warning,) = warnings_of(caplog)
    assert "the neighbour" in warning
    assert "one             parked  join of task 'other'" in warning
    assert caplog.records[0].name == "dangagreen"


def test_no_warning_while_others_keep_waking_it(scripted, in_company, knot, caplog):
    one, _other = knot()
    scripted(list, *[woken] * 20, lambda: one.cancel() and woken(), woken)
    one.join()
    assert scripted.asked == [0, *[5.0, None] * 11]
    assert warnings_of(caplog) == []


def test_a_connection_that_nobody_reads_is_a_doubt(real_loop, alone, unix_pair, knot, caplog):
    near, far = unix_pair()
    sock = d.Socket(near)
    task = knot()[0]
    real_loop.deadlock_seconds = SOON
    waker = wake_when_warned(real_loop, caplog, task.cancel)
    task.join()
    waker.join()
    sock.close()
    assert far.recv(1) == b""
    (warning,) = warnings_of(caplog)
    assert "only the end of a connection that no task reads might wake the loop" in warning
    assert "join of task" in warning


def test_a_connection_whose_peer_has_ended_is_a_doubt_although_reading_is_watched(
    real_loop, alone, unix_pair, knot, caplog
):
    class Stays(d.Socket):
        def event_read(self):
            assert self.read(1) is None

    near, far = unix_pair()
    sock = Stays(near)
    sock.watch_read(True)
    far.shutdown(socket.SHUT_WR)
    task = knot()[0]
    real_loop.deadlock_seconds = SOON
    waker = wake_when_warned(real_loop, caplog, task.cancel)
    task.join()
    waker.join()
    assert sock._watch_read
    sock.close()
    assert len(warnings_of(caplog)) == 1


def test_a_connection_is_awaited_while_a_task_reads_and_no_longer(real_loop, alone, unix_pair, knot, caplog):
    near, far = unix_pair()
    sock = d.Socket(near)
    real_loop.deadlock_seconds = SOON
    real_loop.add_timer(SOON, lambda: far.send(b"x"))
    one = knot()[0]

    def reads():
        assert sock.read_exactly(1) == b"x"
        assert warnings_of(caplog) == []
        wake_when_warned(real_loop, caplog, one.cancel)
        one.join()

    d.spawn(reads).join()
    sock.close()
    assert len(warnings_of(caplog)) == 1


def test_each_run_may_warn_anew(scripted, in_company, knot, caplog):
    knot()
    scripted(list)
    for _ in range(2):
        scripted(list, lambda: d.current_loop().stop() or [])
        d.current_loop().run()
    assert scripted.asked == [0, 5.0, None, 5.0, None]
    assert len(warnings_of(caplog)) == 2


def test_no_warning_where_no_task_waits(real_loop, in_company, caplog):
    """A thread's loop may well have nothing to do until another thread calls."""
    real_loop.deadlock_seconds = SOON
    wake_from_a_thread(real_loop, 4 * SOON, real_loop.stop)
    real_loop.run()
    assert warnings_of(caplog) == []


def test_a_thread_that_dies_without_a_word_makes_it_certain(real_loop, knot, monkeypatch):
    real_loop.deadlock_seconds = SOON
    company = ["the neighbour"]
    monkeypatch.setattr(deadlock, "external_wakers", lambda: iter([company.pop()] if company else []))
    with pytest.raises(d.Deadlock):
        knot()[0].join()


def test_an_idle_daemon_thread_and_a_handler_of_ctrl_c_are_doubts(real_loop, knot, caplog):
    real_loop.deadlock_seconds = SOON
    before = signal.signal(signal.SIGINT, lambda *_: None)
    over = threading.Event()
    threading.Thread(target=over.wait, name="idle one", daemon=True).start()
    one, _other = knot()
    wake_when_warned(real_loop, caplog, one.cancel)
    try:
        one.join()
    finally:
        over.set()
        signal.signal(signal.SIGINT, before)
    (warning,) = warnings_of(caplog)
    assert "the handler of SIGINT" in warning
    assert "'idle one'" in warning


def test_a_signal_handler_that_wakes_is_heard_while_the_loop_waits_to_warn(real_loop, knot, caplog):
    one, _other = knot()
    before = signal.signal(signal.SIGUSR1, lambda *_: real_loop.call_soon_threadsafe(one.cancel))
    try:
        threading.Timer(SOON, os.kill, [os.getpid(), signal.SIGUSR1]).start()
        one.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert warnings_of(caplog) == []


# -- the virtual clock


def test_on_the_virtual_clock_it_is_certain_at_once(loop, knot):
    loop.poller.patience = 0
    with pytest.raises(StalledError) as caught:
        d.run(lambda: knot()[0].join())
    assert isinstance(caught.value, d.Deadlock)
    assert "join of task 'other'" in caught.value.table
    assert loop.clock() == 1000


def test_a_virtual_loop_without_tasks_has_nothing_to_show():
    with virtual_loop() as loop:
        loop.poller.patience = 0
        with pytest.raises(StalledError) as caught:
            loop.run()
    assert caught.value.table == ""


# -- whole programs

KNOT = """
import signal, sys
import dangagreen as d

def one(): tasks[1].join()
def other(): tasks[0].join()
def main():
    tasks.extend([d.spawn(one), d.spawn(other)])
    try:
        tasks[0].join()
    finally:
        print("finally")

tasks = []
d.current_loop().deadlock_seconds = 0.05
"""


def program(source):
    return start_python("-c", KNOT + source)


CALLBACKS = """
class Waits(d.Socket):
    __slots__ = ()
d.spawn(main)
"""


@pytest.mark.parametrize(
    "source",
    first_quick(
        [
            "d.run(main)",
            "d.spawn(main).join()",
            CALLBACKS + "d.current_loop().run()",
            CALLBACKS + "d.Socket.event_loop()",
        ],
        2,
    ),
    ids=["run", "top level", "Loop.run", "event_loop"],
)
@pytest.mark.parametrize(
    "sigint", first_quick(["", "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"], 1), ids=["heard", "ignored"]
)
def test_a_program_in_which_nobody_can_run_ends_at_once_with_the_table(source, sigint):
    """The only thread, and nothing but Ctrl-C, which would end the program anyway."""
    with program("d.current_loop().deadlock_seconds = 1e6\n" + sigint + source) as process:
        out, err = process.communicate(timeout=PROGRAM_SECONDS)
    assert out == "finally\n"
    assert "Deadlock: all tasks wait" in err
    assert "join of task 'other'" in err
    assert "might wake" not in err
    assert process.returncode == 1


def test_a_program_with_a_handler_of_ctrl_c_is_warned_once_and_still_hears_it():
    handler = "signal.signal(signal.SIGINT, lambda *_: sys.exit(7))\n"
    with program(handler + "d.run(main)") as process:
        assert "only the handler of SIGINT might wake the loop" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PROGRAM_SECONDS)
    assert out == "finally\n"
    assert err.count("the handler of SIGINT") == 0
    assert process.returncode == 7


def test_the_table_of_a_deadlock_is_bounded(alone):
    described = []

    class Silent(d.Event):
        __slots__ = ()

        def __repr__(self):
            described.append(1)
            return "the event"

    def main():
        event = Silent()
        for _ in range(500):
            d.spawn(event.wait)
        d.sleep(0)
        event.wait()

    with pytest.raises(d.Deadlock) as caught:
        d.run(main)
    assert caught.value.table.endswith("... and 451 more")
    assert len(caught.value.table.splitlines()) == 52
    assert len(described) <= 2 * 51


@pytest.mark.parametrize("number", [100, 1000])
def test_idle_connections_that_nobody_reads_are_not_looked_at_in_each_turn(alone, number, monkeypatch):
    looks, wanted = [], d.Socket._interest
    monkeypatch.setattr(d.Socket, "_interest", lambda sock: looks.append(1) or wanted(sock))
    poller = Scripted()
    with d.Loop(poller=poller) as loop:
        for index in range(number):
            d.Socket(NoSocket(10**6 + index))
        busy = d.Socket(NoSocket(10**6 - 1))
        d.spawn(busy.read_some)
        turns(loop, poller, [[]] * 3)
        looks.clear()
        turns(loop, poller, [[(busy.fd, READ)]] * 50)
        assert len(looks) <= 50 * 40  # rather than 50 times their number
        assert poller.asked[-1] <= number * 1e-4  # nothing may come, and then it looks
        turns(loop, poller, [[], []])
        assert poller.asked[-1] is None


def turns(loop, poller, batches):
    """So many turns, with these events."""
    poller.steps = [partial(list, batch) for batch in batches]
    loop.run(lambda: not poller.steps)


class NoSocket:
    """In the place of an OS socket, with nothing to read."""

    def __init__(self, fd):
        self.fd = fd

    def fileno(self):
        return self.fd

    def setblocking(self, flag):
        pass

    def recv(self, n, flags=0):
        raise BlockingIOError

    send = recv

    def close(self):
        pass


def test_a_deadlock_among_many_connections_is_found_after_a_short_wait(alone):
    poller = Scripted()
    with d.Loop(poller=poller) as loop:
        loop.deadlock_seconds = 7.0
        for index in range(1000):
            d.Socket(NoSocket(10**6 + index))
        d.spawn(d.Event().wait)
        poller.steps = [list] * 6
        assert loop.run(lambda: len(poller.asked) >= 4) is None
        assert 7.0 in poller.asked  # the ends of connections that nobody reads are a doubt
        assert all(asked is None or asked <= 7 for asked in poller.asked)
