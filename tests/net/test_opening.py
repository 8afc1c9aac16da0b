"""What a connection goes through before its handler: handshakes, their deadline and limit, refusals, SNI that parks."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import sys
from contextlib import suppress

import pytest

import dangagreen as d
from dangagreen.net.opening import Opening
from dangagreen.sockets.tls_options import TlsOptions
from tests.certificates import (
    STRANGER,
    ByHand,
    certificate,
    client_context,
    server_context,
    versions,
)
from tests.connections import LOCAL, ask


class Upper(d.Socket):
    """Answers in capitals, in callback style."""

    def event_read(self):
        data = self.read(65536)
        if data is None:
            self.finish()
        else:
            self.write(data.upper())


def upper(sock):
    """The same in sequential style, for one line or more."""
    while line := sock.read_line():
        sock.write_all(line.upper())


def upper_once(sock):
    """For serve_requests."""
    if line := sock.read_line():
        sock.write_all(line.upper())


SERVERS = {
    "callbacks": lambda **options: d.serve(LOCAL, Upper, **options),
    "tasks": lambda **options: d.serve(LOCAL, upper, **options),
    "requests": lambda **options: d.serve_requests(LOCAL, upper_once, **options),
}


@pytest.mark.parametrize("version", versions(), ids=lambda version: version.name)
@pytest.mark.parametrize("kind", SERVERS)
def test_servers_of_each_kind(real_loop, kind, version):
    def main():
        listener = SERVERS[kind](tls=server_context(version=version))
        with d.connect(listener.address, 30, tls=client_context(version)) as sock:
            for _ in range(3):
                assert ask(sock, b"hello\n") == b"HELLO\n"
            sock.write_eof()
            assert sock.read_to_end() == b""
        assert listener.failed_handshakes == 0
        assert listener.accepted == 1  # and not once more when the handshake is over

    d.run(main)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_request_that_comes_with_the_end_of_the_handshake(real_loop, run_until, kind):
    listener = SERVERS[kind](tls=server_context())
    with socket.create_connection(listener.address, 30) as raw:
        raw.setblocking(False)
        peer = ByHand(raw, client_context(), server_hostname="localhost")
        with pytest.raises(BlockingIOError):
            peer.go_on()
        got = bytearray()

        def until():
            peer.take()
            try:
                peer.tls.do_handshake()
            except ssl.SSLWantReadError:
                return False
            if not got:
                peer.tls.write(b"early\n")
                got.extend(b" ")
                peer.give()  # with the client's last flight, in one segment
            got.extend(peer.read())
            return got.endswith(b"EARLY\n")

        run_until(until)
    listener.close()
    run_until(lambda: not listener.connections)


def test_a_silent_client_is_closed_when_its_time_is_over(real_loop, run_until, caplog):
    caplog.set_level(logging.DEBUG, "dangagreen")
    listener = d.serve(LOCAL, upper, tls=server_context(), handshake_timeout=0.05)
    with socket.create_connection(listener.address, 30) as raw:
        run_until(lambda: listener.failed_handshakes and not listener.connections)
        assert raw.recv(1) == b""
    assert any("was not open after 0.05 s" in line for line in caplog.messages)
    listener.close()


def test_silent_clients_hold_up_nobody(real_loop):
    def main():
        listener = d.serve(LOCAL, upper, tls=server_context())
        silent = [socket.create_connection(listener.address, 30) for _ in range(20)]
        with d.connect(listener.address, 30, tls=client_context()) as sock:
            assert ask(sock, b"hello\n") == b"HELLO\n"
            assert listener.connections == 21
        for one in silent:
            one.close()

    d.run(main)


def test_beyond_the_limit_of_handshakes_connections_wait(real_loop):
    def main():
        listener = d.serve(LOCAL, upper, tls=server_context(), max_handshakes=2)
        silent = [socket.create_connection(listener.address, 30) for _ in range(5)]
        while listener.connections < 2:
            d.sleep(0.001)
        d.sleep(0.02)
        assert listener.connections == len(listener.openings.under_way) == 2
        for one in silent:
            one.close()
        with d.connect(listener.address, 30, tls=client_context()) as sock:  # after those three, which are let in
            assert ask(sock, b"hello\n") == b"HELLO\n"
        opened = [d.connect(listener.address, 30, tls=client_context()) for _ in range(3)]  # open ones count no more
        for sock in opened:
            with sock:
                assert ask(sock, b"hello\n") == b"HELLO\n"
        assert listener.failed_handshakes == 5

    d.run(main)


def test_connections_in_handshake_count_for_max_connections(real_loop):
    def main():
        listener = d.serve(LOCAL, upper, tls=server_context(), max_connections=1)
        silent = socket.create_connection(listener.address, 30)
        while not listener.connections:
            d.sleep(0.001)
        with pytest.raises(TimeoutError):
            d.connect(listener.address, 0.05, tls=client_context())
        silent.close()
        with d.connect(listener.address, 30, tls=client_context()) as sock:
            assert ask(sock, b"hello\n") == b"HELLO\n"
            assert listener.connections == 1

    d.run(main)


def test_the_limit_holds_where_plain_closes_come_between(real_loop):
    def main():
        listener = d.serve(LOCAL, upper, tls=server_context(), max_handshakes=1)
        opened = [d.connect(listener.address, 30, tls=client_context()) for _ in range(3)]
        silent = [socket.create_connection(listener.address, 30) for _ in range(3)]
        while not listener.openings.under_way:
            d.sleep(0.001)
        for sock in opened:
            sock.finish()
        while listener.connections > 1:
            d.sleep(0.001)
        d.sleep(0.02)
        assert listener.connections == 1
        for one in silent:
            one.close()

    d.run(main)


@pytest.mark.parametrize("version", versions(), ids=lambda version: version.name)
def test_a_refusal_is_one_debug_line_and_the_handler_never_runs(real_loop, caplog, version):
    caplog.set_level(logging.DEBUG, "dangagreen")
    handled = []

    def main():
        listener = d.serve(LOCAL, handled.append, tls=server_context(version=version, authority=STRANGER))
        with pytest.raises(d.TlsError) as caught:
            d.connect(listener.address, 30, tls=client_context(version))
        assert caught.value.refused_by == "client"
        while not listener.failed_handshakes or listener.connections:
            d.sleep(0.001)
        assert listener.failed_handshakes == 1

    d.run(main)
    assert handled == []
    lines = [line for line in caplog.messages if "has refused TLS: unknown ca" in line]
    assert len(lines) == 1
    assert "the client 127.0.0.1:" in lines[0]


def test_the_servers_refusal_reaches_a_client_that_has_written_already(real_loop):
    """Under TLS 1.3 the client's handshake is over by then: it hears of it in its first read, or write."""

    def main():
        context = server_context()
        context.verify_mode = ssl.CERT_REQUIRED
        listener = d.serve(LOCAL, upper, tls=context)
        sock = d.connect(listener.address, 30, tls=client_context())
        sock.write_all(b"hello\n" * 1000)
        with pytest.raises(d.TlsError, match=r"the server 127\.0\.0\.1.* has refused TLS: .*certificate required"):
            sock.read_line()
        with pytest.raises(d.TlsError):
            sock.read_some()
        sock.close()

    d.run(main)


