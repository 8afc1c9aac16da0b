"""TLS in the middle of a conversation, in both styles: order, injection, refusals, and how it ends when it fails."""

from __future__ import annotations

import socket
import ssl

import pytest

import dangagreen as d
from tests.certificates import STRANGER, client_context, server_context

LOCAL = ("127.0.0.1", 0)


@pytest.fixture
def pair(wires):
    """`pair(classes=(d.Socket, d.Socket))` makes a Socket of each end of a plain connection in memory."""

    def pair(classes=(d.Socket, d.Socket), **options):
        return tuple(cls(end) for cls, end in zip(classes, wires(**options), strict=True))

    return pair


class Secured(d.Socket):
    """Notes what it is told, in callback style."""

    __slots__ = ("told",)

    def __init__(self, sock):
        super().__init__(sock)
        self.told = []

    def event_read(self):
        self.told.append(self.read(1000))

    def event_secured(self):
        self.told.append("secured")

    def close(self, reason=None):
        if not self.closed:
            self.told.append("closed")
        super().close(reason)


def test_both_styles_meet(pair):
    """A conversation as of SMTP: the server in callback style, the client in sequential style."""

    class Server(Secured):
        def event_read(self):
            data = self.read(1000)
            self.told.append(data)
            if data == b"STARTTLS\r\n":
                self.write(b"220 go ahead\r\n")
                self.start_tls(server_context())
                self.write(b"250 welcome\r\n")

    server, client = pair((Server, d.Socket))
    server.watch_read(True)

    def main():
        client.write_all(b"STARTTLS\r\n")
        assert client.read_line() == b"220 go ahead\r\n"
        client.start_tls(client_context(), "localhost")
        assert client.tls.version == "TLSv1.3"
        assert client.read_line() == b"250 welcome\r\n"
        client.write_all(b"secret")
        client.finish()
        d.sleep(0.1)

    d.run(main)
    assert server.told[:3] == [b"STARTTLS\r\n", "secured", b"secret"]
    assert None in server.told


def test_tasks_at_both_ends(pair):
    server, client = pair()

    def serve():
        assert server.read_line() == b"STARTTLS\r\n"
        server.write_all(b"220 go ahead\r\n")
        server.start_tls(server_context())
        server.write_all(server.read_line().upper())
        server.finish()

    def main():
        task = d.spawn(serve)
        client.write_all(b"STARTTLS\r\n")
        client.read_line()
        client.start_tls(client_context(), "localhost")
        client.write_all(b"hello\n")
        assert client.read_line() == b"HELLO\n"
        assert client.read_to_end() == b""
        task.join()

    d.run(main)


def test_nothing_is_agreed_upon_before_the_handshake_is_over(pair):
    class Server(Secured):
        def event_secured(self):
            self.told.append(self.tls.version)

    server, client = pair((Server, d.Socket))

    def begin():
        server.start_tls(server_context())
        server.told.append(server.tls)

    def main():
        d.sleep(0.1)
        assert server.tls is None
        with pytest.raises(RuntimeError, match="is secured by TLS"):
            server.steal_socket()
        client.start_tls(client_context(), "localhost")
        d.sleep(0.1)

    server.loop.call_soon(begin)
    d.run(main)
    assert server.told[:2] == [None, "TLSv1.3"]


def test_what_was_written_before_leaves_in_plain_text_although_the_kernel_is_slow(pair, run_turns):
    server, client = pair((Secured, d.Socket), capacity=100)
    server.watch_read(True)
    got = bytearray()

    def begin():
        server.write(b"p" * 1000)
        server.start_tls(server_context())
        server.write(b"secret" * 50)

    def main():
        while len(got) < 1000:
            got.extend(client.read_some(1000 - len(got)))
        assert got == b"p" * 1000
        client.start_tls(client_context(), "localhost", timeout=500)
        assert client.read_exactly(300) == b"secret" * 50
        client.finish()
        d.sleep(1)

    server.loop.call_soon(begin)
    d.run(main)
    assert server.told[0] == "secured"


