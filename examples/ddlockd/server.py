"""The program: its options, where it listens, where it keeps its locks, and its end."""

from __future__ import annotations

import argparse
import os
import resource
import socket
import sys
from pathlib import Path

from daemon import daemonize
from dangagreen import Address, Listener, serve, serve_forever
from ddlockd.client import Client
from ddlockd.commands import ASK_THE_STORE
from ddlockd.connection import Connection
from ddlockd.databases import DatabaseStore, find_dialect
from ddlockd.locks import Locks
from ddlockd.stored_locks import StoredLocks
from ddlockd.stores import FileStore, Store, StoreError
from ddlockd.tokens import Tokens
from output import complain, tell


def parse_options() -> argparse.Namespace:
    """The original's names; what is not known is told, and does no harm. Limits become attributes of Connection."""
    parser = argparse.ArgumentParser(description="A distributed lock daemon.", add_help=False)
    add = parser.add_argument
    add("--help", action="help")
    add("-p", "--port", type=int, default=7002, help="0 picks one")
    add("--bind", action="append", metavar="ADDRESS", help="may be repeated; 0.0.0.0 without it")
    add("--socket", metavar="PATH", help="a Unix socket instead")
    add("-d", "--daemon", action="store_true")
    add("-n", "--no-keepalive", action="store_false", dest="keep_alive")
    add("-t", "--type", default="internal", help="internal, dlmfs (files) or dbi (a database)")
    add("-h", "--hostname", metavar="DSN", help="dbi: sqlite:PATH, postgresql://…, mysql://… or a MySQL host")
    add("-T", "--table", default="ddlock", help="dbi")
    add("--directory", metavar="PATH", help="dlmfs")
    add("--token-file", metavar="PATH", help="internal: keeps how far the fencing tokens have come")
    add("--debug", type=int, default=0, metavar="N")
    add("--pidfile", metavar="PATH")
    add("--max-connections", type=int, default=Connection.max_connections, metavar="N")
    add("--max-line", type=int, default=Connection.line_limit, metavar="BYTES", dest="line_limit")
    add("--max-unsent", type=int, default=Connection.max_unsent, metavar="BYTES")
    add("--grace", type=float, default=5.0, metavar="SECONDS", help="for clients at SIGTERM")
    options, unknown = parser.parse_known_args()
    for option in unknown:
        complain(f"Unknown option: {option}")
    for name in ("keep_alive", "debug", "max_connections", "line_limit", "max_unsent"):
        setattr(Connection, name, getattr(options, name))
    return options


def allow_open_files() -> None:
    """As many as the system lets us; connections beyond these are to hear why they are refused."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        Connection.max_connections = min(Connection.max_connections, max(1, most - 100))


def find_store(options: argparse.Namespace, place: str) -> Store | None:
    """What the options ask for; None for the server's own memory."""
    server = f"{socket.gethostname()} {place}"
    match options.type:
        case "internal":
            return None
        case "dlmfs" if options.directory:
            return FileStore(Path(options.directory).absolute(), server)
        case "dbi" if options.hostname:
            return DatabaseStore(find_dialect(options.hostname), options.table, server)
        case "dlmfs":
            raise StoreError("--type dlmfs needs --directory=PATH")
        case "dbi":
            raise StoreError("--type dbi needs --hostname=DSN")
    raise StoreError(f"unknown type {options.type!r}: internal, dlmfs or dbi")


def start(options: argparse.Namespace) -> Listener:
    """Listen, and open the locks. Exits with the error's number, as the original does, or with 255."""
    addresses: list[Address] = [(host, options.port) for host in options.bind or ["0.0.0.0"]]
    if options.socket:
        addresses = [os.path.abspath(options.socket)]
    try:
        listener = serve(addresses, Client, backlog=16384)
    except (OSError, ValueError) as error:
        complain(f"Error creating socket: {error}")
        sys.exit(getattr(error, "errno", 1))
    place = str(listener.address) if options.socket else ", ".join("{}:{}".format(*one) for one in listener.addresses)
    try:
        store = find_store(options, place)
        locks = StoredLocks(store) if store is not None else Locks(Tokens(options.token_file))
        stale = locks.open()
        if options.pidfile:
            with open(options.pidfile, "w") as file:
                file.write(f"{os.getpid()}\n")
    except Exception as error:
        complain(f"ddlockd: {error}")
        sys.exit(255)
    Connection.locks = locks
    if locks.may_park:
        Client.dialogues |= ASK_THE_STORE
    if stale:
        tell(f"{stale} locks of connections that ended with this server's last run were freed")
    tell(f"ddlockd listens on {place}")
    return listener


def main() -> None:
    options = parse_options()
    allow_open_files()
    serving = daemonize() if options.daemon else None
    listener = start(options)
    if serving is not None:
        serving()
    serve_forever(listener, grace=options.grace)  # until SIGTERM or Ctrl-C
    Connection.locks.close()
    tell("bye")