def test_plain_http_on_a_tls_port_is_answered(real_loop, run_until):
    listener = d.serve(LOCAL, upper, tls=server_context())
    with socket.create_connection(listener.address, 30) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 10000)
        run_until(lambda: listener.failed_handshakes)
        raw.shutdown(socket.SHUT_WR)
        run_until(lambda: not listener.connections)
        assert raw.recv(1000).startswith(b"HTTP/1.0 400 Bad Request")
    listener.close()


def test_a_refused_client_that_goes_on_talking_is_closed(real_loop):
    def main():
        listener = d.serve(LOCAL, upper, tls=server_context())
        with socket.create_connection(listener.address, 30) as raw:
            raw.setblocking(False)

            def talk():
                while True:
                    with suppress(BlockingIOError):
                        raw.send(b"GET / HTTP/1.1\r\n\r\n" * 1000)
                    d.sleep(0.001)

            with pytest.raises(ConnectionError), d.timeout(30):
                talk()
        assert not listener.connections

    d.run(main)


def test_a_drain_waits_for_handshakes_and_serves_them(real_loop):
    def main():
        listener = d.serve(LOCAL, upper, tls=server_context())
        raw = socket.create_connection(listener.address, 30)
        raw.setblocking(False)
        while not listener.connections:
            d.sleep(0.001)
        drain = d.spawn(listener.drain)
        d.sleep(0.02)
        assert not drain.done
        peer = ByHand(raw, client_context(), server_hostname="localhost")
        while True:
            try:
                peer.go_on()
                break
            except BlockingIOError:
                d.sleep(0.001)
        peer.write(b"hello\n")
        got = b""
        while got != b"HELLO\n":
            d.sleep(0.001)
            got += peer.read()
        raw.close()
        drain.join()

    d.run(main)


