"""TLS with real peers: OpenSSL's tools, curl, gnutls-cli, Python's ssl in threads, asyncio, uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import resource
import select
import shutil
import socket
import ssl
import subprocess
import sys
import threading

import pytest

import dangagreen as d
from dangagreen.loop.pollers import available_pollers
from tests.certificates import AUTHORITY, ByHand, certificate, client_context, server_context, versions
from tests.connections import LOCAL, Echo, reset
from tests.programs import run_python

pytestmark = pytest.mark.slow

BULK = bytes(range(256)) * 4000
SECONDS = 30.0  # for what takes a moment


@pytest.fixture
def authority(tmp_path):
    """The path of the authority's certificate."""
    path = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def pem(tmp_path):
    """The path of a server's certificate with its key."""
    path = tmp_path / "server.pem"
    certificate("localhost", "127.0.0.1", "::1").private_key_and_cert_chain_pem.write_to_path(path)
    return path


@contextlib.contextmanager
def program(*command, **options):
    """A program, whose output is kept; it is killed at the end of the block."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    pipe = subprocess.PIPE
    process = subprocess.Popen(list(map(str, command)), stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Output:
    """What a program prints, which another thread reads."""

    def __init__(self, process):
        self.text = bytearray()
        threading.Thread(target=self.read, args=(process.stdout.fileno(),), daemon=True).start()

    def read(self, fd):
        with contextlib.suppress(OSError):  # it is closed at the end
            while data := os.read(fd, 65536):
                self.text += data

    def await_words(self, words, times=1):
        """Parks until they have come so often."""
        with d.timeout(SECONDS):
            while self.text.count(words) < times:
                d.sleep(0.01)


def type_in(process, words):
    process.stdin.write(words)
    process.stdin.flush()


def output_of(*command, given=None):
    """What a program prints that is given this input; it has to succeed."""
    with program(*command) as process:
        printed = d.in_thread(lambda: process.communicate(given, timeout=SECONDS)[0])
        assert process.returncode == 0, printed
        return printed


def echo(sock):
    while data := sock.read_some():
        sock.write_all(data)


def hello(sock):
    """One request of HTTP."""
    while sock.read_line() not in (b"\r\n", b"\n", b""):
        pass
    sock.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(BULK), BULK))


STYLES = pytest.mark.parametrize("handler", [Echo, echo], ids=["callbacks", "tasks"])
VERSIONS = pytest.mark.parametrize("version", versions(), ids=lambda version: version.name)
FLAG = {"TLSv1_2": "-tls1_2", "TLSv1_3": "-tls1_3"}


# -- clients


@VERSIONS
@STYLES
def test_openssl_s_client(real_loop, authority, handler, version):
    def main():
        listener = d.serve(LOCAL, handler, tls=server_context(version=version))
        address = f"127.0.0.1:{listener.address[1]}"
        printed = output_of(
            *("openssl", "s_client", "-connect", address, "-servername", "localhost", "-CAfile", authority),
            *("-verify_return_error", "-quiet", "-no_ign_eof", FLAG[version.name]),
            given=b"hello\nQ\n",
        )
        assert b"hello" in printed or b"depth" in printed
        assert listener.failed_handshakes == 0

    d.run(main)


@VERSIONS
def test_openssl_s_client_renegotiates_or_updates_keys(real_loop, authority, version):
    """A key update (TLS 1.3, `K`) between lines; a renegotiation that a client asks for is refused (TLS 1.2, `R`)."""
    lines = []

    def handler(sock):
        for line in sock:
            lines.append(line)
            sock.write_all(line.upper() * 100_000)

    def main():
        listener = d.serve(LOCAL, handler, tls=server_context(version=version))
        address = f"127.0.0.1:{listener.address[1]}"
        command = ["openssl", "s_client", "-connect", address, "-CAfile", authority, FLAG[version.name]]
        with program(*command) as process:
            output = Output(process)
            second = (b"K\n", b"KEYUPDATE") if version.name == "TLSv1_3" else (b"two\n", b"TWO")
            for piece, answer in ((b"one\n", b"ONE"), second, (b"three\n", b"THREE")):
                type_in(process, piece)
                output.await_words(answer)  # s_client reads commands one at a time; the reply is still on its way
            output.await_words(b"THREE", 99_900)  # of 100,000: between them it prints what it thinks
            type_in(process, b"Q\n")
            assert d.in_thread(process.wait, SECONDS) == 0

    d.run(main)
    assert lines[0] == b"one\n"
    assert lines[-1] == b"three\n"


@VERSIONS
def test_curl(real_loop, authority, version):
    def main():
        listener = d.serve(LOCAL, hello, tls=server_context(version=version))
        for host in ("127.0.0.1", "localhost"):
            url = f"https://{host}:{listener.address[1]}/"
            assert output_of("curl", "-sS4", "--cacert", authority, url) == BULK

    d.run(main)


def test_openssl_says_why_it_refuses_and_so_do_we(real_loop, caplog):
    caplog.set_level("DEBUG", "dangagreen")

    def main():
        listener = d.serve(LOCAL, hello, tls=server_context())
        where = f"127.0.0.1:{listener.address[1]}"
        with program("openssl", "s_client", "-verify_return_error", "-connect", where) as openssl:
            printed = d.in_thread(lambda: openssl.communicate(timeout=SECONDS)[0])
        assert openssl.returncode == 1, printed
        while not listener.failed_handshakes:
            d.sleep(0.001)

    d.run(main)
    assert any("has refused TLS: unknown ca" in line for line in caplog.messages)


def test_curl_refuses_and_we_say_what_it_has_told(real_loop, caplog):
    """curl of 8.23 looks at the certificate when the handshake is over, and closes without an alert (strace)."""
    caplog.set_level("DEBUG", "dangagreen")
    told = "has refused TLS: unknown ca", "hello ended with its peer"

    def main():
        listener = d.serve(LOCAL, hello, tls=server_context())
        with program("curl", "-sS", f"https://127.0.0.1:{listener.address[1]}/") as curl:
            printed = d.in_thread(lambda: curl.communicate(timeout=SECONDS)[0])
        assert curl.returncode == 60, printed
        while not any(words in line for line in caplog.messages for words in told):
            d.sleep(0.001)
        failed = listener.failed_handshakes
        with program("curl", "-sS", f"http://127.0.0.1:{listener.address[1]}/") as curl:
            printed = d.in_thread(lambda: curl.communicate(timeout=SECONDS)[0])
        assert b"This port speaks TLS" in printed
        while listener.failed_handshakes == failed:
            d.sleep(0.001)

    d.run(main)
    assert any("plain HTTP" in line for line in caplog.messages)


@VERSIONS
def test_gnutls_cli(real_loop, authority, version):
    priority = "NORMAL:-VERS-ALL:+VERS-" + version.name.replace("v", "").replace("_", ".")
    lines = []

    def handler(sock):
        for line in sock:
            lines.append(line)
            sock.write_all(line)

    def main():
        listener = d.serve(LOCAL, handler, tls=server_context(version=version))
        printed = output_of(
            *("gnutls-cli", "--x509cafile", authority, "--port", listener.address[1], "--priority", priority),
            *("--no-ca-verification", "localhost"),
            given=b"hello\n",
        )
        assert version.name.replace("v", "").replace("_", ".") in printed.decode()

    d.run(main)
    assert lines == [b"hello\n"]


def sent_and_received(sock, data):
    """Send it, and receive as much meanwhile; in one thread, for OpenSSL allows no second one in a connection."""
    sock.setblocking(False)
    left, got = memoryview(data), bytearray()
    while len(got) < len(data):
        with contextlib.suppress(ssl.SSLWantReadError):
            got += sock.recv(70000)
            continue
        if left:
            with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):  # half a session ticket has come
                left = left[sock.send(left[:16384]) :]
                continue
        assert select.select([sock], [sock] if left else [], [], 10) != ([], [], [])
    return got


@VERSIONS
@STYLES
def test_pythons_ssl_in_threads(real_loop, handler, version):
    def client(port):
        raw = socket.create_connection(("127.0.0.1", port), 30)
        with client_context(version).wrap_socket(raw, server_hostname="localhost") as sock:
            assert sent_and_received(sock, BULK) == BULK
            sock.settimeout(30)
            sock.unwrap().close()

    def main():
        listener = d.serve(LOCAL, handler, tls=server_context(version=version))
        with d.TaskGroup() as group:
            for _ in range(4):
                group.spawn(d.in_thread, client, listener.address[1])

    d.run(main)


# -- servers


def listening(server):
    """Parks until an s_server says on which port it listens: its address."""
    while not (line := d.in_thread(server.stdout.readline)).startswith(b"ACCEPT"):
        assert line, "it has ended"
    return "127.0.0.1", int(line.rpartition(b":")[2])


@VERSIONS
def test_openssl_s_server(real_loop, pem, version):
    def main():
        command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", pem, FLAG[version.name], "-rev"]
        with program(*command) as server, d.connect(listening(server), 30, tls=client_context(version)) as sock:
            for line in (b"hello\n", b"y" * 10000 + b"\n"):
                sock.write_all(line)
                assert sock.read_line() == line[:-1][::-1] + b"\n"

    d.run(main)


@pytest.mark.parametrize("asks", [b"r\n", b"R\n"])
def test_openssl_s_server_renegotiates(real_loop, pem, asks):
    """Under TLS 1.2, in the middle of what the client writes: `r` renegotiates, `R` asks for a certificate as well."""

    def main():
        command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", pem, "-tls1_2"]
        context = client_context(ssl.TLSVersion.TLSv1_2)
        with program(*command) as server, d.connect(listening(server), 30, tls=context) as sock:
            reader = d.spawn(sock.read_line)
            output = Output(server)
            sock.write_all(b"before\n" * 100)
            output.await_words(b"before", 100)
            type_in(server, asks)
            output.await_words(b"SSL_do_handshake ->")
            sock.write_all(b"after\n" * 100)
            sock.drain()
            type_in(server, b"an answer\n")
            with d.timeout(SECONDS):
                reader.join()
            assert reader.result() == b"an answer\n"
            output.await_words(b"after", 100)

    d.run(main)


@pytest.fixture(scope="module", autouse=True)
def uvloops_own_pipe():
    """uvloop opens a pipe for the process with its first loop."""
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()


def in_loop_of(library):
    if library == "uvloop":
        return pytest.importorskip("uvloop").new_event_loop()
    return asyncio.new_event_loop()


@pytest.mark.parametrize("library", ["asyncio", "uvloop"])
@VERSIONS
def test_a_server_of_asyncio(real_loop, library, version):
    ready, port = threading.Event(), []

    async def handler(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve():
        server = await asyncio.start_server(handler, *LOCAL, ssl=server_context(version=version))
        port.append(server.sockets[0].getsockname()[1])
        ready.set()
        async with server:
            await stop.wait()

    loop = in_loop_of(library)
    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        ready.wait(30)

        def main():
            with d.connect(("127.0.0.1", port[0]), 30, tls=client_context(version)) as sock:
                writer = d.spawn(sock.write_all, BULK)
                assert sock.read_exactly(len(BULK)) == BULK
                writer.join()
                sock.write_eof()
                assert sock.read_to_end() == b""

        d.run(main)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


@pytest.mark.parametrize("library", ["asyncio", "uvloop"])
@VERSIONS
@STYLES
def test_a_client_of_asyncio(real_loop, library, handler, version):
    async def client(port):
        context = client_context(version)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        writer.write(BULK)
        got = await reader.readexactly(len(BULK))
        writer.close()
        await writer.wait_closed()
        return got

    def ask(port):
        loop = in_loop_of(library)
        try:
            return loop.run_until_complete(asyncio.wait_for(client(port), 10))
        finally:
            loop.close()

    def main():
        listener = d.serve(LOCAL, handler, tls=server_context(version=version))
        assert d.in_thread(ask, listener.address[1]) == BULK

    d.run(main)


# -- many


def give_up_after(length, address, context, go_away):
    """A client that goes away when it has sent so many bytes, of its handshake, and then of its first request.

    Returns whether its handshake was not over.
    """
    raw = socket.create_connection(address, 30)
    raw.setblocking(False)
    peer = ByHand(raw, context, server_hostname="localhost")
    left, over = length, False
    while left and not over:
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
            over = True
            peer.tls.write(b"a request")
        sent = peer.give(left)
        left -= sent
        if left and not over and not sent:
            d.sleep(0)
            peer.take()
    go_away(raw)
    return not over


@pytest.mark.parametrize("go_away", [socket.socket.close, reset], ids=["ends", "resets"])
@VERSIONS
def test_clients_that_go_away_at_any_byte_of_a_handshake_leave_nothing(real_loop, version, go_away):
    """Some hundreds for each: thousands of handshakes in all."""

    def main():
        listener = d.serve(LOCAL, echo, tls=server_context(version=version))
        context = client_context(version)
        length = 0
        while give_up_after(length, listener.address, context, go_away):
            length += 1
            d.sleep(0)  # accept: a hello may have more bytes than the backlog has places
        with d.timeout(SECONDS):
            while listener.failed_handshakes < length - 1 or listener.connections:  # the last one had sent all of it
                d.sleep(0.01)
        assert length > 200
        assert not listener.openings.under_way
        with d.connect(listener.address, 30, tls=context) as sock:
            sock.write_all(b"hello")
            assert sock.read_exactly(5) == b"hello"

    d.run(main)


def memory():
    """Bytes of this process that are in memory, as Linux says; 0 where nothing says it."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
    return 0


