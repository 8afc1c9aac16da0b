"""The same exchanges with the Perl original and with ours: each difference is in the table, with its reason.

`python tests/examples/test_perlbal_against_original.py` prints the counts.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from perlbal_peers import ORIGINAL, Backend, exchange_all, original, ours
from tests.programs import free_port

pytestmark = [pytest.mark.slow, pytest.mark.skipif(ORIGINAL is None, reason="the Perl original is not installed")]

CONFIGURATION = """{first}
SERVER aio_mode = none
CREATE POOL a
  POOL a ADD 127.0.0.1:{backend}
CREATE SERVICE rp
  SET role = reverse_proxy
  SET listen = 127.0.0.1:{port}
  SET pool = a
  SET persist_client = on
  SET persist_backend = on
  SET backend_persist_cache = 60
  SET enable_reproxy = on
  {more}
ENABLE rp
"""
SERVICES = {
    "usual": "",
    "trusted": "SET always_trusted = on\n  HEADER rp INSERT X-Inserted: yes\n  HEADER rp REMOVE X-Odd",
    "uploads": "SET buffer_uploads = on\n  SET buffer_uploads_path = {directory}\n"
    "  SET buffer_upload_threshold_size = 1",
    "verified": "SET verify_backend = on\n  SET persist_client = off\n  SET buffer_backend_connect = 0",
}

KEPT = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"
ANSWERS = {
    "verify": KEPT + b"Content-Length: 0\r\n\r\n",
    "plain": KEPT + b"Content-Length: 5\r\n\r\nhello",
    "empty": KEPT + b"Content-Length: 0\r\n\r\n",
    "closing": b"HTTP/1.0 200 OK\r\nContent-Type: a/b\r\n\r\nuntil the end",
    "length-closing": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    "modern": b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nKeep-Alive: timeout=15\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "identity": KEPT + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "204": b"HTTP/1.0 204 No Content\r\nConnection: keep-alive\r\nX-A: 1\r\n\r\n",
    "304": b"HTTP/1.0 304 Not Modified\r\nConnection: keep-alive\r\nETag: x\r\n\r\n",
    "404": b"HTTP/1.0 404 Nowhere at all\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nno\n",
    "500": b"HTTP/1.0 500 Oops\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nno\n",
    "no-reason": b"HTTP/1.0 200 \r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
    "odd-code": b"HTTP/1.0 299 It works\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
    "fields": KEPT
    + b"set-cookie: a=1\r\nX-MiXed: 1\r\nSet-Cookie: b=2\r\nVary: a\r\nVary: b\r\nServer: it\r\nDate: now\r\n"
    b"Content-Length: 5\r\n\r\nhello",
    "folded": KEPT + b"X-Long: one\r\n two\r\nContent-Length: 5\r\n\r\nhello",
    "large": KEPT + b"Content-Length: 300000\r\n\r\n" + b"0123456789" * 30_000,
    "file": KEPT + b"X-Reproxy-File: {file}\r\nContent-Type: x/y\r\nContent-Length: 0\r\n\r\n",
    "file-204": b"HTTP/1.0 204 No Content\r\nConnection: keep-alive\r\nX-Reproxy-File: {file}\r\n\r\n",
    "file-size": KEPT + b"X-Reproxy-File: {file}\r\nX-Reproxy-Expected-Size: 9\r\nContent-Length: 0\r\n\r\n",
    "no-file": KEPT + b"X-Reproxy-File: {file}-none\r\nContent-Length: 0\r\n\r\n",
    "url": KEPT + b"X-Reproxy-URL: http://127.0.0.1:{url}/x\r\nX-Other: 1\r\nContent-Length: 0\r\n\r\n",
    "urls": KEPT + b"X-Reproxy-URL: http://127.0.0.1:1/ ftp://x/ http://127.0.0.1:{url}/x\r\nContent-Length: 0\r\n\r\n",
    "no-url": KEPT + b"X-Reproxy-URL: ftp://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
    "truncated": b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nshort",
    "nothing": b"",
    "garbage": b"what is this?\r\n\r\n",
    "no-status": b"HTTP/1.0 hello\r\n\r\n",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "two-lengths": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
}  # fmt: skip


def head(line: str, *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([line, *fields, "X-Case: {case}", "X-Answer: {answer}", "", ""]).encode("latin-1") + body


REQUESTS: dict[str, bytes] = {
    "get-1.1": head("GET /x?y=1 HTTP/1.1", "Host: www"),
    "get-1.0": head("GET /x HTTP/1.0"),
    "get-1.0-kept": head("GET /x HTTP/1.0", "Connection: Keep-Alive"),
    "get-1.1-closing": head("GET /x HTTP/1.1", "Host: www", "Connection: close"),
    "head": head("HEAD /x HTTP/1.1", "Host: www"),
    "head-1.0": head("HEAD /x HTTP/1.0", "Connection: keep-alive"),
    "post": head("POST /p HTTP/1.1", "Host: www", "Content-Length: 5", body=b"hello"),
    "post-1.0": head("POST /p HTTP/1.0", "Content-Length: 5", body=b"hello"),
}
OTHERS: dict[str, bytes] = {  # with a plain answer only
    "foo": head("FOO /x HTTP/1.1", "Host: www"),
    "lower": head("get /x HTTP/1.1", "Host: www"),
    "options": head("OPTIONS * HTTP/1.1", "Host: www"),
    "put": head("PUT /f HTTP/1.1", "Host: www", "Content-Length: 3", body=b"abc"),
    "delete": head("DELETE /f HTTP/1.1", "Host: www"),
    "post-none": head("POST /f HTTP/1.1", "Host: www"),
    "post-empty": head("POST /f HTTP/1.1", "Host: www", "Content-Length: 0"),
    "post-crlf": head("POST /f HTTP/1.1", "Host: www", "Content-Length: 3", body=b"abc\r\n"),
    "get-body": head("GET /f HTTP/1.1", "Host: www", "Content-Length: 3", body=b"abc"),
    "absolute": head("GET http://Other:81/x?y HTTP/1.1", "Host: www"),
    "absolute-bare": head("GET http://other HTTP/1.1", "Host: www"),
    "http-2": head("GET /x HTTP/2.0", "Host: www"),
    "odd-uri": head("GET /%7e?\xe9'\"<> HTTP/1.1", "Host: www"),
    "star": head("GET * HTTP/1.1", "Host: www"),
    "twice": head("GET /x HTTP/1.1", "Host: www", "X-T: 1", "x-t: 2", "X-Odd: 3", "X-T: 4"),
    "cookies": head("GET /x HTTP/1.1", "Host: www", "Cookie: a=b", "Cookie: c=d"),
    "folded": head("GET /x HTTP/1.1", "Host: www", "X-F: one", "  two", "\tthree"),
    "blanks": head("GET /x HTTP/1.1", "Host:www", "X-F:    one"),
    "trailing": head("GET /x HTTP/1.1", "Host: www", "X-F: one  "),
    "no-value": head("GET /x HTTP/1.1", "Host: www", "X-F:", "X-G: "),
    "forwarded": head(
        "GET /x HTTP/1.1", "Host: www", "X-Forwarded-For: 6.6.6.6, 7.7.7.7", "X-Host: h", "X-Forwarded-Host: e"
    ),
    "hop": head("GET /x HTTP/1.1", "Host: www", "Keep-Alive: 3", "TE: x", "Upgrade: h", "Proxy-Connection: x"),
    "many": head("GET /x HTTP/1.1", "Host: www", *(f"X-{number}: {number}" for number in range(80))),
    "long": head("GET /" + "x" * 8000 + " HTTP/1.1", "Host: www", "X-L: " + "y" * 20_000),
    "lf": head("GET /x HTTP/1.1", "Host: www").replace(b"\r\n", b"\n"),
    "conn-list": head("GET /x HTTP/1.1", "Host: www", "Connection: foo, Close"),
    "conn-odd": head("GET /x HTTP/1.0", "Connection: x-keep-alive-x"),
    "conn-te": head("GET /x HTTP/1.0", "Connection: TE, keep-alive"),
    "capabilities": head("GET /x HTTP/1.1", "Host: www", "X-Proxy-Capabilities: mine"),
    "no-host": head("GET /x HTTP/1.1"),
    "empty-host": head("GET /x HTTP/1.1", "Host: "),
    "garbage": b"hello there\r\n\r\n",
    "two-blanks": head("GET  /x HTTP/1.1", "Host: www"),
    "no-version": head("GET /x", "Host: www"),
    "http-3.7": head("GET /x HTTP/3.7", "Host: www"),
    "bad-name": head("GET /x HTTP/1.1", "Host: www", "X F: 1"),
    "blank-colon": head("GET /x HTTP/1.1", "Host: www", "X-F : 1"),
    "no-colon": head("GET /x HTTP/1.1", "Host: www", "what"),
    "negative": head("POST /x HTTP/1.1", "Host: www", "Content-Length: -5"),
    "bad-length": head("POST /x HTTP/1.1", "Host: www", "Content-Length: abc"),
    "lengths": head("POST /x HTTP/1.1", "Host: www", "Content-Length: 3", "Content-Length: 3", body=b"abc"),
    "chunked": head("POST /x HTTP/1.1", "Host: www", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
    "both": head("POST /x HTTP/1.1", "Host: www", "Content-Length: 3", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "expect": head("POST /x HTTP/1.1", "Host: www", "Content-Length: 3", "Expect: 100-continue", body=b"abc"),
    "pipelined": head("GET /x HTTP/1.1", "Host: www") * 2,
    "pipelined-posts": head("POST /p HTTP/1.1", "Host: www", "Content-Length: 5", body=b"hello") * 3,
}
RANGED = ("file", "file-204", "url", "no-file")
RANGES = ("0-3", "4-", "2-2", "5-100", "100-", "-3", "3-1", "0-1,3-4", "x")


@dataclass(frozen=True)
class Case:
    request: str
    answer: str
    pieces: tuple[bytes, ...]
    name: str


def cases() -> Iterator[Case]:
    """All exchanges: usual requests with each answer, others with a plain one, ranges, and split arrivals."""

    def case(request: str, answer: str, data: bytes, how: str = "") -> Case:
        name = f"{request}/{answer}{how}"
        data = data.replace(b"{case}", name.encode()).replace(b"{answer}", answer.encode())
        if not how:
            return Case(request, answer, (data,), name)
        step = int(how[1:])
        return Case(request, answer, tuple(data[at : at + step] for at in range(0, len(data), step)), name)

    for request, data in REQUESTS.items():
        for answer in ANSWERS:
            if answer != "verify":
                yield case(request, answer, data)
    for request, data in OTHERS.items():
        yield case(request, "plain", data)
    for asked in RANGES:
        for answer in RANGED:
            yield case(f"range {asked}", answer, head("GET /x HTTP/1.1", "Host: www", f"Range: bytes={asked}"))
    for request in ("get-1.1", "post"):
        for step in (1, 7, 40):
            yield case(request, "plain", REQUESTS[request], f"/{step}")


Outcome = tuple[bytes, bool, tuple[bytes, ...]]  # what the client got, whether it was closed, what backends got


@dataclass(frozen=True)
class Difference:
    """Exchanges, by a pattern of their names, in which ours is to be `like`: the beginning of its answer."""

    name: str
    like: bytes
    why: str
    xs: bool = False  # only with XS headers


DIFFERENCES = [
    Difference("*/nothing", b"HTTP/1.0 502 ", "a backend that ends without an answer (defect 1)"),
    Difference("*/garbage", b"HTTP/1.0 502 ", "a backend that speaks no HTTP (defect 1)"),
    Difference("*/no-status", b"HTTP/1.0 502 ", "a backend that speaks no HTTP (defect 1)"),
    Difference("*/two-lengths", b"HTTP/1.0 502 ", "two lengths of an answer were glued together (defect 5)"),
    Difference("*/truncated", b"HTTP/1.0 200 ", "a client was kept after a body that is too short (defect 3)"),
    Difference("*/continue", b"HTTP/1.0 200 ", "100 Continue was taken for the answer (defect 4)"),
    Difference("range -3/file*", b"HTTP/1.0 206 ", "-3 are the last three bytes (defect 6)"),
    Difference("range *-*/file*", b"HTTP/1.0 416 ", "416 has a length, and keeps the connection (defect 6)"),
    Difference("trailing/*", b"HTTP/1.0 200 ", "a blank at the end of a field was kept (defect 9)"),
    Difference("expect/*", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 ", "nobody answered 100 Continue (defect 12)"),
    Difference("chunked/*", b"HTTP/1.0 411 ", "a chunked request was passed on without its body (defect 5)"),
    Difference("both/*", b"HTTP/1.0 400 ", "a length beside chunks (defect 5)"),
    Difference("lengths/*", b"HTTP/1.0 400 ", "two lengths of a request (defect 5)"),
    Difference("bad-length/*", b"HTTP/1.0 400 ", "a length that is no number (defect 5)"),
    Difference("negative/*", b"HTTP/1.0 400 ", "keep-alive was promised before a close"),
    Difference("pipelined/*", b"HTTP/1.0 400 ", "keep-alive was promised before a close"),
    Difference("http-3.7/*", b"HTTP/1.0 505 ", "HTTP/3.7 was taken for HTTP/1.1 (section 13)"),
    Difference("*/no-reason", b"HTTP/1.0 200 OK", "without XS headers an empty reason is filled in, as here", xs=True),
    Difference("*/fields", b"HTTP/1.0 200 ", "XS headers leave each Set-Cookie where it was", xs=True),
    Difference("*/folded", b"HTTP/1.0 200 ", "XS headers pass folded fields on as they are", xs=True),
    Difference("folded/*", b"HTTP/1.0 200 ", "XS headers pass folded fields on as they are", xs=True),
    Difference("absolute*/*", b"HTTP/1.0 200 ", "XS headers pass http://host/path on as it is", xs=True),
    *(
        Difference(f"{name}/*", b"HTTP/1.0 400 ", "a close without an answer (section 13)")
        for name in ("no-host", "empty-host", "garbage", "two-blanks", "no-version", "bad-name", "*-colon")
    ),
]  # fmt: skip


def outcomes(which: str, service: str, directory: Path, exchanges: list[Case]) -> dict[str, Outcome]:
    """What becomes of each exchange with one of the proxies."""
    file = directory / "file"
    file.write_bytes(b"0123456789" * 10)
    backend, port = Backend(dict(ANSWERS)), free_port()
    backend.answers[""] = backend.answers["verify"]  # OPTIONS; a url has another server
    urls = Backend({"": KEPT + b"Content-Type: from/url\r\nContent-Length: 9\r\n\r\nreproxied"})
    for name, answer in backend.answers.items():
        backend.answers[name] = answer.replace(b"{file}", str(file).encode()).replace(b"{url}", str(urls.port).encode())
    configuration = directory / f"{which}-{service}.conf"
    first = "xs enable headers" if which == "xs" else ""
    values = {
        "first": first,
        "backend": backend.port,
        "port": port,
        "more": SERVICES[service].format(directory=directory),
    }
    configuration.write_text(CONFIGURATION.format(**values))
    got: dict[str, tuple[bytes, bool]] = {}
    start = ours if which == "ours" else original
    with contextlib.closing(backend), contextlib.closing(urls), start(configuration, port):
        for last in (False, True):  # after a 100 the original hands the rest of an answer to somebody else
            chosen = {one.name: list(one.pieces) for one in exchanges if (one.answer == "continue") is last}
            got |= exchange_all(port, chosen)
    return {name: (data, ended, tuple(backend.seen.get(name, ()))) for name, (data, ended) in got.items()}


def rows(which: str) -> list[Difference]:
    return [row for row in DIFFERENCES if which == "xs" or not row.xs]


def difference(which: str, name: str, mine: Outcome) -> Difference | None:
    """The row of the table that allows for it."""
    for row in rows(which):
        if fnmatchcase(name, row.name) and mine[0].startswith(row.like):
            return row
    return None


def compare(which: str, service: str, directory: Path) -> tuple[int, dict[str, Difference], dict[str, object]]:
    """How many exchanges were alike; which of the others are in the table; and which are not.

    What is not is tried again: now and then the original loses a request whose connection ends at that moment.
    """
    exchanges, allowed, alike = list(cases()), dict[str, Difference](), 0
    for _ in range(3):
        theirs, mine = (outcomes(one, service, directory, exchanges) for one in (which, "ours"))
        strange = {}
        for name in theirs:
            if theirs[name] == mine[name]:
                alike += 1
            elif (row := difference(which, name, mine[name])) is not None:
                allowed[name] = row
            else:
                strange[name] = theirs[name], mine[name]
        exchanges = [one for one in exchanges if one.name in strange]
        if not exchanges:
            break
    return alike, allowed, strange


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("which", "service"),
    [
        ("original", "usual"),
        ("original", "trusted"),
        ("original", "uploads"),
        ("original", "verified"),
        ("xs", "usual"),
    ],
)
def test_only_what_is_in_the_table_differs(
    which: str, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERLBAL_DEBUG_BUFFERED_UPLOADS", "1")  # backends are told why
    alike, allowed, strange = compare(which, service, tmp_path)
    assert strange == {}
    assert alike + len(allowed) == len(list(cases()))
    if service == "usual":
        assert {row.name for row in rows(which)} == {row.name for row in allowed.values()}  # none allows for nothing


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for which in ("original", "xs"):
            for service in SERVICES:
                alike, allowed, strange = compare(which, service, Path(name))
                print(f"{which}, {service}: {alike} alike, {len(allowed)} in the table, {len(strange)} others", strange)
