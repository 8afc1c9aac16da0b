"""ddlockd, the distributed lock daemon: a lock is a name, and is held by one connection for as long as that lasts.

    python examples/ddlockd.py --port 7002
    nc 127.0.0.1 7002      and type: trylock lock=mine

The clients of the original work unchanged: `trylock` and `releaselock` never wait, and the end of a connection, however
it comes, frees what it held. New are `lock`, which waits for its turn, leases (`ttl`), fencing tokens, and the queries
`holder` and `waiters`.

Which style is where, and why:

- Commands that never wait are in callback style (`Client.event_read`): all lines that came together are answered in
  one write, a connection holds no greenlet, and nothing comes between asking whether a lock is free and taking it.
- A command that may wait is a dialogue, in sequential style (`Client.converse`), on the same connection: `lock` waits
  for its turn, for its time to be up and for its client to go away, whichever comes first, and says so in one `select`.
  Lines that come meanwhile stay where they are, and are answered afterwards, back in callback style.
- Where the locks are kept in a database or in files (`ddlockd_stores.py`), a thread does that; every command that asks
  the store is then one that may wait.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

from ddlockd_stores import Store, StoreError, open_store

from dangagreen import (
    Event,
    LimitError,
    Listener,
    Scope,
    Socket,
    Timer,
    current_loop,
    move_on_after,
    select,
    serve,
    serve_forever,
    spawn,
)

Arguments = dict[bytes, bytes]

PLAIN = re.compile(rb"(trylock|releaselock) lock=([^%+&=\r]+)\r?")  # what nearly all lines look like
LINE = re.compile(rb"(\w+)\s*(.*)", re.DOTALL)
NOT_PLAIN = re.compile(rb"[^a-zA-Z0-9_,\-./\\: ]")
POLL_SECONDS = 0.25  # how often a lock that another server holds is tried again
OK = b"OK \r\n"


# -- the locks


class Lease:
    """What `lock` has granted, beyond the lock itself."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.seconds: float | None = None
        self.timer: Timer | None = None


