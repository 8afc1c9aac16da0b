"""Checks: what is a time or a count, what is said of what is none, and callbacks that return work for nobody."""

from __future__ import annotations

import datetime
import decimal
import fractions
import gc
import logging
import math
import socket
import warnings
from queue import Empty

import pytest

import dangagreen as d
from dangagreen import checks
from tests.connections import LOCAL
from tests.helpers import async_generator, coroutine_function, generator_function

# -- what is accepted


class Half:
    def __float__(self):
        return 0.5


class Two:
    def __index__(self):
        return 2


class OwnHalf(Half):
    """A number whose sums are of its own kind, as those of many libraries are: no float comes of it by itself."""

    def __add__(self, other):
        return self

    __radd__ = __add__

    def __gt__(self, other):
        return True

    def __lt__(self, other):
        return False


HALVES = [0.5, decimal.Decimal("0.5"), fractions.Fraction(1, 2), Half(), OwnHalf()]


@pytest.mark.parametrize("half", HALVES, ids=lambda half: type(half).__name__)
def test_a_time_is_whatever_is_a_number(loop, half):
    event, queue, lock = d.Event(), d.Queue(), d.Lock()
    fired = []

    def work():
        began = loop.time()
        d.sleep(half)
        assert event.wait(half) is False
        with pytest.raises(TimeoutError), d.timeout(half):
            d.sleep(5)
        with d.move_on_after(half):
            d.sleep(5)
        with d.shield() as scope:
            scope.deadline = decimal.Decimal(loop.time()) + decimal.Decimal("0.5")
            d.sleep(5)
        with pytest.raises(d.BrokenBarrierError):
            d.Barrier(2).wait(half)
        with pytest.raises(Empty):
            queue.get(timeout=half)
        assert d.Semaphore(0).acquire(timeout=half) is False
        assert lock.acquire(timeout=half)
        assert d.wait([d.current_task()][1:], half) == (set(), set())
        loop.add_timer(half, lambda: fired.append(loop.time()))
        d.sleep(1)
        return loop.time() - began

    task = d.spawn(work)
    task.join()
    assert task.result() == pytest.approx(0.5 * 8 + 1)
    assert len(fired) == 1


def test_a_count_is_whatever_has_an_index(loop):
    semaphore = d.Semaphore(Two())
    semaphore.release(Two())
    assert [semaphore.acquire(False) for _ in range(5)] == [True] * 4 + [False]
    assert d.Queue(Two()).maxsize == 2
    assert d.Channel(Two()).capacity == 2
    assert d.Barrier(Two()).parties == 2


@pytest.mark.parametrize("scope", [d.timeout, d.move_on_after, d.CancelScope])
@pytest.mark.parametrize("bad", ["5", datetime.timedelta(1), math.nan, 1j, decimal.Decimal("nan")], ids=repr)
def test_the_time_of_a_scope_is_refused_where_it_is_given(loop, scope, bad):
    with pytest.raises((TypeError, ValueError), match=f"the time of {scope.__name__} is a number of seconds"):
        scope(bad)


def test_infinity_as_a_count_says_what_to_write(loop):
    with pytest.raises(TypeError, match=r"no int: inf \(sys\.maxsize is as good as no limit\)"):
        d.Queue(math.inf)


def test_what_is_no_time_says_what_was_expected(loop):
    with pytest.raises(TypeError, match=r"number of seconds, not .*: write its \.total_seconds\(\)"):
        d.sleep(datetime.timedelta(1))
    with pytest.raises(TypeError, match="number of milliseconds, not '5'"):
        loop.set_loop_timeout("5")


class BadRepr:
    def __repr__(self):
        raise RuntimeError("no repr")


@pytest.mark.parametrize("thing", [BadRepr(), 10**5000, "x" * 1000], ids=["repr", "digits", "long"])
def test_the_message_of_a_refusal_is_short_and_never_fails(thing):
    assert len(checks.shown(thing)) <= 100
    for check in (checks.seconds, checks.count, checks.function):
        with pytest.raises((TypeError, OverflowError)):
            check("it", thing)


# -- callbacks whose work nobody would do


def hidden(kind):
    """A plain function that returns a coroutine or a generator: that shows in its result only."""
    return lambda *_args: kind()


def is_told(errors, what=""):
    (context,) = errors
    return (
        isinstance(context.exception, TypeError) and "nobody runs" in str(context.exception) and what in context.message
    )


