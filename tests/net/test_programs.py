"""Whole programs: a script and a prompt that wait without run, Ctrl-C from outside, fork, what children inherit."""

from __future__ import annotations

import os
import signal

from tests.connections import ask, echo_lines
from tests.programs import run_python, start_python

SCRIPT = """
from dangagreen import connect, serve, sleep, spawn

def echo(sock):
    for line in sock:
        sock.write_all(line)

listener = serve(("127.0.0.1", 0), echo)
sock = connect(listener.address)
sock.write_all(b"hello\\n")
print(sock.read_line())
sleep(0.01)
task = spawn(lambda: (sleep(0.01), "result")[1])
task.join()
print(task.result())
"""


def test_a_plain_script_waits_at_top_level():
    assert run_python("-W", "error", "-c", SCRIPT) == (0, "b'hello\\n'\nresult\n", "")


def test_a_repl_waits_at_its_prompt():
    lines = SCRIPT.replace("\n\nlistener", "\n\n\nlistener").replace(
        "    for line in sock:\n        s", "    for line in sock: s"
    )
    code, out, _ = run_python("-W", "error", "-i", "-q", text_in=lines + "\nprint('still', 'alive')\n")
    assert code == 0
    assert "b'hello\\n'" in out
    assert "result" in out
    assert "still alive" in out


def test_ctrl_c_at_top_level_interrupts_the_wait_and_the_next_one_works():
    code = """
import os, signal
from dangagreen import current_loop, sleep
current_loop().add_timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    sleep(10)
except KeyboardInterrupt:
    print("interrupted")
sleep(0.01)
print("went on")
"""
    assert run_python("-W", "error", "-c", code) == (0, "interrupted\nwent on\n", "")


def test_ctrl_c_from_outside_ends_a_server_cleanly(tmp_path):
    code = """
from dangagreen import run, serve, sleep

def main():
    listener = serve(("127.0.0.1", 0), lambda sock: None)
    try:
        print("ready", flush=True)
        sleep(1000)
    finally:
        print("cleaning up", flush=True)

run(main)
"""
    with start_python("-c", code) as program:
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=30)
    assert out == "cleaning up\n"
    assert err.strip().endswith("KeyboardInterrupt")
    assert program.returncode == -signal.SIGINT


FORK = """
import os, socket, sys
import dangagreen as d
from dangagreen.loop.loop import Loop, here
from dangagreen.loop.pollers import available_pollers

[poller] = [p for p in available_pollers() if p.__name__ == sys.argv[1]]
loop = Loop(poller=poller())
here.loop = loop

class Echo(d.Socket):
    __slots__ = ()
    def event_read(self):
        data = self.read(100)
        if data is None:
            self.close()
        else:
            self.write(data)

a, b = socket.socketpair()
c, e = socket.socketpair()
ours, theirs = Echo(a), Echo(c)
for sock in (ours, theirs):
    sock.watch_read(True)
d.sleep(0.001)
pid = os.fork()
if pid == 0:
    ours.close("the parent's")
    e.send(b"child\\n")
    d.sleep(0.01)
    assert e.recv(100) == b"child\\n"
    task = d.spawn(lambda: (d.sleep(0.01), "a task in the child")[1])
    task.join(30)
    assert task.result() == "a task in the child"
    listener = d.serve(("127.0.0.1", 0), lambda sock: sock.write_all(sock.read_line()))
    with d.connect(listener.address, 30) as sock:
        sock.write_all(b"x\\n")
        assert sock.read_line() == b"x\\n"
    os._exit(7)
theirs.close("the child's")
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
b.send(b"parent\\n")
d.sleep(0.01)
assert b.recv(100) == b"parent\\n"
os.write(1, b"fine")
"""


def test_after_fork_parent_and_child_each_go_on(poller_class):
    assert run_python("-W", "error", "-c", FORK, poller_class.__name__) == (0, "fine", "")


def test_no_descriptor_is_inherited_by_a_program_that_is_started(real_loop, served, client):
    sock = client(served(echo_lines))
    assert ask(sock, b"x\n") == b"x\n"
    assert not any(os.get_inheritable(fd) for fd in real_loop.handlers)