class Locks:
    """Who holds what on this server, and who waits for it. What has to outlive the server is in the store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.holders: dict[bytes, Client] = {}
        self.leases: dict[bytes, Lease] = {}
        self.lines: dict[bytes, deque[Event]] = {}  # those who wait, first come, first served

    def trylock(self, client: Client, name: bytes) -> bool:
        """Take it, if nobody has it and nobody waits for it."""
        if name in self.holders or name in self.lines:
            return False
        return self.take(client, name, None)

    def take(self, client: Client, name: bytes, lease: Lease | None) -> bool:
        if name in self.holders:
            return False
        if not self.store.direct:
            token = self.store.take(name, client.number, client.described(), lease is not None)
            if token is None or client.closed:  # what a closed connection had is given back by its `close`
                return False
            if lease is not None:
                lease.token = token
        elif lease is not None:
            lease.token = self.store.next_token()
        self.holders[name] = client
        client.held[name] = None
        if lease is not None:
            self.leases[name] = lease
        return True

    def release(self, client: Client, name: bytes) -> bool:
        if self.holders.get(name) is not client:
            return False
        if not self.store.direct:
            released = self.store.release(name, client.number)
            if not released or self.holders.get(name) is not client:  # meanwhile its time was up, or its connection
                return released
        self.forget(client, name)
        self.call_next(name)
        return True

    def forget(self, client: Client, name: bytes) -> None:
        del self.holders[name], client.held[name]
        if self.leases and (lease := self.leases.pop(name, None)) is not None and lease.timer is not None:
            lease.timer.cancel()

    def release_all(self, client: Client) -> None:
        """The connection has ended. It never waits: a store in a thread is told, and does it in its turn."""
        names = list(client.held)
        for name in names:
            self.forget(client, name)
        if self.store.direct:
            self.call_next(*names)
        else:
            self.store.forget(client.number, partial(self.call_next, *names))

    def call_next(self, *names: bytes) -> None:
        """Whoever is first in the line for one of these may try now."""
        for name in names:
            if name in self.lines:
                self.lines[name][0].set()

    def renew(self, client: Client, name: bytes) -> None:
        lease = self.leases.get(name)
        if lease is not None and lease.seconds is not None:
            if lease.timer is not None:
                lease.timer.cancel()
            lease.timer = current_loop().add_timer(lease.seconds, partial(self.expire, client, name))

    def expire(self, client: Client, name: bytes) -> None:
        if self.store.direct:
            self.release(client, name)
        else:
            spawn(self.release, client, name)


locks: Locks


# -- the protocol


def words(text: bytes) -> bytes:
    """As the original encodes what it tells."""
    return NOT_PLAIN.sub(lambda found: b"%%%02X" % ord(found[0]), text).replace(b" ", b"+")


def ok(**told: object) -> bytes:
    return b"OK " + b"&".join(b"%s=%s" % (key.encode(), words(str(told[key]).encode())) for key in told) + b"\r\n"


def err(code: bytes, text: bytes = b"") -> bytes:
    return b"ERR %s %s\r\n" % (code, words(text))


def decode(arguments: bytes) -> Arguments:
    """`name=value` pairs. A value ends at a second `=`; those of one name are joined as the original does it."""
    decoded: Arguments = {}
    for pair in arguments.split(b"&"):
        name, value = (unquote_to_bytes(part.replace(b"+", b" ")) for part in [*pair.split(b"=")[:2], b""][:2])
        before = decoded.get(name, b"")
        decoded[name] = before + value if before in (b"", b"0") else before + b"\0" + value
    return decoded


def parse(line: bytes) -> tuple[bytes, Arguments]:
    found = LINE.match(line[:-1] if line.endswith(b"\r") else line)
    return (found[1].lower(), decode(found[2])) if found else (b"", {})


def seconds(arguments: Arguments, name: bytes) -> float | None:
    """Raises ValueError, with the name, for what is no time."""
    if name not in arguments:
        return None
    if not re.fullmatch(rb"\d{1,9}(\.\d{0,9})?|\.\d{1,9}", arguments[name]):
        raise ValueError(name)
    return float(arguments[name])


class Client(Socket):
    """One connection: what it holds, and what it has sent that was not answered yet."""

    __slots__ = ("held", "number", "rest", "scope")
    line_limit = 65536
    max_unsent = 1024 * 1024
    most = 20_000  # connections
    open = count = 0
    keep_alive = True
    debug = 0

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        Client.open += 1
        Client.count += 1
        self.number = Client.count
        self.held: dict[bytes, None] = {}
        self.rest = b""
        self.scope: Scope | None = None  # while it waits for a lock
        if self.debug:
            print(f"connection {self.number} from {self.peer_addr_string()}", flush=True)
        if self.keep_alive and sock.family != socket.AF_UNIX:
            for level, option, value in KEEP_ALIVE:
                sock.setsockopt(level, option, value)
        if Client.open > self.most:
            self.write(err(b"too_many_connections", b"This server has enough connections"))
            self.finish()

    def event_read(self) -> None:
        data = self.read(65536)
        if data is None:
            return self.finish()
        self.rest += data
        line = self.answer_lines()
        if line is not None:
            self.watch_read(False)
            spawn(self.converse, line)
        return None

    def answer_lines(self) -> bytes | None:
        """Answer the complete lines, in one write. The first that may have to wait is returned instead, and ends it."""
        *lines, self.rest = self.rest.split(b"\n")
        waits, replies = None, []
        for number, line in enumerate(lines, 1):
            if len(line) > self.line_limit:
                self.rest = line
                break
            reply = self.answer(line)
            if reply is None:
                waits, self.rest = line, b"\n".join([*lines[number:], self.rest])
                break
            replies.append(reply)
        if replies:
            self.write(b"".join(replies))
        if waits is None and len(self.rest) > self.line_limit:
            self.write(err(b"line_too_long", b"A line has at most %d bytes" % self.line_limit))
            self.finish()
        return waits

    def answer(self, line: bytes) -> bytes | None:
        """The reply to a line; None if there is none without waiting."""
        plain = PLAIN.fullmatch(line)
        if plain is not None and locks.store.direct:
            return (self.trylock if plain[1] == b"trylock" else self.releaselock)({b"lock": plain[2]})
        command, arguments = parse(line)
        if command == b"lock" or (command in STORED and not locks.store.direct):
            return None
        return COMMANDS.get(command, Client.unknown)(self, arguments)

    # -- sequential style

    def converse(self, line: bytes | None) -> None:
        """Answer this line, and those behind it up to the last that has come; then go on in callback style."""
        try:
            while line is not None and not self.closed:
                command, arguments = parse(line)
                try:
                    reply = COMMANDS[command](self, arguments)
                except StoreError as error:
                    reply = err(b"store_failed", str(error).encode())
                self.write_all(reply)
                line = self.answer_lines()
            self.watch_read(True)
        except (OSError, EOFError, LimitError) as error:  # it has gone, or does not read
            self.close(error)

    def lock(self, arguments: Arguments) -> bytes:
        """Parks until the lock is the caller's, its time is up, or the client goes."""
        name = arguments.get(b"lock")
        if not name:
            return err(b"empty_lock")
        try:
            timeout, ttl = seconds(arguments, b"timeout"), seconds(arguments, b"ttl")
        except ValueError as error:
            return err(b"bad_argument", b"The " + error.args[0] + b" is no number of seconds")
        if ttl == 0:
            return err(b"bad_argument", b"The ttl is no number of seconds")
        if name in self.held:
            return err(b"taken")
        lease = Lease(0)
        if name not in locks.lines and locks.take(self, name, lease):
            pass
        elif timeout == 0 or not self.wait_turn(name, lease, timeout):
            draining = isinstance(self._owner, Listener) and self._owner.draining
            return err(b"shutting_down") if draining else err(b"timeout", b"The lock was not free in time")
        lease.seconds = ttl
        locks.renew(self, name)
        return ok(token=lease.token)

    def wait_turn(self, name: bytes, lease: Lease, timeout: float | None) -> bool:
        """Parks until it has the lock. False when the time is up."""
        turn, line = Event(), locks.lines.setdefault(name, deque())
        line.append(turn)
        line[0].set()
        try:
            with move_on_after(timeout) as self.scope:
                while not locks.take(self, name, lease):
                    turn.clear()
                    self.wait_for(turn)
                return True
            return False
        finally:
            self.scope = None
            line.remove(turn)
            if line:
                line[0].set()
            else:
                del locks.lines[name]

    def wait_for(self, turn: Event) -> None:
        """Parks until it is worth trying. Meanwhile it reads ahead, so as to notice when the client has gone."""
        retry = current_loop().add_timer(POLL_SECONDS, lambda: None) if not locks.store.direct else None
        sources: list[Any] = [turn, self] if retry is None else [turn, self, retry]
        try:
            while select(*sources) is self:
                data = self.read_some()
                if not data:
                    raise EOFError
                self.rest += data
                if len(self.rest) > self.line_limit:
                    raise EOFError("too many lines while it waits")
        finally:
            if retry is not None:
                retry.cancel()

    # -- commands

    def trylock(self, arguments: Arguments) -> bytes:
        name = arguments.get(b"lock")
        taken = bool(name) and locks.trylock(self, name)  # type: ignore[arg-type]
        counters.count(taken)
        return OK if taken else err(b"taken") if name else err(b"empty_lock")

    def releaselock(self, arguments: Arguments) -> bytes:
        name = arguments.get(b"lock")
        if not name:
            return err(b"empty_lock")
        return OK if locks.release(self, name) else err(b"didnthave")

    def noop(self, _arguments: Arguments) -> bytes:
        if locks.leases:
            for name in self.held:
                locks.renew(self, name)
        return OK

    def holder(self, arguments: Arguments) -> bytes:
        name = arguments.get(b"lock", b"")
        holder, lease = locks.holders.get(name), locks.leases.get(name)
        if holder is None:
            found = None if locks.store.direct else locks.store.holder(name)
            return ok() if found is None else ok(holder=found[0], **({"token": found[1]} if found[1] else {}))
        told: dict[str, object] = {"holder": holder.described()}
        if lease is not None:
            told["token"] = lease.token
        if lease is not None and lease.timer is not None:
            told["ttl"] = f"{max(0.0, lease.timer.deadline - self.loop.time()):.3f}"
        return ok(**told)

    def waiters(self, arguments: Arguments) -> bytes:
        return ok(waiters=len(locks.lines.get(arguments.get(b"lock", b""), ())))

    def status(self, _arguments: Arguments) -> bytes:
        return counters.status()

    def load(self, _arguments: Arguments) -> bytes:
        return b"LOAD: %d\n\n" % counters.load()

    def list_locks(self, _arguments: Arguments) -> bytes:
        if locks.store.direct:
            held = [(name, client.described()) for name, client in locks.holders.items()]
        else:
            held = locks.store.everything()
        return b"LOCKS:\n" + b"\n".join(b"  %s = %s" % (name, who.encode()) for name, who in sorted(held)) + b"\n"

    def unknown(self, _arguments: Arguments) -> bytes:
        return err(b"unknown_command", b"Unknown server command")

    # -- its end

    def described(self) -> str:
        return f"DDLockd::Client::{locks.store.name}(R): open to {self.peer_addr_string() or 'a Unix socket'}"

    @property
    def idle(self) -> bool:
        """Asked while the server drains, at the end of each turn: then nobody waits for a lock any more."""
        if self.scope is not None:
            self.scope.cancel("the server ends")
        return super().idle

    def finish(self) -> None:
        locks.release_all(self)
        super().finish()

    def close(self, reason: object = None) -> None:
        if not self.closed:
            Client.open -= 1
            locks.release_all(self)
        super().close(reason)


