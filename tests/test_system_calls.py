"""What is called for each event: the plain twin, and the one in C where it was compiled, do the same."""

from __future__ import annotations

import contextvars
import errno
import importlib.machinery
import importlib.util
import os
import pickle
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

import dangagreen
from dangagreen.testing import wire
from tests.certificates import client_context, server_context

FOLDER = Path(dangagreen.__file__).parent
SECONDS = 30.0
FAMILIES = {"ipv4": ("127.0.0.1", 0), "ipv6": ("::1", 0), "unix": None, "abstract": b"\0dangagreen-system-calls"}
SIZES = [1, 63, 16384, 65535, 65536, 65537, 200_000]


def _loaded(kind: str) -> ModuleType | None:
    """The twin in "python" or in "c", whichever the package itself uses; None where it was not compiled."""
    used = sys.modules["dangagreen.system_calls"]
    suffixes = [".py"] if kind == "python" else importlib.machinery.EXTENSION_SUFFIXES
    for suffix in suffixes:
        path = FOLDER / f"system_calls{suffix}"
        if used.__file__ == str(path):
            return used
        if path.exists():
            spec = importlib.util.spec_from_file_location("dangagreen.system_calls", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    return None


TWINS = {kind: module for kind in ("python", "c") if (module := _loaded(kind)) is not None}


@pytest.fixture(params=TWINS)
def calls(request):
    return TWINS[request.param]


@pytest.fixture(params=FAMILIES)
def listener(request, tmp_path):
    address = FAMILIES[request.param] or str(tmp_path / "socket")
    family = {tuple: socket.AF_INET6 if "::" in str(address) else socket.AF_INET}.get(type(address), socket.AF_UNIX)
    with socket.socket(family) as sock:
        sock.bind(address)
        sock.listen()
        sock.setblocking(False)
        yield sock


@pytest.fixture
def local():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def connection(calls, local):
    """Our OS socket, non-blocking, and that of a peer."""
    with socket.create_connection(local.getsockname(), SECONDS) as peer, calls.accepting(local)() as ours:
        ours.setblocking(False)
        yield ours, peer


def until_it_raises(function, *args):
    """Call a function again and again, and note what it returns."""
    outcomes = []
    with suppress(OSError):
        while True:
            outcomes.append(function(*args))
    return outcomes


def filled(sock):
    """Send until the kernel takes no more, also a little later; returns how many bytes that were."""
    sent = 0
    while pieces := until_it_raises(sock.send, b"x" * 65536):
        sent += sum(pieces)
        threading.Event().wait(0.02)  # it may be late with handing them on to the peer
    with pytest.raises(BlockingIOError) as raised:
        sock.send(b"x" * 65536)
    assert raised.value.errno == errno.EAGAIN
    return sent


def reset(peer):
    """Have the peer send an RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def run_while(thread_function, *args):
    """Run a function in a thread. Returns a function that waits for it, and returns what it has returned."""
    answer = []
    thread = threading.Thread(target=lambda: answer.append(thread_function(*args)), daemon=True)
    thread.start()

    def joined():
        thread.join(SECONDS)
        return answer[0]

    return joined


def test_the_twins_have_the_same_names():
    names = [
        {name for name in vars(module) if name[0] not in "_@" and name != "annotations"}  # @: pytest's assertions
        - {"socket", "select", "Callable", "Context", "Any", "OSSocket"}
        for module in TWINS.values()
    ]
    assert names == [{"OS_SOCKETS", "accepting", "hand_over", "run_in", "take_over", "waiting"}] * len(TWINS)


def test_the_one_in_c_is_used_where_it_is_there():
    compiled = any((FOLDER / f"system_calls{suffix}").exists() for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    pure = os.environ.get("DANGAGREEN_PURE", "0") not in ("", "0")
    assert sys.modules["dangagreen.system_calls"].__file__.endswith(".py") is (pure or not compiled)


# -- accept


def test_accept(calls, listener):
    accept = calls.accepting(listener)
    assert accept() is None
    with socket.socket(listener.family) as peer:
        peer.connect(listener.getsockname())
        with accept() as sock:
            assert accept() is None
            sock.setblocking(False)
            assert type(sock) in calls.OS_SOCKETS
            assert (sock.family, sock.type, sock.proto) == (listener.family, listener.type, listener.proto)
            assert sock.fileno() > 2
            assert sock.gettimeout() == 0.0
            assert not os.get_blocking(sock.fileno())
            assert not sock.get_inheritable()
            assert sock.getpeername() == peer.getsockname()
            peer.sendall(b"there")
            assert sock.recv(100) == b"there"
            assert sock.send(b"back") == 4
            assert peer.recv(100) == b"back"


def test_accept_of_a_closed_listener(calls, local):
    accept = calls.accepting(local)
    local.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        accept()


def test_accept_of_a_listener_that_was_shut_down(calls, local):
    local.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError, match="Invalid argument"):
        calls.accepting(local)()


def test_accept_without_a_free_descriptor(calls, local):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    accept = calls.accepting(local)
    with socket.create_connection(local.getsockname(), SECONDS):
        resource.setrlimit(resource.RLIMIT_NOFILE, (local.fileno() + 20, before[1]))
        held = until_it_raises(os.dup, local.fileno())
        try:
            with pytest.raises(OSError, match="Too many open files") as raised:
                accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for fd in held:
                os.close(fd)
        assert raised.value.errno == errno.EMFILE
        with accept() as sock:  # it has kept its place
            assert sock.fileno() >= 0


class Failing:
    """What looks like a listener, and fails."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)

    def accept(self):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome, "the peer's address"


def test_accept_of_what_looks_like_a_listener(calls):
    """An OS socket's accept(2) gives ECONNABORTED on other kernels alone: Linux hands such a connection out."""
    end, _ = wire()
    gone = ConnectionAbortedError(errno.ECONNABORTED, "gone")
    accept = calls.accepting(Failing(end, BlockingIOError(errno.EAGAIN, "none"), gone, end))
    assert accept() is end
    assert accept() is None
    with pytest.raises(ConnectionAbortedError):
        accept()
    assert accept() is end


def test_accept_of_a_subclass_with_an_accept_of_its_own(calls, local):
    class Counting(socket.socket):
        accepted = 0

        def accept(self):
            self.accepted += 1
            return super().accept()

    with Counting(fileno=local.detach()) as counting:
        counting.setblocking(False)
        accept = calls.accepting(counting)
        with socket.create_connection(counting.getsockname(), SECONDS), accept() as sock:
            assert type(sock) is socket.socket
        assert accept() is None
        assert counting.accepted == 2


def test_a_connection_that_was_reset_before_it_was_accepted(calls, local):
    reset(socket.create_connection(local.getsockname(), SECONDS))
    with calls.accepting(local)() as sock:
        sock.setblocking(False)
        with pytest.raises(ConnectionResetError):
            sock.recv(100)


# -- wait


linux = pytest.mark.skipif(sys.platform != "linux", reason="epoll(7) is Linux's")


@pytest.fixture
def epoll():
    with select.epoll() as one:
        yield one


@linux
def test_wait(calls, epoll):
    wait = calls.waiting(epoll)
    near, far = socket.socketpair()
    with near, far:
        epoll.register(near.fileno(), select.EPOLLIN)
        epoll.register(far.fileno(), select.EPOLLOUT)
        assert wait(None) == wait(1.5) == wait(0) == epoll.poll(0) == [(far.fileno(), select.EPOLLOUT)]
        far.send(b"x")
        assert sorted(wait(None)) == sorted([(near.fileno(), select.EPOLLIN), (far.fileno(), select.EPOLLOUT)])
        far.close()
        assert wait(1) == [(near.fileno(), select.EPOLLIN | select.EPOLLHUP)]
        assert all(type(number) is int for event in wait(None) for number in event)
    events = wait(0)
    assert events == []
    assert events is not wait(0)  # each call has a list of its own, which the caller may change


@linux
def test_wait_for_many(calls, epoll):
    pairs = [socket.socketpair() for _ in range(300)]
    wait, all_of_them = calls.waiting(epoll), {near.fileno() for near, _ in pairs}
    try:
        for near, far in pairs:
            epoll.register(near.fileno(), select.EPOLLIN)
            far.send(b"x")
        found = set()
        for _ in range(3):  # who was told of goes behind the others: none is left out, though each is still readable
            found |= {fd for fd, _ in wait(None)}
        assert found == all_of_them
    finally:
        for pair in pairs:
            for one in pair:
                one.close()


@linux
@pytest.mark.parametrize("timeout", [0.03, 0.0301])
def test_wait_returns_no_earlier_where_nothing_comes(calls, epoll, timeout):
    wait, began = calls.waiting(epoll), time.monotonic()
    assert wait(timeout) == []
    assert time.monotonic() - began >= timeout


@linux
@pytest.mark.parametrize(
    ("timeout", "error"),
    [("text", TypeError), (b"", TypeError), (1e300, OverflowError), (float("nan"), ValueError)],
)
def test_wait_for_what_is_no_time(calls, epoll, timeout, error):
    with pytest.raises(error) as raised:
        calls.waiting(epoll)(timeout)
    with pytest.raises(error) as plain:
        epoll.poll(timeout)
    assert str(raised.value) == str(plain.value)


@linux
def test_wait_without_a_limit_in_other_words(calls, epoll):
    with socket.socket() as sock:
        epoll.register(sock.fileno(), 0)  # which has hung up: it was never connected
        for timeout in (None, -1, -0.5, True, 1_500_000, 2.5):
            assert calls.waiting(epoll)(timeout) == epoll.poll(timeout) != []


@linux
def test_wait_of_an_epoll_object_that_is_closed_or_foreign(calls, epoll):
    wait = calls.waiting(epoll)
    epoll.close()
    with select.epoll() as other:  # has its number now
        assert other.fileno() >= 0
        for timeout in (None, 0, 1.0):
            with pytest.raises(ValueError, match="closed epoll object"):
                wait(timeout)

    class Foreign:
        def poll(self, timeout):
            return [timeout]

    assert calls.waiting(Foreign())(2) == [2]


@linux
def test_wait_lets_other_threads_run(calls, epoll):
    near, far = socket.socketpair()
    with near, far:
        epoll.register(near.fileno(), select.EPOLLIN)
        events = run_while(calls.waiting(epoll), None)
        far.send(b"x")
        assert events() == [(near.fileno(), select.EPOLLIN)]


@linux
def test_wait_and_handlers_of_signals(calls, epoll, soon):
    wait = calls.waiting(epoll)
    near, far = socket.socketpair()
    with near, far:
        epoll.register(near.fileno(), select.EPOLLIN)
        for timeout in (None, SECONDS):
            soon(strike)
            with pytest.raises(Struck):
                wait(timeout)
        began = time.monotonic()
        soon(lambda: None)
        assert wait(0.2) == []  # it goes on, for what is left of the time
        assert 0.2 <= time.monotonic() - began < SECONDS
        soon(lambda: far.send(b"x"))
        assert wait(SECONDS) == [(near.fileno(), select.EPOLLIN)]


# -- what blocks lets other threads run, and handlers of signals


def test_accept_of_a_listener_that_blocks_lets_other_threads_run(calls, local):
    local.setblocking(True)
    accepted = run_while(calls.accepting(local))
    with socket.create_connection(local.getsockname(), SECONDS) as peer, accepted() as sock:
        assert sock.getpeername() == peer.getsockname()


def test_recv_of_a_socket_that_blocks_lets_other_threads_run(connection):
    ours, peer = connection
    ours.setblocking(True)
    received = run_while(ours.recv, 100)
    peer.sendall(b"late")
    assert received() == b"late"


def test_send_of_a_socket_that_blocks_lets_other_threads_run(connection):
    ours, peer = connection
    sent = filled(ours)
    ours.setblocking(True)
    more = run_while(ours.send, b"y" * 1000)
    received = b""
    while b"y" not in received:
        received += peer.recv(1_000_000)
    while len(received) < sent + more():
        received += peer.recv(1_000_000)
    assert received == b"x" * sent + b"y" * more()


class Struck(Exception):
    pass


@pytest.fixture
def soon():
    """soon(f): have f called by a handler of a signal, in a moment, once.

    A signal that comes just before the call that blocks does not break it off: so it is sent again and again.
    """
    before = signal.getsignal(signal.SIGUSR1)
    threads = []

    def begin(function):
        over = threading.Event()

        def handler(*_):
            if not over.is_set():
                over.set()
                function()

        def send():
            while not over.wait(0.02):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, handler)
        threads.append(threading.Thread(target=send))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGUSR1, before)


