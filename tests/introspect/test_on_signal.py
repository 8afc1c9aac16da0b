"""A dump upon a signal: from a loop that waits, from one that is blocked, and in a deadlock; and what is put back."""

from __future__ import annotations

import signal

import pytest

from tests.introspect.seeing import PREAMBLE, answers
from tests.programs import start_python

pytestmark = pytest.mark.slow_but_first  # each starts a program


def test_while_the_loop_waits_and_while_it_is_blocked():
    answers("""
texts = []
introspect.dump_on_signal(write=texts.append)
def blocks():
    os.kill(os.getpid(), signal.SIGUSR1)
    total = sum(range(1000))
def main():
    d.current_loop().call_soon(blocks)
    d.sleep(0.01)
    threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    while len(texts) < 2:
        d.sleep(0.01)
d.run(main)
blocked, waiting = texts
assert f"now in {line_of(blocks, 2)} blocks" in blocked or f"now in {line_of(blocks, 1)} blocks" in blocked, blocked
assert "task main#1: parked in sleep" in blocked
assert "now in" not in waiting or "main" in waiting, waiting
""")


def test_by_default_it_goes_to_stderr_past_its_buffers():
    program = start_python(
        "-c",
        PREAMBLE
        + """
introspect.dump_on_signal()
def main():
    print("ready", flush=True)
    d.sleep(60)
d.run(main)
""",
    )
    try:
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGUSR1)
        assert program.stderr.readline().startswith("loop of thread 'MainThread'")
    finally:
        program.kill()
        program.communicate()


def test_the_former_handler_is_put_back_in_whatever_order():
    answers("""
former = lambda *_: None
signal.signal(signal.SIGUSR1, former)
first, second = introspect.dump_on_signal(write=len), introspect.dump_on_signal(write=len)
first.cancel()
assert signal.getsignal(signal.SIGUSR1) is second
second.cancel()
second.cancel()
assert signal.getsignal(signal.SIGUSR1) is former
third = introspect.dump_on_signal(signal.SIGUSR2, write=len)
signal.signal(signal.SIGUSR2, former)
third.cancel()
assert signal.getsignal(signal.SIGUSR2) is former
""")


def test_it_is_no_reason_to_hope_in_a_deadlock():
    answers("""
introspect.dump_on_signal(write=len)
try:
    d.run(d.Event().wait)
except d.Deadlock as error:
    answers["table"] = error.table
""")


def test_another_thread_is_refused():
    answers("""
def body():
    try:
        introspect.dump_on_signal()
    except ValueError:
        answers["refused"] = True
thread = threading.Thread(target=body)
thread.start()
thread.join()
assert answers == {"refused": True}
assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
""")


def test_a_loop_of_another_thread_prints_what_it_does_itself():
    answers("""
texts = []
introspect.dump_on_signal(write=texts.append)
def waits(event):
    event.wait()
with d.start_in_thread() as background:
    event = background.call(d.Event)
    task = background.call(d.spawn, waits, event)
    os.kill(os.getpid(), signal.SIGUSR1)
    for _ in range(1000):
        if len(texts) == 2:
            break
        time.sleep(0.01)
    event.set()
first, other = texts
assert first.startswith("no loop in the main thread"), first
assert "they print theirs: loops of other threads, 'dangagreen loop'" in first, first
assert other.startswith("loop of thread 'dangagreen loop': running"), other
assert "task waits#" in other and "parked in wait of" in other, other
""")
