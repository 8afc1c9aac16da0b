"""Where a call may park: every one that may is marked, says so, and is refused in callbacks and in no_parking."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import re
import signal
import ssl
from pathlib import Path

import pytest

import dangagreen as d
from dangagreen import parks
from tests.helpers import end_of


def functions():
    """(qualified name, function) of all public functions and methods of the package."""
    root = Path(d.__file__).parent
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] in ("introspect", "__main__"):  # nothing of it parks, and its import would change this process
            continue
        try:
            module = importlib.import_module(".".join(("dangagreen", *(part for part in parts if part != "__init__"))))
        except ModuleNotFoundError:  # of a library for which there is an extra
            if os.environ.get("CI"):
                raise
            continue
        written = set(re.findall(r"^(?:def|class) (\w+)", path.read_text(), re.MULTILINE))
        for name, thing in vars(module).items():
            if name not in written or name.startswith("_"):
                continue
            if inspect.isroutine(thing):
                yield f"{module.__name__}.{name}", thing
            elif isinstance(thing, type):
                for attribute, method in vars(thing).items():
                    method = inspect.unwrap(getattr(method, "__func__", getattr(method, "fget", method)))
                    public = not attribute.startswith("_") or attribute.endswith("__")
                    if public and inspect.isroutine(method):
                        yield f"{module.__name__}.{name}.{attribute}", method


FUNCTIONS = dict(functions())
PARKING = {f"{module}.{name}" for module, name in parks.PARKING if not name.startswith("_")}
PARKING.add("dangagreen.sync.locks.Semaphore.__enter__")  # another name of acquire
INNER = {
    f"dangagreen.green.{name}"
    for name in ("lender.Lender.rest", "parking.give_way", "parking.park", "parking.park_for")
}
INNER.add("dangagreen.net.starttls.start_tls")  # of the method
INNER.add("dangagreen.sync.multiwait.Selection.park")  # of select


def says_so(function):
    return re.match(r"Parks (until|while)\b", inspect.getdoc(function) or "") is not None


def test_who_says_that_it_parks_is_marked_and_who_is_marked_says_so():
    assert {name for name, function in FUNCTIONS.items() if says_so(function)} == PARKING
    assert len(PARKING) >= 12


def test_the_mark_is_there_for_inspect(loop, pair):
    sock, _ = pair()
    assert d.sleep.__parks__ is True
    assert sock.read_line.__parks__ is True
    assert not hasattr(sock.read, "__parks__")
    assert str(inspect.signature(d.Socket.read_line)) == "(self, limit: 'int | None' = None) -> 'bytes'"


def leave_group(sock, task):
    with d.TaskGroup():
        raise AssertionError


def there(thing):
    """What is waited for has come."""
    {d.Event: lambda: thing.set(), d.Queue: lambda: thing.put_nowait(1), d.Future: lambda: thing.set_result(1)}[
        type(thing)
    ]()
    return thing


def came(iteration):
    """A signal has come."""
    signal.raise_signal(signal.SIGUSR1)
    return iteration


def on_listener(call):
    with d.serve(("127.0.0.1", 0), print) as listener:
        call(listener)


CALLS = {
    "connecting.connect": lambda sock, task: d.connect(("127.0.0.1", 1)),
    "groups.TaskGroup.__exit__": leave_group,
    "listener.Listener.drain": lambda sock, task: on_listener(lambda listener: listener.drain()),
    "serve_forever.serve_forever": lambda sock, task: on_listener(d.serve_forever),
    "locks.Mutex.__enter__": lambda sock, task: d.Lock().__enter__(),
    "locks.Mutex.acquire": lambda sock, task: d.RLock().acquire(),
    "locks.Semaphore.__enter__": lambda sock, task: d.Semaphore().__enter__(),
    "locks.Semaphore.acquire": lambda sock, task: d.Semaphore().acquire(),
    "channels.Channel.send": lambda sock, task: d.Channel(1).send("item"),
    "channels.Channel.receive": lambda sock, task: d.Channel().receive(),
    "channels.Future.wait": lambda sock, task: there(d.Future()).wait(),
    "channels.Channel.__iter__": lambda sock, task: next(iter(d.Channel())),
    "queues.Queue.__iter__": lambda sock, task: next(iter(there(d.Queue()))),
    "queues.Queue.get": lambda sock, task: there(d.Queue()).get(),
    "queues.Queue.join": lambda sock, task: d.Queue().join(),
    "queues.Queue.put": lambda sock, task: d.Queue().put("item"),
    "multiwait.as_completed": lambda sock, task: next(d.as_completed([task])),
    "multiwait.select": lambda sock, task: d.select(task),
    "multiwait.wait": lambda sock, task: d.wait([task]),
    "writing.StreamSocket.__exit__": lambda sock, task: sock.__exit__(None, None, None),
    "reading.ReadingSocket.__iter__": lambda sock, task: next(iter(sock)),
    "writing.StreamSocket.drain": lambda sock, task: sock.drain(),
    "files.FileSocket.send_file": lambda sock, task: sock.send_file(io.BytesIO(b"x")),
    "reading.ReadingSocket.read_exactly": lambda sock, task: sock.read_exactly(0),
    "reading.ReadingSocket.read_line": lambda sock, task: sock.read_line(),
    "reading.ReadingSocket.read_some": lambda sock, task: sock.read_some(),
    "reading.ReadingSocket.read_some_into": lambda sock, task: sock.read_some_into(bytearray(5)),
    "reading.ReadingSocket.read_to_end": lambda sock, task: sock.read_to_end(),
    "reading.ReadingSocket.read_until": lambda sock, task: sock.read_until(b"\n"),
    "sock.Socket.start_tls": lambda sock, task: sock.start_tls(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "localhost"),
    "writing.StreamSocket.write_all": lambda sock, task: sock.write_all(b"x"),
    "events.Barrier.wait": lambda sock, task: d.Barrier(1).wait(),
    "events.Condition.__enter__": lambda sock, task: d.Condition().__enter__(),
    "events.Condition.acquire": lambda sock, task: d.Condition().acquire(),
    "events.Condition.wait": lambda sock, task: d.Condition().wait(),
    "events.Condition.wait_for": lambda sock, task: d.Condition().wait_for(lambda: True),
    "events.Event.wait": lambda sock, task: there(d.Event()).wait(),
    "life.Life.join": lambda sock, task: task.join(),
    "sleep.sleep": lambda sock, task: d.sleep(0),
    "sleep.sleep_until": lambda sock, task: d.sleep_until(0),
    "signals.signals.__next__": lambda sock, task: next(came(d.signals(signal.SIGUSR1))),
    "threads.in_thread": lambda sock, task: d.in_thread(int),
    "fds.wait_readable": lambda sock, task: d.wait_readable(0),
    "fds.wait_writable": lambda sock, task: d.wait_writable(1),
}


def test_no_function_that_parks_is_forgotten_below():
    others = "dangagreen.bridge.", "dangagreen.testing."  # whose own tests have those
    ours = {name for name in PARKING - INNER if not name.startswith(others)}
    assert set(CALLS) == {name.split(".", 2)[2] for name in ours}


@pytest.fixture
def ended(loop):
    task = d.spawn(int)
    task.join()
    return task


@pytest.mark.parametrize("where", ["task", "top level"])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_may_park_is_refused_also_where_it_need_not_wait(loop, pair, ended, call, where):
    sock, far = pair()
    far.send(b"all there\n")

    def my_function():
        with d.no_parking():
            CALLS[call](sock, ended)

    def work():
        turns = loop.poller.waits
        with pytest.raises(d.CannotParkError) as caught:
            my_function()
        assert loop.poller.waits == turns
        d.sleep(0)  # it may wait again
        return str(caught.value)

    if where == "task":
        task = d.spawn(work)
        task.join()
        message = task.result()
    else:
        message = work()
    assert "inside no_parking()" in message
    assert "my_function" in message
    if call != "writing.StreamSocket.__exit__":  # that one has closed it
        assert sock.read_line() == b"all there\n"
        assert sock.unsent == 0
        assert far.events(1) == 0


def test_what_does_not_park_works_inside(loop, pair):
    sock, far = pair()
    far.send(b"x")

    def work():
        me = d.current_task()
        with d.no_parking():
            assert d.current_task() is me
            assert d.current_deadline() is None
            sock.write(b"reply")
            assert sock.read(10) == b"x"
            task = d.spawn(int)
            loop.call_soon(int)
        assert d.current_task() is me
        assert not task.done
        task.join()

    task = d.spawn(work)
    task.join()
    task.result()
    assert far.recv(10) == b"reply"


@pytest.mark.parametrize("where", ["task", "top level"])
def test_nested_and_left_by_an_exception(loop, where):
    def refused():
        with pytest.raises(d.CannotParkError):
            d.sleep(0)
        return True

    def work():
        with d.timeout(5), contextlib.suppress(KeyError), d.no_parking():
            with contextlib.suppress(ValueError), d.no_parking():
                assert refused()
                raise ValueError
            assert refused()
            raise KeyError
        d.sleep(1)
        return loop.clock()

    if where == "task":
        task = d.spawn(work)
        task.join()
        assert task.result() == 1001
    else:
        assert work() == 1001


def test_scopes_and_groups_are_refused_inside(loop):
    def work():
        with d.no_parking():
            for block in (d.timeout(5), d.shield(), d.TaskGroup()):
                with pytest.raises(d.CannotParkError, match=r"no_parking\(\)"), block:
                    raise AssertionError

    task = d.spawn(work)
    task.join()
    task.result()


def test_a_group_left_inside_stays_open(loop):
    def work():
        with d.TaskGroup() as group:
            group.spawn(d.sleep, 5)
            with d.no_parking(), pytest.raises(d.CannotParkError):
                group.__exit__(None, None, None)
            assert len(group.tasks) == 1
        return loop.clock()

    task = d.spawn(work)
    task.join()
    assert task.result() == 1005


def test_other_tasks_and_callbacks_are_not_concerned(loop):
    raised = []

    def callback():
        try:
            d.sleep(1)
        except d.CannotParkError as error:
            raised.append(str(error))

    def work():
        with d.no_parking():
            d.spawn(d.sleep, 1)
            loop.call_soon(callback)

    d.spawn(work)
    d.sleep(5)
    assert "was called in the callback" in raised[0]


def test_in_a_callback_it_changes_nothing(loop):
    seen = []

    def callback():
        with d.no_parking():
            seen.append(d.current_task())
            with pytest.raises(d.CannotParkError):
                d.sleep(1)
        seen.append(loop.current)

    loop.call_soon(callback)
    d.sleep(1)
    assert seen == [None, None]


def test_left_in_disorder_it_says_so(loop):
    first, second = d.no_parking(), d.no_parking()

    def work():
        first.__enter__()
        second.__enter__()
        with pytest.raises(RuntimeError, match="reverse order"):
            first.__exit__(None, None, None)
        second.__exit__(None, None, None)
        first.__exit__(None, None, None)
        d.sleep(1)

    task = d.spawn(work)
    task.join()
    task.result()


def test_a_generator_that_holds_it_open_beyond_its_task(loop, take_errors):
    def generator():
        with d.no_parking():
            yield

    held = generator()
    task = d.spawn(lambda: (next(held), d.sleep(1)))
    other = d.spawn(lambda: (d.sleep(1), next(held)))
    other.join()
    with pytest.raises(d.CannotParkError, match="generator has entered"):
        task.result()
    with pytest.raises(RuntimeError, match="left in another task"):
        other.result()
    assert [context.subject for context in take_errors()] == [task]
    d.sleep(1)


def test_a_generator_that_holds_it_open_and_is_closed_in_a_callback(loop, take_errors):
    def generator():
        with d.no_parking():
            yield

    held, seen = generator(), []
    d.spawn(next, held)
    loop.add_timer(1, lambda: (held.close(), seen.append(loop.current)))
    d.spawn(d.sleep, 2).join()
    assert seen == [None]


def test_not_from_another_thread(loop, in_thread):
    with pytest.raises(d.ForeignThreadError):
        in_thread(d.no_parking().__enter__)


def test_a_block_that_a_generator_holds_open_ends_with_its_task(loop, take_errors):
    def generator():
        with d.no_parking():
            yield

    held, seen = generator(), []
    d.spawn(next, held)
    loop.add_timer(1, lambda: seen.append(d.current_task()))
    loop.add_timer(1, lambda: d.sleep(1))
    d.sleep(2)
    assert seen == [None]
    (context,) = take_errors()
    assert "no_parking" not in str(context.exception)
    held.close()


def test_no_parking_says_which_call_it_was(loop):
    def work():
        with d.no_parking(), pytest.raises(d.CannotParkError, match="sleep"):
            d.sleep(1)

    work()


def test_after_no_parking_a_cancelled_task_is_still_cancelled(loop):
    def work():
        d.current_task().cancel()
        with d.no_parking():
            pass
        d.sleep(1)

    assert end_of(d.spawn(work)) is d.TaskCancelledError


def test_the_loop_does_not_run_inside_no_parking(loop):
    with d.no_parking():
        with pytest.raises(RuntimeError, match="no_parking"):
            d.run(int)
        with pytest.raises(RuntimeError, match="no_parking"):
            d.Socket.event_loop()
    loop.reset()


# -- times that are none


NAN = float("nan")


def a_full_queue():
    queue = d.Queue(1)
    queue.put_nowait(1)
    return queue


def rescheduled():
    with d.timeout(5) as scope:
        scope.reschedule(NAN)


def entered(scope):
    with scope:
        d.sleep(0)


NO_TIMES = {
    "sleep": lambda task: d.sleep(NAN),
    "sleep_until": lambda task: d.sleep_until(NAN),
    "join": lambda task: task.join(NAN),
    "wait": lambda task: d.wait([task], NAN),
    "connect": lambda task: d.connect(("127.0.0.1", 1), NAN),
    "Future.wait": lambda task: d.Future().wait(NAN),
    "Queue.get": lambda task: d.Queue().get(timeout=NAN),
    "Queue.put": lambda task: a_full_queue().put(2, timeout=NAN),
    "Event.wait": lambda task: d.Event().wait(NAN),
    "drain": lambda task: on_listener(lambda listener: listener.drain(NAN)),
    "serve_forever": lambda task: on_listener(lambda listener: d.serve_forever(listener, grace=NAN)),
    "timeout": lambda task: entered(d.timeout(NAN)),
    "timeout_at": lambda task: entered(d.timeout_at(NAN)),
    "move_on_after": lambda task: entered(d.move_on_after(NAN)),
    "reschedule": lambda task: rescheduled(),
    "add_timer": lambda task: d.current_loop().add_timer(NAN, print),
}


@pytest.mark.parametrize("call", NO_TIMES)
def test_a_time_that_is_not_a_number_is_refused(loop, call):
    sleeper = d.spawn(d.sleep, 1)

    def work():
        with pytest.raises(ValueError, match="not a number"):
            NO_TIMES[call](sleeper)
        d.sleep(0)  # nothing is left that would wake it for another reason

    task = d.spawn(work)
    sleeper.join()
    task.join()
    task.result()
    assert len(loop.timers) == 0


# -- calls that wait, made in a callback


class Reader(d.Socket):
    """Calls what it is told from `event_read`, and keeps what that raised."""

    __slots__ = ("call", "raised")

    def event_read(self):
        self.read(100)
        try:
            self.call(self)
        except BaseException as error:
            self.raised = error


ended_tasks = []


WAITS = {
    "sleep": lambda sock: d.sleep(1),
    "join": lambda sock: ended_tasks[0].join(),
    "read_exactly": lambda sock: sock.read_exactly(1),
    "read_line": lambda sock: sock.read_line(),
    "read_until": lambda sock: sock.read_until(b";"),
    "read_some": lambda sock: sock.read_some(),
    "read_to_end": lambda sock: sock.read_to_end(),
    "write_all": lambda sock: sock.write_all(b"x"),
    "drain": lambda sock: sock.drain(),
    "connect": lambda sock: d.connect(("127.0.0.1", 1)),
}


@pytest.mark.parametrize("call", WAITS)
def test_a_parking_call_in_a_callback_names_callback_call_and_cure(loop, pair, call):
    ended = d.spawn(int)
    ended.join()
    ended_tasks[:] = [ended]
    sock, far = pair(Reader)
    sock.call, sock.raised = WAITS[call], None
    sock.watch_read(True)
    far.send(b"input")
    d.sleep(1)
    assert isinstance(sock.raised, d.CannotParkError)
    message = str(sock.raised)
    assert call in message
    assert "Reader.event_read" in message
    assert "spawn(" in message
    ended_tasks.clear()


def test_a_parking_call_that_need_not_wait_raises_in_a_callback_too(loop, pair):
    sock, _ = pair(Reader)
    sock.call, sock.raised = lambda sock: sock.read_exactly(0), None
    sock.push_back_read(b"buffered")
    sock.watch_read(True)
    d.sleep(1)
    assert isinstance(sock.raised, d.CannotParkError)


def test_a_parking_call_in_a_timer_names_the_timers_callback(loop, take_errors):
    def my_timer_callback():
        d.sleep(1)

    loop.add_timer(1, my_timer_callback)
    d.sleep(2)
    (context,) = take_errors()
    assert isinstance(context.exception, d.CannotParkError)
    assert "my_timer_callback" in str(context.exception)


def test_a_parking_call_in_a_call_soon_or_post_loop_callback_raises(loop, take_errors):
    def my_soon_callback():
        d.sleep(1)

    def my_post_loop_callback(handlers, other_fds):
        loop.post_loop_callback = None
        d.sleep(1)

    loop.call_soon(my_soon_callback)
    loop.post_loop_callback = my_post_loop_callback
    d.sleep(2)
    errors = take_errors()
    assert [type(context.exception) for context in errors] == [d.CannotParkError] * 2
    assert "my_soon_callback" in str(errors[0].exception)
    assert "my_post_loop_callback" in str(errors[1].exception)


def test_a_callback_may_spawn_what_waits(loop, pair):
    sock, far = pair(Reader)
    got = []
    sock.call = lambda sock: d.spawn(lambda: got.append((d.sleep(1), loop.clock())[1]))
    sock.watch_read(True)
    far.send(b"input")
    d.sleep(5)
    assert len(got) == 1
    assert 1001 <= got[0] < 1002


# -- a task that swallows its interruption


def swallowing(seen, stop, most=100_000):
    """Wait again and again, and let no interruption out; `seen` gets the number of waits."""
    for number in range(most):
        try:
            d.sleep(1)
        except BaseException:
            seen[:] = [number]
        if stop:
            return


def test_a_task_that_swallows_its_cancellation_lets_the_others_run(loop, caplog):
    seen, stop = [], []

    def main():
        task = d.spawn(swallowing, seen, stop)
        d.sleep(0)
        task.cancel("enough")
        d.spawn(stop.append, "others have run")
        task.join()

    d.run(main)
    assert 0 < seen[0] < 99_999


def test_a_poll_without_a_wait_lets_the_others_run(loop):
    ran = []

    def poll():
        queue = d.Queue()
        d.spawn(ran.append, "others")
        for _ in range(100_000):
            with d.move_on_after(0):
                queue.get()
            if ran:
                return True
        return False

    assert d.run(poll)


def test_a_task_that_swallows_its_cancellation_is_named_once(loop, caplog):
    seen = []

    def main():
        task = d.spawn(swallowing, seen, [], 5000)
        d.sleep(0)
        task.cancel("enough")
        task.join()

    d.run(main)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "task 'swallowing' goes on, though each wait in it is interrupted (enough), 1000 times by now:" in line
    assert "test_parking.py:" in line


def test_many_tasks_of_one_cancellation_are_not_taken_for_one_that_goes_on(loop, caplog):
    def clean_up():
        try:
            d.sleep(1)
        finally:
            for _ in range(4):
                with contextlib.suppress(d.Cancelled):
                    d.sleep(1)

    def main():
        with d.TaskGroup() as group:
            for _ in range(500):
                group.spawn(clean_up)
            d.sleep(0.5)
            group.cancel()

    d.run(main)
    assert caplog.records == []
