import logging
import os
import socket
import struct
import threading

import pytest

from dangagreen import Loop, Socket, serve
from dangagreen.loop.error_log import ErrorLog
from dangagreen.loop.loop import here


class Collector(Socket):
    """Reads what there is, and notes every call of a hook."""

    __slots__ = ("calls", "data", "others")

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.calls = []
        self.data = b""
        self.others = []

    def event_read(self):
        self.calls.append("read")
        data = self.read(65536)
        if data is None:
            self.close("the end")
        else:
            self.data += data


# -- one batch of events


class Killer(Collector):
    """Closes its others when it has something to read, and opens new OS sockets at once."""

    __slots__ = ("numbers", "opened")

    def event_read(self):
        super().event_read()
        self.numbers = {other.fd for other in self.others}
        for other in self.others:
            other.close("killed")
        self.opened = [socket.socket() for _ in range(10)]


def close_opened(killer):
    for opened in killer.opened:
        opened.close()


def test_a_socket_closed_in_the_same_batch_gets_no_event_and_its_number_is_not_reused(real_loop, real_pair, run_turns):
    killers = []
    for _ in range(2):
        sock, peer = real_pair()
        killers.append(Killer(sock))
        peer.send(b"x")
    for one, other in (killers, killers[::-1]):
        one.others = [other]
        one.watch_read(True)
    run_turns(1)
    (killer,) = [killer for killer in killers if killer.calls]
    assert [sorted(killer.calls) for killer in killers].count([]) == 1
    assert killer.numbers.isdisjoint(opened.fileno() for opened in killer.opened)
    close_opened(killer)
    assert killer.others[0].fd not in real_loop.handlers


def test_a_new_socket_on_the_number_of_a_stolen_one_gets_no_stale_event(real_loop, unix_pair, run_turns, peers):
    class Thief(Collector):
        __slots__ = ("heir",)

        def event_read(self):
            super().event_read()
            (victim,) = self.others
            number = victim.fd
            stolen, _ = victim.steal_socket()
            stolen.close()
            quiet, peer = socket.socketpair()
            new = socket.socket(fileno=os.dup2(quiet.detach(), number))
            peers.extend((new, peer))
            assert new.fileno() == number
            self.heir = Collector(new)
            self.heir.watch_read(True)

    thieves = []
    for _ in range(2):
        sock, peer = unix_pair()
        thieves.append(Thief(sock))
        peer.send(b"x")
    for one, other in (thieves, thieves[::-1]):
        one.others = [other]
        one.watch_read(True)
    run_turns(3)
    (thief,) = [thief for thief in thieves if thief.calls]
    assert thief.heir.calls == []
    assert not thief.heir.closed


def test_every_ready_socket_of_a_batch_is_served_in_one_turn(real_loop, real_pair, run_turns):
    collectors = []
    for number in range(20):
        sock, peer = real_pair()
        collectors.append(Collector(sock))
        collectors[-1].watch_read(True)
        peer.send(b"%d" % number)
    run_turns(1)
    assert [collector.data for collector in collectors] == [b"%d" % number for number in range(20)]


# -- a callback that raises


class Failing(Collector):
    __slots__ = ()

    def event_read(self):
        raise ZeroDivisionError("in event_read")


def test_a_callback_that_raises_is_reported_once_with_traceback_and_costs_its_own_socket_only(
    real_loop, real_pair, run_turns, take_errors
):
    (bad_sock, bad_peer), (good_sock, good_peer) = real_pair(), real_pair()
    bad, good = Failing(bad_sock), Collector(good_sock)
    for sock in (bad, good):
        sock.watch_read(True)
    bad_peer.send(b"x")
    good_peer.send(b"y")
    run_turns(3)
    (context,) = take_errors()
    assert isinstance(context.exception, ZeroDivisionError)
    assert context.exception.__traceback__ is not None
    assert context.subject is bad
    assert "Failing" in context.message
    assert bad.closed
    assert repr(bad.close_reason) == repr(context.exception)
    assert bad.close_reason.__traceback__ is None  # which would hold the socket
    assert good.data == b"y"
    good_peer.send(b"z")
    run_turns(1)
    assert good.data == b"yz"
    assert not good.closed


