"""A gateway: a line protocol in front of an HTTP server and a database, whose clients are written for asyncio.

    pip install '.[gateway]'
    python examples/gateway.py --upstream http://127.0.0.1:8000 --database postgresql://127.0.0.1/shop
    nc 127.0.0.1 7790      and type: stock tea, or: get /price/tea, or: offer tea, or: ping

Which style is where, and why:

- Clients are idle most of the time, and in callback style then: `serve_requests` lends one a greenlet while a line of
  its own is answered. Pings need none: `Client.event_read` answers them in callback style.
- What asks the HTTP server and the database is sequential. `await_` waits for httpx and asyncpg as for anything else:
  within `timeout`, at the same time in a `TaskGroup` (`offer`), and only so many at a time (`Upstreams.calls`). A query
  that takes too long is cancelled in the database, and its connection is back in the pool.
- The pools keep to the asyncio loop in which they were made. So the program is a coroutine (`gateway`), which opens and
  closes them, and awaits the task that serves. What asynchronous blocks and loops there are stay in coroutines.
- Who reads slowly holds neither a call nor a connection of a pool: its reply is written afterwards.
"""

from __future__ import annotations

import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from functools import partial
from urllib.parse import quote

import asyncpg
import httpx

from dangagreen import LimitError, Semaphore, Socket, SocketLike, TaskGroup, serve_forever, serve_requests, timeout
from dangagreen.bridge import await_, run, to_task
from output import tell

PING, PONG = b"ping\n", b"pong\n"
USAGE = b"error: ping, stock ITEM, get PATH, offer ITEM\n"
STOCK = "select amount from stock where item = $1"
MOST = 1024 * 1024  # bytes of an answer


class Refused(Exception):
    """What is not passed on."""


FAILURES = (
    OSError,  # TimeoutError is one
    httpx.HTTPError,
    httpx.InvalidURL,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that the database has just ended
    Refused,
)


class Upstreams:
    """The HTTP server and the database."""

    def __init__(self, http: httpx.AsyncClient, pool: asyncpg.Pool, calls: int) -> None:
        self.http = http
        self.pool = pool
        self.calls = Semaphore(calls)

    def get(self, path: str) -> tuple[int, bytes]:
        """Parks until the HTTP server has answered: the status and the body. Raises one of FAILURES."""
        if not path.startswith("/"):  # a whole URL would be asked for elsewhere
            raise Refused("a path begins with /")
        with self.calls:
            return await_(self.fetch(path))

    async def fetch(self, path: str) -> tuple[int, bytes]:
        async with self.http.stream("GET", path) as response:
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MOST:
                    raise Refused(f"the answer has more than {MOST} bytes")
            return response.status_code, bytes(body)

    def stock(self, item: str) -> int | None:
        """Parks until the database has answered: how many there are. Raises one of FAILURES."""
        with self.calls:
            amount: int | None = await_(self.pool.fetchval(STOCK, item))
        return amount


class Client(Socket):
    """One connection."""

    __slots__ = ("seconds", "upstreams")
    line_limit = 1000
    idle_timeout = 300.0

    def __init__(self, upstreams: Upstreams, seconds: float, sock: SocketLike) -> None:
        super().__init__(sock)
        self.upstreams = upstreams
        self.seconds = seconds

    def event_read(self) -> None:
        """Answer pings at once, and have `answer` called for whatever else there is."""
        data = self.read(4096)
        if data is None:
            self.finish()
        elif data == PING * (pings := len(data) // len(PING)):
            self.write(PONG * pings)
        else:
            self.push_back_read(data)
            super().event_read()


def answer(client: Client) -> None:
    """One line, in sequential style."""
    try:
        with timeout(client.seconds):
            line = client.read_line()
    except (TimeoutError, LimitError):
        client.write(b"error: a line has %d bytes at most, and comes as a whole\n" % client.line_limit)
        client.finish()
        return
    try:
        with timeout(client.seconds):
            reply = reply_to(line.decode(errors="replace").split(), client.upstreams)
    except* FAILURES as problems:  # of a group as well
        reply = b"error: %b\n" % ", ".join(sorted(set(map(described, leaves(problems))))).encode()
    client.write_all(reply)


def reply_to(words: list[str], upstreams: Upstreams) -> bytes:
    match words:
        case []:
            return b""
        case ["ping"]:
            return PONG
        case ["stock", item]:
            amount = upstreams.stock(item)
            return b"unknown\n" if amount is None else b"ok %d\n" % amount
        case ["get", path]:
            status, body = upstreams.get(path)
            return b"ok %d %d\n" % (status, len(body)) + body
        case ["offer", item]:
            return offer(item, upstreams)
    return USAGE


def offer(item: str, upstreams: Upstreams) -> bytes:
    """Both are asked at the same time; where one of them fails, the other is not waited for."""
    with TaskGroup() as group:
        asked = group.spawn(upstreams.get, f"/price/{quote(item, safe='')}")
        counted = group.spawn(upstreams.stock, item)
    status, price = asked.result()
    amount = counted.result()
    return b"unknown\n" if status != 200 or amount is None else b"ok %b %d\n" % (price.strip(), amount)


def leaves(problems: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """What is in a group, and in the groups in it."""
    found = []
    for problem in problems.exceptions:
        found += leaves(problem) if isinstance(problem, BaseExceptionGroup) else [problem]
    return found


def described(problem: BaseException) -> str:
    return str(problem) if isinstance(problem, Refused) else type(problem).__name__


async def gateway(options: Namespace) -> None:
    """The pools last for as long as the lines are served, which a task does."""
    database = asyncpg.create_pool(options.database, min_size=1, max_size=options.connections, timeout=10)
    limits = httpx.Limits(max_connections=options.connections)
    async with database as pool, httpx.AsyncClient(base_url=options.upstream, limits=limits, timeout=None) as http:
        await to_task(serve_lines, options, Upstreams(http, pool, options.calls))


def serve_lines(options: Namespace, upstreams: Upstreams) -> None:
    make = partial(Client, upstreams, options.seconds)
    listener = serve_requests(("127.0.0.1", options.port), answer, socket_class=make)
    tell("gateway listens on {}:{}".format(*listener.address))
    serve_forever(listener, grace=5)  # until Ctrl-C or SIGTERM


def main() -> None:
    parser = ArgumentParser(description="Lines over HTTP and SQL.", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--port", type=int, default=7790, help="0 picks one")
    parser.add_argument("--upstream", default="http://127.0.0.1:8000", help="the HTTP server")
    parser.add_argument("--database", default="postgresql://127.0.0.1/shop", help="the PostgreSQL database")
    parser.add_argument("--calls", type=int, default=20, help="calls to both at a time; others wait")
    parser.add_argument("--connections", type=int, default=10, help="to each of them at most")
    parser.add_argument("--seconds", type=float, default=5.0, help="for all that one line takes")
    options = parser.parse_args()
    try:
        run(gateway(options))
    except (*FAILURES, ValueError) as problem:
        sys.exit(f"gateway: {problem or type(problem).__name__}")
    tell("bye")


if __name__ == "__main__":
    main()
