"""Instruments: what they are told, in which order, and what happens when one raises, parks, or goes in between."""

import contextvars
import os
import socket

import pytest

import dangagreen as d
from dangagreen.green.told_tasks import ToldTasks
from dangagreen.loop import instruments
from dangagreen.loop.loop import Loop
from dangagreen.loop.pollers import READ
from tests.connections import Echo, echo_lines
from tests.helpers import exit_code_of, fork

var = contextvars.ContextVar("var", default="nothing")


class Everything(d.Instrument):
    """Notes all that it is told, as tuples; of turns nothing."""

    def __init__(self):
        self.told = []

    def callback_began(self, subject, event):
        self.told.append(("callback began", subject, event))

    def callback_ended(self, subject, event):
        self.told.append(("callback ended", subject, event))

    def run_began(self, task):
        self.told.append(("run began", task))

    def run_ended(self, task):
        self.told.append(("run ended", task))

    def task_spawned(self, task):
        self.told.append(("spawned", task))

    def task_ended(self, task):
        self.told.append(("ended", task))

    def connection_accepted(self, sock, listener):
        self.told.append(("accepted", sock, listener))

    def connection_closed(self, sock):
        self.told.append(("closed", sock))

    def of(self, subject):
        """What it was told of this subject, and which event."""
        return [(one[0], *one[2:]) for one in self.told if one[1] is subject]