def test_input_that_is_plain_and_buffered_is_refused(pair):
    """STARTTLS injection: a command that somebody has put behind STARTTLS, in plain text, before the handshake."""
    server, client = pair()

    def main():
        client.write_all(b"STARTTLS\r\nRSET\r\n")
        client.drain()
        assert server.read_line() == b"STARTTLS\r\n"
        with pytest.raises(d.TlsError, match="6 bytes of plain text") as caught:
            server.start_tls(server_context())
        assert caught.value.refused_by == "server"
        assert server.closed
        assert isinstance(server.close_reason, d.TlsError)

    d.run(main)


def test_plain_text_that_comes_later_is_no_tls(pair):
    server, client = pair()

    def main():
        client.write_all(b"STARTTLS\r\n")
        client.drain()
        assert server.read_line() == b"STARTTLS\r\n"
        client.write_all(b"MAIL FROM:<mallory>\r\n")
        client.drain()
        with pytest.raises(d.TlsError):
            server.start_tls(server_context())
        assert server.closed
        assert isinstance(server.close_reason, d.TlsError)

    d.run(main)


def test_pushed_back_input_is_refused(pair):
    server, _client = pair()
    server.push_back_read(b"x")

    def main():
        with pytest.raises(d.TlsError, match="1 bytes of plain text"):
            server.start_tls(server_context())

    d.run(main)


@pytest.mark.parametrize("when", ["at once", "later"])
def test_input_that_is_pushed_back_after_it_has_begun_is_refused(pair, when):
    """A callback that splits what it has read into lines, and pushes the rest back at the end, as one does."""

    class Server(Secured):
        def event_read(self):
            data = self.read(1000)
            self.told.append(data)
            self.start_tls(server_context())
            rest = data.partition(b"\n")[2]
            if when == "at once":
                self.push_back_read(rest)
            else:
                self.loop.add_timer(0.1, lambda: self.push_back_read(rest))

    server, client = pair((Server, d.Socket))
    server.watch_read(True)

    def main():
        client.write_all(b"STARTTLS\nRSET\n")
        client.drain()
        d.sleep(0.2)
        client.start_tls(client_context(), "localhost")
        assert client.read_to_end() == b""

    d.run(main)
    assert server.told == [b"STARTTLS\nRSET\n", "closed"]
    assert isinstance(server.close_reason, d.TlsError)


class Starts:
    """Starts TLS after a line, as a handler and as a callback."""

    timeout = 5.0

    def in_a_handler(self, sock):
        sock.read_line()
        sock.start_tls(server_context(), timeout=self.timeout)

    def in_a_callback(self, sock):
        sock.push_back_read(sock.read(1000).partition(b"\n")[2])
        sock.start_tls(server_context(), timeout=self.timeout)


def read_meanwhile():
    """The server has a few turns, in which it reads what was sent."""
    for _ in range(5):
        d.sleep(0.0002)


def garbage(sock):
    sock.sendall(b"STARTTLS\n")
    read_meanwhile()
    sock.sendall(b"MAIL FROM:<mallory>\r\n")


def injection(sock):
    sock.sendall(b"STARTTLS\nMAIL FROM:<mallory>\n")


def end(sock):
    sock.sendall(b"STARTTLS\n")
    read_meanwhile()
    sock.close()


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    end(sock)


def distrust(sock):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    sock.sendall(b"STARTTLS\n")
    read_meanwhile()
    tls = context.wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=False)
    with tls, pytest.raises(ssl.SSLCertVerificationError):
        d.in_thread(tls.do_handshake)


def silence(sock):
    sock.sendall(b"STARTTLS\n")


