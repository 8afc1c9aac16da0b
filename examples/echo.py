"""An echo server, three times: in callback style, in sequential style, and as `serve_requests`.

    python examples/echo.py --style sequential --port 7777
    nc 127.0.0.1 7777

All three answer alike. `callback` never waits: the loop calls it when there is something. `sequential` has a greenlet
for each connection, and `read_some` looks as if it blocked. `requests` is sequential too, but borrows its greenlet
only while there is something to answer: an idle connection is as cheap as in callback style.
"""

import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser

from dangagreen import Listener, Socket, serve, serve_forever, serve_requests
from output import tell


class Echo(Socket):
    __slots__ = ()

    def event_read(self) -> None:
        data = self.read(4096)
        if data is None:
            self.finish()
        else:
            self.write(data)


def echo(sock: Socket) -> None:
    while data := sock.read_some(4096):
        sock.write_all(data)


def echo_once(sock: Socket) -> None:
    sock.write_all(sock.read_some(4096))


def listen(style: str, address: tuple[str, int]) -> Listener:
    match style:
        case "callback":
            return serve(address, Echo)
        case "sequential":
            return serve(address, echo)
        case _:
            return serve_requests(address, echo_once)


def main() -> None:
    parser = ArgumentParser(description="An echo server.", formatter_class=ArgumentDefaultsHelpFormatter)
    styles = ["callback", "sequential", "requests"]
    parser.add_argument("--style", choices=styles, default="sequential", help="how it is written; all answer alike")
    parser.add_argument("--port", type=int, default=7777, help="0 picks one")
    options = parser.parse_args()
    try:
        listener = listen(options.style, ("127.0.0.1", options.port))
    except (OSError, ValueError) as error:
        sys.exit(f"echo: {error}")
    tell("echo listens on {}:{}".format(*listener.address))
    serve_forever(listener)  # until Ctrl-C or SIGTERM
    tell("bye")


if __name__ == "__main__":
    main()
