"""The socket of callback style: hang-ups and resets, the order of events, stealing."""

import errno
import socket
import sys

import pytest

from dangagreen import BusyError, ClosedError, Loop, Socket, spawn
from dangagreen.loop.pollers import ERR, HUP, READ, WRITE
from dangagreen.sockets.states import BY_PEER
from tests.connections import Reader, Recording, reset
from tests.helpers import attempt


class Deaf(Reader):
    """Ignores hang-ups and errors."""

    __slots__ = ()

    def event_hup(self):
        self.calls.append("hup")

    def event_err(self):
        self.calls.append("err")


class Scripted:
    """A poller that reports what it is told to, whatever the interest."""

    def __init__(self):
        self.turns = []

    def add(self, fd, mask):
        pass

    modify = add

    def remove(self, fd):
        pass

    def wait(self, timeout):
        return self.turns.pop(0) if self.turns else []

    def close(self):
        pass


def reports_hang_ups(poller_class):
    return poller_class.__name__ != "SelectPoller"


# -- making one


def test_a_misspelt_attribute_raises(loop, wires):
    class Typo(Socket):
        __slots__ = ("name",)

    one = Typo(wires()[0])
    one.name = "fine"
    with pytest.raises(AttributeError):
        one.nmae = "wrong"
    with pytest.raises(AttributeError):
        Socket(wires()[0]).anything = 1


def test_a_listening_socket_of_your_own_accepts_in_event_read(real_loop, peers, run_until):
    class Accepting(Socket):
        __slots__ = ("accepted",)

        def event_read(self):
            self.accepted = self.sock.accept()[0]

    server = socket.create_server(("127.0.0.1", 0))
    peers.append(server)
    one = Accepting(server)
    one.accepted = None
    one.watch_read(True)
    client = socket.create_connection(server.getsockname())
    peers.append(client)
    run_until(lambda: one.accepted)
    peers.append(one.accepted)
    assert one.accepted.getpeername() == client.getsockname()


def test_a_connecting_socket_sends_what_was_written_meanwhile(real_loop, peers, run_until):
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    peers.extend((server, client))
    client.setblocking(False)
    client.connect_ex(server.getsockname())
    one = Reader(client)
    one.write(b"hello")
    one.watch_read(True)
    accepted = server.accept()[0]
    peers.append(accepted)
    accepted.send(b"answer")
    run_until(lambda: one.data)
    assert accepted.recv(100) == b"hello"
    assert one.data == b"answer"


def test_a_connection_that_is_refused_closes_with_that_as_the_reason(real_loop, peers, wait_for):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    client = socket.socket()
    peers.append(client)
    client.setblocking(False)
    client.connect_ex(address)
    one = Reader(client)
    one.watch_write(True)
    one.write(b"hello") if one.loop.poller.__class__.__name__ == "SelectPoller" else None
    wait_for(lambda: one.closed)
    assert isinstance(one.close_reason, OSError)
    assert one.close_reason.errno == errno.ECONNREFUSED


# -- hang-ups and resets


class Sender(Socket):
    """Sends a megabyte and closes at once."""

    __slots__ = ()


PAYLOAD = bytes(range(256)) * 4096


def test_a_megabyte_and_a_close_at_once_arrive_whole(real_loop, real_pair, run_until, poller_class):
    sock, peer = real_pair()
    one, sender = Deaf(sock), Sender(peer)
    one.watch_read(True)
    sender.write(PAYLOAD)
    sender.write(sender.close)
    run_until(lambda: None in one.calls)
    assert one.data == PAYLOAD
    assert one.calls.count(None) == 1
    assert "hup" not in one.calls[: one.calls.index(None)]


@pytest.mark.parametrize("pauses", [1, 3, 50])
def test_a_megabyte_and_a_close_at_once_arrive_whole_though_reading_pauses(real_loop, real_pair, run_until, pauses):
    class Pausing(Deaf):
        __slots__ = ("pause_at", "paused")

        def event_read(self):
            super().event_read()
            if len(self.data) >= self.pause_at:
                self.pause_at += len(PAYLOAD) // pauses
                self.paused += 1
                self.watch_read(False)
                self.loop.add_timer(0.001, lambda: self.watch_read(True))

    sock, peer = real_pair()
    one, sender = Pausing(sock), Sender(peer)
    one.pause_at, one.paused = len(PAYLOAD) // pauses - 1, 0
    one.size = 65536 if pauses < 50 else 4096
    one.watch_read(True)
    sender.write(PAYLOAD)
    sender.write(sender.close)
    run_until(lambda: None in one.calls)
    assert one.data == PAYLOAD
    assert one.calls.count(None) == 1
    assert one.paused >= 1