def strike():
    raise Struck


def test_a_handler_of_a_signal_raises_in_what_blocks(calls, connection, local, soon):
    ours, _peer = connection
    ours.setblocking(True)
    local.setblocking(True)

    def soon_struck(call):
        soon(strike)
        call()

    for call in (lambda: ours.recv(100), lambda: ours.recv(100_000), calls.accepting(local)):
        with pytest.raises(Struck):
            soon_struck(call)


def test_what_blocks_goes_on_after_a_handler_of_a_signal(calls, connection, local, soon):
    ours, peer = connection
    ours.setblocking(True)
    soon(lambda: peer.sendall(b"by the handler"))
    assert ours.recv(100) == b"by the handler"
    local.setblocking(True)
    made = []
    soon(lambda: made.append(socket.create_connection(local.getsockname(), SECONDS)))
    with calls.accepting(local)() as sock, made[0] as client:
        assert sock.getpeername() == client.getsockname()


def test_a_time_limit(connection):
    ours, _peer = connection
    ours.settimeout(0.01)
    with pytest.raises(TimeoutError):
        ours.recv(100)
    ours.setblocking(False)
    filled(ours)
    ours.settimeout(0.01)
    until_it_raises(ours.send, b"x")
    with pytest.raises(TimeoutError):
        ours.send(b"x")


