"""serve_forever: what ends it, with and without signals, and what is left then."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest

import dangagreen as d
from dangagreen.loop.loop import Loop, here
from tests.connections import LOCAL, Echo, echo_lines, ends, for_ever
from tests.helpers import of_ours, protected, results


@pytest.fixture
def settled():
    """When a test is over nothing may be left of it."""

    def settled(listener):
        assert listener.connections == 0

    return settled


# -- a listener that fails


def fail(listener):
    listener.loop.handler_failed(listener.loop.handlers[listener.fd], OSError(22, "Invalid argument"))


def test_serve_forever_ends_with_the_error_of_a_listener_that_can_accept_no_more(real_loop, served, take_errors):
    listener, other = served(echo_lines), served(echo_lines)
    real_loop.add_timer(0.01, lambda: listener.sock.shutdown(socket.SHUT_RDWR))
    with pytest.raises(OSError, match="Invalid argument") as caught:
        d.serve_forever(listener, other, grace=5)
    assert repr(caught.value) == repr(listener.close_reason)
    assert listener.close_reason.__traceback__ is None
    assert [context.subject for context in take_errors()] == [listener]
    assert other.closed


def test_one_of_several_addresses_that_can_accept_no_more_ends_serve_forever(real_loop, served, take_errors):
    listener = served(echo_lines, address=[("127.0.0.1", 0), ("::1", 0)])
    second = next(one for one in real_loop.descriptor_map().values() if one.sock.family == socket.AF_INET6)
    real_loop.add_timer(0.01, lambda: second.sock.shutdown(socket.SHUT_RDWR))
    with pytest.raises(OSError, match="Invalid argument"):
        d.serve_forever(listener)
    assert [context.subject for context in take_errors()] == [listener]
    assert real_loop.descriptor_map() == {}


def test_stop_ends_a_server_of_several_addresses(loop, served, tmp_path):
    listener = served(echo_lines, address=[("127.0.0.1", 0), ("::1", 0), tmp_path / "socket"])
    loop.add_timer(5, listener.stop)
    assert d.serve_forever(listener) == []
    assert (listener.closed, list(tmp_path.iterdir())) == (True, [])


def test_that_error_comes_after_the_drain_and_two_failures_do_not_hurry_it(loop, served, take_errors):
    listeners = [served(for_ever), served(for_ever)]
    with d.connect(listeners[0].address) as sock:
        sock.write_all(b"work\n")
        d.sleep(0.1)
        for listener in listeners:
            loop.add_timer(0.2, lambda listener=listener: fail(listener))
        began = loop.time()
        with pytest.raises(OSError, match="Invalid argument"):
            d.serve_forever(*listeners, grace=3)
        assert loop.time() - began == pytest.approx(3.2, abs=0.1)
    take_errors()


def test_a_listener_that_has_failed_before_ends_serve_forever_at_once(loop, served, take_errors):
    listener = served(echo_lines)
    fail(listener)
    take_errors()
    with pytest.raises(OSError, match="Invalid argument"):
        d.serve_forever(listener)


# -- without signals


def test_stop_ends_it(loop, signals, served, attach):
    listeners = served(Echo), served(for_ever)
    (_, client), (busy, other) = map(attach, listeners)
    other.write_all(b"x\n")
    (task,) = ends(client)
    start = loop.clock()
    loop.add_timer(5, listeners[0].stop)
    assert d.serve_forever(*listeners, grace=3) == [busy]
    assert loop.clock() == start + 8
    assert all(listener.closed for listener in listeners)
    results([task])
    other.close()


def test_several_listeners_have_one_grace(loop, signals, served, attach):
    listeners = [served(for_ever) for _ in range(3)]
    socks, clients = zip(*map(attach, listeners), strict=True)
    for client in clients:
        client.write_all(b"x\n")
    listeners[1].stop()
    start = loop.clock()
    assert d.serve_forever(*listeners, grace=3) == list(socks)
    assert loop.clock() == start + 3
    for client in clients:
        client.close()


def test_a_second_stop_ends_the_grace(loop, signals, served, attach):
    listener = served(for_ever)
    busy, client = attach(listener)
    client.write_all(b"x\n")
    start = loop.clock()
    loop.add_timer(5, listener.stop)
    loop.add_timer(6, listener.stop)
    loop.add_timer(6, listener.stop)
    assert d.serve_forever(listener) == [busy]
    assert loop.clock() == start + 6
    client.close()


@pytest.mark.parametrize("times", [1, 2])
def test_a_stop_that_came_before_counts(loop, signals, served, attach, times):
    listener = served(for_ever)
    busy, client = attach(listener)
    client.write_all(b"x\n")
    start = loop.clock()
    for _ in range(times):
        listener.stop()
    d.sleep(0)
    assert d.serve_forever(listener, grace=10) == [busy]
    assert loop.clock() == start + (10 if times == 1 else 0)
    client.close()


def test_in_a_task_beside_others(loop, signals, served, attach):
    def main():
        listener = served(Echo)
        server = d.spawn(d.serve_forever, listener)
        d.sleep(1)
        assert "serve_forever" in server.waits_for
        listener.stop()
        server.join()
        return server.result()

    assert d.run(main) == []


def test_cancelled_it_leaves_the_listeners_as_they_are(loop, signals, served):
    listener = served(Echo)
    task = d.spawn(d.serve_forever, listener)
    d.sleep(1)
    task.cancel()
    task.join()
    assert not listener.closed
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    loop.add_timer(1, listener.stop)
    assert d.serve_forever(listener) == []


def test_two_at_once_are_refused(loop, signals, served):
    one, other = served(Echo), served(Echo)
    task = d.spawn(d.serve_forever, one)
    d.sleep(1)
    for listener in (one, other):
        with pytest.raises(RuntimeError, match="another serve_forever"):
            d.serve_forever(listener)
    one.stop()
    task.join()


def test_what_it_refuses(loop, signals, served, take_errors):
    with pytest.raises(TypeError):
        d.serve_forever()
    with Loop() as other:
        listener = d.serve(LOCAL, Echo, loop=other)
        here.loop = loop
        with pytest.raises(ValueError, match="another loop"):
            d.serve_forever(listener)
        here.loop = other
    here.loop = loop
    loop.call_soon(d.serve_forever, served(Echo))
    d.sleep(0)
    (context,) = take_errors()
    assert isinstance(context.exception, d.CannotParkError)


def test_in_another_thread_it_hears_no_signal(real_loop, poller_class, signals, in_thread):
    started, answers = threading.Event(), []

    def other():
        with Loop(poller=poller_class()) as loop:
            listener = d.serve(LOCAL, Echo)
            answers.append(listener)
            loop.call_soon(started.set)
            answers.append(d.serve_forever(listener))

    thread = threading.Thread(target=other)
    thread.start()
    assert started.wait(30)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    answers[0].stop()
    thread.join(30)
    assert answers[1] == []


# -- signals within the process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains(real_loop, signals, served, client, number, brief):
    listener = served(echo_lines)
    sock = client(listener)
    sock.write_all(b"x\n")
    assert sock.read_line() == b"x\n"
    real_loop.add_timer(0.001, lambda: os.kill(os.getpid(), number))
    (task,) = ends(sock)
    assert d.serve_forever(listener) == []
    assert results([task]) == [b""]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_grace(real_loop, signals, served, client, second):
    listener = served(for_ever)
    sock = client(listener)
    sock.write_all(b"x\n")

    def once_it_drains():  # a second one before the first was acted upon would raise
        if listener.draining:
            os.kill(os.getpid(), second)
        else:
            real_loop.add_timer(0.001, once_it_drains)

    real_loop.add_timer(0.01, lambda: os.kill(os.getpid(), signal.SIGTERM))
    real_loop.add_timer(0.02, once_it_drains)
    assert len(d.serve_forever(listener)) == 1
    assert sock.read_to_end() == b""


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["int", "term"]
)
def test_a_third_signal_raises(loop, signals, served, attach, number, error):
    def handler(sock):
        try:
            for_ever(sock)
        finally:
            protected(3)

    listener = served(handler)
    _, client = attach(listener)
    client.write_all(b"x\n")
    for seconds in (1, 2, 3):
        loop.add_timer(seconds, lambda: signal.raise_signal(number))
    start = loop.clock()
    with pytest.raises(error):
        d.serve_forever(listener)
    assert loop.clock() == start + 3
    d.sleep(10)
    client.close()


def test_a_second_signal_before_the_first_was_acted_upon_raises(loop, signals, served):
    def hang():
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    listener = served(Echo)
    loop.add_timer(1, hang)
    with pytest.raises(KeyboardInterrupt):
        d.serve_forever(listener)
    assert not listener.draining


in_the_loop = of_ours(  # Ctrl-C as if it came while the loop itself is at it, or waits
    "lambda: raise_signal(2)", raise_signal=signal.raise_signal
)


def test_ctrl_c_in_run_is_heard_by_serve_forever_and_then_by_main_again(loop, signals, served):
    def main():
        listener = served(Echo)
        loop.add_timer(1, lambda: signal.raise_signal(signal.SIGINT))
        assert d.serve_forever(listener) == []
        loop.add_timer(1, in_the_loop)
        with pytest.raises(KeyboardInterrupt):
            d.sleep(10)
        return "fine"

    assert d.run(main) == "fine"


@pytest.mark.parametrize("how", ["stop", "post-loop callback", "callback of an object"])
@pytest.mark.parametrize("where", ["run", "top level", "a task of main"])
def test_a_loop_that_is_stopped_drains_as_at_sigterm(loop, signals, served, attach, how, where):
    """Once, however often a post-loop callback says so: the grace is not ended by it."""
    told = []

    def handler(sock):
        line = sock.read_line()
        d.sleep(3)
        sock.write_all(line)

    def stops():
        told.append(loop.clock())
        if how == "stop":
            loop.stop()
        elif how == "post-loop callback":
            d.Socket.set_post_loop_callback(lambda *_: False)
        else:
            client.set_post_loop_callback(lambda *_: False)

    def main():
        assert d.serve_forever(listener) == []
        told.append(loop.clock())
        d.Socket.set_post_loop_callback(None)
        client.set_post_loop_callback(None)
        return "ended"

    listener = served(handler)
    _, client = attach(listener)
    client.write_all(b"x\n")
    loop.add_timer(1, stops)
    if where == "run":
        assert d.run(main) == "ended"
    elif where == "top level":
        assert main() == "ended"
    else:
        d.run(lambda: d.spawn(main).join())
    assert 2 <= told[1] - told[0] <= 4
    client.close()


def test_a_signal_that_is_ignored_stays_so(loop, signals, served):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        listener = served(Echo)
        loop.add_timer(1, lambda: signal.raise_signal(signal.SIGINT))
        loop.add_timer(5, lambda: signal.raise_signal(signal.SIGTERM))
        start = loop.clock()
        assert d.serve_forever(listener) == []
        assert loop.clock() == start + 5
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_the_programs_own_handlers_are_put_back(loop, signals, served):
    def mine(*_):
        raise AssertionError("not this one")

    old = signal.signal(signal.SIGTERM, mine)
    try:
        listener = served(Echo)
        loop.add_timer(1, lambda: signal.raise_signal(signal.SIGTERM))
        assert d.serve_forever(listener) == []
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, old)


def test_serve_forever_needs_listeners(loop):
    with pytest.raises(TypeError, match="serve_forever needs listeners"):
        d.serve_forever(LOCAL)