def test_a_hang_up_while_reading_is_paused_keeps_every_byte_by_default(real_loop, unix_pair, run_turns, poller_class):
    sock, peer = unix_pair()
    one = Reader(sock)
    peer.send(b"x" * 10000)
    peer.close()
    run_turns(5)
    assert not one.closed
    assert one.calls == (["hup"] if reports_hang_ups(poller_class) else [])
    one.watch_read(True)
    run_turns(10)
    assert one.data == b"x" * 10000
    assert one.calls.count(None) == 1
    assert one.closed == reports_hang_ups(poller_class)


def test_a_hang_up_with_nothing_unread_closes_by_default(real_loop, unix_pair, run_turns, poller_class):
    sock, peer = unix_pair()
    one = Reader(sock)
    peer.close()
    run_turns(3)
    assert one.closed == reports_hang_ups(poller_class)
    assert one.calls == (["hup"] if reports_hang_ups(poller_class) else [])


def test_pushed_back_bytes_count_as_unread_when_the_peer_hangs_up(loop, wires, run_turns):
    sock, peer = wires()
    one = Reader(sock)
    one.push_back_read(b"pushed back")
    peer.hang_up()
    run_turns(3)
    assert not one.closed
    one.watch_read(True)
    run_turns(5)
    assert one.data == b"pushed back"
    assert one.closed


def test_event_hup_comes_once_and_only_after_read_has_answered_none(loop, wires, run_turns):
    sock, peer = wires()
    one = Deaf(sock)
    one.size = 3
    one.watch_read(True)
    peer.send(b"0123456789")
    peer.hang_up()
    run_turns(20)
    assert one.data == b"0123456789"
    assert one.calls == ["read"] * 5 + [None, "hup"]


def test_event_hup_does_not_come_when_the_handler_closes_at_the_end(loop, wires, run_turns):
    class Closing(Deaf):
        __slots__ = ()

        def event_read(self):
            super().event_read()
            if None in self.calls:
                self.close("the end")

    sock, peer = wires()
    one = Closing(sock)
    one.watch_read(True)
    peer.send(b"abc")
    peer.hang_up()
    run_turns(10)
    assert one.calls == ["read", "read", None]
    assert one.close_reason == "the end"


def test_a_fin_alone_is_no_hang_up(real_loop, real_pair, run_turns):
    sock, peer = real_pair()
    one = Reader(sock)
    peer.send(b"request")
    peer.shutdown(socket.SHUT_WR)
    run_turns(5)
    assert one.calls == []
    one.watch_read(True)
    run_turns(5)
    assert one.data == b"request"
    assert one.calls == ["read", "read", None]
    assert one.write(b"reply") is True
    assert peer.recv(10) == b"reply"
    assert not one.closed


def test_the_end_of_the_stream_is_told_once_and_does_not_make_the_loop_spin(real_loop, real_pair, run_turns):
    sock, peer = real_pair()
    one = Reader(sock)
    one.watch_read(True)
    peer.shutdown(socket.SHUT_WR)
    real_loop.poller = Recording(real_loop.poller, one.fd)
    run_turns(20)
    assert one.calls == ["read", None]
    assert real_loop.poller.busy <= 2


@pytest.mark.parametrize("watching", [True, False])
def test_a_hang_up_that_the_handler_ignores_does_not_make_the_loop_spin(
    real_loop, unix_pair, run_turns, watching, poller_class
):
    sock, peer = unix_pair()
    one = Deaf(sock)
    one.watch_read(watching)
    peer.send(b"abc")
    peer.close()
    real_loop.poller = Recording(real_loop.poller, one.fd)
    run_turns(50)
    assert not one.closed
    assert real_loop.poller.busy <= 5
    assert one.calls.count("hup") == reports_hang_ups(poller_class)
    assert one.data == (b"abc" if watching else b"")


@pytest.mark.parametrize("watching", [True, False])
@pytest.mark.parametrize("end", ["hang_up", "reset"])
def test_an_end_that_the_handler_ignores_costs_few_turns_on_the_virtual_clock(loop, wires, advance, watching, end):
    sock, peer = wires()
    one = Deaf(sock)
    one.watch_read(watching)
    getattr(peer, end)()
    waits = loop.poller.waits
    advance(1000)
    assert not one.closed
    assert loop.poller.waits - waits <= 6
    assert one.calls.count("hup") == 1
    assert one.calls.count("err") == (end == "reset")
    assert one.calls.count(None) == watching


def test_an_ignored_hang_up_with_a_queue_that_nobody_takes_does_not_make_the_loop_spin(loop, wires, advance):
    sock, peer = wires(5)
    one = Deaf(sock)
    one.watch_read(True)
    one.write(b"0123456789")
    peer.send(b"abc")
    peer.hang_up()
    waits = loop.poller.waits
    advance(1000)
    assert loop.poller.waits - waits <= 8
    assert one.data == b"abc"


