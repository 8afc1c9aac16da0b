"""start_in_thread: a loop in a background thread: calls, servers, its end, fork, and the end of the program."""

from __future__ import annotations

import errno
import os
import socket
import threading

import pytest

import dangagreen as d
from dangagreen.green import run as run_module
from dangagreen.loop.loop import here
from tests.helpers import exit_code_of, fork
from tests.programs import run_python


def test_its_loop_runs_and_functions_are_called_in_it():
    with d.start_in_thread() as background:
        assert repr(background) == "<LoopThread, running>"
        ident = background.call(threading.get_ident)
        assert ident != threading.get_ident()
        assert background.call(d.current_loop) is background.loop
        assert background.call(lambda: (d.sleep(0.001), "slept")[1]) == "slept"
        with pytest.raises(ZeroDivisionError):
            background.call(divmod, 1, 0)
    assert background.loop.closed
    assert repr(background) == "<LoopThread, stopped>"
    assert here.loop is None


def test_a_server_in_the_background():
    def echo(sock):
        for line in sock:
            sock.write_all(line)

    with d.start_in_thread() as background:
        listener = background.call(d.serve, ("127.0.0.1", 0), echo)
        with socket.create_connection(listener.address, 30) as sock:
            sock.sendall(b"line\n")
            assert sock.recv(100) == b"line\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.address, 30)


def test_what_keeps_the_loop_from_being_made_is_raised_to_who_asked_for_it(monkeypatch):
    def refused():
        raise OSError(errno.EMFILE, "no descriptor is left")

    monkeypatch.setattr(run_module, "current_loop", refused)
    with pytest.raises(OSError, match="no descriptor is left"):
        d.start_in_thread()


def test_stop_cancels_its_tasks_and_waits_for_them_and_a_second_one_does_nothing():
    log = []

    def work():
        try:
            d.sleep(100)
        finally:
            with d.shield():
                d.sleep(0.01)
            log.append("cleaned up")

    background = d.start_in_thread()
    background.call(lambda: (d.spawn(work), d.sleep(0.001)))
    background.stop()
    assert log == ["cleaned up"]
    background.stop()
    with pytest.raises(RuntimeError, match="closed"):
        background.call(int)


def test_it_can_be_stopped_from_within_which_does_not_wait():
    background = d.start_in_thread()
    thread = background.call(threading.current_thread)
    background.call(lambda: background.loop.call_soon(background.stop))
    thread.join(30)
    assert background.loop.closed


def test_a_call_under_way_is_answered_when_it_stops():
    background = d.start_in_thread()
    answer = []

    def wait():
        try:
            background.call(d.sleep, 100)
        except d.TaskCancelledError as error:
            answer.append(error.reason)

    thread = threading.Thread(target=wait)
    thread.start()
    while not background.call(lambda: any(task.name == "sleep" for task in d.current_loop().green.tasks)):
        pass
    background.stop()
    thread.join(30)
    assert answer == ["run() ended"]


def test_two_of_them_are_independent_and_one_blocks_for_the_other_in_a_thread_only():
    with d.start_in_thread() as one, d.start_in_thread() as two:
        assert one.loop is not two.loop
        with pytest.raises(d.ForeignThreadError, match="in which a loop is running: use in_thread"):
            one.call(two.call, int)
        assert one.call(d.in_thread, two.call, int) == 0


def test_in_a_forked_child_it_is_closed():
    with d.start_in_thread() as background:
        if (pid := fork()) == 0:
            try:
                background.call(int)
            except RuntimeError:
                background.stop()
                os._exit(0)
            os._exit(1)
        assert exit_code_of(pid) == 0
        assert background.call(int) == 0


PROGRAM = """
import dangagreen as d

def work():
    try:
        d.sleep(100)
    finally:
        print("cleaned up", flush=True)

background = d.start_in_thread()
background.call(lambda: (d.spawn(work), d.sleep(0.001)))
print("the end", flush=True)
"""


@pytest.mark.slow
def test_the_end_of_the_program_ends_its_tasks():
    assert run_python("-W", "error", "-c", PROGRAM) == (0, "the end\ncleaned up\n", "")