COMMANDS: dict[bytes, Callable[[Client, Arguments], bytes]] = {
    b"trylock": Client.trylock,
    b"releaselock": Client.releaselock,
    b"noop": Client.noop,
    b"status": Client.status,
    b"load": Client.load,
    b"locks": Client.list_locks,
    b"lock": Client.lock,
    b"holder": Client.holder,
    b"waiters": Client.waiters,
}
STORED = {b"trylock", b"releaselock", b"locks", b"holder"}  # commands that ask the store
KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30),
]


class Counters:
    """What `status` and `load` tell."""

    def __init__(self) -> None:
        self.started = time.time()
        self.successes = self.failures = 0
        self.buckets: dict[int, int] = {}  # trylocks in each 3 seconds

    def count(self, taken: bool) -> None:
        if taken:
            self.successes += 1
        else:
            self.failures += 1
        now = int(time.time()) // 3
        self.buckets[now] = self.buckets.get(now, 0) + 1
        if len(self.buckets) > 200:
            self.buckets = {then: self.buckets[then] for then in range(now - 99, now + 1) if then in self.buckets}

    def load(self) -> int:
        now = int(time.time()) // 3
        return sum(self.buckets.get(then, 0) for then in range(now - 99, now + 1))

    def status(self) -> bytes:
        told = (self.successes, self.failures, time.time() - self.started, self.load())
        return b"STATUS: OK\nSUCCESSES: %d\nFAILURES: %d\nRUNTIME: %d\nLOAD: %d\n\n" % told


