"""A program of ten thousand connections is dumped without disturbing it, as a task that ticks all the time can tell."""

from __future__ import annotations

import json
import resource
import sys

import pytest

from tests.introspect.seeing import PREAMBLE
from tests.programs import TRACEABLE, run_python

MANY = 10_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < MANY + 100, reason="too few descriptors"),
]

# A server, and in a process of its own who connects to it; `ticks` are the times between two ticks, in seconds of the
# server's processor time, so that a busy machine makes none of them longer.
CONNECTED = """
import gc, resource, subprocess
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
PEERS = '''
import resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
socks = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
sys.stdin.read()
'''
ticks, texts, calls, peers = [], [], [], []
def tick():
    last = time.process_time()
    while True:
        d.sleep(0)
        now = time.process_time()
        ticks.append(now - last)
        last = now
def handler(sock):
    sock.read_some()
def connect(listener, number):
    command = [sys.executable, "-c", PEERS, str(listener.address[1]), str(number)]
    peers.append(subprocess.Popen(command, stdin=subprocess.PIPE))
    before = listener.connections
    while listener.connections < before + number:
        d.sleep(0.02)
"""
PROGRAM = """
def calls_of_a_dump():
    seen = []
    sys.setprofile(lambda _frame, event, _argument: seen.append(event) if event == "call" else None)
    introspect.dump(io.StringIO())
    sys.setprofile(None)
    return len(seen)
def main():
    d.current_loop().slow_seconds = None
    listener = d.serve(("127.0.0.1", 0), handler, backlog=4096)
    for number in (2000, MANY - 2000):
        connect(listener, number)
        calls.append(calls_of_a_dump())
    gc.collect()
    gc.disable()
    introspect.dump_on_signal(write=texts.append)
    d.spawn(tick)
    for number in range(1, 4):
        os.kill(os.getpid(), signal.SIGUSR1)
        while len(texts) < number or len(ticks) < 50 * number:
            d.sleep(0)
    seen = introspect.snapshot()
    assert len(seen.sockets) == MANY and len(seen.tasks) == MANY + 2
    answers.update(ticks=len(ticks), longest=max(ticks), dumps=len(texts), lines=texts[0].count("\\n"), calls=calls)
    print(json.dumps(answers), flush=True)
    os._exit(0)
d.run(main)
"""


def test_ten_thousand_connections():
    code, out, complaints = run_python("-c", PREAMBLE + CONNECTED + PROGRAM.replace("MANY", str(MANY)))
    assert (code, complaints) == (0, "")
    said = json.loads(out)
    assert said["dumps"] == 3
    assert said["lines"] < 500
    few, many = said["calls"]
    assert many < 1.1 * few  # what a dump does is decided by what it shows, not by what there is
    assert said["longest"] < 0.1  # usually 0.005


UNPREPARED = f"""{TRACEABLE}
import gc, json, os, sys, time
import dangagreen as d
CONNECTED
dumps, longest = [], []
def ask():
    command = [sys.executable, "-m", "dangagreen", "dump", str(os.getpid())]
    asker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return d.in_thread(asker.communicate)[0]
def main():
    d.current_loop().slow_seconds = None
    listener = d.serve_requests(("127.0.0.1", 0), handler, backlog=4096)
    connect(listener, MANY)
    gc.collect()
    gc.disable()
    d.spawn(tick)
    for _ in range(2):
        del ticks[:]
        dumps.append(ask())
        d.sleep(0.05)
        longest.append(max(ticks))
    print(json.dumps([dumps, longest]), flush=True)
    os._exit(0)
d.run(main)
"""


@pytest.mark.skipif(not hasattr(sys, "remote_exec"), reason="needs sys.remote_exec, of Python 3.14")
def test_ten_thousand_idle_connections_of_a_process_that_was_not_prepared():
    code, out, complaints = run_python("-c", UNPREPARED.replace("CONNECTED", CONNECTED).replace("MANY", str(MANY)))
    assert (code, complaints) == (0, "")
    dumps, longest = json.loads(out)
    for dump in dumps:
        assert f"accepting, {MANY} open" in dump
        assert "... and 9900 more descriptors\n" in dump
    assert longest[0] < 0.5, longest  # usually 0.05, in which introspect is imported
    assert longest[1] < 0.1, longest  # usually 0.005
