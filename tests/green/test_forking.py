"""A fork inside a running loop: who goes on in the child, with what, how it ends; the parent notices nothing."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import traceback

import pytest

import dangagreen as d
from dangagreen.loop.loop import Loop, current_loop, here
from tests.connections import Collector
from tests.helpers import exit_code_of, fork, joined
from tests.programs import run_python


def status_of(pid):
    """Wait for the child as a task does, while the loop goes on; its exit status."""
    with d.timeout(30):
        while (found := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            d.sleep(0.005)
    return os.waitstatus_to_exitcode(found[1])


def in_child(function, *args):
    """Call it in a child; the child's exit status, 0 if it has returned."""
    if pid := fork():
        return status_of(pid)
    try:
        function(*args)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def wait_until(condition):
    with d.timeout(30):
        while not condition():
            d.sleep(0.001)


@pytest.fixture(params=["task", "main of run"])
def forks(request, real_loop):
    """Calls a function in a task, which may fork."""
    return d.run if request.param == "main of run" else lambda function: joined(d.spawn(function))


def test_the_child_has_a_map_of_its_own_and_nothing_of_the_parents_is_registered(forks, real_loop, tcp_pair):
    near, far = tcp_pair()
    sock = Collector(near)
    sock.watch_read(True)
    poller = real_loop.poller

    def child():
        assert current_loop() is real_loop
        assert real_loop.poller is not poller
        assert d.Socket.watched_sockets() == 0
        far.send(b"for the parent")
        d.sleep(0.02)
        assert sock.data == b""

    def work():
        before = dict(real_loop.handlers)
        assert in_child(child) == 0
        assert real_loop.handlers == before
        assert real_loop.poller is poller
        wait_until(lambda: sock.data == b"for the parent")

    forks(work)
    sock.close()


def test_no_other_task_timer_call_or_callback_runs_in_the_child(forks, real_loop):
    reader, writer = os.pipe()
    told_here = []

    def tell(word):
        told_here.append(word)
        os.write(writer, f"{word} {os.getpid()}\n".encode())

    def other():
        try:
            d.sleep(0.01)
            tell("task")
            d.sleep(100)
        finally:
            tell("finally")

    def work():
        task = d.spawn(other)
        real_loop.add_timer(0.01, lambda: tell("timer"))
        d.sleep(0)
        d.spawn(tell, "spawned")
        real_loop.call_soon(tell, "call")
        assert in_child(d.sleep, 0.05) == 0
        wait_until(lambda: len(told_here) == 4)
        task.cancel()
        task.join()

    forks(work)
    os.close(writer)
    with os.fdopen(reader) as lines:
        told = [line.split() for line in lines]
    assert {pid for _, pid in told} == {str(os.getpid())}
    assert sorted(word for word, _ in told) == ["call", "finally", "spawned", "task", "timer"]


def test_the_child_waits_spawns_serves_and_connects(forks, real_loop):
    def child():
        with d.TaskGroup() as group:
            tasks = [group.spawn(lambda n=n: (d.sleep(0.001), n)[1]) for n in range(5)]
        assert [task.result() for task in tasks] == list(range(5))
        listener = d.serve(("127.0.0.1", 0), lambda sock: sock.write_all(sock.read_line()))
        with d.connect(listener.address, 30) as sock:
            sock.write_all(b"line\n")
            assert sock.read_line() == b"line\n"

    forks(lambda: check(in_child(child)))


def check(status):
    assert status == 0


def test_a_connection_that_the_task_uses_is_registered_anew(forks, real_loop, tcp_pair):
    near, far = tcp_pair()

    def child(sock):
        far.send(b"for the child\n")
        assert sock.read_line() == b"for the child\n"
        sock.write_all(b"from the child\n")
        sock.drain()

    def work():
        sock = d.Socket(near)
        assert in_child(child, sock) == 0
        assert far.recv(100) == b"from the child\n"
        far.send(b"for the parent\n")
        assert sock.read_line() == b"for the parent\n"
        sock.close()

    forks(work)


def test_what_is_queued_is_sent_once_by_the_parent(forks, real_loop, tcp_pair):
    near, far = tcp_pair()

    def work():
        sock = d.Socket(near)
        sock.write_all(b"once;")  # it leaves when the task parks
        sock.write_soon(b"soon;")
        assert in_child(d.sleep, 0.01) == 0
        sock.drain()
        assert far.recv(100) == b"once;soon;"
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(100)
        sock.close()

    forks(work)