def test_at_the_end_of_its_grace_a_drain_closes_handshakes(real_loop):
    def main():
        listener = d.serve(LOCAL, upper, tls=server_context())
        with socket.create_connection(listener.address, 30) as raw:
            while not listener.connections:
                d.sleep(0.001)
            assert listener.drain(0.05) == []
            d.sleep(0.01)
            assert raw.recv(1) == b""

    d.run(main)


def test_the_end_of_the_program_closes_handshakes(real_loop):
    def main():
        listener = d.serve(LOCAL, upper, tls=server_context())
        raw.append(socket.create_connection(listener.address, 30))
        while not listener.connections:
            d.sleep(0.001)

    raw = []
    d.run(main)
    assert raw[0].recv(1) == b""
    raw[0].close()


def test_sni_chooses_a_certificate_and_the_choice_may_park(real_loop):
    contexts = {name: server_context(name) for name in ("one.example", "two.example")}
    asked = []

    def choose(tls, name, context):
        d.sleep(0.02)
        asked.append(name)
        if name in contexts:
            tls.context = contexts[name]

    def main():
        context = server_context()
        context.sni_callback = choose
        listener = d.serve(LOCAL, upper, tls=context)

        def client(name):
            with d.connect(listener.address, 30, tls=client_context(), server_hostname=name) as sock:
                assert ("DNS", name) in sock.tls.peer_certificate["subjectAltName"]
                assert ask(sock, b"hello\n") == b"HELLO\n"

        with d.timeout(30), d.TaskGroup() as group:
            for name in ("one.example", "two.example", "localhost", "two.example"):
                group.spawn(client, name)
        with d.connect(listener.address, 30, tls=client_context()):  # for an address no name is sent
            pass
        d.sleep(0.05)

    d.run(main)
    assert sorted(asked, key=lambda name: name or "") == [
        None,
        "localhost",
        "one.example",
        "two.example",
        "two.example",
    ]


@pytest.mark.parametrize("resets", [False, True], ids=["talks", "resets"])
def test_a_client_that_goes_on_while_the_choice_parks_costs_nothing(real_loop, resets):
    go_on = []

    def main():
        wait = d.Event()
        context = server_context()
        context.sni_callback = lambda *_: wait.wait(30) and None
        listener = d.serve(LOCAL, upper, tls=context)
        raw = socket.create_connection(listener.address, 30)
        raw.setblocking(False)
        peer = ByHand(raw, client_context(), server_hostname="localhost")
        with pytest.raises(BlockingIOError):
            peer.go_on()
        d.sleep(0.005)
        if resets:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            raw.close()
        else:
            raw.send(b"this is input that nobody reads yet")
        turns = []
        d.Socket.set_post_loop_callback(lambda *_: turns.append(1) or True)
        d.sleep(0.03)
        d.Socket.set_post_loop_callback(None)
        wait.set()
        go_on.append(len(turns))
        raw.close()
        d.sleep(0.005)

    d.run(main)
    assert go_on[0] < 20


