import signal
import subprocess
import sys
import threading

import pytest

from dangagreen.core.interrupts import Interrupts


def test_the_first_one_is_noted_and_the_second_strikes():
    noted = []
    interrupts = Interrupts(lambda: noted.append("noted"))
    try:
        signal.raise_signal(signal.SIGINT)
        assert noted == ["noted"]
        assert interrupts.pending
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        interrupts.restore()
    assert noted == ["noted"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_once_acted_upon_the_next_one_is_a_first_one():
    noted = []
    interrupts = Interrupts(lambda: noted.append("noted"))
    try:
        signal.raise_signal(signal.SIGINT)
        interrupts.pending = False
        signal.raise_signal(signal.SIGINT)
    finally:
        interrupts.restore()
    assert noted == ["noted", "noted"]


def test_a_handler_of_the_programs_own_is_left_alone():
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupts = Interrupts(lambda: None)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        interrupts.restore()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, old)


def test_other_threads_touch_nothing():
    def use():
        Interrupts(lambda: None).restore()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_callback_that_is_at_work_is_not_torn_apart(real_loop):
    steps = []

    def work():
        signal.raise_signal(signal.SIGINT)
        steps.append("the rest of the callback")

    real_loop.call_soon(work)
    with pytest.raises(KeyboardInterrupt):
        real_loop.run()
    assert steps == ["the rest of the callback"]
    assert not real_loop.running
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_that_ends_with_event_loop_ends_by_ctrl_c():
    program = """
import signal
from dangagreen import Socket, current_loop, serve
serve(("127.0.0.1", 0), print)
current_loop().add_timer(0, lambda: signal.raise_signal(signal.SIGINT))
try:
    Socket.event_loop()
except KeyboardInterrupt:
    print("bye")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "bye\n", "")
