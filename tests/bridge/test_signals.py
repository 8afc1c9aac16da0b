"""Signals in each hosting: handlers of asyncio, Ctrl-C, SIGTERM; what was installed is put back."""

from __future__ import annotations

import asyncio
import signal

import pytest

import dangagreen as d
from dangagreen.bridge import await_
from dangagreen.loop.loop import here
from tests.bridge.programs import program

HOSTINGS = {
    "await_ in run": "d.run(lambda: await_(main()))",
    "await_ in top-level code": "await_(main())",
    "bridge.run": "bridge.run(main())",
    "bridge.run in a task": "d.run(lambda: bridge.run(main()))",
    "guest": "asyncio.run(as_guest())",
    "guest of uvloop": "uvloop.run(as_guest())",
}


PREAMBLE = """
import asyncio, signal, sys
import dangagreen as d
from dangagreen import bridge
from dangagreen.bridge import await_, to_task

async def as_guest():
    async with bridge.guest():
        return await main()

before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)
"""


AFTER = """
assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)) == before
print("put back")
"""


@pytest.fixture(params=HOSTINGS)
def hosting(request):
    """The program's text that runs `main()` so."""
    if request.param == "guest of uvloop":
        pytest.importorskip("uvloop")
        return f"import uvloop; {HOSTINGS[request.param]}"
    return HOSTINGS[request.param]


def send(number):
    return lambda process, line: process.send_signal(number) if line == "now" else None


@pytest.mark.slow
def test_a_signal_handler_of_asyncio_is_called(hosting):
    source = f"""{PREAMBLE}
async def main():
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, event.set)
    loop.call_later(0.05, print, "now")
    await event.wait()
    print("term")
    loop.remove_signal_handler(signal.SIGTERM)
    await to_task(d.sleep, 0.01)

{hosting}
{AFTER}"""
    assert program(source, during=send(signal.SIGTERM)) == "now\nterm\nput back\n"


@pytest.mark.slow
def test_a_callback_of_on_signal_is_called_beside_it(hosting):
    source = f"""{PREAMBLE}
async def main():
    loop = asyncio.get_running_loop()
    event, theirs = asyncio.Event(), []
    loop.add_signal_handler(signal.SIGHUP, lambda: theirs.append(1))
    await to_task(d.on_signal, signal.SIGTERM, lambda number: (print("ours"), loop.call_soon(event.set)))
    loop.call_later(0.05, print, "now")
    await event.wait()
    signal.raise_signal(signal.SIGHUP)
    while not theirs:
        await asyncio.sleep(0.01)
    loop.remove_signal_handler(signal.SIGHUP)

{hosting}
if d.current_loop().green.signals is not None:
    d.current_loop().reset()  # of what is not run's
{AFTER}"""
    assert program(source, during=send(signal.SIGTERM)) == "now\nours\nput back\n"


@pytest.mark.parametrize("where", ["coroutine", "task"])
@pytest.mark.slow
def test_ctrl_c_ends_the_program_once_and_cleans_up(hosting, where):
    source = f"""{PREAMBLE}
async def cleans():
    try:
        asyncio.get_running_loop().call_later(0.05, print, "now")
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0.01)
        print("coroutine cleans up")

def work():
    try:
        d.sleep(0.05)
        print("now")
        d.sleep(1000)
    finally:
        with d.shield():
            d.sleep(0.01)
        print("task cleans up")

async def main():
    await (cleans() if {where == "coroutine"} else to_task(work))

try:
    {hosting}
except KeyboardInterrupt:
    print("KeyboardInterrupt")
{AFTER}"""
    text = program(source, during=send(signal.SIGINT))
    lines = text.split("\n")
    assert lines[0] == "now", text
    assert sorted(lines[1:-1]) == sorted([f"{where} cleans up", "KeyboardInterrupt", "put back"]), text