def test_a_handler_of_a_server_forks_and_the_server_goes_on(real_loop):
    def handler(sock):
        line = sock.read_line()
        if (pid := fork()) == 0:
            sock.write_all(b"child " + line)
            sock.drain()
            os._exit(0)
        check(status_of(pid))
        sock.write_all(b"parent " + line)

    def main():
        listener = d.serve(("127.0.0.1", 0), handler)
        other = d.connect(listener.address, 30)
        for _ in range(3):
            with d.connect(listener.address, 30) as sock:
                sock.write_all(b"x\n")
                assert sock.read_to_end() == b"child x\nparent x\n"
        other.close()

    d.run(main)


def test_a_callback_that_forks_goes_on_alone_and_its_child_ends_when_it_has_returned(real_loop):
    reader, writer = os.pipe()
    pids = []

    def callback():
        if (pid := fork()) == 0:
            os.write(writer, b"child;")
        pids.append(pid)

    def main():
        real_loop.call_soon(callback)
        real_loop.call_soon(os.write, writer, b"next;")
        wait_until(lambda: pids)
        assert status_of(pids[0]) == 0

    d.run(main)
    assert sorted(os.read(reader, 100).split(b";")) == [b"", b"child", b"next"]
    os.close(reader)
    os.close(writer)


def test_a_task_that_forks_and_returns_ends_its_child_when_what_it_has_begun_has_ended(real_loop):
    reader, writer = os.pipe()
    pids = []

    def later():
        d.sleep(0.02)
        os.write(writer, b"later")

    def work(fails):
        if (pid := fork()) == 0:
            d.spawn(later)
            if fails:
                real_loop.on_error = lambda context: os.write(writer, str(context.exception).encode())
                raise ValueError("reported ")
            return
        pids.append(pid)

    for fails in (False, True):
        d.spawn(work, fails).join()
        assert status_of(pids.pop()) == int(fails)
        assert os.read(reader, 100) == (b"reported later" if fails else b"later")
    os.close(reader)
    os.close(writer)


def test_main_that_forks_returns_from_run_in_both(real_loop):
    def main():
        d.spawn(d.sleep, 100)
        pid = fork()
        d.sleep(0.001)
        return pid

    if (pid := d.run(main)) == 0:
        os._exit(7)
    assert exit_code_of(pid) == 7


def test_main_that_forks_serves_with_the_listener_it_was_given(real_loop):
    """Pre-fork: serve_forever registers the listeners that it is given."""
    reader, writer = os.pipe()

    def main():
        listener = d.serve(("127.0.0.1", 0), lambda sock: sock.write_all(b"%d\n" % os.getpid()))
        if (pid := fork()) == 0:
            os.write(writer, b"x")
            d.serve_forever(listener)
            return 0
        address = listener.address
        listener.close()
        os.read(reader, 1)
        with d.connect(address, 30) as sock:
            assert sock.read_line() == b"%d\n" % pid
        os.kill(pid, signal.SIGTERM)
        return pid

    if (pid := d.run(main)) == 0:
        os._exit(0)
    assert exit_code_of(pid) == 0
    os.close(reader)
    os.close(writer)


def test_scopes_of_the_task_hold_in_the_child_and_groups_of_the_parent_do_not(real_loop):
    def child():
        with pytest.raises(TimeoutError), d.timeout(0.01):
            d.sleep(10)

    def in_scope():
        with d.move_on_after(0.05) as scope:
            if (pid := fork()) == 0:
                d.sleep(10)
            else:
                scope.deadline = None
                return status_of(pid)
        os._exit(5 if scope.cancelled_caught else 1)

    def main():
        with d.TaskGroup() as group:
            task = group.spawn(in_child, child)
            scoped = group.spawn(in_scope)
        assert task.result() == 0
        assert scoped.result() == 5

    d.run(main)


def test_a_block_of_the_task_does_not_wait_for_tasks_of_the_parent(forks, real_loop):
    def work():
        with d.TaskGroup() as group:
            sleeper = group.spawn(d.sleep, 0.05)
            if (pid := fork()) == 0:
                sleeper.join()
                with pytest.raises(d.TaskCancelledError, match="goes on in the parent"):
                    sleeper.result()
        if pid == 0:
            os._exit(3)
        assert status_of(pid) == 3

    forks(work)


def test_top_level_code_stays_in_the_parent(real_loop):
    task = d.spawn(lambda: fork())
    task.join()
    if (pid := task.result()) == 0:
        os._exit(9)
    assert exit_code_of(pid) == 0


def test_the_childs_signals_are_as_they_were_before_run(real_loop):
    before = signal.getsignal(signal.SIGUSR1)

    def child():
        assert signal.getsignal(signal.SIGUSR1) is before
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        came = []
        handle = d.on_signal(signal.SIGUSR1, came.append)
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until(lambda: came)
        assert came == [signal.SIGUSR1]
        handle.cancel()

    def main():
        listener = d.serve(("127.0.0.1", 0), d.Socket)
        came = []
        d.on_signal(signal.SIGUSR1, came.append)
        task = d.spawn(in_child, child)
        task2 = d.spawn(lambda: (task.join(), listener.stop()))
        d.serve_forever(listener)
        task2.join()
        assert task.result() == 0
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until(lambda: came)
        assert came == [signal.SIGUSR1]

    d.run(main)


