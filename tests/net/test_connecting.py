"""connect: addresses and names, several of them, what it raises, and what is left of one that was given up."""

from __future__ import annotations

import contextlib
import errno
import random
import re
import socket
import threading
import types

import pytest

import dangagreen as d
from dangagreen.net import connector
from tests.connections import ask, echo_lines


def test_connect_refused_names_the_address(real_loop, free_address):
    with pytest.raises(ConnectionRefusedError, match=str(free_address[1])):
        d.connect(free_address)


def test_connect_times_out_and_leaks_nothing(deaf_address, real_loop):
    with pytest.raises(TimeoutError, match=r"0\.05") as caught:
        d.connect(deaf_address, 0.05)
    assert str(deaf_address[1]) in str(caught.value)


def test_connect_times_out_when_it_should(deaf_address, loop):
    with pytest.raises(TimeoutError):
        d.connect(deaf_address, 30)
    assert loop.clock() == 1030


def test_a_cancelled_connect_leaks_nothing(deaf_address, loop):
    task = d.spawn(d.connect, deaf_address)
    d.sleep(1)
    assert "connect" in task.waits_for
    task.cancel()
    task.join()
    with pytest.raises(d.TaskCancelledError):
        task.result()


def test_an_interrupted_connect_leaks_nothing(deaf_address, loop):
    def interrupt():
        raise KeyboardInterrupt

    loop.add_timer(1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        d.connect(deaf_address)
    d.sleep(1)
    assert loop.clock() == 1002


def test_connect_in_several_tasks_at_once(real_loop, served, client):
    listener = served(echo_lines)

    def talk(number):
        with d.connect(listener.address, 30) as sock:
            return ask(sock, b"%d\n" % number)

    tasks = [d.spawn(talk, number) for number in range(20)]
    for task in tasks:
        task.join(30)
    assert [task.result() for task in tasks] == [b"%d\n" % number for number in range(20)]


def test_connect_uses_the_socket_class(real_loop, served):
    class Mine(d.Socket):
        __slots__ = ()

    with d.connect(served(echo_lines).address, 30, socket_class=Mine) as sock:
        assert type(sock) is Mine
        assert ask(sock, b"x\n") == b"x\n"


def test_connect_to_a_path_that_is_not_there(real_loop, tmp_path):
    with pytest.raises(FileNotFoundError, match="nobody"):
        d.connect(tmp_path / "nobody")


def test_connect_to_a_unix_socket_whose_queue_is_full(loop, tmp_path):
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as filler:
        full.bind(str(tmp_path / "full"))
        full.listen(0)
        filler.connect(str(tmp_path / "full"))
        with pytest.raises(TimeoutError):
            d.connect(tmp_path / "full", 3)
        assert 1003 <= loop.clock() < 1004
        task = d.spawn(d.connect, tmp_path / "full", 100)
        d.sleep(1)
        full.accept()[0].close()
        d.sleep(1)
        task.result().close()


@pytest.mark.parametrize("address", [5, ("127.0.0.1",), None])
def test_connect_refuses_what_is_no_address(loop, address):
    with pytest.raises(TypeError, match="address"):
        d.connect(address)


def test_connect_by_host_name(real_loop, served):
    listener = served(echo_lines)
    with d.connect(("localhost", listener.address[1]), 30) as sock:
        assert ask(sock, b"x\n") == b"x\n"


def fake_look_up(monkeypatch, answer):
    """Have names, not numbers, answered by the function."""
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if host == "some.host" and not kwargs.get("flags", 0) & socket.AI_NUMERICHOST:
            return answer(port)
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def entry(address, family=socket.AF_INET):
    return family, socket.SOCK_STREAM, 0, "", address


def test_connect_tries_the_addresses_of_a_host_one_after_the_other(real_loop, served, free_address, monkeypatch):
    listener = served(echo_lines)
    fake_look_up(monkeypatch, lambda port: [entry(free_address), entry(listener.address)])
    with d.connect(("some.host", 1), 30) as sock:
        assert sock.sock.getpeername() == listener.address


def test_connect_raises_what_the_look_up_raises(real_loop, monkeypatch):
    def answer(port):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    fake_look_up(monkeypatch, answer)
    with pytest.raises(socket.gaierror, match="no such name"):
        d.connect(("some.host", 1), 30)


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_look_up_that_nobody_waits_for_any_more_does_no_harm(real_loop, monkeypatch, free_address, pool, how):
    gate = threading.Event()

    def answer(port):
        gate.wait(30)
        return [entry(free_address)]

    fake_look_up(monkeypatch, answer)
    task = d.spawn(lambda: d.connect(("some.host", 1), 0.02 if how == "timeout" else None))
    if how == "cancel":
        d.sleep(0)
        d.sleep(0)
        assert "some.host" in task.waits_for
        task.cancel()
    task.join(30)
    with pytest.raises(TimeoutError if how == "timeout" else d.TaskCancelledError):
        task.result()
    gate.set()
    pool.end()
    for _ in range(3):
        d.sleep(0)


def test_a_late_look_up_wakes_no_later_wait(real_loop, monkeypatch, free_address, pool):
    gate = threading.Event()
    slept = []

    def answer(port):
        gate.wait(30)
        return [entry(free_address)]

    def work():
        with pytest.raises(TimeoutError):
            d.connect(("some.host", 1), 0.01)
        gate.set()
        before = real_loop.clock()
        d.sleep(0.03)
        slept.append(real_loop.clock() - before)

    fake_look_up(monkeypatch, answer)
    task = d.spawn(work)
    task.join(30)
    task.result()
    assert slept[0] >= 0.03


def test_the_timeout_covers_all_addresses_together(deaf_address, loop, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [entry(deaf_address)] * 3)
    with pytest.raises(TimeoutError):
        d.connect(("some.host", 1), 10)
    assert loop.clock() == 1010


def test_connect_goes_on_where_the_kernel_lacks_the_family_of_the_first_address(real_loop, served, monkeypatch):
    listener = served(echo_lines)
    real = socket.socket

    class Lacking(real):
        def __init__(self, family=-1, *args, **kwargs):
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *args, **kwargs)

    addresses = [entry(("::1", 1, 0, 0), socket.AF_INET6), entry(listener.address)]
    fake_look_up(monkeypatch, lambda port: addresses)
    monkeypatch.setattr(socket, "socket", Lacking)
    with d.connect(("some.host", 1)) as sock:
        sock.write_all(b"there\n")
        assert sock.read_line() == b"there\n"
    del addresses[1]
    with pytest.raises(OSError, match=r"cannot connect to \('some.host', 1\): ::1: Address family"):
        d.connect(("some.host", 1))