def test_a_choice_that_outlives_its_connection_does_no_harm(real_loop):
    def main():
        choice = d.Event()
        context = server_context()
        context.sni_callback = lambda *_: choice.wait(30) and None
        listener = d.serve(LOCAL, upper, tls=context, handshake_timeout=0.02)
        with pytest.raises(d.TlsError, match="within the TLS handshake"):
            d.connect(listener.address, 30, tls=client_context())
        choice.set()
        with d.timeout(30):
            while listener.connections:
                d.sleep(0.001)

    d.run(main)


def test_a_client_that_resets_is_named_in_the_debug_line(real_loop, caplog):
    caplog.set_level(logging.DEBUG, "dangagreen")

    def main():
        listener = d.serve(LOCAL, upper, tls=server_context())
        raw = socket.create_connection(listener.address, 30)
        name = "{}:{}".format(*raw.getsockname())
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with d.timeout(30):
            while not listener.connections:
                d.sleep(0.005)
            raw.close()
            while not listener.failed_handshakes:
                d.sleep(0.005)
        return name

    name = d.run(main)
    (line,) = [record.getMessage() for record in caplog.records if "has not opened" in record.getMessage()]
    assert f"the connection with {name} has not opened" in line


def test_what_the_choice_raises_fails_the_handshake_and_is_for_the_unraisable_hook(real_loop, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, "dangagreen")
    raised, reported = [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: raised.append(unraisable.exc_type))
    real_loop.on_error = reported.append

    def main():
        context = server_context()
        context.sni_callback = lambda *_: 1 // 0
        listener = d.serve(LOCAL, upper, tls=context)
        with pytest.raises(d.TlsError, match=r"the server .* has refused TLS: handshake failure"):
            d.connect(listener.address, 30, tls=client_context(), server_hostname="localhost")
        with d.timeout(30):
            while not listener.failed_handshakes:
                d.sleep(0.005)

    d.run(main)
    assert raised == [ZeroDivisionError]
    assert reported == []
    (line,) = [record.getMessage() for record in caplog.records if "has not opened" in record.getMessage()]
    assert "the sni_callback has failed" in line