@pytest.mark.parametrize("where", ["coroutine", "task"])
@pytest.mark.slow
def test_a_second_ctrl_c_ends_what_cleans_up_for_too_long(hosting, where):
    """A third one, where a task of ours has shielded itself from the first two."""
    source = f"""{PREAMBLE}
async def cleans():
    loop = asyncio.get_running_loop()
    try:
        loop.call_later(0.05, print, "now")
        await asyncio.sleep(1000)
    finally:
        print("cancelled")
        loop.call_later(0.05, print, "now")
        await asyncio.sleep(1000)

def work():
    def again():
        loop.add_timer(0.05, again)
        print("now")
    loop = d.current_loop()
    loop.add_timer(0.05, again)
    try:
        d.sleep(1000)
    finally:
        print("cancelled")
        with d.shield():
            d.sleep(1000)

async def main():
    await (cleans() if {where == "coroutine"} else to_task(work))

try:
    {hosting}
except KeyboardInterrupt:
    print("KeyboardInterrupt")
assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before[:2]
sys.stdout.flush()
import os
os._exit(0)  # what has shielded itself would be waited for
"""
    lines = program(source, during=send(signal.SIGINT)).split()
    assert lines[0] == "now", lines
    assert next(line for line in lines if line != "now") == "cancelled", lines
    assert lines.count("now") == 2 or where == "task", lines
    assert lines[-1] == "KeyboardInterrupt", lines


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.slow
def test_a_handler_of_asyncio_goes_first_while_it_is_there_and_then_whoever_was_before(hosting, number):
    """In serve_forever, which handles both. (A plain loop of asyncio, our host, would leave the default behind.)"""
    source = f"""{PREAMBLE}
def serve():
    d.serve_forever(d.serve(("127.0.0.1", 0), lambda sock: None))
    print("drained")

async def main():
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    serving = to_task(serve)
    await asyncio.sleep(0.05)
    was = signal.getsignal(signal.{number})
    loop.add_signal_handler(signal.{number}, event.set)
    print("now")
    await event.wait()
    print("asyncio")
    loop.remove_signal_handler(signal.{number})
    if not isinstance(loop, bridge.EventLoop):
        signal.signal(signal.{number}, was)
    assert signal.getsignal(signal.{number}) is was
    print("now")
    await serving

{hosting}
{AFTER}"""
    text = program(source, during=send(getattr(signal, number)))
    assert text == "now\nasyncio\nnow\ndrained\nput back\n"


@pytest.mark.parametrize("second", ["ours", "theirs"])
@pytest.mark.parametrize("removed", ["ours", "theirs"])
def test_handlers_of_both_sides_are_taken_apart_in_any_order(vloop, second, removed):
    before = signal.getsignal(signal.SIGHUP)

    async def main():
        loop, handles = asyncio.get_running_loop(), []
        install = {
            "theirs": lambda: loop.add_signal_handler(signal.SIGHUP, print),
            "ours": lambda: handles.append(d.on_signal(signal.SIGHUP, print)),
        }
        remove = {"theirs": lambda: loop.remove_signal_handler(signal.SIGHUP), "ours": lambda: handles[0].cancel()}
        install["ours" if second == "theirs" else "theirs"]()
        first = signal.getsignal(signal.SIGHUP)
        install[second]()
        last = signal.getsignal(signal.SIGHUP)
        remove.pop(removed)()
        assert signal.getsignal(signal.SIGHUP) is (first if removed == second else last)
        remove.popitem()[1]()
        assert signal.getsignal(signal.SIGHUP) is before

    d.run(lambda: await_(main()))


@pytest.mark.slow
def test_serve_forever_drains_at_sigterm(hosting):
    source = f"""{PREAMBLE}
def serve():
    listener = d.serve(("127.0.0.1", 0), lambda sock: None)
    d.current_loop().add_timer(0.05, lambda: print("now"))
    d.serve_forever(listener)
    print("drained")

async def main():
    await to_task(serve)

{hosting}
{AFTER}"""
    assert program(source, during=send(signal.SIGTERM)) == "now\ndrained\nput back\n"


def test_nothing_is_left_in_this_thread():
    assert here.loop is None
    assert asyncio._get_running_loop() is None