@pytest.mark.parametrize("spoil", [garbage, injection, end, reset, distrust, silence])
@pytest.mark.parametrize("style", ["handler", "requests", "callbacks"])
def test_a_peer_that_spoils_it_costs_one_debug_line(real_loop, caplog, style, spoil):
    starts = Starts()
    if spoil is silence:
        starts.timeout = 0.02

    class StartsInACallback(d.Socket):
        __slots__ = ()

        def event_read(self):
            starts.in_a_callback(self)

    if style == "callbacks":
        listener = d.serve(LOCAL, StartsInACallback)
    else:
        listener = (d.serve if style == "handler" else d.serve_requests)(LOCAL, starts.in_a_handler)

    def main():
        with socket.create_connection(listener.address) as sock, d.timeout(30):
            sock.settimeout(30)
            while not listener.connections:
                d.sleep(0)
            with caplog.at_level("DEBUG", "dangagreen"):
                spoil(sock)
                while listener.connections or not caplog.records:
                    d.sleep(0.001)
                read_meanwhile()  # for a second one

    d.run(main)
    lines = [record for record in caplog.records if record.name == "dangagreen"]
    assert [record.levelname for record in lines] == ["DEBUG"], [record.getMessage() for record in lines]


def test_twice_is_once_too_often(pair):
    server, client = pair()

    def main():
        task = d.spawn(server.start_tls, server_context())
        client.start_tls(client_context(), "localhost")
        task.join()
        with pytest.raises(RuntimeError, match="secured already"):
            client.start_tls(client_context(), "localhost")

    d.run(main)


def test_while_a_task_reads_it_is_refused(pair):
    server, _client = pair()

    def main():
        d.spawn(server.read_some)
        d.sleep(0)
        with pytest.raises(d.BusyError, match="start_tls"):
            server.start_tls(server_context())

    d.run(main)


def test_while_it_is_under_way_a_read_is_refused(pair):
    server, _client = pair()

    def main():
        task = d.spawn(server.start_tls, server_context())
        d.sleep(0)
        with pytest.raises(d.BusyError, match="the TLS handshake"):
            server.read_some()
        task.cancel()

    d.run(main)
    assert server.closed


def test_a_closed_socket_is_refused(pair):
    server, _client = pair()
    server.close("over")

    def main():
        with pytest.raises(d.ClosedError, match="over"):
            server.start_tls(server_context())

    d.run(main)


def test_inside_no_parking_it_is_refused(pair):
    server, _client = pair()

    def main():
        with d.no_parking(), pytest.raises(d.CannotParkError):
            server.start_tls(server_context())
        assert not server.closed

    d.run(main)


@pytest.mark.parametrize("style", ["task", "callback"])
def test_a_refusal_closes_the_socket_with_the_reason(pair, run_until, style):
    server, client = pair((Secured, d.Socket))
    errors = []

    def talk():
        with pytest.raises(d.TlsError) as caught:
            client.start_tls(client_context(), "localhost")
        errors.append(caught.value)
        d.sleep(0.1)

    def serve():
        with pytest.raises(d.TlsError):
            server.start_tls(server_context(authority=STRANGER))

    if style == "task":
        d.spawn(serve)
    else:
        server.watch_read(True)
        server.loop.call_soon(lambda: server.start_tls(server_context(authority=STRANGER)))
    d.run(talk)
    assert errors[0].refused_by == "client"
    assert server.closed
    assert client.closed
    assert server.close_reason.refused_by == "client"
    assert server.told == ["closed"]


def test_a_silent_peer(pair):
    server, _client = pair()

    def main():
        before = server.loop.clock()
        with pytest.raises(TimeoutError, match="TLS handshake"):
            server.start_tls(server_context())
        assert server.loop.clock() - before == pytest.approx(10)
        assert server.closed

    d.run(main)


def test_a_callback_hears_of_a_silent_peer_by_the_close(pair, advance):
    server, _client = pair((Secured, d.Socket))
    server.loop.call_soon(lambda: server.start_tls(server_context(), timeout=3))
    advance(2.9)
    assert not server.closed
    advance(0.2)
    assert server.told == ["closed"]
    assert isinstance(server.close_reason, TimeoutError)


