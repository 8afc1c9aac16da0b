"""A loop that was closed: what is to happen in it is refused with one error, what only lets go is harmless."""

from __future__ import annotations

import os
import socket
import threading

import pytest

import dangagreen as d
from dangagreen.loop.loop import here
from dangagreen.testing import virtual_loop, wire


class Left:
    """What a program has in its hands when its loop was closed."""

    def __init__(self):
        self.loop = loop = virtual_loop()
        with loop:
            self.sock = d.Socket(wire()[0])
            self.listener = d.serve(("127.0.0.1", 0), print)
            self.timer = loop.add_timer(5, print)
            self.task = d.spawn(d.sleep, 5)
            self.event, self.queue, self.lock = d.Event(), d.Queue(), d.Lock()
            self.channel, self.result, self.group = d.Channel(), d.Future(), d.TaskGroup()
            self.iterator = d.as_completed([self.task])
            loop.add_timer(0, print)
            d.sleep(0)
            assert d.move_on_after(0).__enter__().__exit__(None, None, None) is False


@pytest.fixture
def left():
    return Left()


REFUSED = {
    "call_soon": lambda left: left.loop.call_soon(print),
    "call_soon_threadsafe": lambda left: left.loop.call_soon_threadsafe(print),
    "add_timer": lambda left: left.loop.add_timer(1, print),
    "add_other_fds": lambda left: left.loop.add_other_fds({0: print}),
    "other_fds": lambda left: left.loop.other_fds({0: print}),
    "run": lambda left: left.loop.run(),
    "with": lambda left: left.loop.__enter__(),
    "Socket": lambda left: d.Socket(wire()[0], loop=left.loop),
    "serve": lambda left: d.serve(("127.0.0.1", 0), print, loop=left.loop),
    "serve a path": lambda left: d.serve("a-path", print, loop=left.loop),
    "stop of a listener": lambda left: left.listener.stop(),
    "Event.wait": lambda left: left.event.wait(),
    "Queue.get": lambda left: left.queue.get(),
    "Lock.acquire": lambda left: left.lock.acquire() and left.lock.acquire(),
    "Channel.receive": lambda left: left.channel.receive(),
    "Future.wait": lambda left: left.result.wait(),
}
HARMLESS = {
    "Timer.cancel": lambda left: left.timer.cancel(),
    "Task.cancel": lambda left: left.task.cancel(),
    "close": lambda left: left.sock.close(),
    "finish": lambda left: left.sock.finish(),
    "write": lambda left: left.sock.write(b"x"),
    "write_soon": lambda left: left.sock.write_soon(b"x"),
    "read": lambda left: left.sock.read(1),
    "join": lambda left: left.task.join(),
    "watch_read": lambda left: left.sock.watch_read(False),
    "watch_write": lambda left: left.sock.watch_write(False),
    "Listener.close": lambda left: left.listener.close(),
    "Event.set": lambda left: left.event.set(),
    "Queue.put_nowait": lambda left: left.queue.put_nowait(1),
    "Channel.close": lambda left: left.channel.close(),
    "set_result": lambda left: left.result.set_result(1),
    "as_completed": lambda left: left.iterator.close(),
    "Loop.close": lambda left: left.loop.close(),
    "Loop.reset": lambda left: left.loop.reset(),
    "Loop.stop": lambda left: left.loop.stop(),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_is_to_happen_in_a_closed_loop_is_refused(left, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeError, match="this loop was closed: make another one"):
        call(left)
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir() == []


@pytest.mark.parametrize("call", HARMLESS.values(), ids=HARMLESS)
def test_what_only_lets_go_is_harmless(left, call, recwarn):
    call(left)
    assert list(recwarn) == []


@pytest.mark.parametrize("call", HARMLESS.values(), ids=HARMLESS)
def test_also_in_another_thread(left, call, in_thread):
    in_thread(call, left)


def test_spawn_is_refused_where_another_thread_has_closed_the_loop(in_thread):
    loop = virtual_loop()
    here.loop = loop
    try:
        in_thread(loop.close)
        with pytest.raises(RuntimeError, match="this loop was closed"):
            d.spawn(print)
        with pytest.raises(RuntimeError, match="this loop was closed"):
            d.sleep(0)
    finally:
        here.loop = None


def test_a_look_up_that_ends_after_the_loop_was_closed_just_ends(monkeypatch, pool):
    asked, answer, failed = threading.Event(), threading.Event(), []
    monkeypatch.setattr(threading, "excepthook", failed.append)

    def look_up(*args, **kwargs):
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        asked.set()
        answer.wait(30)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with d.Loop():
        with d.move_on_after(0.01):
            d.connect(("nobody.invalid", 1))
        asked.wait(30)
    answer.set()
    pool.end()
    assert failed == []
