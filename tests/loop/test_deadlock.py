"""Who might still wake a loop: a doubt counts, and each is named."""

from __future__ import annotations

import _thread
import signal
import threading

import pytest

from dangagreen.loop import deadlock
from dangagreen.loop.deadlock import external_wakers
from dangagreen.loop.sigint import Interrupts


@pytest.fixture
def no_signals():
    """Nobody handles a signal in Python."""
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in ours:
        signal.signal(number, signal.SIG_IGN)
    yield
    for number, handler in ours.items():
        signal.signal(number, handler)


@pytest.fixture
def alone(monkeypatch):
    """No thread but this one, whatever the test runner has started."""
    monkeypatch.setattr(deadlock, "_threads", lambda: 1)


def test_nobody(no_signals, alone):
    assert list(external_wakers()) == []


def test_a_handler_of_ctrl_c_that_ends_the_program_does_not_count(no_signals, alone):
    """The interpreter's own, and that which stands in for it while a loop runs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert list(external_wakers()) == []
    interrupts = Interrupts(lambda: None)
    assert interrupts.installed
    assert list(external_wakers()) == []
    interrupts.restore()


def test_the_programs_own_handler_of_ctrl_c_counts(no_signals, alone):
    signal.signal(signal.SIGINT, lambda *_: None)
    assert list(external_wakers()) == ["the handler of SIGINT"]


@pytest.mark.parametrize("disposition", [signal.SIG_IGN, signal.SIG_DFL])
def test_a_signal_that_python_does_not_handle_does_not_count(no_signals, alone, disposition):
    signal.signal(signal.SIGUSR1, disposition)
    try:
        assert list(external_wakers()) == []
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_a_handler_of_the_program_counts(no_signals, alone):
    signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        assert list(external_wakers()) == ["the handler of SIGUSR1"]
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_a_real_time_signal_counts_too(no_signals, alone):
    number = 40
    assert number in signal.valid_signals()
    signal.signal(number, lambda *_: None)
    try:
        assert list(external_wakers()) == ["the handler of 40"]
    finally:
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("proc", [True, False], ids=["proc", "no proc"])
def test_a_thread_counts_be_it_idle_and_a_daemon(no_signals, monkeypatch, proc):
    def no_proc(path):
        raise FileNotFoundError(path)

    if not proc:
        monkeypatch.setattr("os.listdir", no_proc)
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="idle one", daemon=True)
    thread.start()
    try:
        (words,) = external_wakers()
        assert "'idle one'" in words
        assert "MainThread" not in words
    finally:
        over.set()
        thread.join()


def test_a_thread_that_the_threading_module_knows_nothing_of_counts(no_signals):
    lock = _thread.allocate_lock()
    ended = threading.Event()
    lock.acquire()

    def body():
        with lock:
            ended.set()

    _thread.start_new_thread(body, ())
    try:
        assert len(list(external_wakers())) == 1
    finally:
        lock.release()
        ended.wait()