def test_a_timeout_around_it_closes_the_socket(pair):
    server, _client = pair()

    def main():
        with d.move_on_after(0.5):
            server.start_tls(server_context())
        assert server.closed

    d.run(main)


def test_a_close_in_the_middle_is_told(pair):
    server, _client = pair()

    def main():
        task = d.spawn(server.start_tls, server_context())
        d.sleep(0.1)
        server.close("enough")
        task.join()
        with pytest.raises(d.ClosedError, match="enough"):
            task.result()

    d.run(main)


def test_a_close_before_it_begins_is_told(pair):
    server, _client = pair(capacity=100)

    def start():
        with pytest.raises(d.ClosedError, match="enough"):
            server.start_tls(server_context())

    def main():
        server.write_all(b"x" * 1000)
        task = d.spawn(start)
        d.sleep(0.1)
        server.close("enough")
        task.join()
        task.result()

    d.run(main)


def test_cancelled_before_it_begins_it_closes_the_socket(pair):
    server, _client = pair(capacity=100)

    def main():
        server.write_all(b"x" * 1000)
        with d.move_on_after(1):
            server.start_tls(server_context())
        assert server.closed

    d.run(main)


def test_a_peer_that_ends_in_the_middle(pair):
    server, client = pair()

    def main():
        d.spawn(lambda: d.sleep(0.1) or client.close())
        with pytest.raises(d.TlsError, match="within the TLS handshake"):
            server.start_tls(server_context())
        assert server.closed

    d.run(main)


def test_a_peer_that_has_ended_before(pair):
    server, client = pair()

    def main():
        client.write_eof()
        assert server.read_some() == b""
        with pytest.raises(ConnectionError):
            server.start_tls(server_context())
        assert server.closed

    d.run(main)


def test_a_name_that_openssl_refuses_changes_nothing(pair):
    _server, client = pair()

    def main():
        with pytest.raises(ValueError):
            client.start_tls(client_context(), ".example.com")
        assert not client.closed
        assert client.tls is None

    d.run(main)


def test_finish_in_the_middle_sends_what_is_queued_when_it_is_over(pair, run_until):
    server, client = pair((Secured, d.Socket))

    def begin():
        server.start_tls(server_context())
        server.write(b"reply")
        server.finish()

    def main():
        client.start_tls(client_context(), "localhost")
        assert client.read_to_end() == b"reply"

    server.loop.call_soon(begin)
    d.run(main)


def test_the_queue_is_held_and_counted(pair, run_turns):
    server, _client = pair((Secured, d.Socket))
    server.loop.call_soon(lambda: server.start_tls(server_context()))
    run_turns(2)
    assert server.write(b"x" * 100) is False
    server.write_soon(b"y" * 100)
    run_turns(2)
    assert server.unsent == 200
    server.close()


@pytest.mark.parametrize("style", ["task", "callback"])
def test_the_choice_of_a_certificate_may_park(pair, style):
    server, client = pair((Secured, d.Socket))
    context, chosen = server_context("else.where"), server_context()

    def choose(tls, name, _context):
        d.sleep(0.5)
        assert name == "localhost"
        tls.context = chosen

    context.sni_callback = choose

    def main():
        if style == "task":
            task = d.spawn(server.start_tls, context)
        else:
            server.loop.call_soon(server.start_tls, context)
        client.start_tls(client_context(), "localhost")
        d.sleep(0.1)
        if style == "task":
            task.join()
            task.result()
        else:
            assert server.told == ["secured"]
        server.write_all(b"hello")
        assert client.read_exactly(5) == b"hello"

    d.run(main)


