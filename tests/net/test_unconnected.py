"""connect_to: the object is there at once, its outcome comes by one of two hooks, and in between it may be used."""

from __future__ import annotations

import contextlib
import gc
import random
import socket
import weakref
from contextvars import ContextVar

import pytest

import dangagreen as d
from dangagreen.testing import no_leaks
from tests.certificates import client_context, server_context, versions
from tests.connections import echo_lines
from tests.net.networks import SILENT, Names, Network
from tests.net.test_connector import REFUSED, random_hosts

VARIABLE = ContextVar("VARIABLE", default="outside")


class Client(d.Socket):
    """Notes the calls of its hooks, with the context variable, and what it gets."""

    __slots__ = ("calls", "errors", "got", "then")

    def __init__(self, sock):
        super().__init__(sock)
        self.calls = []
        self.errors = []
        self.got = b""
        self.then = lambda: None

    def event_connect(self):
        self.calls.append(("connect", VARIABLE.get()))
        self.watch_read(True)
        self.then()

    def event_connect_failed(self, error):
        self.calls.append(("failed", VARIABLE.get()))
        self.errors.append(error)
        super().event_connect_failed(error)
        self.then()

    def event_read(self):
        data = self.read(65536)
        if data is None:
            self.calls.append("end")
            self.close()
        else:
            self.got += data

    @property
    def told(self):
        return [call[0] for call in self.calls if call != "end"]


@pytest.fixture
def network(loop, monkeypatch):
    """A function of `hosts` that has the name "host" have them."""

    def make(hosts, seconds=0.0):
        network = Network(loop, hosts)
        loop.resolver = Names({"host": list(hosts)}, seconds)
        monkeypatch.setattr(socket, "socket", network.socket)
        return network

    return make


def arrived(network):
    """What came out of the other end of the one connection."""
    (sock,) = network.open
    return sock.far.recv(65536)


# -- on real sockets


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "path"])
def test_it_is_connected_and_serves_both_styles(real_loop, served, wait_for, tmp_path, host, pool):
    listener = served(echo_lines, address=str(tmp_path / "socket") if host == "path" else (host, 0))
    address = listener.address if host != "localhost" else (host, listener.address[1])
    sock = Client.connect_to(address, timeout=5)
    assert sock.calls == []
    sock.write(b"one\n")
    wait_for(lambda: sock.got == b"one\n")
    assert sock.told == ["connect"]
    assert sock.fd == sock.sock.fileno() > 0
    sock.watch_read(False)
    sock.write_all(b"two\n")
    assert sock.read_line() == b"two\n"
    sock.close()


def test_nodelay_is_set_unless_it_is_not_wanted(real_loop, served, wait_for):
    listener = served(echo_lines)
    for nodelay in (True, False):
        sock = Client.connect_to(listener.address, nodelay=nodelay)
        wait_for(lambda sock=sock: sock.told)
        assert bool(sock.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is nodelay
        sock.close()


def test_further_arguments_are_those_of_the_class(real_loop, served, wait_for):
    class Named(Client):
        def __init__(self, sock, name, *others):
            super().__init__(sock)
            self.name, self.others = name, others

    address = served(echo_lines).address
    sock = Named.connect_to(address, "a", 1, 2, timeout=5)
    assert (sock.name, sock.others) == ("a", (1, 2))
    wait_for(lambda: sock.told)
    with pytest.raises(TypeError, match="'name'"):
        Named.connect_to(address)
    sock.close()


def test_a_refusal_comes_from_the_loop_and_closes_it(real_loop, free_address, wait_for):
    sock = Client.connect_to(free_address)
    assert sock.calls == []
    wait_for(lambda: sock.closed)
    assert sock.told == ["failed"]
    assert isinstance(sock.errors[0], ConnectionRefusedError)
    assert str(free_address[1]) in str(sock.errors[0])
    assert str(sock.close_reason) == str(sock.errors[0])


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("/nowhere/there/is/no/socket", FileNotFoundError),
        ("x" * 200, OSError),
        (("a..host", 1), socket.gaierror),
        (("unknown", 1), socket.gaierror),
    ],
)
def test_errors_of_every_kind_come_by_the_hook(loop, wait_for, address, kind):
    loop.resolver = Names({"unknown": socket.EAI_NONAME})
    sock = Client.connect_to(address)
    assert sock.calls == []
    wait_for(lambda: sock.closed)
    assert sock.told == ["failed"]
    assert type(sock.errors[0]) is kind


