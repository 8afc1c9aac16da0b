"""wait_readable and wait_writable: fds of others, both directions, files, closed fds, over every poller."""

from __future__ import annotations

import contextlib
import errno
import os
import socket

import pytest

import dangagreen as d
from tests.helpers import end_of, joined, outcome


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        with contextlib.suppress(OSError):
            os.close(fd)


def fill(fd):
    """Write until there is no room."""
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"x" * 4096)


def parked(function, *args):
    """A task that is parked in it."""
    task = d.spawn(function, *args)
    d.sleep(0)
    assert task.waits_for == f"{function.__name__} of <fd {args[0] if isinstance(args[0], int) else args[0].fileno()}>"
    return task


def error_of(task):
    task.join()
    with pytest.raises(OSError) as caught:
        task.result()
    return caught.value.errno


def test_it_parks_until_there_is_something_to_read(real_loop, pipe):
    reader, writer = pipe
    task = parked(d.wait_readable, reader)
    os.write(writer, b"x")
    task.join(30)
    assert outcome(task) is None
    assert os.read(reader, 5) == b"x"
    assert reader not in real_loop.handlers


def test_it_parks_until_there_is_room_to_write(real_loop, pipe):
    reader, writer = pipe
    fill(writer)
    task = parked(d.wait_writable, writer)
    while not task.done:
        os.read(reader, 65536)
        d.sleep(0.001)
    d.wait_writable(writer)


def test_the_end_of_the_input_counts_as_readable(real_loop, pipe):
    task = parked(d.wait_readable, pipe[0])
    os.close(pipe[1])
    task.join(30)
    assert outcome(task) is None


def test_two_tasks_wait_for_the_two_directions_of_one_fd(real_loop, unix_pair):
    near, far = unix_pair()
    near.setblocking(False)
    fill(near.fileno())
    reads, writes = parked(d.wait_readable, near), parked(d.wait_writable, near)
    far.send(b"x")
    reads.join(30)
    assert reads.done
    assert not writes.done
    again = parked(d.wait_readable, near.fileno()) if near.recv(5) else None
    while not writes.done:
        far.recv(65536)
        d.sleep(0.001)
    assert not again.done
    again.cancel()
    again.join()
    assert near.fileno() not in real_loop.handlers


def test_a_second_task_for_the_same_direction_is_refused_and_the_first_goes_on_waiting(real_loop, pipe):
    first = parked(d.wait_readable, pipe[0])
    with pytest.raises(d.BusyError, match=r"cannot wait until fd \d+ is readable: 'wait_readable' does already"):
        d.wait_readable(pipe[0])
    os.write(pipe[1], b"x")
    assert end_of(first) is None


@pytest.mark.parametrize("wait", [d.wait_readable, d.wait_writable])
@pytest.mark.parametrize("path", [os.devnull, __file__, "/dev/urandom"])
def test_files_and_devices_that_are_always_ready_are_no_wait(real_loop, wait, path):
    with open(path, "rb") as file:
        wait(file)
        wait(file.fileno())
        assert file.fileno() not in real_loop.handlers


def test_a_closed_fd_is_an_oserror_and_nothing_is_registered(real_loop, pipe):
    before = dict(real_loop.handlers)
    sock = socket.socket()
    sock.close()
    os.close(pipe[0])
    for fd in (sock, pipe[0], -1):
        with pytest.raises(OSError) as caught:
            d.wait_readable(fd)
        assert caught.value.errno == errno.EBADF
    assert real_loop.handlers == before


def test_an_fd_that_is_closed_while_a_task_waits_does_not_take_the_next_one_of_its_number(real_loop, pipe):
    """epoll forgets a closed file without a word; poll and select go by the number."""
    reader = pipe[0]
    old = parked(d.wait_readable, reader)
    os.close(reader)
    near, far = socket.socketpair()
    with near, far:
        assert near.fileno() == reader
        if type(real_loop.poller).__name__ in ("EpollPoller", "KqueuePoller"):
            new = d.spawn(d.wait_readable, near)
            assert error_of(old) == errno.EBADF
            far.send(b"x")
            assert end_of(new) is None
        else:
            far.send(b"x")
            assert end_of(old) is None
        near.detach()


def test_poll_and_select_tell_that_it_was_closed(real_loop, pipe):
    task = parked(d.wait_readable, pipe[0])
    os.close(pipe[0])
    if type(real_loop.poller).__name__ in ("EpollPoller", "KqueuePoller"):
        with d.move_on_after(0.01):
            task.join()
        assert not task.done
        task.cancel()
        task.join()
    else:
        assert error_of(task) == errno.EBADF


def test_a_cancelled_wait_leaves_nothing_behind(real_loop, pipe):
    with d.move_on_after(0.001) as scope:
        d.wait_readable(pipe[0])
    assert scope.cancelled_caught
    assert pipe[0] not in real_loop.handlers
    real_loop.poller.add(pipe[0], 1)  # the poller does not know it
    real_loop.poller.remove(pipe[0])


def test_a_socket_of_ours_is_refused(real_loop, unix_pair):
    near, _ = unix_pair()
    sock = d.Socket(near)
    with pytest.raises(ValueError, match="already belongs to"):
        d.wait_readable(near)
    with pytest.raises(ValueError, match=r"Socket\(.*select"):
        d.wait_readable(sock)
    sock.close()


def test_what_has_no_fd_is_refused(loop):
    with pytest.raises(TypeError, match="wait_writable needs an fd, or an object with fileno"):
        d.wait_writable("x")


def test_a_reset_of_the_loop_ends_the_wait(real_loop, pipe):
    task = parked(d.wait_readable, pipe[0])
    real_loop.reset()
    assert task.done
    assert pipe[0] not in real_loop.handlers


def test_a_refusal_of_the_poller_is_raised_and_nothing_is_left(loop, pipe, monkeypatch):
    def refuse(fd, mask):
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(loop.poller, "add", refuse)
    with pytest.raises(OSError, match="no room"):
        d.wait_readable(pipe[0])
    assert pipe[0] not in loop.handlers


def test_an_end_of_the_wire_can_be_waited_for(loop, wires):
    near, far = wires()
    task = d.spawn(d.wait_readable, near)
    d.sleep(5)
    assert not task.done
    far.send(b"x")
    assert joined(task) is None
    far.close()
    d.wait_readable(near)