def test_a_peer_that_goes_away_while_the_choice_parks(pair):
    server, client = pair((Secured, d.Socket))
    context = server_context()
    context.sni_callback = lambda *_: d.sleep(0.5)

    def give_up():
        with d.move_on_after(0.1):
            client.start_tls(client_context(), "localhost")

    def main():
        d.spawn(give_up)
        before = server.loop.poller.waits
        with pytest.raises(d.TlsError, match="within the TLS handshake"):
            server.start_tls(context)
        assert server.loop.poller.waits - before < 50

    d.run(main)
    assert server.closed


def test_over_real_sockets(real_loop):
    def handler(sock):
        sock.read_line()
        sock.write_all(b"go\n")
        sock.start_tls(server_context())
        for line in sock:
            sock.write_all(line.upper())

    def main():
        listener = d.serve(LOCAL, handler)
        with d.connect(listener.address, 30) as sock:
            sock.write_all(b"STARTTLS\n")
            assert sock.read_line() == b"go\n"
            sock.start_tls(client_context(), "localhost")
            for _ in range(3):
                sock.write_all(b"hello\n")
                assert sock.read_line() == b"HELLO\n"
            assert sock.tls.server_hostname == "localhost"

    d.run(main)


def test_top_level_code_may_wait_for_it(real_loop):
    listener = d.serve(LOCAL, lambda sock: sock.start_tls(server_context()))
    sock = d.connect(listener.address, 30)
    sock.start_tls(client_context(), "localhost")
    assert sock.tls is not None
    sock.close()
    listener.close()
    d.sleep(0.01)


def test_connect_over_a_unix_socket(real_loop, tmp_path):
    path = str(tmp_path / "socket")

    def main():
        d.serve(path, lambda sock: sock.write_all(b"hello"), tls=server_context())
        with d.connect(path, 30, tls=client_context(), server_hostname="localhost") as sock:
            assert sock.read_to_end() == b"hello"

    d.run(main)


def test_connect_that_is_refused_leaves_nothing_open(real_loop):
    def main():
        listener = d.serve(LOCAL, lambda sock: None, tls=server_context("else.where"))
        with pytest.raises(d.TlsError, match=r"not valid for|mismatch"):
            d.connect(listener.address, 30, tls=client_context())
        while listener.connections:
            d.sleep(0.001)

    d.run(main)


def test_connect_to_a_server_that_speaks_no_tls(real_loop):
    def main():
        listener = d.serve(LOCAL, lambda sock: sock.write_all(b"220 hello\r\n"))
        with pytest.raises(d.TlsError, match="is no TLS"):
            d.connect(listener.address, 30, tls=client_context())
        while listener.connections:
            d.sleep(0.001)

    d.run(main)


def test_connect_times_out_in_the_handshake(real_loop):
    def main():
        with socket.create_server(LOCAL) as silent, pytest.raises(TimeoutError, match=r"took longer than 0\.05 s"):
            d.connect(silent.getsockname(), 0.05, tls=client_context())

    d.run(main)


def test_connect_is_cancelled_in_the_handshake(real_loop):
    def main():
        with socket.create_server(LOCAL) as silent:
            with d.move_on_after(0.05):
                d.connect(silent.getsockname(), 30, tls=client_context())
                raise AssertionError("it is connected")
            accepted, _ = silent.accept()
            d.sleep(0.01)
            with accepted:
                accepted.settimeout(30)
                while accepted.recv(1000):
                    pass

    d.run(main)


def test_a_plain_client_hears_an_alert_from_a_tls_client_only(real_loop):
    """A TLS client on a plain port: the handler gets its hello as bytes, and the client a reason."""
    got = []

    def handler(sock):
        got.append(sock.read_some())
        sock.write_all(b"what?\r\n")

    def main():
        listener = d.serve(LOCAL, handler)
        with pytest.raises(d.TlsError, match="is no TLS"):
            d.connect(listener.address, 30, tls=client_context())

    d.run(main)
    assert got[0][0] == 22
    assert ssl.HAS_TLSv1_3