@pytest.mark.parametrize(("address", "kind"), [(("h", 70000), ValueError), (5, TypeError), ("h:80", ValueError)])
def test_what_is_no_address_is_refused_at_once(loop, address, kind):
    with pytest.raises(kind):
        Client.connect_to(address)
    assert loop.descriptor_map() == {}


def test_it_may_be_asked_for_by_a_callback_and_by_a_task(real_loop, served, wait_for):
    listener, made = served(echo_lines), []
    real_loop.call_soon(lambda: made.append(Client.connect_to(listener.address)))
    d.spawn(lambda: made.append(Client.connect_to(listener.address)))
    wait_for(lambda: len(made) == 2 and all(sock.told == ["connect"] for sock in made))
    for sock in made:
        sock.close()


def test_a_full_unix_listener_is_asked_until_it_has_room(loop, tmp_path, advance):
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as filler:
        full.bind(str(tmp_path / "full"))
        full.listen(0)
        filler.connect(str(tmp_path / "full"))
        sock = Client.connect_to(tmp_path / "full")
        other = Client.connect_to(tmp_path / "full")
        advance(1)
        assert sock.told == other.told == []
        other.close()
        full.accept()[0].close()
        advance(1)
        assert sock.told == ["connect"]
        assert other.told == []
        sock.close()


# -- while it is connecting


def test_it_waits_for_look_up_and_attempts(network, advance):
    net = network({"::1": SILENT, "10.0.0.2": (0.5, 0)}, seconds=1)
    sock = Client.connect_to(("host", 80))
    advance(1.5)
    assert repr(sock) == "Client(): connecting to ('host', 80)"
    assert len(net.open) == 2
    advance(0.3)
    assert sock.told == ["connect"]
    assert len(net.open) == 1
    assert "open to" in repr(sock)
    sock.close()


def test_the_timeout_is_for_all_of_it(network, advance):
    net = network({"::1": SILENT}, seconds=1)
    sock = Client.connect_to(("host", 80), timeout=2)
    advance(1.9)
    assert sock.told == []
    advance(0.2)
    assert sock.told == ["failed"]
    assert str(sock.errors[0]) == "connecting to ('host', 80) took longer than 2 s"
    assert net.open == []


def test_what_is_written_is_sent_in_order_and_after_it_what_event_connect_writes(network, advance):
    class Greeting(Client):
        __slots__ = ()

        def __init__(self, sock):
            super().__init__(sock)
            self.write(b"1")

        def event_connect(self):
            super().event_connect()
            self.write(b"5")

    net = network({"10.0.0.1": (1, 0)})
    sock = Greeting.connect_to(("host", 80))
    assert sock.write(b"2") is False
    sock.write_soon(b"3")
    d.spawn(sock.write_all, b"4")
    advance(0.5)
    assert sock.unsent == 4
    assert sock.write(None) is False
    assert sock.read(10) == b""
    advance(1)
    assert arrived(net) == b"12345"
    assert sock.unsent == 0
    sock.close()


def test_a_callable_behind_what_is_written_waits_for_it(network, advance):
    net, ran = network({"10.0.0.1": (1, 0)}), []
    sock = Client.connect_to(("host", 80))
    sock.write(b"hello")
    sock.write(lambda: ran.append(arrived(net)))
    advance(0.5)
    sock.write(None)
    advance(0.4)
    assert ran == []
    advance(0.2)
    assert ran == [b"hello"]
    sock.close()


@pytest.mark.parametrize("written", [b"", b"the rest"])
def test_a_half_close_and_a_finish_are_kept_for_later(network, advance, written):
    for end in ("write_eof", "finish"):
        net = network({"10.0.0.1": (1, 0)})
        sock = Client.connect_to(("host", 80))
        sock.write(written)
        getattr(sock, end)()
        advance(0.5)
        assert not sock.closed
        advance(1)
        assert sock.told == ["connect"]
        (os_socket,) = net.open
        if written:
            assert os_socket.far.recv(100) == written
        assert os_socket.far.recv(100) == b""
        os_socket.far.close()
        sock.watch_read(True)
        advance(1)
        assert sock.closed


