"""Where a call that waits cannot wait: in a greenlet that is not the library's, and inside a garbage collection."""

from __future__ import annotations

import gc
import io
import weakref

import greenlet
import pytest

import dangagreen as d
from tests.helpers import Dying

CALLS = {
    "sleep": lambda thing: d.sleep(1),
    "sleep(0)": lambda thing: d.sleep(0),
    "join": lambda thing: thing.task.join(),
    "join with a timeout": lambda thing: thing.task.join(1),
    "read_line": lambda thing: thing.sock.read_line(),
    "read_exactly": lambda thing: thing.sock.read_exactly(3),
    "write_all": lambda thing: [thing.sock.write_all(b"x" * 30000) for _ in range(9)],
    "send_file": lambda thing: thing.sock.send_file(io.BytesIO(b"x")),
    "drain": lambda thing: (thing.sock.write(b"x" * 300000), thing.sock.drain()),
    "Event.wait": lambda thing: d.Event().wait(),
    "Queue.get": lambda thing: d.Queue().get(),
    "Lock": lambda thing: thing.lock.acquire(),
    "Semaphore": lambda thing: d.Semaphore(0).acquire(),
    "Barrier": lambda thing: d.Barrier(2).wait(),
    "Channel.send": lambda thing: d.Channel().send(1),
    "Channel.receive": lambda thing: d.Channel().receive(),
    "Future.wait": lambda thing: d.Future().wait(),
    "select": lambda thing: d.select(thing.task, thing.sock),
    "wait": lambda thing: d.wait([thing.task]),
    "as_completed": lambda thing: next(d.as_completed([thing.task])),
    "connect": lambda thing: d.connect(("127.0.0.1", thing.port)),
    "serve_forever": lambda thing: d.serve_forever(thing.listener),
    "drain of a listener": lambda thing: thing.listener.drain(),
}
BLOCKS = {
    "timeout": lambda: d.timeout(1),
    "move_on_after": lambda: d.move_on_after(1),
    "shield": d.shield,
    "TaskGroup": d.TaskGroup,
}


class Things:
    """What the calls are made with; whatever they leave behind would be woken, or missed, later on."""

    def __init__(self, sock):
        self.sock = sock
        self.task = d.spawn(d.sleep, 50)
        self.lock = d.Lock()
        self.lock.acquire()
        self.listener = d.serve(("127.0.0.1", 0), print)
        self.port = self.listener.address[1]

    def close(self):
        self.task.cancel()
        self.listener.close()
        self.sock.close()


def by_hand(function, *args):
    return greenlet.greenlet(lambda: function(*args)).switch()


def refused(call, *args):
    with pytest.raises(d.CannotParkError) as caught:
        call(*args)
    return str(caught.value)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_that_would_park_is_refused_in_a_greenlet_of_somebody_elses(loop, pair, call):
    """And nothing comes of it: the task goes on, and waits for what it likes."""
    sock, _far = pair()

    def task():
        things = Things(sock)
        message = by_hand(refused, call, things)
        assert loop.current is d.current_task() is main
        assert "greenlet.greenlet object" in message
        assert "'test_a_call_that_would_park" in message
        before = loop.time()
        d.sleep(7)
        assert loop.time() == before + 7
        things.close()

    main = d.spawn(task)
    main.join()
    main.result()


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_no_scope_and_no_group_is_entered_there(loop, block):
    def task():
        assert "greenlet.greenlet object" in by_hand(refused, block().__enter__)
        assert d.current_task().scope is None
        with block():
            d.sleep(0.5)

    main = d.spawn(task)
    main.join()
    main.result()


def test_what_need_not_wait_works_there(loop, pair):
    sock, far = pair()

    def foreign():
        far.send(b"more\n")
        line = sock.read_line()
        sock.write_all(b"reply")
        d.spawn(d.sleep, 0)
        return line

    def task():
        far.send(b"one\ntwo\n")
        assert sock.read_line() == b"one\n"
        assert by_hand(foreign) == b"two\n"
        assert sock.read_line() == b"more\n"
        d.sleep(0)
        assert far.recv(9) == b"reply"

    main = d.spawn(task)
    main.join()
    main.result()


