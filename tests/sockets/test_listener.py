"""Servers: connections, the connection limit, several addresses, closing."""

import errno
import inspect
import os
import socket
import threading
import weakref

import pytest

from dangagreen import ForeignThreadError, Listener, Socket, serve
from dangagreen.sockets.binding import Binding
from dangagreen.sockets.listener import listen
from tests.connections import KeepingEcho, keeping


def test_each_connection_is_one_object_set_to_watch_for_reading(real_loop, server, client, run_turns):
    listener = server()
    socks = [client(listener.address) for _ in range(5)]
    run_turns(2)
    made = keeping()
    assert len(made) == listener.connections == 5
    for number, sock in enumerate(socks):
        sock.send(b"%d" % number)
    run_turns(2)
    assert sorted(one.data for one in made) == [b"%d" % number for number in range(5)]
    for sock in socks:
        sock.close()
    run_turns(3)
    assert listener.connections == 0
    assert keeping() == []


@pytest.mark.parametrize("nodelay", [True, False])
def test_tcp_nodelay_is_on_by_default(nodelay, loop, server, client, run_turns):
    listener = server(nodelay=nodelay) if not nodelay else server()
    client(listener.address)
    run_turns(2)
    (one,) = keeping()
    assert bool(one.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is nodelay


def test_a_closed_listener_accepts_no_more_and_its_connections_live_on(real_loop, server, client, run_turns):
    listener = server()
    sock = client(listener.address)
    run_turns(2)
    listener.close()
    run_turns(1)
    with pytest.raises(ConnectionRefusedError):
        client(listener.address)
    sock.send(b"still here")
    run_turns(3)
    assert sock.recv(20) == b"still here"
    sock.close()
    run_turns(3)
    assert keeping() == []
    assert listener.connections == 0


def test_no_more_than_max_connections_are_open_and_the_others_wait(real_loop, server, client, run_turns):
    listener = server(max_connections=2)
    socks = [client(listener.address) for _ in range(4)]
    for sock in socks:
        sock.send(b"x")
    run_turns(5)
    assert len(keeping()) == listener.connections == 2
    socks[0].close()
    run_turns(5)
    assert len(keeping()) == 2
    socks[1].close()
    socks[2].close()
    run_turns(5)
    assert listener.connections == 1
    assert socks[3].recv(1) == b"x"


def test_a_full_listener_does_not_make_the_loop_spin(loop, server, client, run_turns, advance):
    listener = server(max_connections=1)
    client(listener.address)
    client(listener.address)
    run_turns(3)
    waits = loop.poller.waits
    advance(100)
    assert loop.poller.waits - waits <= 3


def test_a_connection_that_its_constructor_closes_is_not_counted(loop, server, client, run_turns):
    class Refused(Socket):
        __slots__ = ()

        def __init__(self, sock):
            super().__init__(sock)
            self.close("there is no room")

    listener = server(handler=Refused, max_connections=1)
    for _ in range(3):
        peer = client(listener.address)
        run_turns(3)
        assert peer.recv(1) == b""
        assert listener.connections == 0


def test_a_class_that_cannot_be_made_costs_its_connection_and_not_the_listener(
    real_loop, server, client, run_turns, take_errors
):
    class Picky(KeepingEcho):
        __slots__ = ()
        refused = 0

        def __init__(self, sock, loop=None):
            if Picky.refused < 2:
                Picky.refused += 1
                if Picky.refused == 2:
                    super().__init__(sock, loop)
                raise ZeroDivisionError
            super().__init__(sock, loop)

    listener = server(handler=Picky)
    refused = [client(listener.address) for _ in range(2)]
    served = client(listener.address)
    served.send(b"x")
    run_turns(4)
    assert [type(context.exception) for context in take_errors()] == [ZeroDivisionError] * 2
    assert [sock.recv(1) for sock in refused] == [b"", b""]
    assert served.recv(1) == b"x"
    assert listener.connections == 1
    assert not listener.closed


def test_closing_a_listener_in_a_connections_callback_is_harmless(loop, server, client, run_turns):
    class Closing(KeepingEcho):
        __slots__ = ()

        def event_read(self):
            listener.close()
            super().event_read()

    listener = server(handler=Closing)
    sock = client(listener.address)
    sock.send(b"x")
    run_turns(3)
    assert listener.closed
    assert sock.recv(1) == b"x"


def test_a_listener_raises_in_a_foreign_thread(loop, server):
    listener = server()
    errors = []

    def close():
        try:
            listener.close()
        except ForeignThreadError as error:
            errors.append(error)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join(30)
    assert len(errors) == 1
    assert not listener.closed


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("where", ["callback", "outside"])
def test_the_address_of_a_listener_that_is_closed_is_free_at_once(
    where, family, real_loop, server, client, run_turns, tmp_path
):
    first = server(("127.0.0.1", 0) if family == "tcp" else str(tmp_path / "s"))
    seconds = []

    def replace():
        first.close()
        seconds.append(server(first.address))

    if where == "callback":
        real_loop.call_soon(replace)
        run_turns(2)
    else:
        replace()
    assert seconds[0].address == first.address
    sock = client(first.address)
    sock.send(b"hi")
    run_turns(3)
    assert sock.recv(2) == b"hi"


def test_listen_hands_the_os_socket_and_the_listener_to_a_callable(loop, client, run_turns):
    seen = []
    listener = listen(("127.0.0.1", 0), lambda sock, which: seen.append((sock, which)), Binding())
    sock = client(listener.address)
    run_turns(2)
    ((accepted, which),) = seen
    assert which is listener
    assert accepted.getpeername() == sock.getsockname()
    accepted.close()
    listener.close()
    assert "closed" in repr(listener)


def test_an_object_that_is_answered_is_counted_until_it_closes(loop, client, peers, run_turns):
    listener = Listener(socket.create_server(("127.0.0.1", 0)), lambda sock, _: KeepingEcho(sock), max_connections=1)
    with listener:
        sock, other = client(listener.address), client(listener.address)
        run_turns(2)
        (first,) = keeping()
        assert listener.connections == 1
        first.close()
        run_turns(3)
        (second,) = keeping()
        assert listener.connections == 1
        second.close()
        assert listener.connections == 0
    sock.close()
    other.close()


def test_the_class_of_listeners_names_its_options():
    assert list(inspect.signature(Listener).parameters) == [
        "sock", "connected", "max_connections", "nodelay", "handler", "openings", "loop",
    ]  # fmt: skip


# -- several addresses


BOTH = [("127.0.0.1", 0), ("::1", 0)]


def test_the_connection_limit_is_one_for_all_addresses(real_loop, server, client, run_turns):
    listener = server(BOTH, max_connections=3)
    clients = [client(address) for address in listener.addresses * 3]
    run_turns(5)
    assert listener.connections == len(keeping()) == 3
    listener.max_connections = 4
    run_turns(5)
    assert listener.connections == 4
    for expected in (4, 4, 3, 2, 1, 0):
        keeping()[0].close()
        run_turns(5)
        assert listener.connections == expected
    assert len(clients) == 6


def test_a_flood_at_one_address_of_a_full_server_does_not_keep_the_others_out(real_loop, server, client, run_turns):
    listener = server(BOTH, max_connections=1)
    for _ in range(20):
        client(listener.addresses[0])
    run_turns(2)
    client(listener.addresses[1])
    client(listener.addresses[1])
    families = []
    for _ in range(8):
        run_turns(4)
        (one,) = keeping()
        families.append(one.sock.family)
        one.close()
    assert families.count(socket.AF_INET6) == 2


def test_a_full_server_of_several_addresses_does_not_make_the_loop_spin(loop, server, client, run_turns, advance):
    listener = server(BOTH, max_connections=1)
    clients = [client(address) for address in listener.addresses * 2]
    run_turns(5)
    waits = loop.poller.waits
    advance(100)
    assert loop.poller.waits - waits <= 3
    assert (listener.connections, len(clients)) == (1, 4)


def test_closing_it_closes_each_socket_and_removes_each_file(loop, server, client, run_turns, tmp_path):
    paths = [str(tmp_path / "one"), str(tmp_path / "two")]
    listener = server([*BOTH, *paths])
    peer = client(listener.addresses[1])
    run_turns(2)
    listener.close("enough")
    assert (listener.closed, listener.close_reason, list(tmp_path.iterdir())) == (True, "enough", [])
    assert server(listener.addresses).addresses == listener.addresses
    peer.send(b"still here")
    run_turns(3)
    assert peer.recv(20) == b"still here"


def test_a_file_that_another_process_has_taken_is_left_and_the_others_go(loop, server, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    listener = server([one, two])
    one.unlink()
    one.write_text("somebody else's")
    listener.close()
    assert list(tmp_path.iterdir()) == [one]


def test_one_address_that_can_accept_no_more_closes_the_server(real_loop, server, client, run_turns, take_errors):
    listener = server(BOTH)
    second = next(sock for sock in Socket.descriptor_map().values() if sock.sock.family == socket.AF_INET6)
    second.sock.shutdown(socket.SHUT_RDWR)
    run_turns(4)
    (context,) = take_errors()
    assert context.subject is listener
    assert "can accept no more connections" in context.message
    assert listener.closed
    assert repr(listener.close_reason) == repr(context.exception)
    with pytest.raises(ConnectionRefusedError):
        client(listener.address)


def test_a_server_that_stops_accepting_takes_what_is_queued_at_each_address(loop, server, client, run_turns, tmp_path):
    listener = server([*BOTH, str(tmp_path / "socket")])
    for address in listener.addresses:
        for _ in range(40):
            client(address)
    listener.stop_accepting()
    assert (listener.closed, list(tmp_path.iterdir())) == (False, [])
    run_turns(4)
    assert (listener.closed, listener.connections, len(keeping())) == (True, 120, 120)
    assert listener.close_reason == "it has accepted the rest"


def test_a_socket_whose_close_fails_keeps_no_other_open(loop, server, client, run_turns, take_errors):
    class Failing(socket.socket):
        def close(self):
            if self.fileno() >= 0:
                super().close()
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    ready = Failing()
    ready.bind(("127.0.0.1", 0))
    ready.listen()
    listener = server([("::1", 0), ready, ("127.0.0.2", 0)])
    loop.call_soon(listener.close)
    run_turns(2)
    assert [context.exception.errno for context in take_errors()] == [errno.EIO]
    assert listener.closed
    assert Socket.descriptor_map() == {}
    with pytest.raises(ConnectionRefusedError):
        client(listener.addresses[2])


def test_a_server_that_was_closed_is_freed_by_its_last_reference(loop, uncollected):
    listener = serve(BOTH, KeepingEcho)
    freed = weakref.ref(listener)
    listener.close()
    del listener
    assert freed() is None


def test_a_listener_of_no_sockets_is_refused(loop):
    with pytest.raises(ValueError, match="the list is empty"):
        Listener([], print)


def test_a_listener_of_several_sockets_that_listen(loop, client, peers, run_turns):
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    with Listener(socks, lambda sock, _: KeepingEcho(sock)) as listener:
        assert listener.addresses == [sock.getsockname() for sock in socks]
        clients = [client(address) for address in listener.addresses]
        run_turns(2)
        assert len(clients) == listener.connections == 2
        for connection in keeping():
            connection.close()


def test_a_listener_of_what_does_not_listen_leaves_the_others_open(loop, peers):
    sock = socket.create_server(("127.0.0.1", 0))
    peers.append(sock)
    with pytest.raises(TypeError, match="listening socket"):
        Listener([sock, 5], print)
    assert Socket.descriptor_map() == {}
    assert sock.fileno() >= 0
