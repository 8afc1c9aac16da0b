"""A descriptor: registration, interest, close."""

import socket

import pytest

from dangagreen import Socket
from dangagreen.sockets.descriptor import Descriptor
from tests.connections import Reader, Recording
from tests.inside import incoming

# -- registration


def test_a_new_socket_is_registered_non_blocking_and_watches_nothing(real_loop, tcp_pair, run_turns):
    sock, peer = tcp_pair()
    one = Reader(sock)
    assert sock.gettimeout() == 0.0
    assert one.sock is sock
    assert one.fd == sock.fileno()
    assert Socket.descriptor_map() == {one.fd: one}
    peer.send(b"x")
    run_turns(3)
    assert one.calls == []
    assert one.read(10) == b"x"


def test_a_closed_os_socket_is_refused(loop):
    sock = socket.socket()
    sock.close()
    with pytest.raises(ValueError, match="is closed: a descriptor needs an open socket"):
        Reader(sock)
    assert Socket.watched_sockets() == 0


def test_a_closed_socket_stays_in_the_map_until_the_turn_ends_and_then_goes(loop, wires, run_turns):
    seen = []

    class Suicide(Socket):
        __slots__ = ()

        def event_read(self):
            self.close("enough")
            seen.append((Socket.descriptor_map().get(self.fd), Socket.to_close(), self.sock.closed))

    sock, peer = wires()
    suicide = Suicide(sock)
    suicide.watch_read(True)
    peer.send(b"x")
    run_turns(1)
    assert seen == [(suicide, [suicide], False)]
    assert Socket.descriptor_map() == {}
    assert Socket.to_close() == []
    assert sock.closed


def test_a_failed_registration_leaves_nothing_behind(loop, tcp_pair):
    sock, _ = tcp_pair()
    one = Reader(sock)
    with pytest.raises(ValueError):
        Reader(sock)
    assert Socket.descriptor_map() == {one.fd: one}
    one.close()
    assert Socket.watched_sockets() == 0


def test_a_socket_may_be_given_its_loop(loop, wires, run_turns):
    assert Reader(wires()[0], loop).loop is loop


# -- interest


def test_input_that_nobody_wants_does_not_make_the_loop_spin(real_loop, real_pair, run_turns):
    sock, peer = real_pair()
    one = Reader(sock)
    one.watch_read(True)
    run_turns(1)
    one.watch_read(False)
    peer.send(b"unwanted")
    real_loop.poller = Recording(real_loop.poller, one.fd)
    run_turns(20)
    assert real_loop.poller.busy <= 1


def test_turning_reading_off_and_on_again_costs_no_system_call(loop, wires, run_turns):
    sock, peer = wires()
    one = Reader(sock)
    one.watch_read(True)
    run_turns(1)
    told = []
    poller = loop.poller
    for name in ("add", "modify", "remove"):
        setattr(poller, name, lambda *arguments, name=name: told.append(name))
    for _ in range(10):
        one.watch_read(False)
        one.watch_read(True)
        peer.send(b"x")
        run_turns(1)
    for name in ("add", "modify", "remove"):
        delattr(poller, name)
    assert one.data == b"x" * 10
    assert told == []


# -- close


def test_close_keeps_the_first_reason_and_ends_both_directions(real_loop, real_pair, run_turns):
    sock, peer = real_pair()
    one = Reader(sock)
    one.write(b"bye")
    one.close("first")
    one.close("second")
    assert one.closed
    assert one.close_reason == "first"
    run_turns(1)
    assert sock.fileno() == -1
    assert peer.recv(10) == b"bye"
    assert peer.recv(10) == b""


def test_nothing_is_watched_after_close(loop, wires, run_turns):
    sock, peer = wires()
    one = Reader(sock)
    one.close()
    one.watch_read(True)
    one.watch_write(True)
    incoming(peer).extend(b"x")
    run_turns(3)
    assert one.calls == []
    assert Socket.watched_sockets() == 0


def test_a_close_in_a_timer_or_call_soon_is_real_at_the_end_of_that_turn(loop, wires, run_turns):
    sock, _ = wires()
    one = Reader(sock)
    loop.call_soon(one.close, "soon")
    run_turns(1)
    assert sock.closed


def test_a_close_that_is_overridden_is_called_for_every_end(loop, wires, run_turns, advance):
    class Telling(Reader):
        __slots__ = ()
        idle_timeout = 5

        def close(self, reason=None):
            self.calls.append(reason)
            super().close(reason)

    (hung_up_sock, peer), (idle_sock, _) = wires(), wires()
    hung_up, idle = Telling(hung_up_sock), Telling(idle_sock)
    idle.watch_read(True)
    peer.hang_up()
    advance(6)
    assert hung_up.closed
    assert idle.closed
    assert hung_up.calls == ["hup", "the peer hung up"]
    assert "idle" in idle.calls[0]


def test_a_descriptor_that_watches_and_has_no_event_read_says_so():
    class Bare(Descriptor):
        __slots__ = ()

    with pytest.raises(NotImplementedError, match="Bare must override event_read"):
        Bare.event_read(Bare.__new__(Bare))


def test_an_object_is_registered_once(loop, wires):
    near, _far = wires()
    sock = Socket(near, loop)
    with pytest.raises(ValueError, match="already belongs to"):
        Socket.__init__(sock, near, loop)
