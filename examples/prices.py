"""Prices over HTTP, by FastAPI, and over lines, by dangagreen: one program, one thread.

    pip install '.[gateway]'
    python examples/prices.py --port 8000 --line-port 7791
    curl http://127.0.0.1:8000/price/tea
    curl -X PUT -H 'Content-Type: application/json' -d 3.20 http://127.0.0.1:8000/price/tea
    nc 127.0.0.1 7791      and type: tea, or: tea 3.20, or: watch

uvicorn owns the event loop, be it asyncio's or uvloop's, and dangagreen is its guest (`guest`) for as long as the
application lives. Which style is where, and why:

- What HTTP asks for is a coroutine, as FastAPI has it.
- A client of the lines is in callback style while it is idle, and holds no greenlet; who watches is idle for long.
- A change of a price is sequential (`change`): it tells those who watch, and waits until they have been told, though
  not for long. A line calls it as a function, HTTP awaits it as a task (`to_task`).
- When uvicorn ends, the server of the lines is drained first: whatever has been asked is answered.
"""

from __future__ import annotations

import math
import signal
import socket
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Annotated, Literal

import uvicorn
from fastapi import Body, FastAPI, HTTPException

from dangagreen import LimitError, Socket, TaskGroup, move_on_after, serve_requests, timeout
from dangagreen.bridge import guest, to_task
from output import tell

SECONDS = 1.0  # for which a change waits for those who watch
LINE_SECONDS = 5.0  # for a line to come to its end
GRACE = 5.0

prices = {"tea": 3.5, "cake": 4.25}
watchers: set[Client] = set()


class Client(Socket):
    """One connection to the lines."""

    __slots__ = ()
    line_limit = 1000

    def close(self, reason: object = None) -> None:
        watchers.discard(self)
        super().close(reason)


def change(item: str, price: float) -> int:
    """Parks until those who watch have been told; how many of them were in time."""
    prices[item] = price
    line = f"{item} {price:.2f}\n".encode()
    with TaskGroup() as group:
        told = [group.spawn(inform, watcher, line) for watcher in watchers]
    return sum(task.result() for task in told)


def inform(watcher: Client, line: bytes) -> bool:
    """Parks until its connection has taken the line. False: it has gone, or reads too slowly."""
    try:
        with move_on_after(SECONDS):
            watcher.write_all(line)
            watcher.drain()
            return True
    except ConnectionError:
        pass
    return False


def talk(client: Client) -> None:
    """One line."""
    try:
        with timeout(LINE_SECONDS):
            words = client.read_line().decode(errors="replace").split()
    except (TimeoutError, LimitError):
        client.write(b"error: a line has %d bytes at most, and comes as a whole\n" % client.line_limit)
        client.finish()
        return
    match words:
        case []:
            return
        case ["watch"]:
            watchers.add(client)
            reply = "ok"
        case [item] if item in prices:
            reply = f"{prices[item]:.2f}"
        case [item, number] if (price := price_of(number)) is not None:
            reply = f"ok {change(item, price)}"
        case _:
            reply = "error: ITEM, ITEM PRICE, watch"
    client.write_all(f"{reply}\n".encode())


def price_of(number: str) -> float | None:
    try:
        price = float(number)
    except ValueError:
        return None
    return price if 0 < price < math.inf else None


def application(lines: socket.socket) -> FastAPI:
    """What uvicorn runs; `lines` is the listening socket of the other protocol."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with guest():
            listener = serve_requests(lines, talk, socket_class=Client)
            yield
            await to_task(listener.drain, GRACE)

    app = FastAPI(lifespan=lifespan)

    @app.get("/price/{item}")
    async def get_price(item: str) -> float:
        if item not in prices:
            raise HTTPException(404)
        return prices[item]

    @app.put("/price/{item}")
    async def put_price(item: str, price: Annotated[float, Body(gt=0, allow_inf_nan=False)]) -> int:
        """How many have been told."""
        return await to_task(change, item, price)

    return app


def main() -> None:
    parser = ArgumentParser(description="Prices over HTTP and lines.", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="of HTTP; 0 picks one")
    parser.add_argument("--line-port", type=int, default=7791, help="of the lines; 0 picks one")
    parser.add_argument("--loop", choices=["auto", "asyncio", "uvloop"], default="auto", help="whose event loop it is")
    options = parser.parse_args()
    with ExitStack() as stack:
        try:
            ports = options.port, options.line_port
            http, lines = (stack.enter_context(socket.create_server(("127.0.0.1", port))) for port in ports)
        except (OSError, OverflowError) as problem:
            sys.exit(f"prices: {problem}")
        serve(http, lines, options.loop)


def serve(http: socket.socket, lines: socket.socket, loop: Literal["auto", "asyncio", "uvloop"]) -> None:
    tell("prices are at http://{}:{}/".format(*http.getsockname()))
    tell("and lines at {}:{}".format(*lines.getsockname()))
    config = uvicorn.Config(application(lines), loop=loop, lifespan="on", log_level="warning")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises the signal again when it has ended
    try:
        uvicorn.Server(config).run([http])
    except KeyboardInterrupt:
        tell("bye")


if __name__ == "__main__":
    main()