class Callbacks(d.Instrument):
    """Writes down the beginning and the end of each callback, under a name of its own."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def callback_began(self, subject, event):
        self.log.append(f"{self.name} began")

    def callback_ended(self, subject, event):
        self.log.append(f"{self.name} ended")


@pytest.fixture
def everything(active_loop):
    instrument = Everything()
    active_loop.add_instrument(instrument)
    return instrument


# -- what is told


def test_hooks_of_a_socket_are_told(real_loop, everything, unix_pair, run_turns):
    class Hooks(Echo):
        __slots__ = ()

        def event_write(self):
            self.watch_write(False)

    sock, peer = unix_pair()
    one = Hooks(sock)
    one.watch_read(True)
    one.watch_write(True)
    peer.send(b"x")
    run_turns(2)
    one.push_back_read(b"y")
    run_turns(1)
    assert everything.of(one) == [
        ("callback began", "read"),
        ("callback ended", "read"),
        ("callback began", "write"),
        ("callback ended", "write"),
        ("callback began", "read"),
        ("callback ended", "read"),
    ]
    peer.close()
    run_turns(3)
    assert one.closed
    assert ("closed",) in everything.of(one)


def test_errors_and_hangups_are_told(loop, everything, wires, run_turns):
    sock, peer = wires()
    one = d.Socket(sock)
    peer.reset()
    run_turns(3)
    assert everything.of(one)[:2] == [("callback began", "err"), ("closed",)]
    assert everything.of(one)[2:] == [("callback ended", "err")]


def test_timers_and_calls_are_told_with_their_function(loop, everything, advance):
    def timed():
        log.append("timer")

    def soon(number):
        log.append(number)

    log = []
    loop.add_timer(1, timed)
    loop.call_soon(soon, 7)
    loop.call_soon_threadsafe(soon, 8)
    advance(2)
    assert log == [7, 8, "timer"]
    assert everything.of(timed) == [("callback began", "timer"), ("callback ended", "timer")]
    assert everything.of(soon) == [("callback began", "call_soon"), ("callback ended", "call_soon")] * 2


def test_a_cancelled_timer_is_not_told(loop, everything, advance):
    loop.add_timer(1, print).cancel()
    advance(2)
    assert everything.of(print) == []


def test_fds_and_post_loop_callbacks_are_told(real_loop, everything, run_turns):
    reader, writer = os.pipe()

    def readable(mask):
        masks.append(mask)
        os.read(reader, 10)

    def after(_descriptors, _others):
        return True

    masks = []
    real_loop.add_other_fds({reader: readable})
    d.Socket.set_post_loop_callback(after)
    os.write(writer, b"x")
    run_turns(1)
    real_loop.remove_other_fd(reader)
    os.close(reader)
    os.close(writer)
    assert masks == [READ]
    assert everything.of(readable) == [("callback began", "fd"), ("callback ended", "fd")]
    assert everything.of(after) == [("callback began", "post_loop"), ("callback ended", "post_loop")]


def test_a_task_is_told_from_its_spawn_to_its_end(loop, everything):
    def work():
        d.sleep(1)
        return 5

    task = d.spawn(work)
    assert everything.of(task) == [("spawned",)]
    loop.run(lambda: task.done)
    runs = [("run began",), ("run ended",)]
    assert everything.of(task) == [("spawned",), *runs, ("run began",), ("ended",), ("run ended",)]
    assert task.result() == 5


def test_each_way_of_resuming_a_task_is_a_run(loop, everything):
    def work():
        d.sleep(0)  # by the queue of calls
        d.sleep(1)  # by a timer
        event.wait()  # by another task
        try:
            d.sleep(100)
        except d.Cancelled:  # with an error
            pass

    event = d.Event()
    task = d.spawn(work)

    def others():
        d.sleep(2)
        event.set()
        d.sleep(1)
        task.cancel()

    d.spawn(others)
    loop.run(lambda: task.done)
    assert [what for what, *_ in everything.of(task)].count("run began") == 5
    assert [what for what, *_ in everything.of(task)].count("run ended") == 5


def test_a_parked_reader_is_a_run_and_no_callback(loop, everything, pair):
    sock, peer = pair()
    task = d.spawn(sock.read_line)

    def send():
        peer.send(b"hello\n")

    loop.add_timer(1, send)
    loop.run(lambda: task.done)
    assert task.result() == b"hello\n"
    assert everything.of(sock) == []
    assert [what for what, *_ in everything.of(task)].count("run began") == 2


def test_runs_and_callbacks_nest(real_loop, everything):
    """The handler of a request is started by `event_read`: its first run lies within that callback."""

    def handler(sock):
        sock.write_all(sock.read_line())

    def main():
        listener = d.serve_requests(("127.0.0.1", 0), handler)
        with d.connect(listener.address) as sock:
            sock.write_all(b"x\n")
            assert sock.read_line() == b"x\n"

    d.run(main)
    tasks = [one[1] for one in everything.told if one[0] == "spawned" and one[1].name.endswith("handler")]
    assert len(tasks) == 1
    served = tasks[0].sock
    words = [one[0] for one in everything.told if one[1] in (served, tasks[0])]
    assert words[:7] == [
        "accepted",
        "callback began",
        "spawned",
        "run began",
        "ended",
        "run ended",
        "callback ended",
    ]


def test_a_connection_is_told_by_its_server_and_at_its_end(real_loop, everything):
    accepted = []

    def main():
        listener = d.serve(("127.0.0.1", 0), echo_lines)
        accepted.append(listener)
        with d.connect(listener.address) as sock:
            accepted.append(sock)
            sock.write_all(b"x\n")
            sock.read_line()

    d.run(main)
    listener, client = accepted
    told = [one for one in everything.told if one[0] == "accepted"]
    assert [one[2] for one in told] == [listener]
    assert everything.of(told[0][1])[-1] == ("closed",)
    assert everything.of(client) == [("closed",)]
    accept = everything.of(listener)
    assert accept[0] == ("callback began", "accept")
    assert len([one for one in everything.told if one[0] == "closed"]) == 2  # the listener is no connection


def test_turns_are_told_with_how_long_they_waited(loop, advance):
    class Turns(d.Instrument):
        def turn_began(self, waited, events):
            log.append(("began", waited, events))

        def turn_ended(self):
            log.append("ended")

    log = []
    loop.add_instrument(Turns())
    loop.add_timer(3, lambda: log.append("timer"))
    advance(5)
    assert log == [("began", 3.0, 0), "timer", "ended", ("began", 2.0, 0), "ended"]


def test_a_turn_that_an_error_leaves_is_told_to_its_end(loop):
    class Turns(d.Instrument):
        def turn_began(self, waited, events):
            log.append("began")

        def turn_ended(self):
            log.append("ended")

    def interrupt():
        raise KeyboardInterrupt

    log = []
    loop.add_instrument(Turns())
    loop.call_soon(interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert log == ["began", "ended"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_the_end_of_what_raises_is_told(loop, everything, error, take_errors):
    def fails():
        raise error

    loop.call_soon(fails)
    try:
        loop.run(lambda: bool(everything.told))
    except KeyboardInterrupt:
        pass
    assert everything.of(fails) == [("callback began", "call_soon"), ("callback ended", "call_soon")]
    assert [type(one.exception) for one in take_errors()] == ([error] if error is ZeroDivisionError else [])


# -- context variables


def test_callbacks_are_told_of_in_their_own_context(loop, advance, pair, run_turns):
    class Contexts(d.Instrument):
        def callback_began(self, subject, event):
            log.append((event, var.get()))

    log = []
    loop.add_instrument(Contexts())
    for value in ("timer", "call_soon"):
        var.set(value)
        loop.add_timer(1, lambda: None) if value == "timer" else loop.call_soon(lambda: None)
    var.set("read")
    sock, peer = pair(Echo)
    sock.watch_read(True)
    var.set("nothing")
    peer.send(b"x")
    run_turns(1)
    loop.run(lambda: len(log) >= 3)
    assert sorted(log) == [("call_soon", "call_soon"), ("read", "read"), ("timer", "timer")]


def test_what_a_hook_sets_the_callback_sees(loop, run_turns):
    class Sets(d.Instrument):
        def callback_began(self, subject, event):
            var.set("of the instrument")

    seen = []
    loop.add_instrument(Sets())
    loop.call_soon(lambda: seen.append(var.get()))
    run_turns(1)
    assert seen == ["of the instrument"]
    assert var.get() == "nothing"


# -- several, and their coming and going


def test_several_nest_in_the_order_of_their_adding(loop, run_turns):
    log = []
    for name in ("one", "two"):
        loop.add_instrument(Callbacks(name, log))
    loop.call_soon(lambda: log.append("call"))
    run_turns(1)
    assert log == ["one began", "two began", "call", "two ended", "one ended"]


def test_one_that_is_added_in_a_callback_is_told_from_the_next_one(loop, run_turns):
    log = []
    one, two = (Callbacks(name, log) for name in ("one", "two"))
    loop.add_instrument(one)
    loop.call_soon(loop.add_instrument, two)
    loop.call_soon(lambda: log.append("call"))
    run_turns(1)
    assert log == ["one began", "one ended", "one began", "two began", "call", "two ended", "one ended"]


def test_one_that_is_removed_in_a_callback_hears_no_more(loop, run_turns):
    log = []
    one, two = (Callbacks(name, log) for name in ("one", "two"))
    loop.add_instrument(one)
    loop.add_instrument(two)
    loop.call_soon(loop.remove_instrument, two)
    loop.call_soon(loop.remove_instrument, one)
    loop.call_soon(lambda: log.append("call"))
    run_turns(1)
    assert log == ["one began", "two began", "one ended", "one began", "call"]


def test_one_that_is_added_in_a_task_is_told_of_tasks_that_wait_already(loop):
    def sleeper():
        d.sleep(1)

    def yielder():
        d.sleep(0)

    def reader():
        event.wait()

    event = d.Event()
    everything = Everything()

    def adds():
        d.sleep(0.5)
        loop.add_instrument(everything)
        tasks.append(d.spawn(yielder))
        event.set()

    tasks = [d.spawn(function) for function in (sleeper, yielder, reader, adds)]
    loop.run(lambda: all(task.done for task in tasks))
    words = {task.name.rpartition(".")[2]: [what for what, *_ in everything.of(task)] for task in tasks[:4]}
    assert words == {
        "sleeper": ["run began", "ended", "run ended"],
        "yielder": [],  # it had ended by then
        "reader": ["run began", "ended", "run ended"],
        "adds": ["ended"],
    }


@pytest.mark.parametrize("wait", [0, 1])
def test_tasks_that_are_due_when_one_comes_or_goes_run_on(loop, wait):
    """Resumptions that are queued already are exchanged, on the way in and on the way out."""

    def work():
        for _ in range(4):
            d.sleep(wait)
        done.append(d.current_task())

    done = []
    tasks = [d.spawn(work) for _ in range(3)]
    everything = Everything()

    def changes():
        for change in (loop.add_instrument, loop.remove_instrument) * 2:
            change(everything)
            d.sleep(wait)

    tasks.append(d.spawn(changes))
    loop.run(lambda: all(task.done for task in tasks))
    assert set(done) == set(tasks[:3])
    told = [what for what, task in everything.told if task in tasks[:3]]  # the fourth takes it away in its own run
    began, ended = (told.count(word) for word in ("run began", "run ended"))
    assert began == ended > 0


def test_a_second_addition_and_the_removal_of_none_do_nothing(loop, run_turns):
    log = []
    one = Callbacks("one", log)
    loop.remove_instrument(one)
    loop.add_instrument(one)
    loop.add_instrument(one)
    loop.call_soon(lambda: None)
    run_turns(1)
    assert log == ["one began", "one ended"]


def test_what_is_no_instrument_is_refused(loop):
    with pytest.raises(TypeError, match=r"add_instrument needs an Instrument, not <class 'object'>|not object"):
        loop.add_instrument(object)


def test_other_threads_and_closed_loops_are_refused(loop, in_thread):
    with pytest.raises(d.ForeignThreadError, match="add_instrument was called in thread 'the other one'"):
        in_thread(loop.add_instrument, Everything())
    closed = Loop()
    closed.close()
    with pytest.raises(RuntimeError, match="closed"):
        closed.add_instrument(Everything())


# -- those that raise, or park


class Broken(Everything):
    """Raises at one of the hooks."""

    def __init__(self, hook, error):
        super().__init__()
        self.hook = hook
        self.error = error

    def raises(self, hook):
        if hook == self.hook:
            raise self.error

    def turn_began(self, waited, events):
        self.raises("turn_began")

    def turn_ended(self):
        self.raises("turn_ended")

    def callback_began(self, subject, event):
        self.raises("callback_began")

    def callback_ended(self, subject, event):
        self.raises("callback_ended")

    def run_began(self, task):
        self.raises("run_began")

    def run_ended(self, task):
        self.raises("run_ended")

    def task_spawned(self, task):
        self.raises("task_spawned")

    def task_ended(self, task):
        self.raises("task_ended")

    def connection_accepted(self, sock, listener):
        self.raises("connection_accepted")

    def connection_closed(self, sock):
        self.raises("connection_closed")


HOOKS = [hook for hooks in instruments.KINDS.values() for hook in hooks]


@pytest.mark.parametrize("hook", HOOKS)
def test_one_that_raises_is_removed_and_reported_and_hurts_nobody(hook, real_loop, take_errors):
    def main():
        listener = d.serve_requests(("127.0.0.1", 0), lambda sock: sock.write_all(sock.read_line()))
        with d.connect(listener.address) as sock:
            for _ in range(2):
                sock.write_all(b"hello\n")
                assert sock.read_line() == b"hello\n"
        return 7

    error = ZeroDivisionError("no")
    broken, sound = Broken(hook, error), Everything()
    real_loop.add_instrument(broken)
    real_loop.add_instrument(sound)
    assert d.run(main) == 7
    (error_context,) = take_errors()
    assert error_context.exception is error
    assert error_context.subject is broken
    assert error_context.message.startswith(f"{hook} of the instrument")
    words = [what for what, *_ in sound.told]
    assert words.count("run began") == words.count("run ended") > 0
    assert words.count("callback began") == words.count("callback ended") > 0


@pytest.mark.parametrize("hook", HOOKS)
def test_none_may_park(hook, real_loop, take_errors):
    class Parks(Broken):
        def raises(self, this):
            if this == self.hook:
                d.sleep(0)

    def main():
        listener = d.serve(("127.0.0.1", 0), echo_lines)
        with d.connect(listener.address) as sock:
            sock.write_all(b"hello\n")
            assert sock.read_line() == b"hello\n"

    def beginning():
        real_loop.add_instrument(Parks(hook, None))
        d.spawn(d.sleep, 0).join()
        main()

    d.run(beginning)
    (error_context,) = take_errors()
    assert isinstance(error_context.exception, d.CannotParkError)


def test_a_hook_may_close_what_there_are_events_of(real_loop, unix_pair, run_turns, take_errors):
    class Closes(d.Instrument):
        def turn_began(self, waited, events):
            if events and not closed:
                closed.append(one)
                one.close()
                again = socket.socketpair()  # the fd's number may be taken anew
                ends.extend(again)

    closed, ends = [], []
    sock, peer = unix_pair()
    one = Echo(sock)
    one.watch_read(True)
    peer.send(b"x")
    real_loop.add_instrument(Closes())
    run_turns(3)
    for end in ends:
        end.close()
    assert closed == [one]
    assert take_errors() == []


# -- what is unchanged beside one


@pytest.mark.parametrize("kind", ["call_soon", "timer"])
def test_errors_name_the_function_as_without(kind, loop, take_errors, everything, run_turns):
    def fails():
        raise ZeroDivisionError

    messages = []
    for instrument in (None, everything):
        loop.remove_instrument(everything)
        if instrument is not None:
            loop.add_instrument(instrument)
        loop.call_soon(fails) if kind == "call_soon" else loop.add_timer(0, fails)
        run_turns(2)
        messages.append([one.message for one in take_errors()])
    assert messages[0] == messages[1] != []


def test_slow_callbacks_and_tasks_are_named_as_without(loop, everything, advance):
    def blocks():
        loop.clock.jump(1)

    def task():
        d.sleep(1)
        loop.clock.jump(1)

    reports = []
    loop.slow_seconds, loop.on_slow = 0.5, reports.append
    for instrument in (None, everything):
        loop.remove_instrument(everything)
        if instrument is not None:
            loop.add_instrument(instrument)
        loop.call_soon(blocks)
        loop.add_timer(1, blocks)
        d.spawn(task)
        advance(10)
    words = [(report.what, report.place) for report in reports]
    assert words[: len(words) // 2] == words[len(words) // 2 :]
    assert len(words) == 6


def test_nothing_is_left_in_place_once_the_last_one_has_gone(loop, everything, run_turns):
    task = d.spawn(d.sleep, 10)
    run_turns(1)
    loop.remove_instrument(everything)
    assert loop.instruments is None
    assert loop.direct == READ
    assert type(loop.green.tasks) is not ToldTasks
    assert task.resume == task.worker.switch
    task.cancel()
    run_turns(2)


def test_each_kind_costs_by_itself(loop, run_turns):
    class Turns(d.Instrument):
        def turn_ended(self):
            pass

    loop.add_instrument(Turns())
    d.spawn(d.sleep, 0)
    run_turns(2)
    assert loop.direct == READ
    assert type(loop.green.tasks) is not ToldTasks
    assert not loop.green.tells_of_runs


def test_reset_keeps_them_and_close_drops_them(take_errors, loop):
    own = Loop()
    with own:
        everything = Everything()
        own.add_instrument(everything)
        task = d.spawn(d.sleep, 10)
        own.run(lambda: task.waits_for is not None)
        own.reset()
        assert everything.of(task)[-1] == ("ended",)
        assert own.instruments is not None
    assert own.instruments is None


def test_a_forked_child_goes_on_telling(real_loop):
    """Of the parent's other tasks, that they have ended there."""

    def main():
        other = d.spawn(d.sleep, 100)
        d.sleep(0)
        everything = Everything()
        real_loop.add_instrument(everything)
        pid = fork()
        if pid == 0:
            d.sleep(0.01)
            me = d.current_task()
            words = [what for what, *_ in everything.of(me)]
            os._exit(0 if ("ended",) in everything.of(other) and words == ["run ended", "run began"][1:] else 1)
        other.cancel()
        real_loop.remove_instrument(everything)
        return pid

    assert exit_code_of(d.run(main)) == 0
