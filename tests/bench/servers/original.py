"""The original ddlockd, in Perl, whose program the environment variable DDLOCKD names: a checkout's `server/ddlockd`.

It does not say when it listens, nor picks a port: a second process waits for that, and tells the suite.
"""

import os
import socket
import sys
import time
from pathlib import Path

from tests.bench.protocol import many_files, serving_on

SECONDS = 20


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def tell_when_it_listens(port):
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return serving_on(port)
    return None


def main():
    program, port = Path(os.environ["DDLOCKD"]), free_port()
    many_files()
    if os.fork() == 0:
        tell_when_it_listens(port)
        sys.exit()
    os.execvp("perl", ["perl", f"-I{program.parent / 'lib'}", str(program), "-p", str(port)])


if __name__ == "__main__":
    main()