def test_a_finish_has_its_own_bound(network, advance):
    net = network({"10.0.0.1": SILENT})
    sock = Client.connect_to(("host", 80))
    sock.write(b"x")
    sock.finish()
    advance(6)
    assert sock.closed
    assert sock.told == []
    assert net.open == []


def test_limits_of_the_queue_hold(network, advance):
    class Small(Client):
        __slots__ = ()
        high_water = 10
        low_water = 5
        max_unsent = 20

        def on_high_water(self):
            self.calls.append(("high", ""))

        def on_low_water(self):
            self.calls.append(("low", ""))

    net = network({"10.0.0.1": (1, 0)})
    sock = Small.connect_to(("host", 80))
    sock.write(b"x" * 15)
    task = d.spawn(sock.write_all, b"y")
    advance(0.5)
    assert sock.told == ["high"]
    assert not task.done
    advance(1)
    assert sock.told == ["high", "connect", "low"]
    assert task.done
    assert arrived(net) == b"x" * 15 + b"y"
    sock.close()
    other = Small.connect_to(("host", 80))
    other.write(b"x" * 21)
    assert "max_unsent" in other.close_reason
    advance(3)
    assert other.told == ["high"]


def test_a_task_reads_what_comes_in_the_end(network, advance):
    net = network({"10.0.0.1": (1, 0)})
    sock = d.Socket.connect_to(("host", 80))
    task = d.spawn(sock.read_line)
    advance(0.5)
    assert "read_line" in task.waits_for
    advance(1)
    net.open[0].far.send(b"a line\n")
    task.join()
    assert task.result() == b"a line\n"
    sock.close()


@pytest.mark.parametrize("waits", ["read_line", "drain"])
def test_a_task_raises_the_error_by_which_it_failed_waiting_or_later(network, take_errors, waits):
    network({"10.0.0.1": (1, REFUSED)})
    sock = d.Socket.connect_to(("host", 80))
    sock.write(b"x")
    for call in (getattr(sock, waits), sock.read_line, sock.read_to_end, sock.drain, lambda: sock.write_all(b"x")):
        with pytest.raises(ConnectionRefusedError, match=r"cannot connect to .*Connection refused"):
            call()
    assert sock.closed
    assert isinstance(sock.close_reason, ConnectionRefusedError)


def test_reading_may_be_watched_before(network, advance):
    net = network({"10.0.0.1": (1, 0)})
    sock = Client.connect_to(("host", 80))
    sock.watch_read(True)
    sock.then = lambda: sock.watch_read(False)
    advance(2)
    net.open[0].far.send(b"input")
    advance(1)
    assert sock.got == b""
    sock.watch_read(True)
    advance(1)
    assert sock.got == b"input"
    sock.close()


def test_the_idle_timeout_begins_with_the_connection_and_a_lifetime_before(network, advance):
    class Idle(Client):
        __slots__ = ()
        idle_timeout = 2

    network({"10.0.0.1": (10, 0)})
    sock = Idle.connect_to(("host", 80))
    sock.write(b"x")
    sock.watch_read(True)
    advance(10.5)
    assert sock.told == ["connect"]
    advance(2)
    assert "idle" in sock.close_reason
    brief = Client.connect_to(("host", 80))
    brief.lifetime = 5
    advance(6)
    assert "lifetime" in brief.close_reason
    advance(10)
    assert brief.told == []


def test_its_socket_cannot_be_stolen_yet(network, advance):
    network({"10.0.0.1": (1, 0)})
    sock = Client.connect_to(("host", 80))
    with pytest.raises(d.BusyError, match="not made yet"):
        sock.steal_socket()
    advance(2)
    stolen, _ = sock.steal_socket()
    stolen.close()


def test_what_it_says_of_itself_needs_no_connection(network, advance):
    network({"10.0.0.1": (1, 0)})
    sock = Client.connect_to(("host", 80))
    assert (sock.peer_addr_string(), sock.local_addr_string(), sock.ready, sock.idle) == (None, None, False, False)
    sock.tcp_cork(True)
    advance(2)
    assert sock.peer_addr_string() is not None
    sock.close()


# -- the hooks