# -- recv


@pytest.mark.parametrize("size", SIZES)
def test_recv(connection, size):
    ours, peer = connection
    data = os.urandom(size)
    sent = run_while(peer.sendall, data)
    received = b""
    ours.settimeout(SECONDS)
    while len(received) < size:
        ours.recv(1, socket.MSG_PEEK)  # it blocks; then there is something
        ours.setblocking(False)
        piece = ours.recv(size)
        assert type(piece) is bytes
        assert 0 < len(piece) <= size
        received += piece
        ours.settimeout(SECONDS)
    sent()
    assert received == data


@pytest.mark.parametrize("size", SIZES)
def test_recv_when_there_is_nothing(connection, size):
    ours, peer = connection
    with pytest.raises(BlockingIOError) as raised:
        ours.recv(size)
    assert raised.value.errno == errno.EAGAIN
    assert raised.value.strerror == os.strerror(errno.EAGAIN)
    peer.shutdown(socket.SHUT_WR)
    assert ours.recv(size) == b""
    assert ours.recv(size) == b""


def test_recv_of_less_than_there_is_and_with_flags(connection):
    ours, peer = connection
    peer.sendall(b"abc")
    assert ours.recv(2, socket.MSG_PEEK) == b"ab"
    assert ours.recv(2) == b"ab"
    assert ours.recv(2) == b"c"
    assert ours.recv(0) == b""


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((-1,), ValueError),
        ((2**80,), OverflowError),
        ((), TypeError),
        ((1, 0, 0), TypeError),
        (("1",), TypeError),
        ((1.0,), TypeError),
        ((1, "0"), TypeError),
    ],
)
def test_recv_of_what_is_no_size(connection, arguments, error):
    with pytest.raises(error):
        connection[0].recv(*arguments)


