"""The tunnel: curl and wrk through it, names, half-close, back-pressure, servers that fail, a graceful shutdown."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading

import pytest

from programs import SECONDS, Program, expect, run
from tests.certificates import AUTHORITY, certificate, client_context
from tests.programs import free_port

BODY = bytes(range(256)) * 4000


class Server:
    """A plain server in threads, that answers each connection by a function of its socket."""

    def __init__(self, answer):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        self.answer = answer
        self.threads = []
        self.thread = threading.Thread(target=self.accept)
        self.thread.start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listening.accept()
                sock.settimeout(SECONDS)
                self.threads.append(threading.Thread(target=self.serve, args=(sock,)))
                self.threads[-1].start()

    def serve(self, sock):
        with sock, contextlib.suppress(OSError):
            self.answer(sock)

    def close(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for thread in [self.thread, *self.threads]:
            thread.join(SECONDS)


def http(body):
    """An HTTP/1.1 server with keep-alive, for any request."""
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def answer(sock):
        with sock.makefile("rb") as requests:
            for line in requests:
                if line == b"\r\n":
                    sock.sendall(reply)

    return answer


def shout_at_the_end(sock):
    """Answers when the client has ended its side."""
    got = b""
    while piece := sock.recv(65536):
        got += piece
    sock.sendall(got.upper())


@pytest.fixture
def served():
    """`served(answer)` starts a plain server."""
    servers = []

    def served(answer):
        servers.append(Server(answer))
        return servers[-1]

    yield served
    for server in servers:
        server.close()


@pytest.fixture
def tunnel(tmp_path):
    """`tunnel(*options)` starts the program with a certificate."""
    programs = []
    pem = tmp_path / "server.pem"
    certificate("localhost", "127.0.0.1", "::1").private_key_and_cert_chain_pem.write_to_path(pem)
    AUTHORITY.cert_pem.write_to_path(tmp_path / "authority.pem")

    def tunnel(*options):
        programs.append(Program("tunnel", ("--port=0", f"--certificate={pem}", *options), 1, tmp_path / "errors"))
        return programs[-1]

    yield tunnel
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()
            program.process.communicate()


def through(program, name="localhost"):
    """A TLS connection of a client, that has asked for this name."""
    raw = socket.create_connection(("127.0.0.1", program.ports[0]), SECONDS)
    return client_context().wrap_socket(raw, server_hostname=name)


def test_curl(served, tunnel, tmp_path):
    program = tunnel(f"--to={served(http(BODY)).address}")
    urls = [f"https://localhost:{program.ports[0]}/{number}" for number in range(3)]
    curl = ["curl", "-sS4", "--cacert", str(tmp_path / "authority.pem"), *urls]
    assert subprocess.run(curl, capture_output=True, timeout=SECONDS, check=True).stdout == BODY * 3
    program.end()


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk(served, tunnel):
    program = tunnel(f"--to={served(http(b'hello')).address}")
    wrk = ["wrk", "-t1", "-c10", "-d1s", f"https://127.0.0.1:{program.ports[0]}/"]
    printed = subprocess.run(wrk, capture_output=True, timeout=SECONDS, check=True, text=True).stdout
    assert "Socket errors" not in printed
    assert "Non-2xx" not in printed
    assert int(printed.split(" requests in ")[0].split()[-1]) > 100
    program.end()


def test_the_name_chooses_certificate_and_server(served, tunnel, tmp_path):
    folder = tmp_path / "names"
    folder.mkdir()
    certificate("one.example").private_key_and_cert_chain_pem.write_to_path(folder / "one.example.pem")
    one, other = served(lambda sock: sock.sendall(b"one")), served(lambda sock: sock.sendall(b"other"))
    program = tunnel(f"--to={other.address}", f"--names={folder}", f"--route=one.example={one.address}")
    for name, answer in (("one.example", b"one"), ("localhost", b"other"), ("127.0.0.1", b"other")):
        with through(program, name) as sock:
            assert sock.recv(100) == answer
    with pytest.raises(ssl.SSLCertVerificationError):  # there is no certificate of that name
        through(program, "two.example")
    program.end()


def test_each_direction_ends_by_itself(served, tunnel):
    program = tunnel(f"--to={served(shout_at_the_end).address}")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", program.ports[0]), SECONDS) as raw:

        def do(call, *args):
            while True:
                try:
                    result = call(*args)
                    raw.sendall(outgoing.read())
                    return result
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    incoming.write(raw.recv(65536))

        do(tls.do_handshake)
        do(tls.write, b"hello" * 1000)
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()  # close_notify, after which the answer comes
        raw.sendall(outgoing.read())
        got = b""
        while len(got) < 5000:
            got += do(tls.read, 65536)
        assert got == b"HELLO" * 1000
    program.end()


def test_a_slow_client_slows_the_server_down(served, tunnel):
    sent = []

    def pour(sock):
        for _ in range(400):
            sock.sendall(b"x" * 100_000)
            sent.append(100_000)

    program = tunnel(f"--to={served(pour).address}")
    with through(program) as sock:
        before = -1
        while sum(sent) > before:
            before = sum(sent)
            threading.Event().wait(0.3)
        assert before < 30_000_000
        got = 0
        while got < 40_000_000:
            got += len(sock.recv(65536))
    program.end()


def test_a_server_that_is_down(served, tunnel):
    program = tunnel(f"--to=127.0.0.1:{free_port()}")
    for _ in range(2):
        with through(program) as sock:
            assert sock.recv(1) == b""
    expect(lambda: program.errors.read_text().count("no connection for 127.0.0.1") == 2)
    program.errors.write_text("")
    program.end()


def test_a_server_that_resets(served, tunnel):
    def reset(sock):
        sock.recv(10)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    program = tunnel(f"--to={served(reset).address}")
    with through(program) as sock:
        sock.sendall(b"hello")
        assert sock.recv(1) == b""
    program.end()


def test_what_is_under_way_is_finished_at_the_end(served, tunnel):
    began = threading.Event()

    def slow(sock):
        sock.recv(10)
        began.set()
        for _ in range(8):
            threading.Event().wait(0.1)
            sock.sendall(b"x" * 1000)

    program = tunnel(f"--to={served(slow).address}")
    with through(program) as sock:
        sock.sendall(b"hello")
        began.wait(SECONDS)
        ending = threading.Thread(target=program.end)
        ending.start()
        got = 0
        while piece := sock.recv(65536):
            got += len(piece)
        assert got == 8000
    ending.join(SECONDS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--certificate=/nowhere", "--to=127.0.0.1:1"], "No such file"),
        (["--to=127.0.0.1:1"], "--certificate"),
        (["--certificate=x", "--to=127.0.0.1:port"], "--to"),
    ],
)
def test_options_that_make_no_sense(options, words):
    status, output, complaints = run("tunnel", "--port=0", *options)
    assert status != 0
    assert output == ""
    assert words in complaints