@pytest.fixture
def no_warnings():
    """Fails the test if a coroutine was never awaited."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


UNDONE = pytest.mark.parametrize("kind", [coroutine_function, generator_function, async_generator])


@UNDONE
def test_what_a_call_or_a_timer_leaves_undone_is_reported(loop, run_turns, advance, take_errors, no_warnings, kind):
    loop.call_soon(hidden(kind))
    run_turns(1)
    assert is_told(take_errors(), "call_soon")
    loop.add_timer(1, hidden(kind))
    advance(2)
    assert is_told(take_errors(), "timer")
    loop.call_soon_threadsafe(hidden(kind))
    run_turns(1)
    assert is_told(take_errors())


@UNDONE
@pytest.mark.parametrize("event", ["read", "write", "hup"])
def test_what_a_hook_leaves_undone_is_reported_and_costs_its_socket(
    loop, wires, run_turns, take_errors, no_warnings, kind, event
):
    end, peer = wires()
    sock = type("Mine", (d.Socket,), {f"event_{event}": hidden(kind), "__slots__": ()})(end)
    if event == "read":
        sock.watch_read(True)
        peer.send(b"x")
    elif event == "write":
        sock.watch_write(True)
    else:
        end.shutdown(socket.SHUT_WR)
        peer.shutdown(socket.SHUT_WR)
    run_turns(3)
    assert is_told(take_errors())
    assert sock.closed
    assert isinstance(sock.close_reason, TypeError)


def test_what_a_callable_given_to_write_leaves_undone_reaches_who_wrote(loop, wires, no_warnings):
    sock = d.Socket(wires()[0])
    with pytest.raises(TypeError, match="nobody runs"):
        sock.write(hidden(coroutine_function))
    sock.close()


def test_what_a_writer_leaves_undone_reaches_who_wrote(loop, wires, no_warnings):
    sock = d.Socket(wires()[0])
    sock.set_writer_func(hidden(coroutine_function))
    with pytest.raises(TypeError, match="nobody runs"):
        sock.write(b"x")
    sock.close()


def test_what_a_post_loop_callback_leaves_undone_is_reported(loop, run_turns, take_errors, no_warnings):
    loop.post_loop_callback = hidden(coroutine_function)
    run_turns(1)
    assert is_told(take_errors(), "post-loop")
    loop.post_loop_callback = None


def test_what_a_callback_of_an_fd_leaves_undone_is_reported(real_loop, run_turns, take_errors, no_warnings):
    ends = socket.socketpair()
    real_loop.add_other_fds({ends[0].fileno(): hidden(coroutine_function)})
    ends[1].send(b"x")
    run_turns(2)
    assert is_told(take_errors())
    assert real_loop.other_fds() == {}
    for end in ends:
        end.close()


def test_what_on_error_leaves_undone_is_logged(loop, run_turns, caplog, no_warnings):
    before, loop.on_error = loop.on_error, hidden(coroutine_function)
    loop.call_soon(lambda: 1 / 0)
    with caplog.at_level(logging.ERROR):
        run_turns(1)
    loop.on_error = before
    assert "nobody runs" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_predicate_and_an_action_that_leave_their_work_undone_raise(loop, no_warnings):
    condition = d.Condition()
    with condition, pytest.raises(TypeError, match="nobody runs"):
        condition.wait_for(hidden(coroutine_function))
    with pytest.raises(TypeError, match="nobody runs"):
        d.Barrier(1, hidden(coroutine_function)).wait()


def test_a_task_that_returns_a_coroutine_has_failed(loop, no_warnings):
    task = d.spawn(hidden(coroutine_function))
    task.join()
    with pytest.raises(TypeError, match="nobody runs"):
        task.result()
    with pytest.raises(TypeError, match="nobody runs"):
        d.run(hidden(coroutine_function))
    task = d.spawn(hidden(generator_function))  # which may be meant: the result is handed on
    task.join()
    assert list(task.result()) == [None]


@pytest.mark.parametrize("serve", [d.serve, d.serve_requests])
def test_a_handler_that_returns_a_coroutine_is_reported_and_its_connection_closed(
    loop, run_turns, take_errors, no_warnings, serve
):
    with serve(LOCAL, hidden(coroutine_function)) as listener, socket.create_connection(listener.address, 5) as client:
        client.send(b"x")
        run_turns(5)
        assert is_told(take_errors())
        assert listener.connections == 0


def test_a_callback_may_return_what_it_likes(loop, run_turns):
    seen = []
    for value in (5, "x", [], object(), iter([])):
        loop.call_soon(lambda value=value: (seen.append(value), value)[1])
        loop.add_timer(0, lambda value=value: value)
    run_turns(3)
    assert len(seen) == 5
