"""A small Redis server: strings, expiry, transactions, publish and subscribe, RESP2 and RESP3, and a status page.

    python examples/miniredis.py --port 6380 --status-port 8080      and http://127.0.0.1:8080/ in a browser
    redis-cli -p 6380 set greeting hello ex 60
    redis-cli -p 6380 subscribe news      and elsewhere: redis-cli -p 6380 publish news 'it works'
    redis-benchmark -p 6380 -t ping,set,get -P 16 -q

Which style is where, and why:

- The dialogue of requests and replies is sequential (`talk`, and `read_request` in miniredis_protocol.py). A request is
  a line, then so many times a line and a block of bytes, and the code just says that. It runs in a greenlet that
  `serve_requests` lends it while there are requests; a client that is idle is one small object, and holds no greenlet.
- What a client is told unasked comes in callback style, whoever causes it (`tell` in miniredis_clients.py): subscribers
  are idle as a rule, and hold no greenlet either. A client that does not read is cut off when it is too far behind.
- No command stops the others for long. One that takes its time, such as KEYS, is a generator that yields between
  portions, and others have their turn in between (`in_portions`). A transaction, and a command about many keys, is
  atomic as long as it takes no more than five milliseconds. A long reply is sent as fast as its client reads it.
- Keys expire by the loop's timers (miniredis_keys.py).
- Ctrl-C and SIGTERM drain both servers (`serve_forever`): requests that have come are answered, then clients are told
  the end. Without such care, a client that has just sent INCR could not know whether it happened.
- The status page is in callback style (miniredis_status.py): one read, one write, and nothing in between that could be
  waited for.
"""

from __future__ import annotations

import gc
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from types import GeneratorType
from typing import Any, cast

import miniredis_clients
import miniredis_keys
from dangagreen import serve, serve_forever, serve_requests
from miniredis_clients import Client, monitors, queue, show, take_queue
from miniredis_glob import glob
from miniredis_keys import Command
from miniredis_protocol import MANY, NoArray, Refusal, Reply, Request, Work, in_portions, read_request
from miniredis_status import StatusPage, status
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


def execute(client: Client, request: Request) -> Reply:
    """Parks until the request is done, if that takes long; returns the reply."""
    status.commands += 1
    name = request[0].upper()
    entry = COMMANDS.get(name) or COMMANDS.get(b" ".join(request[:2]).upper())
    try:
        if entry is None or not entry[0] <= len(request) <= entry[1] or (client.topics and client.protocol == 2):
            check(client, name, entry, len(request))
        if client.queue is not None and name not in NEVER_QUEUED:
            return queue(client, request)
        return carry_out(client, entry, request)  # type: ignore[arg-type]  # `check` has raised if there is none
    except Refusal as refusal:
        return Refusal(*refusal.args)  # without its traceback, which holds the frames, and they the client


def check(client: Client, name: bytes, entry: Command | None, words: int) -> None:
    """Raises what is wrong with a request, be it only for a subscriber. It spoils a transaction."""
    if entry is None:
        problem = b"unknown command '%b'" % name[:128]
    elif not entry[0] <= words <= entry[1]:
        problem = b"wrong number of arguments for '%b' command" % name.lower()
    elif name not in FOR_SUBSCRIBERS:
        what = b"only (P)SUBSCRIBE / (P)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        problem = b"Can't execute '%b': %b" % (name.lower(), what)
    else:
        return
    client.spoilt = True
    if name == b"EXEC":
        client.leave_transaction()
        raise Refusal(b"EXECABORT Transaction discarded because of: " + problem)
    raise Refusal(b"ERR " + problem)


def carry_out(client: Client, entry: Command, request: Request) -> Reply:
    if monitors and client in monitors and request[0].upper() in miniredis_keys.COMMANDS:
        raise Refusal(b"ERR Replica can't interact with the keyspace")
    reply: Any = entry[2](client, *request[1:])
    if isinstance(reply, GeneratorType):
        reply = in_portions(reply)
    if monitors and request[0].upper() not in NOT_SHOWN:
        show(client, request)
    return cast(Reply, reply)


def execute_all(client: Client) -> Work[Reply]:
    requests = take_queue(client)
    if isinstance(requests, NoArray):
        return requests
    replies: list[Reply] = []
    for request in requests:
        try:
            entry = COMMANDS.get(request[0].upper()) or COMMANDS[b" ".join(request[:2]).upper()]
            replies.append(carry_out(client, entry, request))
        except Refusal as refusal:
            replies.append(Refusal(*refusal.args))
        yield
    return replies


def config_get(_client: Client, _get: bytes, *patterns: bytes) -> Work[Reply]:
    found: dict[bytes, Reply] = {}
    for pattern in patterns:
        for name, value in SETTINGS.items():
            if (yield from glob(pattern.lower()).matches(name)):
                found[pattern if pattern.lower() == name else name] = value
        yield
    return found


SETTINGS: dict[bytes, Reply] = {b"save": b"", b"appendonly": b"no"}
SUBSCRIBING = {b"SUBSCRIBE", b"PSUBSCRIBE", b"UNSUBSCRIBE", b"PUNSUBSCRIBE"}
FOR_SUBSCRIBERS = SUBSCRIBING | {b"PING", b"QUIT", b"RESET"}  # RESP2 cannot tell other replies from messages
NOT_SHOWN = {b"MONITOR", b"AUTH", b"HELLO"}
NEVER_QUEUED = {b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"QUIT", b"RESET"}
COMMANDS: dict[bytes, Command] = {
    **miniredis_keys.COMMANDS,
    **miniredis_clients.COMMANDS,
    b"EXEC": (1, 1, execute_all),
    b"CONFIG GET": (3, MANY, config_get),
    b"COMMAND": (1, MANY, lambda *_: []),
    b"INFO": (1, MANY, status.info),
}


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


if __name__ == "__main__":
    main()