counters = Counters()


# -- the program


def parse_options() -> argparse.Namespace:
    """The original's names; what is not known is told, and does no harm."""
    parser = argparse.ArgumentParser(description="A distributed lock daemon.", add_help=False)
    parser.add_argument("--help", action="help")
    parser.add_argument("-p", "--port", type=int, default=7002, help="0 picks one")
    parser.add_argument("--bind", default="0.0.0.0", metavar="ADDRESS")
    parser.add_argument("--socket", metavar="PATH", help="a Unix socket instead")
    parser.add_argument("-d", "--daemon", action="store_true")
    parser.add_argument("-n", "--no-keepalive", action="store_true")
    parser.add_argument("-t", "--type", default="internal", help="internal, dlmfs (files) or dbi (a database)")
    parser.add_argument("-h", "--hostname", metavar="DSN", help="dbi: sqlite:PATH, postgresql://…, mysql://… or a host")
    parser.add_argument("-T", "--table", default="ddlock", help="dbi")
    parser.add_argument("--directory", metavar="PATH", help="dlmfs")
    parser.add_argument("--debug", type=int, default=0, metavar="N")
    parser.add_argument("--pidfile", metavar="PATH")
    parser.add_argument("--max-connections", type=int, default=Client.most, metavar="N")
    parser.add_argument("--max-line", type=int, default=Client.line_limit, metavar="BYTES")
    parser.add_argument("--max-unsent", type=int, default=Client.max_unsent, metavar="BYTES")
    parser.add_argument("--grace", type=float, default=5.0, metavar="SECONDS", help="for clients at SIGTERM")
    options, unknown = parser.parse_known_args()
    for option in unknown:
        print(f"Unknown option: {option}", file=sys.stderr)
    return options