@pytest.mark.parametrize("size", SIZES)
def test_recv_after_a_reset(connection, size):
    ours, peer = connection
    reset(peer)
    with pytest.raises(ConnectionResetError) as raised:
        ours.recv(size)
    assert raised.value.errno == errno.ECONNRESET
    assert ours.recv(size) == b""  # the kernel tells it once


@pytest.mark.parametrize("call", [lambda sock: sock.recv(100), lambda sock: sock.send(b"x")])
def test_a_closed_socket_leaves_alone_who_has_its_number_now(connection, call):
    ours, _peer = connection
    number = ours.fileno()
    ours.close()
    other, far = socket.socketpair()
    with other, far:
        assert number in (other.fileno(), far.fileno())
        far.sendall(b"for the other")
        with pytest.raises(OSError, match="Bad file descriptor"):
            call(ours)
        assert other.recv(100) == b"for the other"


def test_two_threads_read_at_once(calls, local):
    accept, count = calls.accepting(local), 2000

    def read(sock, peer, letter):
        wrong = 0
        for number in range(count):
            message = letter * (1 + number % 999)
            peer.sendall(message)
            wrong += sock.recv(65536) != message
        return wrong

    pairs = []
    for letter in (b"a", b"b", b"c"):
        peer = socket.create_connection(local.getsockname(), SECONDS)
        sock = accept()
        sock.setblocking(False)
        pairs.append((sock, peer, letter))
    answers = [run_while(read, *pair) for pair in pairs]
    assert [answer() for answer in answers] == [0, 0, 0]
    for sock, peer, _ in pairs:
        sock.close()
        peer.close()