def test_what_a_callback_raised_is_logged_with_traceback_by_default(loop, wires, run_turns, caplog):
    fresh = Loop()
    assert isinstance(fresh.on_error, ErrorLog)
    fresh.close()
    sock, peer = wires()
    Failing(sock).watch_read(True)
    peer.send(b"x")
    check, loop.on_error = loop.on_error, ErrorLog(loop.clock)
    here.loop = loop
    run_turns(2)
    loop.on_error = check
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("dangagreen", logging.ERROR)
    assert record.exc_info[0] is ZeroDivisionError
    assert "in event_read" in caplog.text
    assert "Traceback" in caplog.text


def test_an_on_error_that_raises_does_not_end_the_loop_and_nothing_is_lost(wires, run_turns, loop, caplog):
    def broken(context):
        raise KeyError("on_error itself")

    sock, peer = wires()
    bad = Failing(sock)
    bad.watch_read(True)
    peer.send(b"x")
    check, loop.on_error = loop.on_error, broken
    run_turns(2)
    loop.on_error = check
    assert bad.closed
    assert "ZeroDivisionError" in caplog.text
    assert "KeyError" in caplog.text


def test_a_close_override_that_raises_is_reported_too_and_the_socket_still_goes(wires, run_turns, loop, take_errors):
    class Stubborn(Failing):
        __slots__ = ()

        def close(self, reason=None):
            raise LookupError("no closing time")

    sock, peer = wires()
    stubborn = Stubborn(sock)
    stubborn.watch_read(True)
    peer.send(b"x")
    run_turns(2)
    assert [type(context.exception) for context in take_errors()] == [ZeroDivisionError, LookupError]
    assert stubborn.closed
    assert sock.closed


@pytest.mark.parametrize("hook", ["event_write", "event_hup", "event_err"])
def test_every_hook_that_raises_is_reported_once_and_closes(hook, loop, wires, run_turns, take_errors):
    def raising(self):
        raise ZeroDivisionError(hook)

    failing = type("Failing", (Collector,), {"__slots__": (), hook: raising})
    sock, peer = wires()
    one = failing(sock)
    if hook == "event_write":
        one.watch_write(True)
    elif hook == "event_hup":
        peer.hang_up()
    else:
        peer.reset()
    run_turns(3)
    (context,) = take_errors()
    assert str(context.exception) == hook
    assert repr(one.close_reason) == repr(context.exception)


def test_a_queued_callable_that_raises_is_reported_once_and_closes(loop, wires, run_turns, take_errors):
    sock, peer = wires(10)
    one = Collector(sock)

    def raising():
        raise ZeroDivisionError

    one.write(b"x" * 15)
    one.write(raising)
    one.write(b"never")
    run_turns(1)
    assert peer.recv(10) == b"x" * 10
    run_turns(2)
    (context,) = take_errors()
    assert context.subject is one
    assert one.closed
    assert peer.recv(100) == b"x" * 5


def test_a_timer_and_a_call_soon_that_raise_are_reported_and_the_others_run(loop, advance, take_errors):
    ran = []

    def raising():
        raise ZeroDivisionError

    loop.add_timer(1, raising)
    loop.add_timer(1, lambda: ran.append("timer"))
    loop.call_soon(raising)
    loop.call_soon(ran.append, "call_soon")
    advance(2)
    assert ran == ["call_soon", "timer"]
    assert [type(context.exception) for context in take_errors()] == [ZeroDivisionError] * 2


def test_event_read_not_overridden_raises_and_names_the_class(loop, wires, run_turns, take_errors):
    class Forgetful(Socket):
        __slots__ = ()

    sock, peer = wires()
    Forgetful(sock).watch_read(True)
    peer.send(b"x")
    run_turns(2)
    (context,) = take_errors()
    assert isinstance(context.exception, NotImplementedError)
    assert "Forgetful" in str(context.exception)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["event_read", "event_write", "timer", "call_soon", "post_loop", "pushed_back"])
