"""What miniredis tells about itself: INFO, and the status page, in callback style."""

from __future__ import annotations

import gc
import re
import sys
from resource import RUSAGE_SELF, getrusage

from dangagreen import Socket, current_loop
from miniredis.clients import everybody
from miniredis.keys import keys
from miniredis.protocol import Reply, Text

LONGEST_REQUEST = 64 * 1024
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="1">
<title>miniredis</title><h1>miniredis</h1><table>%s</table></html>"""
HEAD = "HTTP/1.1 %s\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"


class StatusPage(Socket):
    """One HTTP request, which should be for the one page that there is."""

    __slots__ = ("request",)
    idle_timeout = 10.0

    def event_read(self) -> None:
        data = self.read(LONGEST_REQUEST)
        self.request = getattr(self, "request", b"") + (data or b"")
        if b"\r\n\r\n" in self.request:
            method, path, _ = re.split(rb"[ ?\r]", self.request, maxsplit=2)
            outcome, page = "200 OK", PAGE % "".join(f"<tr><td>{name}<td>{n:,}" for name, n in status.figures().items())
            if path != b"/":
                outcome = page = "404 Not Found"
            if method not in (b"GET", b"HEAD"):
                outcome, page = "405 Method Not Allowed\r\nAllow: GET, HEAD", "GET it"
            self.write((HEAD % (outcome, len(page)) + page * (method != b"HEAD")).encode())
            self.finish()
        elif data is None or len(self.request) > LONGEST_REQUEST:
            self.close("that is no HTTP request")


class Status:
    """What the page, and INFO, tell about the server."""

    commands = counted = per_second = 0

    def tick(self) -> None:
        gc.collect(1)  # what is new and in a cycle, such as an error; see `main` in `server`
        self.per_second, self.counted = self.commands - self.counted, self.commands
        current_loop().add_timer(1, self.tick)

    def figures(self) -> dict[str, int]:
        return {
            "Connected clients": len(everybody),
            "Subscribed clients": sum(bool(client.topics) for client in everybody.values()),
            "Total commands processed": self.commands,
            "Instantaneous ops per sec": self.per_second,
            "Keys": keys.count,
            "Keys that expire": len(keys.deadlines),
            "Peak memory in bytes": getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        }

    def info(self, _client: object, *sections: bytes) -> Reply:
        if not {b"SERVER", b"ALL", b"DEFAULT", b"EVERYTHING"} & set(map(bytes.upper, sections)) and sections:
            return Text(b"")
        lines = [f"{name.lower().replace(' ', '_')}:{value}\r\n" for name, value in self.figures().items()]
        return Text(
            b"# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nloading:0\r\n" + "".join(lines).encode()
        )


status = Status()