@pytest.mark.parametrize("poller_class", available_pollers()[:1], ids=lambda poller: poller.__name__)
def test_ten_thousand_handshakes_given_up_at_every_stage_leave_nothing(real_loop, uncollected):
    """After each number of bytes that a client sends, by FIN and by RST, in TLS 1.2 and 1.3; some get through.

    The garbage collector is off. The first 2,000 are for what is made once; 8,000 more that left 500 bytes each, or an
    object for every eighty of them, would fail it. The fixture looks for fds, tasks and timers.
    """
    ways = [(client_context(version), go_away) for version in versions() for go_away in (socket.socket.close, reset)]

    def clients(numbers, address):
        for number in numbers:
            context, go_away = ways[number % 4]
            give_up_after(number // 4 % 700, address, context, go_away)

    def main():
        listener = d.serve(LOCAL, echo, tls=server_context())
        numbers, found = iter(range(10_000)), []
        for many in (2000, 8000):
            share = itertools.islice(numbers, many)
            with d.TaskGroup() as group:
                for _ in range(16):
                    group.spawn(clients, share, listener.address)
            with d.timeout(SECONDS):
                while listener.connections or listener.openings.under_way:
                    d.sleep(0.01)
            found.append((len(gc.get_objects()), memory()))
        assert listener.accepted == 10_000
        assert listener.failed_handshakes > 4000
        (objects, size), (objects_after, size_after) = found
        assert objects_after - objects < 100
        assert size_after - size < 4_000_000

    d.run(main)


MEMORY = """
import os
import dangagreen as d
from tests.certificates import client_context, server_context

def size():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def echo(sock):
    while data := sock.read_some():
        sock.write_all(data)

def main():
    listener, context, socks = d.serve(("127.0.0.1", 0), echo, tls=server_context()), client_context(), []
    def connect(many):
        for _ in range(many):
            socks.append(d.connect(listener.address, 30, tls=context))
            socks[-1].write_all(b"hello")
            socks[-1].read_exactly(5)
    def bulk(some):
        for sock in some:
            writer = d.spawn(sock.write_all, bytes(2_000_000))
            sock.read_exactly(2_000_000)
            writer.join()
    connect(50)
    before = size()
    connect(150)
    print((size() - before) // 300)
    bulk(socks[:20])
    before = size()
    bulk(socks[20:120])
    print((size() - before) // 200)

d.run(main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a process is read from /proc")
def test_the_memory_of_a_connection():
    """Some 29 KB for each end, nearly all of it OpenSSL's; and after bulk, of which nothing is kept, some 60 KB more:
    the two BIOs of an end keep the size of the largest record, for life."""
    code, out, _ = run_python("-c", MEMORY)
    assert code == 0
    idle, after_bulk = map(int, out.split())
    assert 5_000 < idle < 60_000
    assert after_bulk < 120_000


def test_the_bios_are_empty_after_bulk(real_loop):
    """What OpenSSL's memory BIOs have held they keep: so they never hold much."""

    def main():
        listener = d.serve(LOCAL, echo, tls=server_context())
        with d.connect(listener.address, 30, tls=client_context()) as sock:
            writer = d.spawn(sock.write_all, BULK * 4)
            assert len(sock.read_exactly(len(BULK) * 4)) == len(BULK) * 4
            writer.join()
            tls = sock.sock
            assert tls.incoming.pending == tls.outgoing.pending == 0
            assert not tls.wants_write
            sock.write_all(b"x")
            assert sock.read_exactly(1) == b"x"
            assert sock.buffered == 0

    d.run(main)
