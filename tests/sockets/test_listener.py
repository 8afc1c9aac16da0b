"""Listeners: accepting, pausing when descriptors run out, limits, closing."""

import errno
import inspect
import logging
import os
import resource
import socket
import threading

import pytest

from dangagreen import ForeignThreadError, Listener, Socket, serve
from dangagreen.sockets.listener import Acceptor, listen


class Echo(Socket):
    __slots__ = ("data",)

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.data = b""

    def event_read(self):
        data = self.read(65536)
        if data is None:
            self.close()
        else:
            self.data += data
            self.write(data)


@pytest.fixture
def server(active_loop):
    """`server(address, handler=Echo, **kwargs)` listens until the test is over."""
    listeners = []

    def server(address=("127.0.0.1", 0), handler=Echo, **kwargs):
        listeners.append(serve(address, handler, **kwargs))
        return listeners[-1]

    yield server
    for listener in listeners:
        listener.close()
    for handler in list(active_loop.handlers.values()):
        if isinstance(handler, Socket):
            handler.close()


@pytest.fixture
def client(peers):
    """`client(address)` connects a plain socket."""

    def client(address):
        if isinstance(address, str):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(address)
        else:
            sock = socket.create_connection(address, 5)
        sock.settimeout(5)
        peers.append(sock)
        return sock

    return client


def connections():
    return [handler for handler in Socket.descriptor_map().values() if isinstance(handler, Echo)]


# -- addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_serving_on_tcp_picks_a_port_for_port_zero(host, real_loop, server, client, run_turns):
    listener = server((host, 0))
    assert listener.address[1] > 0
    assert len(listener.address) == 2
    sock = client(listener.address)
    sock.send(b"hello")
    run_turns(3)
    assert sock.recv(10) == b"hello"


def test_serving_on_a_unix_socket_and_its_file_goes_with_it(real_loop, server, client, run_turns, tmp_path):
    path = tmp_path / "socket"
    listener = server(path)
    assert listener.address == str(path)
    sock = client(str(path))
    sock.send(b"hello")
    run_turns(3)
    assert sock.recv(10) == b"hello"
    listener.close()
    run_turns(1)
    assert not path.exists()


def test_a_socket_file_that_somebody_else_has_made_meanwhile_is_left_alone(loop, server, tmp_path):
    path = tmp_path / "socket"
    listener = server(str(path))
    path.unlink()
    path.write_text("somebody else's")
    listener.close()
    assert path.read_text() == "somebody else's"