# -- send


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(b"." + data)[1:]])
@pytest.mark.parametrize("size", [0, *SIZES])
def test_send(connection, kind, size):
    ours, peer = connection
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    data = os.urandom(size)
    sent = ours.send(kind(data))
    assert type(sent) is int
    assert 0 < sent <= size or sent == size
    ours.shutdown(socket.SHUT_WR)
    received = b""
    while piece := peer.recv(1_000_000):
        received += piece
    assert received == data[:sent]


@pytest.mark.parametrize("data", ["text", None, 5, memoryview(b"abcd")[::2]])
def test_send_of_what_is_no_buffer(connection, data):
    with pytest.raises((TypeError, BufferError)):
        connection[0].send(data)


def test_send_when_the_kernel_takes_no_more(connection):
    ours, peer = connection
    sent = filled(ours)
    with pytest.raises(BlockingIOError):
        ours.send(b"x")
    with pytest.raises(BlockingIOError):
        ours.send(memoryview(b"x" * 100_000))
    ours.shutdown(socket.SHUT_WR)
    received = 0
    while piece := peer.recv(1_000_000):
        received += len(piece)
    assert received == sent


@pytest.mark.parametrize("size", [1, 100_000])
def test_send_to_a_peer_that_has_gone(connection, size):
    ours, peer = connection
    reset(peer)
    with pytest.raises(ConnectionResetError):
        ours.send(b"x" * size)
    with pytest.raises(BrokenPipeError) as raised:
        ours.send(b"x" * size)
    assert raised.value.errno == errno.EPIPE


def test_a_broken_pipe_is_no_signal_for_small_amounts():
    """Where the program wants SIGPIPE: with MSG_NOSIGNAL there is none. (Larger amounts go the interpreter's way.)"""
    if "c" not in TWINS:
        pytest.skip("not compiled")
    ours, peer = socket.socketpair()
    TWINS["c"].take_over(ours)
    ours.setblocking(False)
    peer.close()
    before = signal.signal(signal.SIGPIPE, lambda *_: strike())
    try:
        with ours, pytest.raises(BrokenPipeError):
            ours.send(b"x")
    finally:
        signal.signal(signal.SIGPIPE, before)


# -- a socket.socket in all that can be seen


def test_it_is_a_socket_of_the_standard_library(connection):
    ours, peer = connection
    with socket.socket() as plain:
        assert isinstance(ours, socket.socket)
        assert repr(ours).startswith(f"<socket.socket fd={ours.fileno()}, family={plain.family}, type={plain.type}")
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            errors = []
            for sock in (ours, plain):
                with pytest.raises(TypeError) as raised:
                    pickle.dumps(sock, protocol)
                errors.append(str(raised.value))
            assert protocol < 2 or errors[0] == errors[1]
        with pytest.raises(AttributeError):
            ours.misspelt = 1
    assert weakref.ref(ours)() is ours
    assert type(ours).__name__ == type(ours).__qualname__ == "socket"
    with ours.dup() as other:
        other.setblocking(False)
        peer.sendall(b"x")
        assert other.recv(10) == b"x"
        assert other.fileno() != ours.fileno()
    buffer = bytearray(10)
    peer.sendall(b"into")
    assert ours.recv_into(buffer) == 4
    ours.setblocking(True)
    with ours.makefile("rwb") as file:
        file.write(b"line\n")
        file.flush()
        assert peer.makefile("rb").readline() == b"line\n"
        peer.sendall(b"answer\n")
        assert file.readline() == b"answer\n"
        ours.close()
        assert ours.fileno() >= 0  # until the file is closed too
    assert ours.fileno() == -1


def test_detach(connection):
    ours, peer = connection
    fd = ours.detach()
    assert ours.fileno() == -1
    assert "[closed]" in repr(ours)
    with socket.socket(fileno=fd) as plain:
        assert plain.getpeername() == peer.getsockname()


def test_one_that_is_dropped_is_closed_with_a_warning(calls, local):
    with socket.create_connection(local.getsockname(), SECONDS) as peer:
        sock = calls.accepting(local)()
        with pytest.warns(ResourceWarning, match="unclosed <socket.socket fd="):
            del sock
        assert peer.recv(10) == b""