def test_alpn(real_loop):
    def main():
        context = server_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        listener = d.serve(LOCAL, lambda sock: sock.write_all(str(sock.tls.alpn).encode()), tls=context)
        for offered, chosen in ((["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), (["spdy"], None)):
            mine = client_context()
            mine.set_alpn_protocols(offered)
            with d.connect(listener.address, 30, tls=mine) as sock:
                assert sock.tls.alpn == chosen
                assert sock.read_to_end() == str(chosen).encode()

    d.run(main)


@pytest.mark.parametrize("version", versions(), ids=lambda version: version.name)
def test_client_certificates(real_loop, version):
    from tests.certificates import AUTHORITY

    def main():
        context = server_context(version=version)
        context.verify_mode = ssl.CERT_REQUIRED
        AUTHORITY.configure_trust(context)
        names = []

        def handler(sock):
            names.append(sock.tls.peer_certificate["subjectAltName"])
            sock.write_all(b"you are known")

        listener = d.serve(LOCAL, handler, tls=context)
        mine = client_context(version)
        certificate("me@example.com").configure_cert(mine)
        with d.connect(listener.address, 30, tls=mine) as sock:
            assert sock.read_to_end() == b"you are known"
        assert names == [(("email", "me@example.com"),)]

    d.run(main)


def test_a_client_certificate_may_be_asked_for_in_the_middle_by_tls_1_3(real_loop):
    """`verify_client_post_handshake` sends nothing; the next write does. The answer comes when the client reads."""
    from tests.certificates import AUTHORITY

    def main():
        context = server_context(version=ssl.TLSVersion.TLSv1_3)
        context.post_handshake_auth, context.verify_mode = True, ssl.CERT_REQUIRED
        AUTHORITY.configure_trust(context)
        names = []

        def handler(sock):
            assert sock.read_line() == b"who am I?\n"
            assert sock.tls.peer_certificate is None
            sock.tls.ssl_object.verify_client_post_handshake()
            sock.write_all(b"say it\n")
            assert sock.read_line() == b"it is me\n"
            names.append(sock.tls.peer_certificate["subjectAltName"])
            sock.write_all(b"you are known")

        listener = d.serve(LOCAL, handler, tls=context)
        mine = client_context()
        mine.post_handshake_auth = True
        certificate("me@example.com").configure_cert(mine)
        with d.connect(listener.address, 30, tls=mine) as sock:
            assert ask(sock, b"who am I?\n") == b"say it\n"
            sock.write_all(b"it is me\n")
            assert sock.read_to_end() == b"you are known"
        assert names == [(("email", "me@example.com"),)]

    d.run(main)


@pytest.mark.parametrize("version", versions(), ids=lambda version: version.name)
def test_a_session_is_resumed(real_loop, version):
    def main():
        listener = d.serve(LOCAL, upper, tls=server_context(version=version))
        mine = client_context(version)

        def talk(session):
            with d.connect(listener.address, 30, tls=mine, session=session) as sock:
                assert ask(sock, b"hello\n") == b"HELLO\n"
                return sock.tls.session, sock.tls.session_reused

        session, reused = talk(None)
        assert not reused
        assert session.has_ticket
        _, reused = talk(session)
        assert reused

    d.run(main)


def test_a_session_that_is_kept_before_the_first_read_has_no_ticket(real_loop):
    """Under TLS 1.3 tickets come after the handshake: it is the first read that takes them in."""

    def main():
        listener = d.serve(LOCAL, upper, tls=server_context(version=ssl.TLSVersion.TLSv1_3))
        with d.connect(listener.address, 30, tls=client_context()) as sock:
            assert not sock.tls.session.has_ticket
            assert ask(sock, b"hello\n") == b"HELLO\n"
            assert sock.tls.session.has_ticket

    d.run(main)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("of", ["127.0.0.1", "localhost"])
def test_an_address_is_checked_as_an_address_and_a_name_as_a_name(real_loop, name, of):
    def main():
        listener = d.serve(LOCAL, upper, tls=server_context(of))
        if name == of:
            with d.connect(listener.address, 30, tls=client_context(), server_hostname=name) as sock:
                assert ask(sock, b"hello\n") == b"HELLO\n"
        else:
            with pytest.raises(d.TlsError, match=f"mismatch, certificate is not valid for '{name}'"):
                d.connect(listener.address, 30, tls=client_context(), server_hostname=name)
        assert listener.accepted == 1

    d.run(main)


def test_the_certificate_is_changed_without_a_restart(real_loop, tmp_path):
    def main():
        context = server_context("old.example")
        listener = d.serve(LOCAL, upper, tls=context)
        with d.connect(listener.address, 30, tls=client_context(), server_hostname="old.example") as old:
            certificate("new.example").configure_cert(context)
            with d.connect(listener.address, 30, tls=client_context(), server_hostname="new.example"):
                pass
            assert ask(old, b"hello\n") == b"HELLO\n"

    d.run(main)


def test_a_constructor_that_raises_costs_its_connection_alone(real_loop, take_errors):
    class Broken(d.Socket):
        def __init__(self, sock):
            super().__init__(sock)
            raise KeyError("broken")

    def main():
        listener = d.serve(LOCAL, Broken, tls=server_context())
        sock = d.connect(listener.address, 30, tls=client_context())
        assert sock.read_some() == b""
        sock.close()
        d.sleep(0.01)
        assert listener.connections == 0
        d.sleep(0.01)

    d.run(main)
    assert [type(error.exception) for error in take_errors()] == [KeyError]


def test_what_serve_refuses(loop):
    for bad, error in ((0, ValueError), (-1, ValueError), ("x", TypeError)):
        with pytest.raises(error):
            d.serve(LOCAL, upper, tls=server_context(), handshake_timeout=bad)
        with pytest.raises(error):
            d.serve(LOCAL, upper, tls=server_context(), max_handshakes=bad)
    with pytest.raises(ValueError, match="max_handshakes is for TLS"):
        d.serve(LOCAL, upper, max_handshakes=5)


# -- steps, whatever they are


class Word:
    """A step that takes one line from the socket."""

    may_park = wants_write = False

    def __init__(self, sock):
        self.sock, self.got = sock, b""

    def go_on(self):
        while not self.got.endswith(b"\n"):
            if not (byte := self.sock.recv(1)):
                raise ConnectionResetError("the end")
            self.got += byte
        return self.sock


def test_steps_follow_one_another(loop, wires, run_turns):
    one, two = wires()
    outcome = []
    opening = Opening(one, [Word, Word], lambda sock, error: outcome.append((sock, error)), 5)
    two.send(b"first\nsec")
    run_turns(3)
    assert outcome == []
    two.send(b"ond\nrest")
    run_turns(3)
    assert outcome == [(one, None)]
    assert opening.closed
    assert one.fileno() not in loop.handlers
    assert one.recv(10) == b"rest"


def test_room_is_waited_for_and_then_no_more(loop, wires, advance):
    """A flight for which the kernel has no room: the poller is asked for room as long as that lasts."""
    one, two = wires(capacity=100)
    outcome = []
    opening = Opening(one, [TlsOptions(server_context(), True).wrap], lambda sock, error: outcome.append(error), 5)
    peer = ByHand(two, client_context(), server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    while peer.outgoing.pending:
        peer.give(50)
        advance(0.01)
    while peer.take():
        advance(0.01)
    before = loop.poller.waits
    advance(1)
    assert loop.poller.waits - before < 5
    assert outcome == []
    opening.close()
    two.close()


def test_a_step_that_fails_closes_the_socket(loop, wires, run_turns):
    one, two = wires()
    outcome = []
    Opening(one, [Word], lambda sock, error: outcome.append(error), 5)
    two.close()
    run_turns(3)
    assert [type(error) for error in outcome] == [ConnectionResetError]
    assert one.closed


def test_the_deadline_is_for_all_steps(loop, wires, advance):
    one, two = wires()
    outcome = []
    Opening(one, [Word, Word], lambda sock, error: outcome.append(error), 5)
    advance(4)
    two.send(b"first\n")
    advance(2)
    assert [type(error) for error in outcome] == [TimeoutError]
    assert one.closed


def test_closing_it_tells_its_owner_once(loop, wires, run_turns):
    one, _two = wires()
    outcome = []
    opening = Opening(one, [Word], lambda sock, error: outcome.append(str(error)), 5)
    opening.close("enough")
    run_turns(2)
    assert len(outcome) == 1
    assert "enough" in outcome[0]
    assert one.closed


# -- what is told of slow code


class Made(d.Socket):
    __slots__ = ()

    def __init__(self, sock):
        super().__init__(sock)

    def event_read(self):
        self.close()


FOLDER = os.path.dirname(d.__file__)


def place_of(function):
    return f"{__file__}:{function.__code__.co_firstlineno}"


@pytest.mark.parametrize("how", ["TLS", "TLS with an sni_callback", "PROXY"])
def test_slow_code_is_named_by_the_program_s_line_and_not_by_ours(real_loop, how):
    """What comes before a connection is open makes its object, and calls the sni_callback."""
    reports = []
    context = server_context()
    context.sni_callback = sni_callback = (lambda *_: None) if how == "TLS with an sni_callback" else None
    proxy, hello = how == "PROXY", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"
    ours = {"proxy_protocol": ["127.0.0.1"]} if proxy else {"tls": context}
    theirs = {} if proxy else {"tls": client_context(), "server_hostname": "localhost"}
    real_loop.on_slow = reports.append
    real_loop.slow_seconds = 0.0  # all that runs is slow

    def main():
        with d.serve(LOCAL, Made, **ours) as server, d.connect(server.address, **theirs) as sock:
            sock.write_all(hello * proxy + b"x")
            sock.read_to_end(9)

    d.spawn(main).join()
    real_loop.slow_seconds = None
    openings = "opening of a connection", "Accepted"
    told = [report.place for report in reports if any(words in report.what for words in openings)]
    assert place_of(Made.__init__) in told
    assert sni_callback is None or place_of(sni_callback) in told
    assert not [place for place in told if place.startswith(FOLDER)]