def test_a_stale_socket_file_is_replaced(loop, server, client, run_turns, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    server(path)
    sock = client(path)
    sock.send(b"x")
    run_turns(3)
    assert sock.recv(10) == b"x"


def test_a_socket_file_on_which_somebody_listens_is_not_taken(loop, server, tmp_path):
    path = str(tmp_path / "socket")
    server(path)
    with pytest.raises(OSError, match="socket") as caught:
        serve(path, Echo)
    assert caught.value.errno == errno.EADDRINUSE
    assert os.path.exists(path)


def test_a_file_that_is_no_socket_is_not_removed(loop, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="precious"):
        serve(path, Echo)
    assert path.read_text() == "data"


def test_serving_on_a_socket_that_listens_already(real_loop, server, client, run_turns):
    listening = socket.create_server(("127.0.0.1", 0))
    listener = server(listening)
    assert listener.address == listening.getsockname()
    sock = client(listener.address)
    sock.send(b"x")
    run_turns(3)
    assert sock.recv(10) == b"x"


def test_a_socket_that_does_not_listen_is_refused(loop):
    with socket.socket() as sock, pytest.raises(ValueError, match="listen"):
        serve(sock, Echo)


@pytest.mark.parametrize("address", [5, None, ("a", 1, 2, 3, 4), ()])
def test_what_is_no_address_is_refused_with_words(loop, address):
    with pytest.raises(TypeError, match="address"):
        serve(address, Echo)


def test_an_address_in_use_is_named(loop, server):
    listener = server()
    with pytest.raises(OSError, match=str(listener.address[1])) as caught:
        serve(listener.address, Echo)
    assert caught.value.errno == errno.EADDRINUSE


def test_two_listeners_share_a_port_with_reuse_port(loop, server):
    first = server(reuse_port=True)
    assert server(first.address, reuse_port=True).address == first.address


@pytest.mark.parametrize("handler", [5, None, int])
def test_what_is_no_handler_is_refused(loop, handler):
    with pytest.raises(TypeError):
        serve(("127.0.0.1", 0), handler)
    assert Socket.watched_sockets() == 0


# -- connections


def test_each_connection_is_one_object_set_to_watch_for_reading(real_loop, server, client, run_turns):
    listener = server()
    socks = [client(listener.address) for _ in range(5)]
    run_turns(2)
    made = connections()
    assert len(made) == listener.connections == 5
    for number, sock in enumerate(socks):
        sock.send(b"%d" % number)
    run_turns(2)
    assert sorted(one.data for one in made) == [b"%d" % number for number in range(5)]
    for sock in socks:
        sock.close()
    run_turns(3)
    assert listener.connections == 0
    assert connections() == []


@pytest.mark.parametrize("nodelay", [True, False])
def test_tcp_nodelay_is_on_by_default(nodelay, loop, server, client, run_turns):
    listener = server(nodelay=nodelay) if not nodelay else server()
    client(listener.address)
    run_turns(2)
    (one,) = connections()
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
    assert connections() == []
    assert listener.connections == 0


def test_no_more_than_max_connections_are_open_and_the_others_wait(real_loop, server, client, run_turns):
    listener = server(max_connections=2)
    socks = [client(listener.address) for _ in range(4)]
    for sock in socks:
        sock.send(b"x")
    run_turns(5)
    assert len(connections()) == listener.connections == 2
    socks[0].close()
    run_turns(5)
    assert len(connections()) == 2
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


def test_a_turn_accepts_a_bounded_number(loop, server, client, run_turns, monkeypatch):
    monkeypatch.setattr(Acceptor, "accepts_per_turn", 3)
    listener = server()
    for _ in range(7):
        client(listener.address)
    counts = []
    for _ in range(4):
        run_turns(1)
        counts.append(listener.connections)
    assert counts == [3, 6, 7, 7]


def test_a_class_that_cannot_be_made_costs_its_connection_and_not_the_listener(
    real_loop, server, client, run_turns, take_errors
):
    class Picky(Echo):
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
    class Closing(Echo):
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
    thread.join(5)
    assert len(errors) == 1
    assert not listener.closed


# -- what is not its fault


class Scripted:
    """A listening socket on the wire: readable while `steps` are left, and accept takes the next one."""

    family = socket.AF_UNIX

    def __init__(self, end, knocker, *steps):
        self.end = end
        self.knocker = knocker
        self.steps = list(steps)
        self.accepts = 0
        knocker.send(b"knock")

    def accept(self):
        self.accepts += 1
        if not self.steps:
            self.end.recv(100)
            raise BlockingIOError
        step = self.steps.pop(0)
        if isinstance(step, int):
            raise OSError(step, os.strerror(step))
        return step, None

    def __getattr__(self, name):
        return getattr(self.end, name)


@pytest.fixture
def scripted(loop, wires):
    """`scripted(*steps)`: a listener over a scripted socket, and what it has accepted."""
    made = []

    def scripted(*steps):
        sock = Scripted(*wires(), *steps)
        accepted = []
        made.append(Acceptor(sock, lambda sock, listener: accepted.append(sock)))
        return made[-1], sock, accepted

    yield scripted
    for listener in made:
        listener.close()


# accept(2) of Linux: "already-pending network errors", ECONNABORTED, EPERM, and those that "various Linux kernels can
# return" beside them.
_NAMES = """
    ENETDOWN EPROTO ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH EOPNOTSUPP ENETUNREACH ECONNABORTED EPERM
    ESOCKTNOSUPPORT EPROTONOSUPPORT ETIMEDOUT ECONNRESET
"""
PASSING = [getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name)]
RESOURCES = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSR]


@pytest.mark.parametrize("number", PASSING, ids=errno.errorcode.get)
def test_a_connection_that_is_gone_before_it_was_accepted_is_passed_over(number, scripted, wires, run_turns, caplog):
    one = wires()[0]
    _, _, accepted = scripted(number, number, one, number)
    run_turns(2)
    assert accepted == [one]
    assert caplog.records == []


@pytest.mark.parametrize("number", RESOURCES, ids=errno.errorcode.get)
def test_out_of_descriptors_it_rests_says_so_in_one_line_does_not_spin_and_resumes(
    number, loop, scripted, wires, advance, caplog
):
    first, second = wires()[0], wires()[0]
    listener, sock, accepted = scripted(first, number, second)
    waits = loop.poller.waits
    advance(Acceptor.accept_backoff * 0.9)
    assert accepted == [first]
    assert sock.accepts == 2
    assert loop.poller.waits - waits <= 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert os.strerror(number) in record.getMessage()
    advance(Acceptor.accept_backoff * 0.2)
    assert accepted == [first, second]
    assert len(caplog.records) == 1
    assert not listener.closed


def test_a_listener_closed_while_it_rests_leaves_no_timer_behind(loop, scripted, run_turns, caplog):
    listener, _, _ = scripted(errno.EMFILE)
    run_turns(1)
    assert len(loop.timers) == 1
    listener.close()
    run_turns(1)
    assert len(loop.timers) == 0


