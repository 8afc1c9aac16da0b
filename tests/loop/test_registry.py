"""Who is in a loop: numbers of descriptors that come back, what a callback that raises costs, fds without an object."""

from __future__ import annotations

import errno
import gc
import logging
import os
import socket
import weakref

import pytest

from dangagreen import Loop, Socket
from dangagreen.loop.error_log import ErrorLog
from dangagreen.loop.loop import here
from tests.connections import Collector, Reader

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


# -- the map


def test_registering_a_number_twice_raises_and_names_the_owner(loop, tcp_pair):
    sock, _ = tcp_pair()
    Reader(sock)
    with pytest.raises(ValueError, match="Reader"):
        Reader(sock)


def test_the_descriptor_map_is_a_copy_and_counts_what_is_registered(loop, wires):
    ones = [Reader(wires()[0]) for _ in range(3)]
    assert Socket.watched_sockets() == 3
    Socket.descriptor_map().clear()
    assert Socket.descriptor_map() == {one.fd: one for one in ones}
    ones[1].close()
    assert Socket.descriptor_map() == {one.fd: one for one in ones[::2]}
    assert Socket.watched_sockets() == 2


def test_the_loops_own_descriptors_are_not_in_the_map(real_loop, run_turns):
    run_turns(1)
    assert Socket.watched_sockets() == 0
    assert Socket.descriptor_map() == {}
    assert Socket.other_fds() == {}


# -- fds without an object


@pytest.mark.parametrize("end", ["replaced", "raised", "reset"])
def test_the_callable_of_an_fd_that_is_not_watched_any_more_is_let_go_of(real_loop, run_turns, take_errors, end):
    class Told:
        def __call__(self, _mask):
            raise KeyError("told")

    one, other = os.pipe()
    told = Told()
    held = weakref.ref(told)
    Socket.add_other_fds({one: told})
    del told
    if end == "replaced":
        Socket.other_fds({})
    elif end == "raised":
        os.write(other, b"x")
        run_turns(2)
        assert len(take_errors()) == 1
    else:
        real_loop.reset()
    gc.disable()
    try:
        assert held() is None
    finally:
        gc.enable()
    assert Socket.other_fds() == {}
    os.close(one)
    os.close(other)


def test_one_fd_is_taken_out_and_the_others_stay(real_loop, unix_pair, run_turns):
    seen = []
    (one, one_far), (two, two_far) = unix_pair(), unix_pair()
    Socket.add_other_fds({one.fileno(): lambda _: seen.append("one"), two.fileno(): lambda _: seen.append("two")})
    one_far.send(b"x")
    two_far.send(b"x")
    Socket.remove_other_fd(one.fileno())
    Socket.remove_other_fd(one.fileno())
    Socket.remove_other_fd(99999)
    run_turns(1)
    assert seen == ["two"]
    assert list(Socket.other_fds()) == [two.fileno()]
    real_loop.remove_other_fd(two.fileno())
    run_turns(1)
    assert seen == ["two"]


def test_a_number_that_comes_back_after_it_was_closed_behind_our_back_is_watched_anew(real_loop, unix_pair, run_turns):
    seen = []
    (one, _one_far), (two, two_far) = unix_pair(), unix_pair()
    number = one.fileno()
    Socket.add_other_fds({number: lambda _: seen.append("one")})
    one.close()
    os.dup2(two.fileno(), number)
    try:
        Socket.add_other_fds({number: lambda _: seen.append("two")})
        two_far.send(b"x")
        run_turns(1)
        assert seen == ["two"]
        Socket.remove_other_fd(number)
    finally:
        os.close(number)


def test_one_that_was_closed_before_it_was_taken_out_is_forgotten(real_loop, unix_pair, run_turns):
    one, _far = unix_pair()
    Socket.add_other_fds({one.fileno(): print})
    number = one.fileno()
    one.close()
    Socket.remove_other_fd(number)
    assert Socket.other_fds() == {}
    run_turns(1)


def test_an_os_socket_that_is_given_up_may_refuse_to_close_which_is_reported(loop):
    class Refusing:
        def fileno(self):
            return 1_000_000

        def close(self):
            raise OSError(errno.EIO, "close")

    reported = []
    loop.on_error = reported.append
    loop.abandon(Refusing(), ConnectionRefusedError())
    assert [context.exception.errno for context in reported] == [errno.EIO]
