"""Fds without an object: served with their event bits, replaced, taken out, failed."""

import os

import pytest

from dangagreen import Socket
from dangagreen.loop.pollers import READ


def test_an_fd_without_an_object_is_served_with_the_event_bits(real_loop, peers, run_turns):
    read_end, write_end = os.pipe()
    seen = []
    Socket.add_other_fds({read_end: lambda bits: seen.append((bits & READ, os.read(read_end, 10)))})
    run_turns(2)
    assert seen == []
    os.write(write_end, b"abc")
    run_turns(2)
    assert seen == [(READ, b"abc")]
    Socket.other_fds({})
    os.write(write_end, b"def")
    run_turns(2)
    assert seen == [(READ, b"abc")]
    for fd in (read_end, write_end):
        os.close(fd)


def test_other_fds_replaces_all_and_answers_them(loop):
    ends = os.pipe() + os.pipe()
    first, second = ends[0], ends[2]
    Socket.add_other_fds({first: print})
    Socket.add_other_fds({second: repr})
    assert Socket.other_fds() == {first: print, second: repr}
    assert Socket.other_fds({second: print}) == {second: print}
    assert Socket.other_fds() == {second: print}
    assert Socket.descriptor_map() == {}
    Socket.other_fds({})
    assert Socket.other_fds() == {}
    for fd in ends:
        os.close(fd)


def test_an_fd_whose_callable_raises_is_reported_and_taken_out_and_stays_open(real_loop, run_turns, take_errors):
    read_end, write_end = os.pipe()

    def raising(bits):
        raise ZeroDivisionError

    real_loop.add_other_fds({read_end: raising})
    os.write(write_end, b"x")
    run_turns(3)
    assert [type(context.exception) for context in take_errors()] == [ZeroDivisionError]
    assert real_loop.other_fds() == {}
    assert os.read(read_end, 1) == b"x"
    for fd in (read_end, write_end):
        os.close(fd)


def test_a_callable_may_take_itself_out_and_close_its_fd(real_loop, run_turns):
    read_end, write_end = os.pipe()
    seen = []

    def once(bits):
        seen.append(os.read(read_end, 10))
        real_loop.other_fds({})
        os.close(read_end)

    real_loop.add_other_fds({read_end: once})
    os.write(write_end, b"x")
    run_turns(3)
    os.close(write_end)
    assert seen == [b"x"]
    assert Socket.other_fds() == {}


def test_the_number_of_an_fd_that_was_taken_out_and_reused_in_the_same_batch_gets_no_stale_event(real_loop, run_turns):
    pipes = [os.pipe(), os.pipe()]
    fresh = os.pipe()
    seen = []

    def swap(mine, other):
        def callback(bits):
            seen.append(mine)
            real_loop.other_fds({})
            os.dup2(fresh[0], other)
            real_loop.add_other_fds({other: lambda bits: seen.append("stale")})

        return callback

    first, second = pipes[0][0], pipes[1][0]
    real_loop.add_other_fds({first: swap(first, second), second: swap(second, first)})
    for _, write_end in pipes:
        os.write(write_end, b"x")
    run_turns(3)
    assert len(seen) == 1
    real_loop.other_fds({})
    for fd in (*pipes[0], *pipes[1], *fresh):
        os.close(fd)


def test_a_number_that_belongs_to_a_socket_is_refused(loop, tcp_pair):
    sock, _ = tcp_pair()
    one = Socket(sock)
    with pytest.raises(ValueError, match="Socket"):
        Socket.add_other_fds({sock.fileno(): print})
    assert Socket.descriptor_map() == {one.fd: one}


def test_an_fd_without_an_object_says_what_it_calls(loop):
    read_end, write_end = os.pipe()
    loop.add_other_fds({read_end: print})
    assert "print" in repr(loop.handlers[read_end])
    loop.other_fds({})
    os.close(read_end)
    os.close(write_end)
