"""The program: the dialogue with a client, the two servers, and their end."""

from __future__ import annotations

import gc
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser

from dangagreen import serve, serve_forever, serve_requests
from miniredis.clients import Client
from miniredis.dispatch import execute
from miniredis.protocol import Refusal, read_request
from miniredis.status import StatusPage, status
from output import tell


def talk(client: Client) -> None:
    """Serves the next request. `serve_requests` calls it again for what has come with it, as long as that is fair."""
    try:
        request = read_request(client)
        if request:
            if request[0].lower() in (b"post", b"host:"):  # a browser, whose body somebody else has written
                return client.close("it speaks HTTP")
            client.answer(execute(client, request))
    except Refusal as refusal:
        client.answer(Refusal(*refusal.args))
        client.finish()
    return None


def main() -> None:
    parser = ArgumentParser(description="A small Redis server.", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--port", type=int, default=6380, help="0 picks one")
    parser.add_argument("--status-port", type=int, default=8080, help="0 picks one")
    options = parser.parse_args()
    try:
        redis = serve_requests(("127.0.0.1", options.port), talk, socket_class=Client)
        web = serve(("127.0.0.1", options.status_port), StatusPage)
    except (OSError, ValueError) as problem:
        sys.exit(f"miniredis: {problem}")
    tell("miniredis listens on {}:{}".format(*redis.address))
    tell("its status page is http://{}:{}/".format(*web.address))
    gc.disable()  # a collection looks at all that there is, a timer of each key too, and stops everybody meanwhile
    status.tick()
    cut_off = serve_forever(redis, web)  # until Ctrl-C or SIGTERM: the clients have their replies, and then the end
    tell("bye" + (f", and {len(cut_off)} clients were cut off" if cut_off else ""))