def test_an_ignored_hang_up_is_followed_by_the_rest_when_reading_is_watched_again(real_loop, unix_pair, run_turns):
    sock, peer = unix_pair()
    one = Deaf(sock)
    peer.send(b"abc")
    peer.close()
    run_turns(5)
    one.watch_read(True)
    run_turns(5)
    assert one.data == b"abc"
    assert one.calls.count(None) == 1


def test_a_reset_keeps_what_came_before_it_and_ends_with_the_error(real_loop, tcp_pair, run_turns, run_until):
    sock, peer = tcp_pair()
    one = Reader(sock)
    one.size = 1000
    one.watch_read(True)
    peer.send(b"x" * 10000)
    reset(peer)
    run_turns(30)
    assert one.data == b"x" * 10000
    assert one.calls.count(None) == 1


def test_a_reset_while_reading_is_watched_calls_event_err_once_and_closes(real_loop, tcp_pair, run_turns, poller_class):
    sock, peer = tcp_pair()
    one = Reader(sock)
    one.watch_read(True)
    reset(peer)
    run_turns(5)
    assert one.calls[:2] == ["read", None]
    if reports_hang_ups(poller_class):
        assert one.closed
        assert one.calls[2:] == ["err"]


def test_a_reset_while_reading_is_off_closes_with_the_error(real_loop, tcp_pair, run_turns, poller_class):
    sock, peer = tcp_pair()
    one = Reader(sock)
    reset(peer)
    run_turns(5)
    if reports_hang_ups(poller_class):
        assert one.calls == ["err"]
        assert isinstance(one.close_reason, OSError)
        assert one.close_reason.errno == errno.ECONNRESET
    else:
        assert one.calls == []


def test_a_reset_noticed_by_a_write_closes(real_loop, tcp_pair, run_turns):
    sock, peer = tcp_pair()
    one = Reader(sock)
    reset(peer)
    for _ in range(3):
        assert one.write(b"x") is True
    run_turns(3)
    assert one.closed


@pytest.mark.parametrize("end", ["close", "steal_socket"])
def test_the_usual_event_hup_and_event_err_do_nothing_after_an_end(end, loop, wires, run_turns):
    class Ends(Reader):
        __slots__ = ()

        def event_hup(self):
            getattr(self, end)()
            super().event_hup()
            super().event_err()

    sock, peer = wires()
    one = Ends(sock)
    one.watch_read(True)
    peer.hang_up()
    run_turns(3)
    assert one.calls == ["read", None, "hup", "err"]
    assert one.closed
    assert not one._hangup_state & BY_PEER
    sock.close()


@pytest.mark.parametrize(
    ("end", "found"), [("reset", ConnectionResetError), ("hang_up", b"")], ids=["after a reset", "after its end"]
)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_a_failed_send_that_closes_leaves_the_peers_end_to_a_later_read(end, found, family, loop, wires, run_turns):
    """Reading is off, and nothing is unread: the send closes. It was the peer that has ended, not this side."""
    sock, peer = wires(4, family=family)
    one = Socket(sock)
    one.write(b"123456")
    run_turns(1)
    getattr(peer, end)()
    run_turns(2)
    assert one.closed
    task = spawn(attempt, one.read_some)
    run_turns(2)
    result = task.result()
    assert result == found if isinstance(found, bytes) else type(result) is found


def test_an_end_that_was_met_behind_input_that_was_left_is_told(loop, wires, run_turns):
    class Patient(Reader):
        """Leaves two bytes until there is something new, or the end."""

        __slots__ = ()

        def event_read(self):
            self.calls.append(data := self.read(100))
            if data is not None and self.calls.count(data) < 3:
                self.push_back_read(data)

    sock, peer = wires()
    one = Patient(sock)
    one.watch_read(True)
    peer.send(b"ab")
    run_turns(5)
    assert one.calls == [b"ab"] * 2
    peer.shutdown(socket.SHUT_WR)
    run_turns(5)
    assert one.calls == [b"ab"] * 3 + [None]
    one.close()


# -- the order of events


class Tracer(Socket):
    __slots__ = ("closes_in", "trace")

    def note(self, event):
        self.trace.append(event)
        if event == self.closes_in:
            self.close()

    def event_read(self):
        self.read(100)
        self.note("read")

    def event_write(self):
        self.note("write")

    def event_err(self):
        self.note("err")

    def event_hup(self):
        self.note("hup")


