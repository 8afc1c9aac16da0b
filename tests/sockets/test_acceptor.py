"""Accepting: pausing when descriptors run out, errors of accept(2), shares of a turn."""

import contextlib
import errno
import fcntl
import logging
import os
import resource
import socket

import pytest

from dangagreen.sockets.listener import Server
from tests.connections import KeepingEcho


def test_a_turn_accepts_a_bounded_number(loop, server, client, run_turns, monkeypatch):
    monkeypatch.setattr(Server, "accepts_per_turn", 3)
    listener = server()
    for _ in range(7):
        client(listener.address)
    counts = []
    for _ in range(4):
        run_turns(1)
        counts.append(listener.connections)
    assert counts == [3, 6, 7, 7]


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
        made.append(Server(sock, lambda sock, listener: accepted.append(sock)))
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
    advance(Server.accept_backoff * 0.9)
    assert accepted == [first]
    assert sock.accepts == 2
    assert loop.poller.waits - waits <= 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert os.strerror(number) in record.getMessage()
    advance(Server.accept_backoff * 0.2)
    assert accepted == [first, second]
    assert len(caplog.records) == 1
    assert not listener.closed


def test_descriptors_that_are_never_there_again_do_not_fill_the_log(loop, scripted, advance, caplog):
    scripted(*[errno.EMFILE] * 200)
    advance(Server.accept_backoff * 100)
    assert len(caplog.records) == 10
    advance(Server.accept_backoff * 40)
    assert any("more of these were left out" in record.getMessage() for record in caplog.records)


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
    advance(Server.accept_backoff * 5.5)
    assert sock.accepts == 6 * Server.accepts_per_turn
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
    real_loop.handlers[listener.fd].event_read()  # as in a process that shares it and comes second
    assert not listener.closed


def test_an_event_for_a_closed_listener_does_not_reach_the_next_owner_of_its_descriptor(
    real_loop, server, client, run_turns
):
    """Both are in one batch; the first callback closes the listener, and what it makes gets the same number."""
    listener = server()
    fd, seen = listener.fd, []

    class Replacing(KeepingEcho):
        __slots__ = ()

        def event_read(self):
            self.read(1)
            listener.close()
            other = socket.socketpair()
            assert fd in {end.fileno() for end in other}
            owner = next(end for end in other if end.fileno() == fd)
            seen.extend([Recording(owner), *other])
            seen[0].watch_read(True)

    class Recording(KeepingEcho):
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
    advance(Server.accept_backoff * 1.1)
    assert listener.connections == 3
    assert late.recv(1) == b"x"


def lowest_free() -> int:
    fd = os.dup(0)
    os.close(fd)
    return fd


@pytest.fixture
def no_gaps():
    """Above the lowest free descriptor none is in use, whatever the process had open and has closed before."""
    highest = max(map(int, os.listdir("/dev/fd")))
    fillers = [os.dup(0)]
    while fillers[-1] < highest:
        fillers.append(os.dup(0))
    yield
    for fd in fillers:
        os.close(fd)


def test_it_leaves_descriptors_free_for_others_and_goes_on_once_there_are_more(
    loop, server, client, run_turns, advance, caplog, no_gaps
):
    listener = server()
    clients = [client(listener.address) for _ in range(4)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    listener.spare_descriptors = 10
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free() + 3 + 10, limits[1]))
    try:
        run_turns(5)
        assert listener.connections == 3
        advance(Server.accept_backoff * 3.5)
        assert listener.connections == 3
        (record,) = caplog.records
        assert "10 descriptors are to be left for others" in record.getMessage()
        taken = [os.dup(0) for _ in range(10)]  # they are there for others
        for fd in taken:
            os.close(fd)
        for one in clients[:3]:
            one.close()
        run_turns(5)
        advance(Server.accept_backoff * 1.1)
        assert listener.accepted == 4
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(caplog.records) == 1


def test_out_of_all_descriptors_there_are_none_to_spare(loop, server, client, run_turns, advance):
    listener = server()
    client(listener.address)
    listener.spare_descriptors = 5
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free(), limits[1]))
    try:
        advance(Server.accept_backoff * 2.5)
        assert listener.connections == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    advance(Server.accept_backoff)
    assert listener.connections == 1


@pytest.mark.parametrize(("number", "kind"), [(-1, ValueError), ("5", TypeError), (1.5, TypeError), (None, TypeError)])
def test_how_many_are_to_be_spared_is_a_count(server, number, kind):
    listener = server()
    with pytest.raises(kind):
        listener.spare_descriptors = number
    assert listener.spare_descriptors == 0


def test_descriptors_are_spared_by_their_numbers(loop, server, client, run_turns, no_gaps):
    """What stands at a high number is one of those that are spared, as the reference says."""
    listener = server()
    clients = [client(listener.address) for _ in range(3)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    listener.spare_descriptors = 3
    most = lowest_free() + 6
    high = fcntl.fcntl(0, fcntl.F_DUPFD, most - 1)
    assert high == most - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        run_turns(5)
        assert listener.connections == len(clients) == 3
        left = []
        with contextlib.suppress(OSError):
            while True:
                left.append(os.dup(0))
        assert len(left) == 3 - 1
        for fd in left:
            os.close(fd)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(high)
