"""A thread that ends takes its loop with it; a program that ends can still use its own."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest

import dangagreen as d
from dangagreen.loop.loop import here
from tests.helpers import first_quick
from tests.programs import run_python

THREADS = """
import gc, os, resource, sys, threading, weakref
import dangagreen as d
from dangagreen.loop.loop import here

gc.disable()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
left, loops, workers = [], [], []

def napper():
    try:
        d.sleep(100)
    finally:
        left.append(1)

def with_run():
    d.run(lambda: [task.join() for task in [d.spawn(d.sleep, 0) for _ in range(3)]])

def without_run():
    for _ in range(3):
        d.spawn(napper)
    d.sleep(0)
    d.sleep(0)

def served():
    listener = d.serve(("127.0.0.1", 0), lambda sock: sock.write_all(sock.read_line()))
    sock = d.connect(listener.address)
    sock.write_all(b"x\\n")
    assert sock.read_line() == b"x\\n"

def in_callbacks():
    d.current_loop().add_timer(0, d.current_loop().stop)
    d.Socket.event_loop()

def of_its_own():
    loop = here.loop = d.Loop()
    without_run()

def body():
    globals()[sys.argv[1]]()
    loop = d.current_loop()
    loops.append(weakref.ref(loop))
    workers.extend(map(weakref.ref, loop.green.workers if loop.green else ()))

def pages():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1])

count = int(sys.argv[2])
for number in range(count):
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if number % 10 == 9:
        gc.collect()
    if number == count * 3 // 10 - 1:
        before = pages(), len(os.listdir("/proc/self/fd"))
gc.collect()
after = pages(), len(os.listdir("/proc/self/fd"))
assert len(loops) == count, len(loops)
assert [loop() for loop in loops if loop() is not None] == []
assert [worker() for worker in workers if worker() is not None] == []
assert len(left) == (3 * count if sys.argv[1] in ("without_run", "of_its_own") else 0), len(left)
assert after[1] <= before[1], (before, after)
assert after[0] - before[0] < 256, (before, after)
assert threading.enumerate() == [threading.main_thread()]
"""


def program(source, *args):
    code, out, complaints = run_python("-X", "dev", "-c", source, *args)
    assert complaints == ""
    assert code == 0
    return out


@pytest.mark.parametrize("what", first_quick(["with_run", "without_run", "served", "in_callbacks", "of_its_own"], 2))
@pytest.mark.parametrize("count", first_quick([100, 1000], 1))
def test_hundreds_of_threads_leave_nothing(what, count):
    program(THREADS, what, str(count))


def test_a_loop_in_each_of_several_threads_keeps_little_memory():
    program("""
import threading
import dangagreen as d

def pages():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1])

def use():
    d.run(d.sleep, 0)
    done.wait()
    measured.wait()

d.run(d.sleep, 0)
before, done, measured = pages(), threading.Barrier(9), threading.Barrier(9)
threads = [threading.Thread(target=use, daemon=True) for _ in range(8)]
for thread in threads:
    thread.start()
done.wait()
assert pages() - before < 8 * 256, (before, pages())
measured.wait()
""")


def test_a_loop_whose_thread_has_ended_is_closed_and_says_so(in_thread):
    """Somebody still has it, and a socket of it."""

    def use():
        sock = d.connect(d.serve(("127.0.0.1", 0), d.Socket.read_line).address)
        return d.current_loop(), sock

    loop, sock = in_thread(use)
    assert loop.closed
    assert sock.closed
    with pytest.raises(RuntimeError, match="this loop was closed"):
        loop.call_soon_threadsafe(print)
    sock.close()
    assert sock.write(b"x")


def test_a_loop_that_has_gone_on_in_another_thread_stays(in_thread):
    made = in_thread(d.current_loop)
    assert made.closed

    def make():
        here.loop = loop = d.current_loop()
        given.append(loop)
        loop.thread = threading.main_thread().ident  # as `run()` there does
        here.loop = None

    given = []
    in_thread(make)
    (loop,) = given
    assert not loop.closed
    loop.set_loop_timeout(0)
    loop.run(lambda: True)
    loop.close()


def test_clean_up_code_at_the_end_of_a_thread_sees_the_loop_alive(in_thread):
    """The `finally` of a task that is left runs in the thread, and may use what does not wait."""
    seen = []

    def task(sock):
        try:
            sock.read_line()
        finally:
            seen.append((threading.get_ident(), sock.closed, d.current_loop() is sock.loop))

    def use():
        d.spawn(task, d.connect(d.serve(("127.0.0.1", 0), d.Socket.read_line).address))
        d.sleep(0)
        d.sleep(0)
        return threading.get_ident()

    ident = in_thread(use)
    assert seen == [(ident, True, True)]


def test_a_loop_that_is_dropped_gives_its_descriptors_back():
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    loop = d.Loop()
    loop.set_loop_timeout(0)
    loop.run(lambda: True)
    dropped = weakref.ref(loop)
    del loop
    gc.collect()
    assert dropped() is None
    assert len(os.listdir("/proc/self/fd")) == before


AT_EXIT = """
import atexit, threading

def clean_up():
    import dangagreen as d
    d.sleep(0)
    listener = d.serve(("127.0.0.1", 0), lambda sock: sock.write_all(sock.read_line()))
    with d.connect(listener.address) as sock:
        sock.write_all(b"x\\n")
        print(sock.read_line())
    listener.close()
    result, loop = d.Future(), d.current_loop()
    if d.spawn(d.sleep, 0).join() is None:
        loop.call_soon_threadsafe(result.set_result, "from outside")
        print(result.wait())
    print(d.run(lambda: "run"))

{before}
import dangagreen as d
{after}
{used}
print("end")
"""


USED = ["d.sleep(0)", "d.run(d.sleep, 0)", "d.serve(('127.0.0.1', 0), print)", ""]


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("used", first_quick(USED, 1))
def test_clean_up_code_at_exit_can_do_what_it_could_before(order, used):
    parts = {"before": "", "after": "", "used": used, order: "atexit.register(clean_up)"}
    out = program(AT_EXIT.format(**parts))
    assert out == "end\nb'x\\n'\nfrom outside\nrun\n"


def test_a_thread_wakes_the_loop_at_exit():
    out = program("""
import atexit, threading
import dangagreen as d

loop = d.current_loop()
waits = threading.Event()

def other():  # started before the end, since some versions of Python start none after it
    waits.wait()
    loop.call_soon_threadsafe(result.set_result, "from a thread")

class Poller:  # in front of the loop's own: tells when the loop is about to wait
    def __getattr__(self, name):
        return getattr(poller, name)

    def wait(self, timeout):
        if timeout is None or timeout > 0:
            waits.set()
        return poller.wait(timeout)

def clean_up():
    global poller, result
    result = d.Future()
    poller, loop.poller = loop.poller, Poller()
    print(result.wait(timeout=30))

atexit.register(clean_up)
threading.Thread(target=other, daemon=True).start()
d.sleep(0)
""")
    assert out == "from a thread\n"
