"""A server that is stopped for longer than its connections may be silent: whoever has sent meanwhile is not closed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest

PROGRAM = """
import dangagreen as d

class Echo(d.Socket):
    idle_timeout = 1.0
    def event_read(self):
        data = self.read(100)
        self.finish() if data is None else self.write(data)

def echo(sock):
    while data := sock.read_some():
        sock.write_all(data)

def echo_once(sock):
    sock.write_all(sock.read_some())

class Quick(d.Socket):
    idle_timeout = 1.0

HERE = ("127.0.0.1", 0)
STYLES = {
    "callback": lambda: d.serve(HERE, Echo),
    "sequential": lambda: d.serve(HERE, echo, socket_class=Quick),
    "requests": lambda: d.serve_requests(HERE, echo_once, socket_class=Quick),
}
"""
CONNECTIONS = 150


@pytest.mark.slow
@pytest.mark.parametrize("style", ["callback", "sequential", "requests"])
def test_nobody_who_has_sent_while_it_was_stopped_is_closed(style):
    code = (
        PROGRAM + f"listener = STYLES[{style!r}]()\nprint(listener.address[1], flush=True)\nd.serve_forever(listener)"
    )
    with (
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as program,
        ExitStack() as keep,
    ):
        keep.callback(program.kill)
        address = ("127.0.0.1", int(program.stdout.readline()))
        socks = [keep.enter_context(socket.create_connection(address, 30)) for _ in range(CONNECTIONS)]
        for sock in socks:
            sock.sendall(b"a")
        assert {sock.recv(10) for sock in socks} == {b"a"}
        program.send_signal(signal.SIGSTOP)
        for sock in socks:
            sock.sendall(b"b")
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(2.0)
        program.send_signal(signal.SIGCONT)
        assert {sock.recv(10) for sock in socks} == {b"b"}