def test_ctrl_c_ends_a_child_whose_main_is_the_parents_and_leaves_no_frame_of_it(real_loop):
    reader, writer = os.pipe()

    def main():
        def work():
            if (pid := fork()) == 0:
                sys.excepthook = lambda kind, error, traceback: os.write(writer, kind.__name__.encode())
                os.write(writer, b"up")  # before that the interpreter drops signals
                d.sleep(10)
            return pid

        task = d.spawn(work)
        task.join()
        assert os.read(reader, 2) == b"up"
        os.kill(task.result(), signal.SIGINT)
        return status_of(task.result())

    assert d.run(main) == 1
    assert os.read(reader, 100) == b"KeyboardInterrupt"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(("code", "status"), [(None, 0), (3, 3), ("words", 1), (300, 44)])
def test_the_status_of_sys_exit_is_the_childs(real_loop, capfd, code, status):
    def work():
        if (pid := fork()) == 0:
            sys.exit(code)
        return status_of(pid)

    assert joined(d.spawn(work)) == status
    assert ("words" in capfd.readouterr().err) == (code == "words")


def test_a_task_that_the_end_of_run_has_cancelled_forks_while_it_cleans_up(real_loop):
    statuses = []

    def work():
        try:
            d.sleep(1000)
        finally:
            with d.shield():
                if pid := fork():
                    statuses.append(status_of(pid))
                else:
                    d.sleep(0.001)
                    raise KeyError("in the child alone")

    def main():
        d.spawn(work)
        d.sleep(0)

    d.run(main)
    assert statuses == [1]


@pytest.mark.slow
def test_a_deadlock_of_the_child_ends_it_with_the_table():
    source = """
import os
import dangagreen as d

def work():
    if (pid := os.fork()) == 0:
        d.Event().wait()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

task = d.spawn(work)
task.join()
print(task.result())
"""
    code, printed, errors = run_python("-W", "error", "-c", source)
    assert (code, printed) == (0, "1\n")
    assert "nothing can wake the loop\n" in errors
    assert errors.count("Traceback") == 1


def test_a_loop_of_another_thread_is_closed_in_the_child_and_goes_on_in_the_parent(real_loop):
    runs, stop, loops = threading.Event(), threading.Event(), []

    def other():
        loops.append(current_loop())
        task = d.spawn(lambda: [d.sleep(0.001) for _ in iter(stop.is_set, True)])
        loops[0].call_soon(runs.set)
        task.join()

    thread = threading.Thread(target=other)
    thread.start()
    assert runs.wait(30)

    def child():
        with pytest.raises(RuntimeError, match="this loop was closed"):
            loops[0].call_soon_threadsafe(print)
        d.sleep(0.01)

    task = d.spawn(in_child, child)
    assert joined(task) == 0
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_children_fork_again(real_loop):
    def grandchild():
        d.sleep(0.001)

    def child():
        check(in_child(grandchild))
        d.sleep(0.001)

    def work():
        return in_child(child)

    assert joined(d.spawn(work)) == 0


PROGRAM = """
import os, sys
import dangagreen as d
try:
    def work():
        print("before", flush=True)
        if os.fork() == 0:
            print("in the child")
        else:
            os.wait()

    def main():
        task = d.spawn(work)
        d.sleep(0.1)

    d.run(main)
finally:
    print("in the parent", flush=True)
"""


@pytest.mark.slow
def test_the_rest_of_the_program_is_for_the_parent_and_what_the_child_has_printed_is_not_lost():
    assert run_python("-W", "error", "-c", PROGRAM) == (0, "before\nin the child\nin the parent\n", "")


def test_a_loop_without_tasks(poller_class):
    """Callback style alone."""
    with Loop(poller=poller_class()) as loop:
        near, far = socket.socketpair()

        class Forks(d.Socket):
            __slots__ = ("pid",)

            def event_read(self):
                if data := self.read(10):
                    self.pid = fork()
                    if self.pid == 0:
                        self.write(b"child " + data)
                    loop.stop()

        sock = Forks(near)
        sock.watch_read(True)
        far.send(b"x")
        loop.run()
        if sock.pid == 0:
            os._exit(1)
        assert far.recv(100) == b"child x"
        assert exit_code_of(sock.pid) == 0
        far.close()
        sock.close()
    assert here.loop is None