def test_under_tls(connection):
    ours, peer = connection
    ours.settimeout(SECONDS)
    client = run_while(lambda: client_context().wrap_socket(peer, server_hostname="localhost"))
    with server_context("localhost").wrap_socket(ours, server_side=True) as secured:
        assert ours.fileno() == -1
        with client() as other:
            other.sendall(b"secret")
            assert secured.recv(100) == b"secret"


def test_setblocking(connection):
    ours, _peer = connection
    for on, seconds in ((True, None), (False, 0.0), (False, 0.0)):
        ours.setblocking(on)
        assert ours.gettimeout() == seconds
        assert os.get_blocking(ours.fileno()) is on
    ours.settimeout(30)
    ours.setblocking(False)
    assert ours.gettimeout() == 0.0


def test_setblocking_of_a_closed_socket(connection):
    ours, _peer = connection
    ours.close()
    for on in (True, False):
        with pytest.raises(OSError, match="Bad file descriptor"):
            ours.setblocking(on)


REPLACED = """
import socket

class Other:
    pass

socket.socket = Other
import dangagreen.system_calls
"""


@pytest.mark.slow
def test_the_sockets_of_the_standard_library_are_needed():
    """Of others, as some libraries put them in their place, the one in C would not know where their fields are."""
    if "c" not in TWINS:
        pytest.skip("not compiled")
    environment = {name: value for name, value in os.environ.items() if name != "DANGAGREEN_PURE"}
    environment["PYTHONPATH"] = str(FOLDER.parent)
    done = subprocess.run([sys.executable, "-c", REPLACED], env=environment, capture_output=True, text=True, timeout=60)
    assert "they were replaced" in done.stderr


def test_take_over_and_hand_over(calls):
    class Own(socket.socket):
        pass

    for kind in (socket.socket, Own):
        with kind() as sock:
            fd = sock.fileno()
            calls.take_over(sock)
            assert type(sock) in (*calls.OS_SOCKETS, Own)
            calls.hand_over(sock)
            assert type(sock) is kind
            assert sock.fileno() == fd
    for other in (wire()[0], None):
        calls.take_over(other)
        calls.hand_over(other)


def test_no_memory_is_lost(calls, local):
    """100,000 calls: an object, or a descriptor, that each leaves behind would show."""
    accept, data = calls.accepting(local), b"x" * 300
    peer = socket.create_connection(local.getsockname(), SECONDS)
    ours = accept()
    ours.setblocking(False)
    context = contextvars.Context()

    def some(count):
        for _ in range(count):
            ours.send(data)
            peer.recv(1000)
            peer.send(data)
            ours.recv(1000)
            calls.run_in(context, dict)
            for call in (lambda: ours.recv(1000), lambda: ours.send(None)):
                try:
                    call()
                except (BlockingIOError, TypeError):
                    pass
        for _ in range(count // 100):
            other = socket.create_connection(local.getsockname(), SECONDS)
            accept().close()
            other.close()

    some(1000)
    before, references = sys.getallocatedblocks(), sys.getrefcount(data)
    some(20_000)
    assert sys.getallocatedblocks() - before < 500
    assert sys.getrefcount(data) == references
    ours.close()
    peer.close()


# -- contexts

VARIABLE = contextvars.ContextVar("VARIABLE", default="outside")


def test_run_in(calls):
    context = contextvars.Context()

    def inside():
        VARIABLE.set("inside")
        return VARIABLE.get()

    assert calls.run_in(context, inside) == "inside"
    assert calls.run_in(context, VARIABLE.get) == "inside"
    assert VARIABLE.get() == "outside"


def test_what_is_raised_in_a_context_leaves_it(calls):
    context = contextvars.Context()
    for _ in range(2):
        with pytest.raises(Struck):
            calls.run_in(context, strike)
    assert VARIABLE.get() == "outside"


def test_a_context_is_entered_once(calls):
    context = contextvars.Context()
    with pytest.raises(RuntimeError, match="cannot enter context"):
        calls.run_in(context, lambda: calls.run_in(context, dict))
    assert calls.run_in(context, dict) == {}
    with pytest.raises(TypeError):
        calls.run_in(None, dict)
