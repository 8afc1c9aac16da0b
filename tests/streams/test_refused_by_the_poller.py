"""A poller that refuses to watch (ENOSPC, ENOMEM of epoll_ctl): what was arranged before it is taken back, and the
error reaches whoever asked. Every other call, error and position is the fault injector's (tests/soak)."""

from __future__ import annotations

import errno
import os
import socket
import threading

import pytest

import dangagreen as d
from dangagreen.sockets.listener import Server


class Refusing:
    """In front of a poller: the calls named in `refuse` raise the next of its errors."""

    def __init__(self, poller):
        self.poller = poller
        self.refuse = []
        self.told = {}  # the mask that each fd was registered with last

    def __getattr__(self, name):
        return getattr(self.poller, name)

    def _call(self, name, *args):
        for entry in self.refuse:
            if name in entry[0] and (entry[2] is None or entry[2] == args[0]):
                self.refuse.remove(entry)
                raise OSError(entry[1], os.strerror(entry[1]))
        answer = getattr(self.poller, name)(*args)
        self.told[args[0]] = args[1]
        return answer

    def add(self, fd, mask):
        return self._call("add", fd, mask)

    def modify(self, fd, mask):
        return self._call("modify", fd, mask)


@pytest.fixture
def refuse(active_loop):
    """`refuse(number, fd=None)`: the next call that would watch that fd, or any, raises so.

    `refuse.told` has the mask with which each fd was registered last.
    """
    active_loop.poller = poller = Refusing(active_loop.poller)

    def refuse(number=errno.ENOSPC, fd=None):
        poller.refuse.append(({"add", "modify"}, number, fd))

    refuse.told = poller.told
    return refuse


READS = {
    "read_line": lambda sock: sock.read_line(),
    "read_exactly": lambda sock: sock.read_exactly(3),
    "read_some": lambda sock: sock.read_some(),
    "read_some_into": lambda sock: sock.read_some_into(bytearray(3)),
    "read_to_end": lambda sock: sock.read_to_end(),
    "select": lambda sock: d.select(sock, d.Event()),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM], ids=["ENOSPC", "ENOMEM"])
def test_a_read_that_the_poller_refuses_raises_and_leaves_no_reader(real_loop, real_pair, refuse, read, number):
    near, far = real_pair()
    sock = d.Socket(near)
    woken = []

    def program():
        refuse(number, sock.fd)
        with pytest.raises(OSError) as caught:
            read(sock)
        assert caught.value.errno == number
        far.send(b"one\n")
        with d.move_on_after(0.003):
            d.Event().wait()
            woken.append("nothing was to wake it")
        assert sock.read_line() == b"one\n"
        sock.close()

    d.run(program)
    assert woken == []


@pytest.mark.parametrize("style", ["sequential", "callback"])
def test_a_refused_watch_read_is_taken_back(real_loop, tcp_pair, refuse, style):
    near, _ = tcp_pair()
    sock = d.Socket(near)
    sock._sequential = style == "sequential"
    refuse(errno.ENOSPC, sock.fd)
    with pytest.raises(OSError):
        sock.watch_read(True)
    assert (sock._watch_read, sock._sequential, sock._registered_mask) == (False, style == "sequential", 32)
    sock.watch_read(True)
    assert sock._watch_read
    refuse(errno.ENOMEM, sock.fd)
    with pytest.raises(OSError):
        sock.watch_write(True)
    assert sock.as_string().startswith("Socket(R)")
    sock.close()


WRITES = {
    "write": lambda sock, data: sock.write(data),
    "write_all": lambda sock, data: [sock.write_all(data), sock.drain()],
}


@pytest.mark.parametrize("write", ["write", "write_all"])
def test_what_cannot_be_sent_and_not_waited_for_closes_the_connection_and_is_told(
    real_loop, tcp_pair, refuse, take_errors, write
):
    near, far = tcp_pair()
    sock = d.Socket(near)
    far.settimeout(30)

    def program():
        refuse(errno.ENOSPC, sock.fd)
        with pytest.raises(OSError) as caught:
            WRITES[write](sock, b"x" * 50_000_000)
        assert caught.value.errno == errno.ENOSPC

    d.run(program)
    assert sock.closed
    assert sock.unsent == 0
    assert sock.close_reason.errno == errno.ENOSPC
    while far.recv(1 << 20):
        pass


