#!/usr/bin/env bash
# SO_LINGER and close(2) of a non-blocking socket. A good guess: a socket in non-blocking mode never blocks, close
# included, so that a linger time matters to blocking ones only. On Linux it is otherwise: with unsent data and a peer
# that does not read, close() of a non-blocking TCP socket blocks for the whole linger time, and with it an event loop.
# (POSIX leaves it open; the BSDs return at once with EWOULDBLOCK.) The cure: take the linger time away before close().
# Seen on Linux 6.18, CPython 3.11.7: "blocking False, linger 1 s: close took 1.0 s", "without linger: 0.0 s".
set -euo pipefail
[ "$(uname -s)" = Linux ] || { echo "Linux only"; exit 0; }
timeout 60 python3 - <<'PY'
import contextlib
import platform
import socket
import struct
import time


def seconds_of_close(linger):
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
        sender.setblocking(False)
        if linger:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, linger))
        with contextlib.suppress(BlockingIOError):
            for _ in range(1000):
                sender.send(bytes(65536))
        assert not sender.getblocking()
        begun = time.monotonic()
        sender.close()
        took = time.monotonic() - begun
        peer.close()
        return took


with_linger, without = seconds_of_close(1), seconds_of_close(0)
print(f"{platform.system()} {platform.release()}, CPython {platform.python_version()}")
print(f"blocking False, linger 1 s: close took {with_linger:.1f} s; without linger: {without:.1f} s")
assert with_linger > 0.9 and without < 0.5, "this has changed"
PY