@pytest.mark.parametrize(
    ("closes_in", "expected"),
    [
        (None, ["read", "write", "err", "hup"]),
        ("read", ["read"]),
        ("write", ["read", "write"]),
        ("err", ["read", "write", "err"]),
        ("hup", ["read", "write", "err", "hup"]),
    ],
)
def test_the_order_of_events_is_read_write_err_hup_each_skipped_once_closed(closes_in, expected, wires, run_turns):
    sock, peer = wires()
    one = Tracer(sock)
    one.trace, one.closes_in = [], closes_in
    one.watch_read(True)
    one.watch_write(True)
    peer.reset()
    assert sock.events(READ | WRITE) == READ | WRITE | ERR | HUP
    run_turns(1)
    assert one.trace == expected


def test_an_event_for_a_socket_that_wants_none_of_it_calls_nothing(wires):
    poller = Scripted()
    loop = Loop(poller=poller)
    sock, peer = wires()
    one = Tracer(sock, loop)
    one.trace, one.closes_in = [], None
    poller.turns = [[(one.fd, READ)], [(one.fd, WRITE)], [(one.fd, READ | WRITE)], [(one.fd + 1000, READ)]]
    loop.run(lambda: not poller.turns)
    assert one.trace == []
    assert not one.closed
    one.close()
    loop.close()
    assert peer.recv(1) == b""


# -- steal_socket


def test_a_stolen_socket_goes_on_elsewhere_with_what_was_pushed_back(real_loop, real_pair, run_turns):
    class Thief(Reader):
        __slots__ = ("loot",)

        def event_read(self):
            super().event_read()
            self.push_back_read(self.data[4:])
            self.loot = self.steal_socket()

    sock, peer = real_pair()
    one = Thief(sock)
    one.watch_read(True)
    one.write(b"hello ")
    peer.send(b"1234rest")
    run_turns(1)
    stolen, rest = one.loot
    assert stolen is sock
    assert rest == b"rest"
    assert one.closed
    assert Socket.watched_sockets() == 0
    peer.send(b"more")
    run_turns(3)
    assert one.calls == ["read"]
    assert stolen.recv(10) == b"more"
    stolen.send(b"world")
    peer_data = b""
    while len(peer_data) < 11:
        peer_data += peer.recv(20)
    assert peer_data == b"hello world"
    heir = Reader(stolen)
    heir.push_back_read(rest)
    heir.watch_read(True)
    peer.send(b"!")
    run_turns(3)
    assert heir.data == b"rest!"


def test_a_stolen_socket_may_be_registered_again_in_the_same_turn(real_loop, real_pair, run_turns):
    heirs = []

    class Thief(Reader):
        __slots__ = ()

        def event_read(self):
            super().event_read()
            heirs.append(Reader(self.steal_socket()[0]))
            heirs[0].watch_read(True)

    sock, peer = real_pair()
    Thief(sock).watch_read(True)
    peer.send(b"first")
    run_turns(1)
    peer.send(b"second")
    run_turns(3)
    assert heirs[0].data == b"second"
    assert not heirs[0].closed


def test_stealing_sends_what_waits_for_the_end_of_the_turn(loop, wires):
    sock, peer = wires()
    one = Reader(sock)
    one.write_soon(b"soon")
    one.steal_socket()
    assert peer.recv(10) == b"soon"


def test_stealing_with_bytes_queued_raises_and_steals_nothing(loop, wires, run_turns):
    sock, peer = wires(4)
    one = Reader(sock)
    one.write(b"123456")
    with pytest.raises(BusyError, match="2 bytes"):
        one.steal_socket()
    assert not one.closed
    assert peer.recv(10) == b"1234"
    run_turns(1)
    assert peer.recv(10) == b"56"


def test_stealing_from_a_closed_socket_raises(loop, wires):
    one = Reader(wires()[0])
    one.close("gone")
    with pytest.raises(ClosedError, match="gone"):
        one.steal_socket()


def test_stealing_in_a_queued_callable_when_everything_was_sent(loop, wires, run_turns):
    (sock, peer), (idle_sock, _) = wires(4), wires()
    one, idle = Reader(sock), Reader(idle_sock)
    loot = []
    one.write(b"123456")
    one.write(lambda: loot.append(one.steal_socket()))
    assert loot == []
    assert peer.recv(10) == b"1234"
    run_turns(2)
    assert peer.recv(10) == b"56"
    assert loot == [(sock, b"")]
    idle.write(lambda: loot.append(idle.steal_socket()))
    assert loot[1] == (idle_sock, b"")


def test_a_socket_costs_less_than_a_kilobyte(loop, wires):
    one = Reader(wires()[0])
    assert not hasattr(one, "__dict__")
    assert sys.getsizeof(one) < 1024