def test_greenlets_made_by_hand_in_top_level_code_wait_as_before(loop):
    seen = []

    def by_itself(name):
        for _ in range(2):
            d.sleep(1)
            seen.append((name, loop.time()))
            with d.timeout(5), d.TaskGroup() as group:
                group.spawn(d.sleep, 1)
            main.switch()

    main = greenlet.getcurrent()
    start = loop.time()
    one, other = (greenlet.greenlet(by_itself) for _ in range(2))
    one.switch("one")
    other.switch("other")
    one.switch()
    other.switch()
    assert seen == [("one", start + 1), ("other", start + 3), ("one", start + 5), ("other", start + 7)]
    one.switch()
    other.switch()


@pytest.mark.in_order
def test_one_made_in_another_task_is_refused_too(loop):
    """As a library's helper greenlet is, that was started elsewhere."""
    helpers, messages = [], []

    def helper():
        while True:
            messages.append(refused(d.sleep, 1))
            greenlet.getcurrent().parent.switch()

    def first():
        helpers.append(greenlet.greenlet(helper))
        helpers[0].switch()
        d.sleep(3)

    def second():
        helpers[0].parent = greenlet.getcurrent()
        helpers[0].switch()
        d.sleep(1)

    tasks = [d.spawn(first), d.spawn(second)]
    d.wait(tasks)
    for task in tasks:
        task.result()
    assert ["'first'" in messages[0].replace("test_one_made_in_another_task_is_refused_too.<locals>.", "")] == [True]
    assert "second'" in messages[1]
    helpers.clear()


# -- garbage collections


@pytest.mark.parametrize("how", ["__del__", "weakref"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_that_would_park_is_refused_in_a_collection(loop, pair, uncollected, call, how):
    sock, _far = pair()
    messages = []

    def task():
        things = Things(sock)

        def last_words(*_):
            messages.append(refused(call, things))

        dying = Dying(last_words if how == "__del__" else int)
        kept = weakref.ref(dying, last_words) if how == "weakref" else None
        del dying
        gc.collect()
        assert len(messages) == 1, kept
        before = loop.time()
        d.sleep(7)
        assert loop.time() == before + 7
        things.close()

    main = d.spawn(task)
    main.join()
    main.result()
    assert "inside a garbage collection" in messages[0]
    assert "__del__" in messages[0]
    assert gc.collect() >= 0
    gone = []
    Dying(lambda: gone.append(1))
    gc.collect()
    assert gone == [1]  # the collector is not off


def test_top_level_code_and_callbacks_are_refused_in_a_collection_too(loop, uncollected):
    messages = []

    def last_words():
        messages.append(refused(d.sleep, 1))
        messages.append(refused(loop.run) if not loop.running else "")

    Dying(last_words)
    gc.collect()
    d.sleep(1)
    loop.call_soon(lambda: Dying(last_words) and None)
    loop.call_soon(lambda: gc.collect() and None)
    d.sleep(1)
    assert ["garbage collection" in message for message in messages] == [True, True, False, False]
    assert "in the callback" in messages[2]


def test_what_need_not_wait_works_in_a_collection(loop, pair, uncollected):
    sock, far = pair()
    done = []

    def last_words():
        with d.timeout(5):
            queue = d.Queue()
            queue.put(1)
            assert queue.get() == 1
        with lock:
            sock.write_all(b"bye")
        assert d.current_task() is None
        done.append(1)

    def task():
        Dying(last_words)
        gc.collect()
        d.sleep(1)

    lock = d.Lock()
    main = d.spawn(task)
    main.join()
    main.result()
    assert done == [1]
    assert far.recv(9) == b"bye"


def test_a_del_without_a_collection_may_wait(loop):
    done = []

    class Plain:
        def __del__(self):
            d.sleep(1)
            done.append(loop.time())

    def task():
        plain = Plain()
        del plain

    start = loop.time()
    d.spawn(task).join()
    assert done == [start + 1]


def test_collections_at_every_moment_leave_tasks_as_they_were(real_loop, unix_pair):
    """Objects whose last words wait die whenever the collector comes, amid requests."""
    refusals = []

    def last_words():
        try:
            d.sleep(0)
        except d.CannotParkError as error:
            refusals.append(error)

    def echo(sock):
        while line := sock.read_line():
            Dying(last_words)
            sock.write_all(line)

    ends = unix_pair()
    before = gc.get_threshold()
    gc.set_threshold(20)
    try:
        task = d.spawn(echo, d.Socket(ends[0]))
        client = d.Socket(ends[1])
        for number in range(500):
            client.write_all(b"%d\n" % number)
            assert client.read_line() == b"%d\n" % number
        client.finish()
        task.join()
        task.result()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert len(refusals) > 100