def test_hooks_run_in_the_context_of_the_call(network, advance):
    network({"10.0.0.1": (1, 0), "::2": (1, REFUSED)})
    before = VARIABLE.set("inside")
    sock = Client.connect_to(("host", 80))
    failing = Client.connect_to(("unknown", 80))
    d.current_loop().resolver.table["unknown"] = socket.EAI_NONAME
    VARIABLE.set("later")
    advance(3)
    VARIABLE.reset(before)
    assert sock.calls == [("connect", "inside")]
    assert failing.calls == [("failed", "inside")]
    sock.close()


def test_a_hook_that_raises_is_reported_and_costs_its_connection(network, advance, take_errors):
    network({"10.0.0.1": (1, 0)})
    sock = Client.connect_to(("host", 80))
    sock.then = lambda: 1 / 0
    advance(2)
    assert [type(context.exception) for context in take_errors()] == [ZeroDivisionError]
    assert isinstance(sock.close_reason, ZeroDivisionError)
    network({"10.0.0.1": (1, REFUSED)})
    sock = Client.connect_to(("host", 80))
    sock.then = lambda: 1 / 0
    advance(2)
    assert [type(context.exception) for context in take_errors()] == [ZeroDivisionError]
    assert sock.closed


@pytest.mark.parametrize("number", [0, REFUSED])
def test_a_hook_may_close_it(network, advance, number):
    net = network({"10.0.0.1": (1, number)})
    sock = Client.connect_to(("host", 80))
    sock.then = lambda: sock.close("enough")
    advance(2)
    assert sock.close_reason == "enough"
    assert net.open == []


def test_by_default_the_hooks_do_nothing(network, advance):
    network({"10.0.0.1": (1, 0)})
    sock = d.Socket.connect_to(("host", 80))
    failing = d.Socket.connect_to(("host", 80), timeout=0.5)
    advance(2)
    assert not sock.closed
    assert isinstance(failing.close_reason, TimeoutError)
    sock.close()


def test_hooks_are_measured(network, advance, loop):
    network({"10.0.0.1": (1, 0)})
    d.Socket.enable_profiling()
    sock = Client.connect_to(("host", 80))
    Client.connect_to(("host", 80), timeout=0.5)
    advance(2)
    assert {"Client-connect", "Client-connect_failed"} <= set(d.Socket.profiling_data())
    sock.close()


# -- the end


@pytest.mark.parametrize("when", [None, 0, 0.5, 1, 1.2, 1.25, 1.3])
def test_after_close_neither_comes(network, advance, when):
    net = network({"::1": SILENT, "10.0.0.2": (0.5, 0)}, seconds=1)
    sock = Client.connect_to(("host", 80), timeout=1.75)
    if when is not None:
        advance(when)
    assert sock.told == []
    sock.close()
    assert sock.told == []
    advance(3)
    assert sock.told == []
    assert net.open == []


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_whenever_it_is_told_at_most_once_and_nothing_is_left_open(network, loop, seed):
    chance = random.Random(seed)
    net = network(random_hosts(chance), chance.choice([0, 0.2]))
    socks = []

    def read(sock):
        with contextlib.suppress(OSError):
            sock.read_some()

    for _ in range(2):
        sock = Client.connect_to(("host", 80), timeout=chance.choice([None, 0, chance.random(), 3]))
        sock.write(b"x")
        if chance.random() < 0.3:
            sock.then = chance.choice([sock.close, sock.finish, sock.write_eof])
        if chance.random() < 0.2:
            d.spawn(read, sock)
        socks.append(sock)
    if chance.random() < 0.7:
        moments = [host[0] or 0 for host in net.hosts.values() if host] + [0, 0.25, 0.5, chance.random()]
        end = chance.choice([socks[0].close, socks[0].finish, socks[0].write_eof, loop.stop, loop.reset])
        timer = loop.add_timer(chance.choice(moments), loop.stop if end == loop.reset else end)
        loop.loop_timeout = 0.1
        loop.run(lambda: not timer.active)
        loop.loop_timeout = None
        if end == loop.reset:
            loop.reset()
    closed = {sock: sock.told for sock in socks if sock.closed}
    d.sleep(4)
    for sock in socks:
        assert len(sock.told) <= 1
        assert sock.closed or sock.told != ["failed"]
        assert closed.get(sock, sock.told) == sock.told
        sock.close()
    d.sleep(0)
    assert net.open == []


