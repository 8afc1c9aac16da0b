"""A proxy that ends TLS: it takes TLS connections, and passes what they say to plain TCP servers, and back.

    python examples/tunnel.py --port 8443 --certificate cert.pem --to 127.0.0.1:8080
    curl --cacert ca.pem https://localhost:8443/

The beginning is sequential, in a task: the certificate is chosen by the name that the client asks for (SNI), then the
server, by that name too, and the connection to it is made. From then on bytes go both ways, whenever they come: in
callback style, so that a tunnel that is silent holds no greenlet. A side that is slow slows the other one down, and the
end of each direction is passed on by itself.
"""

import re
import ssl
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from pathlib import Path
from weakref import WeakKeyDictionary

from dangagreen import Listener, Socket, SocketLike, connect, current_loop, serve, serve_forever
from output import complain, tell

CONNECT_SECONDS = 10.0  # what it may take to reach the server
QUIET_SECONDS = 0.5  # a tunnel that has been silent for so long may be ended by a graceful shutdown
PIECE = 65536
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

Address = tuple[str, int]


class Half(Socket):
    """One of the two connections of a tunnel; what it receives goes to the other."""

    __slots__ = ("ended", "heard", "other")

    def __init__(self, sock: SocketLike) -> None:
        super().__init__(sock)
        self.other: Half | None = None
        self.ended = False
        self.heard = current_loop().time()

    def event_read(self) -> None:
        data, other = self.read(PIECE), self.other
        if other is None:
            return
        self.heard = current_loop().time()
        if data is not None:
            other.write(data)
            return
        self.ended = True
        other.write_eof()
        if other.ended:  # both directions are: what is queued leaves, and then both close
            self.finish()
            other.finish()

    def on_high_water(self) -> None:
        """This peer is slow: read no more of what is for it."""
        if self.other is not None:
            self.other.watch_read(False)

    def on_low_water(self) -> None:
        if self.other is not None and not self.other.ended:
            self.other.watch_read(True)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way: nobody can know but by the silence."""
        quiet = current_loop().time() - QUIET_SECONDS
        return super().idle and self.heard < quiet and (self.other is None or self.other.heard < quiet)

    def close(self, reason: object = None) -> None:
        """The end of one is the end of both; the other one's peer still gets what has come before."""
        super().close(reason)
        other, self.other = self.other, None
        if other is not None:
            other.finish()


class Tunnel:
    """What all connections share: certificates and servers, by name."""

    def __init__(self, certificate: str, names: str | None, server: Address, routes: dict[str, Address]) -> None:
        self.server = server
        self.routes = routes
        self.folder = Path(names) if names is not None else None
        self.contexts: dict[str, ssl.SSLContext] = {}
        self.asked: WeakKeyDictionary[ssl.SSLObject, str] = WeakKeyDictionary()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.context.sni_callback = self.choose

    def choose(self, tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """The client has asked for this name. Runs in a task: a look-up elsewhere could wait here."""
        if name is None or not NAME.fullmatch(name):
            return
        self.asked[tls] = name
        if name not in self.contexts and self.folder is not None and (self.folder / f"{name}.pem").exists():
            self.contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.contexts[name].load_cert_chain(self.folder / f"{name}.pem")
        if name in self.contexts:
            tls.context = self.contexts[name]

    def begin(self, client: Half) -> None:
        """The handler: find the server, and let bytes pass."""
        name = self.asked.get(client.tls.ssl_object, "")
        address = self.routes.get(name, self.server)
        try:
            server = connect(address, CONNECT_SECONDS, socket_class=Half)
        except OSError as error:
            complain(f"tunnel: no connection for {client.peer_addr_string()}: {error}")
            return
        server.other, client.other = client, server
        server.watch_read(True)
        client.watch_read(True)

    def listen(self, address: Address) -> Listener:
        return serve(address, self.begin, socket_class=Half, tls=self.context)


def address_of(text: str) -> Address:
    """ "host:port", "[::1]:port"."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def route_of(text: str) -> tuple[str, Address]:
    """ "name=host:port"."""
    name, _, address = text.partition("=")
    return name.lower(), address_of(address)


def main() -> None:
    parser = ArgumentParser(description="A proxy that ends TLS.", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--port", type=int, default=8443, help="0 picks one")
    parser.add_argument("--certificate", required=True, help="a file with a certificate and its key")
    parser.add_argument("--names", help="a folder of such files, NAME.pem, each for clients that ask for that name")
    parser.add_argument("--to", type=address_of, required=True, metavar="HOST:PORT", help="the server")
    parser.add_argument(
        "--route",
        type=route_of,
        action="append",
        default=[],
        metavar="NAME=HOST:PORT",
        help="another server, for clients that ask for that name",
    )
    options = parser.parse_args()
    try:
        tunnel = Tunnel(options.certificate, options.names, options.to, dict(options.route))
        listener = tunnel.listen(("127.0.0.1", options.port))
    except (OSError, ValueError) as error:
        sys.exit(f"tunnel: {error}")
    tell("tunnel listens on {}:{}".format(*listener.address))
    serve_forever(listener)  # until Ctrl-C or SIGTERM
    tell("bye")


if __name__ == "__main__":
    main()