def test_writers_that_were_parked_before_hear_that_interest_could_not_be_lowered(loop, pair, refuse, take_errors):
    sock, far = pair(capacity=10)
    sock.write(b"x" * 20)
    drained = d.spawn(sock.drain)
    d.sleep(0)
    far.capacity = 1000
    refuse(errno.EBADF, sock.fd)
    sock.write(None)
    drained.join(30)
    drained.result()
    d.sleep(0)
    (failure,) = take_errors()
    assert failure.exception.errno == errno.EBADF
    assert sock.close_reason.errno == errno.EBADF


def test_to_watch_less_is_asked_for_again_at_the_next_event(real_loop, tcp_pair, refuse, run_turns):
    near, far = tcp_pair()
    sock = d.Socket(near)
    sock.watch_read(True)
    run_turns(2)
    sock.watch_read(False)
    refuse(errno.ENOMEM, sock.fd)
    far.send(b"x")
    run_turns(3)
    assert not sock.closed
    assert refuse.told[sock.fd] == 0
    sock.close()


def test_connect_is_told_and_leaves_nothing(real_loop, refuse):
    with socket.create_server(("127.0.0.1", 0)) as server:
        refuse(errno.ENOSPC)
        with pytest.raises(OSError, match="cannot connect to") as caught:
            d.run(d.connect, server.getsockname(), 5)
        assert caught.value.errno == errno.ENOSPC


def test_a_request_served_whose_connection_cannot_be_watched_again_is_closed(real_loop, refuse, take_errors):
    def handler(sock):
        sock.write_all(sock.read_line())
        sock._registered_mask = 0  # as if the kernel had been told meanwhile that it need not watch
        refuse(errno.ENOSPC, sock.fd)

    def program():
        with d.serve_requests(("127.0.0.1", 0), handler) as listener:
            client = d.connect(listener.address)
            client.write_all(b"one\n")
            assert client.read_to_end() == b"one\n"
            client.close()

    d.run(program)
    assert [context.exception.errno for context in take_errors()] == [errno.ENOSPC]


def test_a_listener_that_is_refused_is_in_no_map_and_its_address_is_free(real_loop, refuse, peers):
    refuse(errno.ENOSPC)
    with pytest.raises(OSError) as caught:
        d.serve(("127.0.0.1", 0), print)
    assert caught.value.errno == errno.ENOSPC
    assert d.Socket.descriptor_map() == {}
    mine = socket.create_server(("127.0.0.1", 0))
    peers.append(mine)
    refuse(errno.ENOMEM)
    with pytest.raises(OSError):
        d.serve(mine, print)
    assert d.Socket.descriptor_map() == {}
    with d.serve(mine, print) as listener:  # it was left open
        assert listener.address == mine.getsockname()


def test_a_full_listener_that_cannot_watch_again_rests_and_the_close_that_made_room_is_none_the_worse(
    real_loop, refuse, run_until, caplog, monkeypatch
):
    monkeypatch.setattr(Server, "accept_backoff", 0.02)
    taken = []
    listener = d.serve(("127.0.0.1", 0), type("Taken", (d.Socket,), {"__init__": lambda s, k: taking(s, k)}))

    def taking(sock, os_socket):
        d.Socket.__init__(sock, os_socket)
        taken.append(sock)

    listener.max_connections = 1
    clients = [socket.create_connection(listener.address) for _ in range(2)]
    run_until(lambda: len(taken) == 1 and not refuse.told[listener.fd] & 1)
    refuse(errno.ENOMEM, listener.fd)
    taken[0].close()
    assert "pauses accepting" in caplog.text
    run_until(lambda: len(taken) == 2)
    for one in (*clients, *taken, listener):
        one.close()


def test_of_several_fds_all_are_watched_or_none_of_the_new_ones(real_loop, refuse):
    ends = [os.pipe() for _ in range(3)]
    first, second, third = (end for end, _ in ends)
    d.Socket.add_other_fds({first: print})
    refuse(errno.ENOSPC, third)
    with pytest.raises(OSError):
        d.Socket.other_fds({first: repr, second: print, third: print})
    assert d.Socket.other_fds() == {first: print}
    refuse(errno.ENOSPC, third)
    with pytest.raises(OSError):
        d.Socket.other_fds({second: print, third: print})
    assert d.Socket.other_fds() == {first: print}
    assert d.Socket.other_fds({second: print, third: repr}) == {second: print, third: repr}
    d.Socket.other_fds({})
    for pair in ends:
        for fd in pair:
            os.close(fd)


def test_an_fd_that_was_closed_can_be_taken_out(real_loop):
    ends = os.pipe()
    d.Socket.add_other_fds({ends[0]: print})
    for fd in ends:
        os.close(fd)
    assert d.Socket.other_fds({}) == {}


