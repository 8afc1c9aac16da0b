"""ddlockd, the distributed lock daemon: a lock is a name, and is held by one connection for as long as that lasts.

    python examples/ddlockd.py --port 7002
    nc 127.0.0.1 7002      and type: trylock lock=mine

The clients of the original work unchanged: `trylock` and `releaselock` never wait, and the end of a connection, however
it comes, frees what it held. New are `lock`, which waits for its turn, leases (`ttl`), fencing tokens, and the queries
`holder` and `waiters`.

Which style is where, and why:

- Commands that never wait are in callback style (`Client.event_read`): all lines that came together are answered in
  one write, a connection holds no greenlet, and nothing comes between asking whether a lock is free and taking it.
- A command that may wait is a dialogue, in sequential style (`Client.converse`), on the same connection. `lock` waits
  for its turn, for its time to be up and for its client to go away, whichever comes first, and says so in one `select`.
  `locks` has a long answer, and waits for its client to read it. Lines that come meanwhile stay where they are, and are
  answered afterwards, back in callback style.
- Where the locks are kept in a database or in files, a thread asks there (`ddlockd_locks.py`, `ddlockd_stores.py`);
  every command that needs its answer is then one that may wait.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from ddlockd_locks import Counters, Lease, Locks, StoredLocks, Tokens
from ddlockd_stores import StoreError, find_keeper
from output import complain, tell

from dangagreen import (
    Event,
    LimitError,
    Listener,
    Socket,
    move_on_after,
    select,
    serve,
    serve_forever,
    sleep,
    spawn,
)

Arguments = dict[bytes, bytes]
Request = tuple[bytes, Arguments]

PLAIN = re.compile(rb"(trylock|releaselock) lock=([^%+&=\r]+)\r?")  # what nearly all lines look like
LINES_AT_ONCE = 2  # of one client that are answered before others have their turn
LINE = re.compile(rb"(\w+)\s*(.*)", re.DOTALL)
NOT_PLAIN = re.compile(rb"[^a-zA-Z0-9_,\-./\\: ]")
SECONDS = re.compile(rb"\d{1,9}(\.\d{0,9})?|\.\d{1,9}")
KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0)), 30),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30),
)

locks = Locks()
counters = Counters()


# -- the protocol


def words(text: bytes) -> bytes:
    """As the original encodes what it tells."""
    return NOT_PLAIN.sub(lambda found: b"%%%02X" % ord(found[0]), text).replace(b" ", b"+")


def ok(**told: object) -> bytes:
    return b"OK " + b"&".join(b"%s=%s" % (key.encode(), words(str(told[key]).encode())) for key in told) + b"\r\n"


def err(code: bytes, text: bytes = b"") -> bytes:
    return b"ERR %s %s\r\n" % (code, words(text))


OK, TAKEN, EMPTY, DIDNT_HAVE = ok(), err(b"taken"), err(b"empty_lock"), err(b"didnthave")


def decode(arguments: bytes) -> Arguments:
    """`name=value` pairs. A value ends at a second `=`; those of one name are joined as the original does it."""
    decoded: Arguments = {}
    for pair in arguments.split(b"&"):
        name, value = (unquote_to_bytes(part.replace(b"+", b" ")) for part in [*pair.split(b"=")[:2], b""][:2])
        before = decoded.get(name, b"")
        decoded[name] = before + value if before in (b"", b"0") else before + b"\0" + value
    return decoded


def parse(line: bytes) -> Request:
    plain = PLAIN.fullmatch(line)
    if plain is not None:
        return plain[1], {b"lock": plain[2]}
    found = LINE.match(line[:-1] if line.endswith(b"\r") else line)
    return (found[1].lower(), decode(found[2])) if found is not None else (b"", {})


def seconds(arguments: Arguments, name: bytes, least: float = 0.0) -> float | None:
    """Raises ValueError for what is no time, or too short."""
    text = arguments.get(name)
    if text is not None and (not SECONDS.fullmatch(text) or float(text) < least):
        raise ValueError(f"The {name.decode()} is no number of seconds")
    return None if text is None else float(text)


# -- a connection


class Client(Socket):
    """One connection: what it holds, and what it has sent that was not answered yet."""

    __slots__ = ("admitted", "held", "number", "rest", "waits")
    line_limit = 65536
    max_unsent = 1024 * 1024
    max_connections = 20_000
    keep_alive = True
    debug = 0
    open = count = 0

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        if self.keep_alive and sock.family != socket.AF_UNIX:
            for option in KEEP_ALIVE:
                sock.setsockopt(*option)
        self.held: dict[bytes, None] = {}
        self.rest = b""
        self.waits = False  # for a lock
        Client.count += 1
        self.number = Client.count
        if self.debug:
            tell(f"connection {self.number} from {self.peer()}")
        self.admitted = Client.open < self.max_connections
        if self.admitted:
            Client.open += 1
        else:
            self.refuse(b"too_many_connections", b"This server has enough connections")

    def event_read(self) -> None:
        data = self.read(4096)
        if data is None:
            return self.finish()
        lines = data.split(b"\n", LINES_AT_ONCE)
        if len(lines) > LINES_AT_ONCE:  # the others are for the next turn
            self.push_back_read(lines.pop())
            data = b"\n".join([*lines, b""])
        if (dialogue := self.answer_lines(data)) is not None:
            self.watch_read(False)
            spawn(self.converse, dialogue)
        return None

    def answer_lines(self, data: bytes = b"") -> Request | None:
        """Answer the complete lines, in one write. The first that may have to wait is returned instead, and ends it."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        dialogue, replies = None, []
        for number, line in enumerate(lines, 1):
            if len(line) > self.line_limit:
                self.rest = line
                break
            command, arguments = parse(line)
            if command in DIALOGUES:
                dialogue = command, arguments
                self.rest = b"\n".join([*lines[number:], self.rest])
                break
            replies.append(COMMANDS.get(command, Client.unknown)(self, arguments))
        if replies:
            self.write(b"".join(replies))
        if dialogue is None and len(self.rest) > self.line_limit:
            self.refuse(b"line_too_long", b"A line has at most %d bytes" % self.line_limit)
        return dialogue

    # -- sequential style

    def converse(self, request: Request | None) -> None:
        """Answer this one, and what is behind it up to the last that has come; then go on in callback style."""
        try:
            with self.busy():  # at the end of the server it is waited for
                while request is not None and not self.closed:
                    command, arguments = request
                    try:
                        reply = COMMANDS[command](self, arguments)
                    except StoreError as error:
                        reply = err(b"store_failed", str(error).encode())
                    for start in range(0, len(reply), 16384):  # no more at once than its client reads
                        self.write_all(reply[start : start + 16384])
                    request = self.answer_lines()  # right after write_all, which raises if the client has gone
                    sleep(0)  # others have their turn
            self.watch_read(True)
        except LimitError as error:
            self.refuse(b"line_too_long", str(error).encode())
        except (OSError, EOFError):  # it has gone
            self.finish()
        except BaseException as error:
            self.close(error)
            raise

    def lock(self, arguments: Arguments) -> bytes:
        """Parks until the lock is the caller's, its time is up, or the client goes."""
        name = arguments.get(b"lock")
        if not name:
            return EMPTY
        try:
            timeout, ttl = seconds(arguments, b"timeout"), seconds(arguments, b"ttl", least=0.001)
        except ValueError as error:
            return err(b"bad_argument", str(error).encode())
        if name in self.held:
            return TAKEN
        lease, turn = Lease(ttl), locks.join(name)
        try:
            if locks.take_in_turn(self, name, lease, turn) or self.wait_in_line(name, lease, turn, timeout):
                return ok(token=lease.token)
            return err(b"timeout", b"The lock was not free in time")
        finally:
            locks.leave(name, turn)

    def wait_in_line(self, name: bytes, lease: Lease, turn: Event, timeout: float | None) -> bool:
        """Parks until it has the lock. False when the time is up."""
        with move_on_after(timeout):
            while True:
                with move_on_after(locks.patience(name, turn)):
                    self.wait_for(turn)
                if locks.take_in_turn(self, name, lease, turn):
                    return True
        return False

    def wait_for(self, turn: Event) -> None:
        """Parks until it is worth trying. Meanwhile it reads ahead, so as to notice when the client has gone."""
        self.waits = True
        try:
            while select(turn, self) is self:
                data = self.read_some()
                if not data:
                    raise EOFError
                self.rest += data
                if len(self.rest) > self.line_limit:
                    raise LimitError("Too much was sent while it waited for a lock", self.line_limit)
        finally:
            self.waits = False

    # -- commands

    def trylock(self, arguments: Arguments) -> bytes:
        name = arguments.get(b"lock", b"")
        taken = name != b"" and locks.trylock(self, name)
        counters.count(taken)
        return OK if taken else TAKEN if name else EMPTY

    def releaselock(self, arguments: Arguments) -> bytes:
        name = arguments.get(b"lock", b"")
        return OK if locks.release(self, name) else DIDNT_HAVE if name else EMPTY

    def noop(self, _arguments: Arguments) -> bytes:
        locks.renew(self)
        return OK

    def holder(self, arguments: Arguments) -> bytes:
        return ok(**locks.holder(arguments.get(b"lock", b"")))

    def waiters(self, arguments: Arguments) -> bytes:
        return ok(waiters=locks.waiters(arguments.get(b"lock", b"")))

    def status(self, _arguments: Arguments) -> bytes:
        return counters.status()

    def load(self, _arguments: Arguments) -> bytes:
        return b"LOAD: %d\n\n" % counters.load()

    def list_locks(self, _arguments: Arguments) -> bytes:
        lines = [b"  %s = %s" % (name, who.encode()) for name, who in sorted(locks.everything())]
        return b"LOCKS:\n" + b"\n".join(lines) + b"\n"

    def unknown(self, _arguments: Arguments) -> bytes:
        return err(b"unknown_command", b"Unknown server command")

    # -- its name and its end

    def peer(self) -> str:
        """Not the path of a Unix socket, which may be anything."""
        return str(self.peer_addr_string()) if self.peer_ip_string() else "a Unix socket"

    def described(self) -> str:
        return f"DDLockd::Client::{locks.kind}(R): open to {self.peer()}"

    def has_unread(self) -> bool:
        """Has it sent anything that was not read, or not answered, yet?"""
        if self.buffered or b"\n" in self.rest:
            return True
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def refuse(self, code: bytes, text: bytes) -> None:
        """Say why, and end it."""
        self.write(err(code, text))
        self.finish()

    @property
    def idle(self) -> bool:
        """When the server is to end, it need not wait for those who wait for a lock, but finishes them, too."""
        return self.waits or super().idle

    def finish(self) -> None:
        if self.waits:
            self.write(err(b"shutting_down"))
        locks.release_all(self)
        super().finish()

    def close(self, reason: object = None) -> None:
        if not self.closed:
            Client.open -= self.admitted
            locks.release_all(self)
            if self.unsent > self.max_unsent:  # it cannot be told: it does not read
                complain(f"ddlockd: connection {self.number} from {self.peer()}: {reason}")
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
DIALOGUES = {b"lock", b"locks"}  # those that may wait