# -- several addresses, on real sockets


def answers(loop, *addresses):
    """Have "some.host" be these addresses, of whatever ports."""
    loop.resolver = types.SimpleNamespace(parks=True, getaddrinfo=lambda *_: [entry(*one) for one in addresses])


def six(address):
    return (*address, 0, 0), socket.AF_INET6


@pytest.fixture
def over_ipv6(served):
    return six(served(echo_lines, address=("::1", 0)).address)


@pytest.fixture
def soon(monkeypatch):
    """The next attempt begins so many seconds after one: a quarter of a second is nothing to wait for."""
    monkeypatch.setattr(connector, "ATTEMPT_DELAY", 0.01)
    return connector.ATTEMPT_DELAY


@pytest.mark.parametrize("style", ["task", "callback"])
def test_a_silent_address_is_overtaken_by_the_next_family(real_loop, deaf_address, over_ipv6, wait_for, style, soon):
    answers(real_loop, (deaf_address,), (deaf_address,), over_ipv6)
    if style == "task":
        sock = d.connect(("some.host", 1), 30)
    else:
        sock = d.Socket.connect_to(("some.host", 1), timeout=5)
        wait_for(lambda: sock.peer_addr_string())
    assert sock.sock.getpeername()[:2] == over_ipv6[0][:2]
    assert ask(sock, b"x\n") == b"x\n"
    sock.close()


def test_a_refused_address_is_overtaken_at_once(real_loop, free_address, served):
    listener = served(echo_lines)
    answers(real_loop, six(("::1", free_address[1])), (free_address,), (listener.address,))
    with d.connect(("some.host", 1), 30) as sock:
        assert sock.sock.getpeername() == listener.address


def test_what_became_of_each_address_is_told(real_loop, deaf_address, free_address, soon):
    answers(real_loop, (free_address,), (deaf_address,), six(("::1", free_address[1])))
    with pytest.raises(
        TimeoutError, match=r"127.0.0.1: Connection refused; ::1: Connection refused; 127.0.0.1: no answer"
    ):
        d.connect(("some.host", 1), 0.5)


@pytest.mark.parametrize("seed", range(5))
def test_real_attempts_that_are_cancelled_at_any_moment_leave_nothing(
    real_loop, deaf_address, free_address, over_ipv6, seed, soon
):
    chance = random.Random(seed)
    choices = [(deaf_address,), (free_address,), over_ipv6, six(("::1", free_address[1]))]
    for _ in range(20):
        answers(real_loop, *chance.choices(choices, k=4))
        with d.move_on_after(chance.choice([0, 0.0002, 0.001, soon + 0.001])), contextlib.suppress(OSError):
            d.connect(("some.host", 1), chance.choice([None, 0, 0.0005])).close()
        sock = d.Socket.connect_to(("some.host", 1))
        d.sleep(chance.choice([0, 0.0002, 0.001]))
        sock.close()


def test_a_host_without_a_port_is_told_from_a_path(real_loop):
    with pytest.raises(FileNotFoundError, match=re.escape("a host has a port, ('no.such.host', 80)")):
        d.run(d.connect, "no.such.host", 80)
    with pytest.raises(FileNotFoundError) as raised:
        d.run(d.connect, "/no/such/path")
    assert "a host has a port" not in str(raised.value)