def test_keyboard_interrupt_and_system_exit_leave_run_and_the_loop_can_run_again(error, where, loop, wires, run_turns):
    raised = []

    def raising(*_):
        if not raised:
            raised.append(where)
            raise error
        return True

    class Interrupted(Collector):
        __slots__ = ()

        def event_read(self):
            raising()
            super().event_read()

        def event_write(self):
            raising()
            super().event_write()

    sock, peer = wires()
    one = Interrupted(sock)
    peer.send(b"hello")
    if where in ("event_read", "pushed_back"):
        one.watch_read(True)
        if where == "pushed_back":
            one.read(100)
            one.push_back_read(b"hello")
    elif where == "event_write":
        one.watch_write(True)
    elif where == "timer":
        loop.add_timer(0, raising)
    elif where == "call_soon":
        loop.call_soon(raising)
    else:
        loop.post_loop_callback = raising
    with pytest.raises(error):
        run_turns(3)
    assert raised == [where]
    assert not one.closed
    assert not loop.running
    one.watch_read(True) if where != "pushed_back" else None
    run_turns(3)
    assert one.data == b"hello"


def test_a_keyboard_interrupt_in_one_pushed_back_read_leaves_the_others_pushed_back(loop, wires, run_turns):
    raised = []

    class Interrupted(Collector):
        __slots__ = ()

        def event_read(self):
            if not raised:
                raised.append(self)
                raise KeyboardInterrupt
            super().event_read()

    ones = [Interrupted(wires()[0]) for _ in range(3)]
    for one in ones:
        one.watch_read(True)
        one.push_back_read(b"x")
    with pytest.raises(KeyboardInterrupt):
        run_turns(1)
    run_turns(2)
    assert [one.data for one in ones] == [b"x"] * 3


# -- the turn


def test_a_keyboard_interrupt_in_on_error_leaves_no_failed_connection_open(loop, wires, run_turns):
    class Bad(Socket):
        __slots__ = ()

        def event_read(self):
            raise ValueError

    def on_error(_context):
        raise KeyboardInterrupt

    near, far = wires()
    bad = Bad(near)
    bad.watch_read(True)
    far.send(b"x")
    usual, loop.on_error = loop.on_error, on_error
    with pytest.raises(KeyboardInterrupt):
        run_turns(1)
    loop.on_error = usual
    assert bad.closed
    run_turns(1)
    assert loop.descriptor_map() == {}


def test_a_keyboard_interrupt_in_the_making_of_a_connection_leaves_no_half_made_one(real_loop, run_until):
    class Slow(Socket):
        __slots__ = ()

        def __init__(self, sock):
            super().__init__(sock)
            made.append(self)
            raise KeyboardInterrupt

    made = []
    listener = serve(("127.0.0.1", 0), Slow)
    with socket.create_connection(listener.address) as client:
        with pytest.raises(KeyboardInterrupt):
            run_until(lambda: False)
        assert made[0].closed
        client.settimeout(5)
        assert client.recv(1) == b""
    assert list(real_loop.descriptor_map().values()) == [listener]
    listener.close()


def test_a_keyboard_interrupt_at_the_high_water_mark_leaves_what_was_written_to_be_sent(loop, wires, run_turns):
    class Full(Socket):
        __slots__ = ()
        high_water = low_water = 10

        def on_high_water(self):
            raise KeyboardInterrupt

    near, far = wires()
    full = Full(near)
    full.set_writer_func(near.send)
    with pytest.raises(KeyboardInterrupt):
        full.write(b"x" * 20)
    run_turns(1)
    assert far.recv(100) == b"x" * 20
    assert full.unsent == 0
    full.close()


def test_the_order_of_a_turn(loop, wires, run_turns):
    trace = []

    class Tracer(Collector):
        __slots__ = ("name",)

        def event_read(self):
            trace.append(self.name)
            super().event_read()

    (sock, peer), (pushed_sock, _), (soon_sock, soon_peer), (closing_sock, _) = (wires() for _ in range(4))
    reader, pushed, soon, closing = (Tracer(end) for end in (sock, pushed_sock, soon_sock, closing_sock))
    reader.name, pushed.name = "dispatch", "pushed back"
    reader.watch_read(True)
    pushed.watch_read(True)
    peer.send(b"x")
    pushed.push_back_read(b"y")
    loop.add_timer(0, lambda: trace.append("timer"))
    loop.call_soon(lambda: trace.append("call_soon"))
    soon.set_writer_func(lambda data: trace.append("flush") or soon_sock.send(data))
    soon.write_soon(b"z")
    really_close = closing_sock.close
    closing_sock.close = lambda: trace.append("real close") or really_close()
    loop.call_soon(closing.close)
    loop.post_loop_callback = lambda *_: trace.append("post-loop") or True
    run_turns(1)
    assert trace == ["dispatch", "timer", "call_soon", "pushed back", "flush", "real close", "post-loop"]
    assert soon_peer.recv(10) == b"z"


