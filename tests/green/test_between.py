"""Between two steps that usually follow each other: a wake and its resumption, a hook and what it guards."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import time
import weakref
from contextlib import ExitStack

import pytest

from dangagreen import (
    BusyError,
    Cancelled,
    CannotParkError,
    ClosedError,
    Socket,
    connect,
    run,
    serve_requests,
    sleep,
    spawn,
)
from dangagreen.loop.pollers import SelectPoller
from dangagreen.sockets.binding import _remove_stale
from dangagreen.testing import BLOCK


def test_a_woken_reader_keeps_its_place_before_a_second_one(loop, wires, run_turns):
    a, b = wires()
    sock, log = Socket(a, loop), []

    def reader(n):
        try:
            log.append((n, sock.read_line()))
        except BusyError:
            log.append((n, "busy"))

    spawn(reader, 1)
    run_turns(3)
    loop.call_soon(sock.push_back_read, b"part")
    spawn(reader, 2)
    run_turns(3)
    b.send(b"line\n")
    run_turns(4)
    sock.close()
    assert log == [(2, "busy"), (1, b"partline\n")]


@pytest.mark.parametrize("then", ["close", "steal", "cancel"])
def test_what_happens_between_the_wake_and_the_resumption_of_a_reader(loop, wires, run_turns, then):
    a, _b = wires()
    sock, log = Socket(a, loop), []

    def reader():
        try:
            log.append(sock.read_exactly(10))
        except BaseException as error:
            log.append(error)
            raise

    task = spawn(reader)
    task.error_retrieved = True
    run_turns(3)

    def both():
        sock.push_back_read(b"part")
        if then == "close":
            sock.close("mine")
        elif then == "cancel":
            task.cancel()
        else:
            with pytest.raises(BusyError):
                sock.steal_socket()
            sock.close("mine")

    loop.call_soon(both)
    run_turns(4)
    assert isinstance(log[0], Cancelled if then == "cancel" else ClosedError)
    sock.close()


def test_a_high_water_hook_that_closes_ends_write_all(loop, wires, run_turns):
    class Impatient(Socket):
        __slots__ = ()

        def on_high_water(self):
            self.close("too slow")

    a, b = wires()
    sock, log = Impatient(a, loop), []

    def writer():
        with pytest.raises(ClosedError):
            sock.write_all(b"x" * 70000)
        log.append(1)

    spawn(writer).error_retrieved = True
    run_turns(4)
    assert log
    assert sock.unsent == 0
    assert b.recv(1) == b""  # nothing left after close()


def test_a_low_water_hook_that_raises_does_not_cost_the_writers_their_wake_up(loop, wires, run_turns):
    class Raising(Socket):
        __slots__ = ()

        def on_low_water(self):
            raise RuntimeError("hook")

    a, b = wires()
    sock, log = Raising(a, loop), []

    def writer():
        sock.write_all(b"x" * 200000)
        sock.write_all(b"y")
        log.append("written")

    spawn(writer)
    run_turns(4)

    def kick():
        b.capacity = 10**9
        with pytest.raises(RuntimeError):
            sock.write(None)

    spawn(kick)
    run_turns(4)
    assert log == ["written"]
    sock.close()


def test_what_is_pushed_back_goes_to_the_parked_task_also_when_reading_is_watched(loop, wires, run_turns):
    log = []

    class Both(Socket):
        __slots__ = ()

        def event_read(self):
            log.append(("callback", self.read(100)))

    a, _b = wires()
    sock = Both(a, loop)
    sock.watch_read(True)
    spawn(lambda: log.append(("task", sock.read_line())))
    run_turns(3)
    loop.call_soon(sock.push_back_read, b"line\n")
    run_turns(3)
    assert log == [("task", b"line\n")]
    sock.close()


def test_a_class_that_cannot_be_made_leaves_nothing_behind_after_connect(real_loop, run_until):
    class Bad(Socket):
        __slots__ = ()

        def __init__(self, sock, loop=None):
            super().__init__(sock, loop)
            raise RuntimeError("no")

    def main():
        with pytest.raises(RuntimeError):
            connect(server.getsockname(), socket_class=Bad)
        connect(server.getsockname()).close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        task = spawn(main)
        run_until(lambda: task.done)
        task.result()


def test_a_callback_that_finds_the_end_wakes_the_parked_reader(loop, wires, run_turns):
    a, b = wires()
    sock, log = Socket(a, loop), []
    spawn(lambda: log.append(sock.read_line()))
    run_turns(3)

    def callback():
        b.shutdown(socket.SHUT_WR)
        assert sock.read(10) is None

    loop.call_soon(callback)
    run_turns(5)
    assert log == [b""]
    sock.close()


def test_a_hook_cannot_park_while_its_task_parks(loop, wires, run_turns):
    log = []

    class Sleepy(Socket):
        __slots__ = ()

        def on_incomplete_write(self):
            with pytest.raises(CannotParkError):
                sleep(1)
            log.append("refused")

    a, b = wires()
    sock = Sleepy(a, loop)

    def talk():
        sock.write_all(b"x" * 100)
        log.append(sock.read_line())

    spawn(talk)
    a.writes.append(10)
    run_turns(2)
    b.send(b"hello\n")
    run_turns(3)
    assert log == ["refused", b"hello\n"]
    sock.close()


def test_finish_after_a_failed_write_closes_at_once(loop, wires, run_turns):
    a, _b = wires()
    sock = Socket(a, loop)

    def handler():
        a.writes.append(BrokenPipeError(32, "Broken pipe"))
        sock.write_all(b"x")
        with pytest.raises(BrokenPipeError):
            sock.drain()
        sock.finish()

    spawn(handler)
    run_turns(4)
    assert sock.closed


def test_who_drains_hears_of_it_when_finish_has_sent_the_rest(loop, wires, run_turns):
    a, b = wires(capacity=100)
    sock, log = Socket(a, loop), []

    def writer():
        sock.write_all(b"x" * 200)
        sock.drain()
        log.append("drained")

    spawn(writer)
    run_turns(3)
    b.capacity = 1000
    loop.call_soon(sock.finish)
    run_turns(5)
    assert log == ["drained"]
    b.close()
    run_turns(2)


def test_lifetime_holds_also_after_finish(loop, wires, advance):
    class Mortal(Socket):
        __slots__ = ()
        lifetime = 20

    a, b = wires(capacity=10)
    sock = Mortal(a, loop)
    sock.write(b"x" * 1000)
    sock.finish()
    for _ in range(6):
        b.recv(1)
        advance(4)
    assert sock.closed


def test_a_refused_connection_has_the_error_as_its_reason(real_loop, poller_class, run_until, peers):
    class Client(Socket):
        __slots__ = ()

        def event_read(self):
            if self.read(100) is None and poller_class is SelectPoller:  # which reports no errors
                self.close(self._read_error)

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    sock = socket.socket()
    peers.append(sock)
    sock.setblocking(False)
    sock.connect_ex(address)
    client = Client(sock, real_loop)
    client.watch_read(True)
    run_until(lambda: client.closed)
    assert isinstance(client.close_reason, ConnectionRefusedError)


def test_a_hang_up_while_a_handler_works_on_a_request_calls_no_hook(
    loop, wires, run_turns, advance
):  # R15, use tests/green's own helper for serve_requests over a wire
    log = []

    class Hooked(Socket):
        __slots__ = ()

        def event_hup(self):
            log.append("hup")
            super().event_hup()

    class Owner:
        def handler(self, sock):
            sock.read_line()
            sleep(1)
            log.append(sock.closed)

        def _connection_closed(self):
            pass

    a, b = wires()
    sock = Hooked(a, loop)
    sock._listener = Owner()
    sock.watch_read(True)
    b.send(b"request\n")
    run_turns(3)
    b.hang_up()
    advance(0.5)
    assert log == []
    advance(1.5)
    assert log == [False, "hup"]  # the handler has ended, and the idle connection hears of it as in callback style
    assert sock.closed


def test_a_connection_handed_to_callback_style_hears_of_a_hang_up_while_paused(loop, wires, run_turns):  # R16
    log = []

    class Paused(Socket):
        __slots__ = ()

        def event_read(self):
            self.read(10)
            self.watch_read(False)

        def event_hup(self):
            log.append("hup")
            super().event_hup()

    a, b = wires()
    sock = Paused(a, loop)

    def handler():
        sock.watch_read(True)
        sock.write_all(b"welcome\n")

    spawn(handler)
    run_turns(3)
    b.send(b"x")
    run_turns(3)
    b.hang_up()
    run_turns(5)
    assert log == ["hup"]
    assert sock.closed


def test_a_child_forked_with_a_wake_up_under_way_can_be_woken(real_loop):
    real_loop.loop_timeout = 0
    real_loop.run(lambda: True)
    real_loop.call_soon_threadsafe(int)
    if (pid := os.fork()) == 0:
        got, real_loop.loop_timeout = [], 30
        real_loop.run(lambda: True)
        threading.Timer(0.05, lambda: real_loop.call_soon_threadsafe(got.append, 1)).start()
        start = time.monotonic()
        real_loop.run(lambda: bool(got) or time.monotonic() - start > 25)
        os._exit(0 if time.monotonic() - start < 20 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    real_loop.run(lambda: True)
    real_loop.loop_timeout = None


def test_leaving_the_block_runs_every_queued_callable(loop, wires, run_turns):
    a, b = wires(capacity=10)
    sock, ran = Socket(a, loop), []

    def talk():
        with sock:
            sock.write(b"x" * 20)
            for i in range(40):
                sock.write(lambda i=i: ran.append(i))

    spawn(talk)
    run_turns(3)
    b.recv(100)
    run_turns(6)
    assert ran == list(range(40))


def test_a_writer_function_that_writes_doubles_nothing(loop, wires, run_turns):
    a, b = wires()
    sock, calls = Socket(a, loop), []

    def writer(data):
        calls.append(data)
        if len(calls) == 1:
            sock.write(b"second")
        return a.send(data)

    sock.set_writer_func(writer)
    sock.write_soon(b"first")
    run_turns(3)
    assert b.recv(100) == b"firstsecond"
    sock.close()


def test_watch_write_after_finish_does_not_spin(loop, wires, advance):
    a, _b = wires()
    sock = Socket(a, loop)
    sock.finish()
    sock.watch_write(True)
    before = loop.poller.waits
    advance(1)
    assert loop.poller.waits - before < 10
    sock.close()


def test_a_busy_owner_of_the_path_does_not_block_serve(tmp_path):
    path = str(tmp_path / "busy")
    with socket.socket(socket.AF_UNIX) as owner, ExitStack() as stack:
        owner.bind(path)
        owner.listen(0)
        for _ in range(5):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(path)
        thread = threading.Thread(target=_remove_stale, args=(path,), daemon=True)
        thread.start()
        thread.join(2)
        assert not thread.is_alive()
        assert os.path.exists(path)


def test_reset_ends_what_the_tasks_begin_while_they_end(loop, wires, run_turns):
    a, _ = wires()

    def task():
        try:
            sleep(100)
        finally:
            spawn(int)
            Socket(a, loop)

    spawn(task)
    run_turns(2)
    loop.reset()
    assert not loop.green.tasks
    assert not loop.descriptor_map()


def test_a_task_that_ended_by_an_error_leaves_no_garbage(loop, run_turns):
    class Marked:
        pass

    def fails(marked):
        raise LookupError

    marked = Marked()
    alive = weakref.ref(marked)
    task = spawn(fails, marked)
    task.error_retrieved = True
    del marked
    gc.collect()
    gc.disable()
    try:
        run_turns(3)
        assert task.done
        del task
        assert alive() is None
    finally:
        gc.enable()


def test_a_high_water_hook_that_raises_does_not_strand_what_was_queued(loop, wires, run_turns):
    class Raising(Socket):
        __slots__ = ()

        def on_high_water(self):
            raise RuntimeError("hook")

    a, b = wires(capacity=100_000)
    sock = Raising(a, loop)
    run_turns(3)

    def writer():
        a.writes.append(BLOCK)
        with pytest.raises(RuntimeError):
            sock.write(b"x" * 66_000)

    spawn(writer)
    run_turns(4)
    assert len(b.recv(100_000)) == 66_000
    sock.close()


def test_connect_makes_a_class_whose_init_takes_only_the_socket(real_loop):
    class Plain(Socket):
        __slots__ = ("extra",)

        def __init__(self, sock):
            super().__init__(sock)
            self.extra = 1

    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = connect(server.getsockname(), socket_class=Plain)
        assert sock.extra == 1
        sock.close()


def test_a_callable_that_raises_does_not_cost_a_drainer_its_wake_up(loop, wires, run_turns):
    a, b = wires(capacity=10)
    sock, log = Socket(a, loop), []

    def fail():
        raise KeyError

    def first():
        sock.write(b"x" * 20)
        sock.write(fail)
        sock.write(b"tail")
        sock.drain()
        log.append("drained")

    spawn(first)
    run_turns(3)

    def second():
        b.recv(100)
        b.capacity = 1000
        with pytest.raises(KeyError):
            sock.write(None)

    spawn(second)
    run_turns(4)
    assert log == ["drained"]
    sock.close()


def test_an_exit_in_the_flush_of_a_park_undoes_the_arrangement(loop, wires, run_turns, advance):
    log = []

    class Exits(Socket):
        __slots__ = ()

        def on_incomplete_write(self):
            if not log:
                log.append("hook")
                raise SystemExit(3)

    a, b = wires()
    sock = Exits(a, loop)

    def talk():
        sock.write_all(b"x" * 100)
        with pytest.raises(SystemExit):
            sock.read_line()
        before = loop.clock()
        sleep(10)
        log.append(loop.clock() - before)

    a.writes.extend([10, BLOCK])
    spawn(talk)
    run_turns(2)
    b.send(b"hi\n")
    advance(11)
    assert log == ["hook", 10.0]
    sock.close()


def test_top_level_code_is_woken_once(loop, wires):
    a, b = wires()
    sock = Socket(a, loop)

    def input_and_close_in_one_turn():
        b.send(b"x\n")
        loop.call_soon(loop.call_soon, sock.close, "mine")

    loop.add_timer(1, input_and_close_in_one_turn)
    try:
        assert sock.read_line() == b"x\n"
    except ClosedError:
        pass
    before = loop.clock()
    sleep(10)
    assert loop.clock() - before == 10


def test_one_connection_has_one_handler_at_a_time(real_loop, run_until):
    running = most = 0

    def handler(sock):
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            sock.watch_read(True)
            sock.read_line()
            sock.watch_read(True)
            sleep(0.02)
        finally:
            running -= 1

    with serve_requests(("127.0.0.1", 0), handler) as listener, socket.create_connection(listener.address) as client:
        client.send(b"a\n")
        run_until(lambda: running)
        client.send(b"b\n")
        timer = real_loop.add_timer(0.01, int)
        run_until(lambda: not timer.active)
    run_until(lambda: not running and not listener.connections)
    assert most == 1


def test_what_top_level_code_writes_leaves_at_once(loop, wires):
    a, b = wires()
    sock = Socket(a, loop)
    sock.write_all(b"hello")
    assert b.recv(10) == b"hello"
    sock.close()


def test_idle_time_does_not_pass_while_no_loop_runs(loop, wires):
    class Brief(Socket):
        __slots__ = ()
        idle_timeout = 10

    a, b = wires()
    sock = Brief(a, loop)
    sleep(0.1)
    loop.clock.jump(60)
    loop.add_timer(1, lambda: b.send(b"x\n"))
    assert sock.read_line() == b"x\n"
    sock.close()


def test_a_handler_that_main_installs_stays(loop):
    before = signal.getsignal(signal.SIGINT)
    try:
        run(signal.signal, signal.SIGINT, mine := lambda *_: None)
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_watching_does_not_cost_a_parked_reader_what_was_pushed_back(loop, wires, run_turns):
    class Watching(Socket):
        __slots__ = ()

        def event_read(self):
            pass

    a, _b = wires()
    sock, log = Watching(a, loop), []
    spawn(lambda: log.append(sock.read_line()))
    run_turns(3)

    def callback():
        sock.push_back_read(b"line\n")
        sock.watch_read(True)

    loop.call_soon(callback)
    run_turns(4)
    assert log == [b"line\n"]
    sock.close()


def test_a_block_may_end_its_writing_itself(loop, wires, run_turns):
    a, b = wires()
    log = []

    def client():
        with Socket(a, loop) as sock:
            sock.write_all(b"question")
            sock.write_eof()
            log.append(sock.read_to_end())

    task = spawn(client)
    run_turns(3)
    assert b.recv(100) == b"question"
    assert b.recv(1) == b""
    b.send(b"answer")
    b.close()
    run_turns(4)
    task.result()
    assert log == [b"answer"]


def test_drain_waits_for_what_precedes_write_eof(loop, wires, run_turns):
    a, b = wires(capacity=4)
    sock, log = Socket(a, loop), []

    def client():
        sock.write_all(b"question")
        sock.write_eof()
        sock.drain()
        log.append(sock.unsent)

    spawn(client)
    run_turns(3)
    b.recv(100)
    run_turns(3)
    assert log == [0]
    sock.close()


@pytest.mark.parametrize("read", [Socket.read_line, lambda sock: sock.read_exactly(2), Socket.read_some])
def test_a_second_reader_does_not_take_what_the_first_one_gathers(loop, wires, run_turns, read):
    a, b = wires()
    sock = Socket(a, loop)
    first = spawn(sock.read_exactly, 10)
    b.send(b"ab\ncd")
    run_turns(3)
    second = spawn(read, sock)
    second.error_retrieved = True
    run_turns(3)
    with pytest.raises(BusyError, match="read_exactly"):
        second.result()
    b.send(b"efghi")
    run_turns(3)
    assert first.result() == b"ab\ncdefghi"
    sock.close()


# -- write_all, close and cancel over real sockets: what the wire shows elsewhere


@pytest.mark.parametrize("how", ["close", "cancel"])
@pytest.mark.parametrize("call", ["read_exactly", "read_line", "read_until", "read_some", "read_to_end", "write_all"])
def test_a_parked_call_is_woken_once_over_real_sockets(real_loop, real_pair, run_until, call, how):
    near, _far = real_pair()
    sock = Socket(near, real_loop)
    arguments = {"read_exactly": [10], "read_until": [b"end"], "write_all": [b"y"]}.get(call, [])
    woken = []

    def work():
        if call == "write_all":
            sock.write_all(b"x" * 10_000_000)
        try:
            getattr(sock, call)(*arguments)
        except (ClosedError, Cancelled) as error:
            woken.append(type(error))
            raise

    task = spawn(work)
    task.error_retrieved = True
    run_until(lambda: task.waits_for is not None and task.waits_for.startswith(call))
    if how == "close":
        sock.close("enough")
    else:
        task.cancel()
    run_until(lambda: task.done)
    assert woken == [ClosedError if how == "close" else Cancelled]
    sock.close()


@pytest.mark.slow
def test_back_pressure_over_real_sockets_keeps_memory_bounded(real_loop, real_pair, run_until):
    class Slow(Socket):
        __slots__ = ("got",)

        def event_read(self):
            self.got += len(self.read(30_000) or b"")

    near, far = real_pair()
    sock, slow = Socket(near, real_loop), Slow(far, real_loop)
    slow.got = most = 0
    piece, pieces = b"x" * 50_000, 400

    def work():
        nonlocal most
        for _ in range(pieces):
            sock.write_all(piece)
            most = max(most, sock.unsent)
        sock.drain()

    task = spawn(work)
    run_until(lambda: task.waits_for is not None)
    slow.watch_read(True)
    run_until(lambda: slow.got == len(piece) * pieces, turns=200_000)
    run_until(lambda: task.done)
    task.result()
    assert most <= Socket.high_water + len(piece)
    sock.close()
    slow.close()