def test_the_end_of_run_closes_it(network):
    net = network({"::1": SILENT, "::2": SILENT, "::3": SILENT})
    made = []

    def main():
        made.append(Client.connect_to(("host", 80)))
        d.sleep(0.3)
        assert len(net.open) == 2

    d.run(main)
    assert made[0].closed
    assert made[0].told == []
    assert net.open == []


def test_an_object_that_cannot_be_made_begins_nothing(network, advance):
    class Broken(d.Socket):
        __slots__ = ()

        def __init__(self, sock):
            super().__init__(sock)
            raise KeyError("made wrongly")

    net = network({"::1": SILENT})
    with pytest.raises(KeyError, match="made wrongly"):
        Broken.connect_to(("host", 80))
    advance(1)
    assert net.tried == []


def test_an_object_that_is_closed_as_it_is_made_begins_nothing(network, advance):
    class Closed(Client):
        __slots__ = ()

        def __init__(self, sock):
            super().__init__(sock)
            self.close()

    net = network({"::1": SILENT})
    sock = Closed.connect_to(("host", 80))
    advance(1)
    assert (sock.told, net.tried) == ([], [])


@pytest.mark.parametrize("end", ["connected", "failed", "closed"])
def test_it_is_freed_without_the_collector(network, advance, uncollected, end):
    network({"10.0.0.1": (1, REFUSED if end == "failed" else 0)})
    sock = Client.connect_to(("host", 80))
    sock.write(b"x")
    if end == "closed":
        advance(0.5)
        sock.close()
    advance(2)
    sock.close()
    advance(0)
    gone = weakref.ref(sock)
    del sock
    assert gone() is None
    gc.collect()


def test_a_connect_to_on_a_loop_that_is_reset_or_closed_leaves_nothing(network, loop):
    net = network({"::1": SILENT})
    with no_leaks(loop):
        sock = Client.connect_to(("host", 80))
        d.sleep(0.1)
        loop.reset()
        assert sock.closed
    assert net.open == []
    assert sock.told == []


# -- TLS


@pytest.fixture
def secured(served):
    """A TLS server that echoes lines."""
    return served(echo_lines, tls=server_context("localhost", "127.0.0.1", "xn--bcher-kva.example"))


@pytest.mark.parametrize("version", versions(), ids=lambda version: version.name)
def test_it_is_secured_before_it_is_told(real_loop, secured, wait_for, version):
    sock = Client.connect_to(secured.address, timeout=5, tls=client_context(version))
    sock.write(b"one\n")
    sock.then = lambda: sock.write(b"two\n")
    wait_for(lambda: sock.got == b"one\ntwo\n")
    assert sock.told == ["connect"]
    assert sock.tls.version == version.name.replace("_", ".")
    assert sock.fd == sock.sock.fileno() > 0
    sock.watch_read(False)
    sock.write_all(b"three\n")
    assert sock.read_line() == b"three\n"
    sock.close()


def test_what_is_written_waits_for_the_handshake_and_a_half_close_is_kept(real_loop, secured, wait_for):
    sock = Client.connect_to(secured.address, tls=client_context())
    sock.write(b"x" * 9999 + b"\n")
    sock.write((b"y" * 9999 + b"\n") * 30)
    sock.write_eof()
    wait_for(lambda: sock.closed)
    assert sock.got == b"x" * 9999 + b"\n" + (b"y" * 9999 + b"\n") * 30
    assert sock.calls == [("connect", "outside"), "end"]


def test_a_half_close_without_data_is_kept(real_loop, secured, wait_for):
    sock = Client.connect_to(secured.address, tls=client_context())
    sock.write_eof()
    wait_for(lambda: sock.closed)
    assert sock.calls == [("connect", "outside"), "end"]


def test_a_refusal_of_either_side_comes_by_the_hook(real_loop, secured, served, wait_for):
    stranger = Client.connect_to(secured.address, tls=True)
    wrong_name = Client.connect_to(secured.address, tls=client_context(), server_hostname="other.example")
    plain = Client.connect_to(served(lambda sock: sock.write_all(b"hello\n" * 3)).address, tls=client_context())
    socks = [stranger, wrong_name, plain]
    wait_for(lambda: all(sock.closed for sock in socks))
    assert [sock.told for sock in socks] == [["failed"]] * 3
    assert [type(sock.errors[0]) for sock in socks] == [d.TlsError] * 3