def test_a_loop_that_cannot_be_woken_by_threads_does_not_run_and_leaves_nothing(poller_class):
    before = len(os.listdir("/dev/fd"))
    loop = d.Loop(poller=poller_class())
    loop.loop_timeout = 0
    loop.poller = Refusing(loop.poller)
    loop.poller.refuse.append(({"add"}, errno.ENOSPC, None))
    with pytest.raises(OSError):
        loop.run(lambda: True)
    assert loop.wakeup_pair is None
    loop.run(lambda: True)
    loop.close()
    assert len(os.listdir("/dev/fd")) == before


def test_a_finish_that_cannot_hear_the_peer_s_end_closes_and_raises(real_loop, tcp_pair, refuse):
    near, far = tcp_pair()
    sock = d.Socket(near)
    sock.write(b"tail")
    refuse(errno.ENOSPC, sock.fd)
    with pytest.raises(OSError) as caught:
        sock.finish()
    assert caught.value.errno == errno.ENOSPC
    assert sock.closed
    far.settimeout(30)
    assert far.recv(10) == b"tail"
    assert far.recv(10) == b""


def test_a_connection_that_the_poller_of_a_forked_child_refuses_is_closed_and_the_others_are_served(poller_class):
    class Narrow:
        """Of all its instances together it refuses so many sockets."""

        refuses = 0

        def __init__(self):
            self.poller = poller_class()

        def __getattr__(self, name):
            return getattr(self.poller, name)

        def add(self, fd, mask):
            if Narrow.refuses:
                Narrow.refuses -= 1
                raise OSError(errno.ENOSPC, "no room")
            return self.poller.add(fd, mask)

    errors = []
    with d.Loop(poller=Narrow()) as loop:
        loop.on_error = errors.append
        pairs = [socket.socketpair() for _ in range(3)]
        socks = [d.Socket(near) for near, _ in pairs]
        for sock in socks:
            sock.watch_read(True)
        Narrow.refuses = 1
        loop._after_fork()
        assert [sock.closed for sock in socks] == [True, False, False]
        assert [context.subject for context in errors] == socks[:1]
        pairs[2][1].send(b"line\n")
        assert socks[2].read_line() == b"line\n"
    for _, far in pairs:
        far.close()


def test_a_server_whose_path_is_gone_before_it_is_known_is_no_server(real_loop, tmp_path, monkeypatch):
    path = str(tmp_path / "socket")
    bind = socket.socket.bind

    def bind_in_vain(sock, *args):
        bind(sock, *args)
        os.unlink(path)

    monkeypatch.setattr(socket.socket, "bind", bind_in_vain)
    with pytest.raises(FileNotFoundError):
        d.serve(path, print)
    assert d.Socket.descriptor_map() == {}


class Mute:
    """The socket that wakes a loop, whose first sends fail."""

    def __init__(self, end, errors):
        self.end = end
        self.errors = errors

    def send(self, data):
        if self.errors:
            raise OSError(self.errors.pop(), "no room")
        return self.end.send(data)

    def __getattr__(self, name):
        return getattr(self.end, name)


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_a_thread_s_wake_up_that_fails_is_tried_again_and_at_the_latest_by_the_next(real_loop, run_until, failures):
    called = []
    real_loop.call_soon(print)
    run_until(lambda: True)
    ours = real_loop.wakeup_pair
    ours.ends = (ours.ends[0], Mute(ours.ends[1], [errno.ENOBUFS] * failures))
    calls = 1 if failures < 3 else 2
    threads = [threading.Thread(target=real_loop.call_soon_threadsafe, args=(called.append, n)) for n in range(calls)]
    for thread in threads:
        thread.start()
        thread.join()
    assert ours.awake
    run_until(lambda: len(called) == calls)
    assert not ours.awake


def test_an_error_while_the_end_is_arranged_does_not_keep_the_end_away(loop, pair, advance):
    sock, far = pair()
    errors = [ZeroDivisionError()]

    def writer(data):
        if errors:
            raise errors.pop()
        return far.peer.send(data)

    sock.set_writer_func(writer)
    sock.write_soon(b"tail")
    with pytest.raises(ZeroDivisionError):
        sock.finish()
    advance(1)
    assert far.recv(100) == b"tail"
    assert far.recv(100) == b""
    assert not sock.closed
    advance(2 * sock.linger_seconds + 1)  # it was sending meanwhile
    assert sock.closed