def test_run_ends_with_the_turn_in_which_stop_was_called_and_can_start_again(loop):
    ran = []
    loop.call_soon(loop.stop)
    loop.call_soon(ran.append, "same turn")
    loop.run()
    assert ran == ["same turn"]
    loop.call_soon(ran.append, "second run")
    loop.call_soon(loop.stop)
    loop.run()
    assert ran == ["same turn", "second run"]


def test_run_within_run_raises(loop):
    errors = []

    def nested():
        try:
            loop.run()
        except RuntimeError as error:
            errors.append(str(error))
        loop.stop()

    loop.call_soon(nested)
    loop.run()
    assert "running already" in errors[0]


def test_a_loop_with_nothing_to_do_but_a_timer_turns_once(loop, advance):
    waits = loop.poller.waits
    advance(3600)
    assert loop.poller.waits - waits <= 2


def test_a_socket_closed_by_a_post_loop_callback_is_really_closed_without_waiting_for_an_event(loop, wires, advance):
    sock, _ = wires()
    one = Collector(sock)
    closed_at = []
    really_close = sock.close
    sock.close = lambda: closed_at.append(loop.time()) or really_close()
    start = loop.time()
    loop.post_loop_callback = lambda *_: one.close() or True
    advance(100)
    assert closed_at == [start]


def test_a_socket_made_before_the_loop_runs_learns_of_a_hang_up_though_it_watches_nothing(loop, wires, advance):
    sock, peer = wires()
    one = Collector(sock)
    peer.hang_up()
    hung_up_at = []
    loop.add_timer(50, lambda: hung_up_at.append(one.closed))
    advance(100)
    assert hung_up_at == [True]
    assert one.close_reason == "the peer hung up"


# -- fork


def test_a_fork_gives_the_child_a_fresh_poller_and_leaves_the_parents_registrations(real_loop, tcp_pair, run_until):
    sock, peer = tcp_pair()
    one = Collector(sock)
    one.watch_read(True)
    child = os.fork()
    if child == 0:  # what fails here must not come out as a test of its own
        code = 1
        try:
            turns = iter(range(50))
            one.loop.loop_timeout = 0.02
            peer.send(b"from the child")
            one.loop.run(lambda: bool(one.data) or next(turns, None) is None)
            code = 0 if one.data == b"from the child" else 2
            one.close()
            one.loop.reset()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    peer.send(b"for the parent")
    run_until(lambda: one.data, turns=100)
    assert one.data == b"for the parent"
    assert not one.closed


# -- reset


def test_reset_closes_everything_and_the_loop_starts_again(real_loop, real_pair, run_until, peers):
    fired = []
    old_sock, _ = real_pair()
    old = Collector(old_sock)
    old.watch_read(True)
    timer = real_loop.add_timer(0, lambda: fired.append("timer"))
    real_loop.call_soon(fired.append, "call_soon")
    Socket.set_post_loop_callback(lambda *_: fired.append("post-loop"))
    Socket.set_loop_timeout(0)
    Socket.reset()
    assert old.closed
    assert old_sock.fileno() == -1
    assert not timer.active
    assert Socket.watched_sockets() == 0
    assert real_loop.loop_timeout is None
    sock, peer = real_pair()
    new = Collector(sock)
    new.watch_read(True)
    peer.send(b"again")
    run_until(lambda: new.data, turns=10)
    assert new.data == b"again"
    assert fired == []
    threading.Thread(target=real_loop.call_soon_threadsafe, args=(fired.append, "from a thread")).start()
    run_until(lambda: fired, turns=10)
    new.close()
    real_loop.reset()


def test_reset_of_a_running_loop_raises(loop, run_turns, take_errors):
    loop.call_soon(Socket.reset)
    run_turns(1)
    (context,) = take_errors()
    assert isinstance(context.exception, RuntimeError)


def test_a_reset_by_linger_is_no_news_to_other_sockets(real_loop, tcp_pair, run_turns):
    (sock, peer), (other_sock, other_peer) = tcp_pair(), tcp_pair()
    one, other = Collector(sock), Collector(other_sock)
    one.watch_read(True)
    other.watch_read(True)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    other_peer.send(b"fine")
    run_turns(3)
    assert one.closed
    assert other.data == b"fine"