def test_a_server_that_is_silent_takes_the_rest_of_the_timeout(real_loop, deaf_server, wait_for):
    sock = Client.connect_to(deaf_server, timeout=0.05, tls=client_context(), server_hostname="localhost")
    wait_for(lambda: sock.closed)
    assert sock.told == ["failed"]
    words = f"connecting to {deaf_server!r} took longer than 0.05 s, with the TLS handshake"
    assert str(sock.errors[0]) == words
    with pytest.raises(TimeoutError, match="with the TLS handshake"):
        d.connect(deaf_server, 0.05, tls=client_context(), server_hostname="localhost")


@pytest.fixture
def deaf_server():
    """The address of a listener that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


@pytest.mark.parametrize("end", ["close", "finish"])
def test_after_close_in_the_handshake_neither_comes(real_loop, deaf_server, end, wait_for):
    sock = Client.connect_to(deaf_server, tls=client_context(), server_hostname="localhost")
    sock.linger_seconds = 0.05
    wait_for(lambda: real_loop.descriptor_map().keys() - {sock.fd})
    getattr(sock, end)()
    wait_for(lambda: sock.closed)
    d.sleep(0.01)
    assert sock.told == []


@pytest.mark.parametrize("seed", range(5))
def test_a_handshake_that_is_given_up_at_any_moment_leaves_nothing(real_loop, secured, wait_for, seed):
    chance = random.Random(seed)
    context = client_context()
    for _ in range(20):
        sock = Client.connect_to(secured.address, tls=context, timeout=chance.choice([None, 0.001, 0.003]))
        sock.write(b"x\n")
        if chance.random() < 0.3:
            sock.then = chance.choice([sock.close, sock.finish])
        d.sleep(chance.choice([0, 0, 0.0005, 0.001, 0.003]))
        with contextlib.suppress(OSError), d.move_on_after(chance.choice([0, 0.001, 0.003])):
            d.connect(secured.address, chance.choice([None, 0.001]), tls=context).close()
        chance.choice([sock.close, sock.finish])()
        assert len(sock.told) <= 1
    wait_for(lambda: not len(real_loop.timers))  # a FIN that had no room is tried again, 20 ms later


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"tls": 5}, TypeError),
        ({"server_hostname": "x"}, ValueError),
        ({"tls": server_context()}, ValueError),
        ({"tls": True, "server_hostname": 5}, TypeError),
    ],
    ids=["no context", "a name alone", "a server's", "no name"],
)
def test_arguments_of_tls_are_judged_at_once(loop, arguments, kind):
    with pytest.raises(kind):
        Client.connect_to(("127.0.0.1", 1), **arguments)
    with pytest.raises(kind):
        d.connect(("127.0.0.1", 1), **arguments)
    assert loop.descriptor_map() == {}


def test_the_certificate_is_for_the_name_that_was_asked_for(real_loop, secured, wait_for):
    """In ASCII, and of the same IDNA: that of 2003 would make other names of some."""
    names = real_loop.resolver = Names({"xn--bcher-kva.example": ["127.0.0.1"], "xn--strae-oqa.example": ["127.0.0.1"]})
    address = ("B\u00dccher.example", secured.address[1])
    with d.connect(address, 30, tls=client_context()) as sock:
        sock.write_all(b"x\n")
        assert sock.read_line() == b"x\n"
    client = Client.connect_to(address, tls=client_context())
    wait_for(lambda: client.told)
    assert client.told == ["connect"]
    client.close()
    with pytest.raises(d.TlsError, match=r"xn--strae-oqa\.example"):
        d.connect(("stra\u00dfe.example", secured.address[1]), 30, tls=client_context())
    assert names.asked == ["xn--bcher-kva.example"] * 2 + ["xn--strae-oqa.example"]


def test_a_server_hostname_that_is_none_leaves_nothing(real_loop, secured, wait_for):
    for name in ("a..b\u00fc", "x\0y"):
        with pytest.raises((ValueError, TypeError)):
            d.connect(secured.address, 30, tls=client_context(), server_hostname=name)
        sock = Client.connect_to(secured.address, tls=client_context(), server_hostname=name)
        wait_for(lambda sock=sock: sock.closed)
        assert sock.told == ["failed"]
        assert isinstance(sock.errors[0], ValueError | TypeError)