# -- the program


def parse_options() -> argparse.Namespace:
    """The original's names; what is not known is told, and does no harm. Limits become attributes of Client."""
    parser = argparse.ArgumentParser(description="A distributed lock daemon.", add_help=False)
    add = parser.add_argument
    add("--help", action="help")
    add("-p", "--port", type=int, default=7002, help="0 picks one")
    add("--bind", default="0.0.0.0", metavar="ADDRESS")
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
    add("--max-connections", type=int, default=Client.max_connections, metavar="N")
    add("--max-line", type=int, default=Client.line_limit, metavar="BYTES", dest="line_limit")
    add("--max-unsent", type=int, default=Client.max_unsent, metavar="BYTES")
    add("--grace", type=float, default=5.0, metavar="SECONDS", help="for clients at SIGTERM")
    options, unknown = parser.parse_known_args()
    for option in unknown:
        complain(f"Unknown option: {option}")
    for name in ("keep_alive", "debug", "max_connections", "line_limit", "max_unsent"):
        setattr(Client, name, getattr(options, name))
    return options


def allow_open_files() -> None:
    """As many as the system lets us; connections beyond these are to hear why they are refused."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        Client.max_connections = min(Client.max_connections, max(1, most - 100))


def daemonize() -> Callable[[], None]:
    """Go on in a child that belongs to no terminal. Where it was started one waits until the child serves, and calls
    the answer, or until it has failed, and ends with the same status."""
    serves, told = os.pipe()
    if child := os.fork():
        os.close(told)
        if os.read(serves, 1):
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.setsid()

    def serving() -> None:
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.write(told, b"!")
        os.close(told)

    return serving


def start(options: argparse.Namespace) -> Listener:
    """Listen, and open the locks. Exits with the error's number, as the original does, or with 255."""
    global locks
    address = os.path.abspath(options.socket) if options.socket else (options.bind, options.port)
    try:
        listener = serve(address, Client, backlog=16384)
    except (OSError, ValueError) as error:
        complain(f"Error creating socket: {error}")
        sys.exit(getattr(error, "errno", 1))
    place = str(listener.address if options.socket else "{}:{}".format(*listener.address))
    try:
        keeper = find_keeper(options, place)
        locks = StoredLocks(keeper) if keeper is not None else Locks(Tokens(options.token_file))
        stale = locks.open()
        if options.pidfile:
            with open(options.pidfile, "w") as file:
                file.write(f"{os.getpid()}\n")
    except Exception as error:
        complain(f"ddlockd: {error}")
        sys.exit(255)
    if locks.may_park:
        DIALOGUES.update({b"trylock", b"releaselock", b"holder"})
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
    locks.close()
    tell("bye")


if __name__ == "__main__":
    main()