def test_an_error_that_is_its_own_fault_is_reported_and_closes_it(loop, scripted, run_turns, take_errors):
    listener, _, _ = scripted(errno.EBADF)
    run_turns(2)
    (context,) = take_errors()
    assert context.exception.errno == errno.EBADF
    assert "can accept no more connections: [Errno 9]" in context.message
    assert context.subject is listener
    assert listener.closed
    assert repr(listener.close_reason) == repr(context.exception)


def test_an_error_that_passes_but_comes_without_end_does_not_make_the_loop_spin(scripted, advance, caplog):
    listener, sock, _ = scripted(*[errno.EPERM] * 1000)  # as of a filter that forbids accept as such
    advance(Acceptor.accept_backoff * 5.5)
    assert sock.accepts == 6 * Acceptor.accepts_per_turn
    assert "Operation not permitted" in caplog.records[0].getMessage()
    assert not listener.closed


def test_any_number_of_connections_that_are_gone_delays_the_others_by_no_rest(scripted, wires, run_turns, caplog):
    one = wires()[0]
    _, _, accepted = scripted(*[errno.ECONNABORTED] * 200, one)
    run_turns(10)
    assert accepted == [one]
    assert caplog.records == []


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_one_that_was_shut_down_from_outside_is_reported_and_closed_and_does_not_spin(
    family, real_loop, server, client, run_turns, take_errors, tmp_path
):
    listener = server(("127.0.0.1", 0) if family == "tcp" else str(tmp_path / "s"))
    waiting = client(listener.address) if family == "unix" else None  # such a one keeps its queue
    listener.sock.shutdown(socket.SHUT_RDWR)
    run_turns(4)
    (context,) = take_errors()
    assert context.exception.errno == errno.EINVAL
    assert context.subject is listener
    assert listener.closed
    assert repr(listener.close_reason) == repr(context.exception)
    if waiting is not None:
        waiting.send(b"hi")
        run_turns(3)
        assert waiting.recv(2) == b"hi"


def test_a_unix_listener_whose_connection_somebody_else_has_accepted_goes_on(real_loop, server, client, tmp_path):
    listener = server(str(tmp_path / "s"))
    listener.event_read()  # as in a process that shares it and comes second
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


def test_an_event_for_a_closed_listener_does_not_reach_the_next_owner_of_its_descriptor(
    real_loop, server, client, run_turns
):
    """Both are in one batch; the first callback closes the listener, and what it makes gets the same number."""
    listener = server()
    fd, seen = listener.fd, []

    class Replacing(Echo):
        __slots__ = ()

        def event_read(self):
            self.read(1)
            listener.close()
            other = socket.socketpair()
            assert fd in {end.fileno() for end in other}
            owner = next(end for end in other if end.fileno() == fd)
            seen.extend([Recording(owner), *other])
            seen[0].watch_read(True)

    class Recording(Echo):
        __slots__ = ()

        def event_read(self):
            seen.append("event")

    trigger = socket.socketpair()
    replacing = Replacing(trigger[0])
    replacing.watch_read(True)
    run_turns(1)
    trigger[1].send(b"x")
    client(listener.address)
    run_turns(3)
    assert seen[0].fd == fd
    assert seen[3:] == []
    seen[0].close()
    for end in (*seen[1:3], *trigger):
        end.close()


def test_out_of_real_descriptors_it_rests_and_serves_again(loop, server, client, run_turns, advance, caplog):
    listener = server()
    for _ in range(2):
        client(listener.address)
    run_turns(1)
    assert listener.connections == 2
    late = client(listener.address)
    late.send(b"x")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(late.fileno())
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        run_turns(5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert listener.connections == 2
    assert len(caplog.records) == 1
    advance(Acceptor.accept_backoff * 1.1)
    assert listener.connections == 3
    assert late.recv(1) == b"x"


def test_listen_hands_the_os_socket_and_the_listener_to_a_callable(loop, client, run_turns):
    seen = []
    listener = listen(("127.0.0.1", 0), lambda sock, which: seen.append((sock, which)))
    sock = client(listener.address)
    run_turns(2)
    ((accepted, which),) = seen
    assert which is listener
    assert accepted.getpeername() == sock.getsockname()
    accepted.close()
    listener.close()
    assert "closed" in repr(listener)


def test_an_object_that_is_answered_is_counted_until_it_closes(loop, client, peers, run_turns):
    listener = Listener(socket.create_server(("127.0.0.1", 0)), lambda sock, _: Echo(sock), max_connections=1)
    with listener:
        sock, other = client(listener.address), client(listener.address)
        run_turns(2)
        (first,) = connections()
        assert listener.connections == 1
        first.close()
        run_turns(3)
        (second,) = connections()
        assert listener.connections == 1
        second.close()
        assert listener.connections == 0
    sock.close()
    other.close()


def test_the_class_of_listeners_names_its_options():
    assert list(inspect.signature(Listener).parameters) == [
        "sock", "connected", "max_connections", "nodelay", "handler", "loop",
    ]  # fmt: skip
