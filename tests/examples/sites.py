"""Sites for the crawler: of the standard library's server, and of servers that lie."""

from __future__ import annotations

import contextlib
import http.server
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator

from programs import SECONDS, command

CRAWLER = command("crawler")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"


def crawl(*arguments: str) -> str:
    """Run it to its end; what it prints, without the progress."""
    done = subprocess.run([*CRAWLER, *arguments], capture_output=True, text=True, timeout=2 * SECONDS)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass


@contextlib.contextmanager
def liar(serve: Callable[[socket.socket], object], connections: int = 1) -> Iterator[str]:
    """A server that calls `serve` with so many connections, whose request it has read; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            for _ in range(connections):
                sock, _ = listener.accept()
                with sock, contextlib.suppress(OSError):
                    sock.settimeout(SECONDS)
                    sock.recv(65536)
                    serve(sock)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield "http://127.0.0.1:{}/".format(*listener.getsockname()[1:])
        finally:
            thread.join(SECONDS)
            assert not thread.is_alive()


def says(*data: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: sock.sendall(b"".join(data))