def daemonize() -> Callable[[int], None]:
    """Go on in a child that belongs to no terminal. The parent waits for what the child tells it by a call of the
    answer, the exit status: 0 once it serves. So a failure is seen where it was started."""
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        status = os.read(ready, 1)
        os._exit(status[0] if status else 1)
    os.close(ready)
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    os.umask(0)

    def tell(status: int) -> None:
        if status == 0:
            os.chdir("/")
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(nothing, number)
            os.close(nothing)
        os.write(told, bytes([status]))
        os.close(told)

    return tell


def start(options: argparse.Namespace) -> Listener:
    """Listen, and open the store. Exits with the error's number, as the original does, or with 255."""
    global locks
    address = os.path.abspath(options.socket) if options.socket else (options.bind, options.port)
    try:
        listener = serve(address, Client, backlog=16384)
    except OSError as problem:
        print(f"Error creating socket: {problem}", file=sys.stderr)
        sys.exit(problem.errno or 1)
    place = listener.address if options.socket else "{}:{}".format(*listener.address)
    try:
        store, stale = open_store(options, str(place))
    except StoreError as problem:
        print(f"ddlockd: {problem}", file=sys.stderr)
        sys.exit(255)
    locks = Locks(store)
    if options.pidfile:
        with open(options.pidfile, "w") as file:
            file.write(f"{os.getpid()}\n")
    if stale:
        print(f"{stale} locks of connections that ended with this server's last run were freed", flush=True)
    print(f"ddlockd listens on {place}", flush=True)
    return listener


def set_limits(options: argparse.Namespace) -> None:
    Client.keep_alive, Client.debug, Client.most = not options.no_keepalive, options.debug, options.max_connections
    Client.line_limit, Client.max_unsent = options.max_line, options.max_unsent
    Client.high_water = min(Client.high_water, options.max_unsent)
    Client.low_water = min(Client.low_water, options.max_unsent)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))


def main() -> None:
    options = parse_options()
    set_limits(options)
    tell = daemonize() if options.daemon else lambda status: None
    try:
        listener = start(options)
    except SystemExit as failure:
        tell(failure.code if isinstance(failure.code, int) else 1)
        raise
    tell(0)
    serve_forever(listener, grace=options.grace)  # until SIGTERM or Ctrl-C
    locks.store.close()
    print("bye", flush=True)


if __name__ == "__main__":
    main()
