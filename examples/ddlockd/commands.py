"""What a client of ddlockd may ask for: a function for each command, which returns the reply.

Most never park. `lock` waits for its turn, for its time to be up and for its client to go away, whichever comes first,
and says so in one `select`. Those that park are named in DIALOGUES, since they are called in a task (`client`).
"""

from __future__ import annotations

from collections.abc import Callable

from dangagreen import Event, LimitError, move_on_after, select
from ddlockd.connection import Connection
from ddlockd.locks import Lease
from ddlockd.protocol import DIDNT_HAVE, EMPTY, OK, TAKEN, Arguments, err, ok, seconds


def trylock(client: Connection, arguments: Arguments) -> bytes:
    name = arguments.get(b"lock", b"")
    taken = name != b"" and client.locks.trylock(client, name)
    client.counters.count(taken)
    return OK if taken else TAKEN if name else EMPTY


def releaselock(client: Connection, arguments: Arguments) -> bytes:
    name = arguments.get(b"lock", b"")
    return OK if client.locks.release(client, name) else DIDNT_HAVE if name else EMPTY


def noop(client: Connection, _arguments: Arguments) -> bytes:
    client.locks.renew(client)
    return OK


def holder(client: Connection, arguments: Arguments) -> bytes:
    return ok(**client.locks.holder(arguments.get(b"lock", b"")))


def waiters(client: Connection, arguments: Arguments) -> bytes:
    return ok(waiters=client.locks.waiters(arguments.get(b"lock", b"")))


def status(client: Connection, _arguments: Arguments) -> bytes:
    return client.counters.status()


def load(client: Connection, _arguments: Arguments) -> bytes:
    return b"LOAD: %d\n\n" % client.counters.load()


def list_locks(client: Connection, _arguments: Arguments) -> bytes:
    lines = [b"  %s = %s" % (name, who.encode()) for name, who in sorted(client.locks.everything())]
    return b"LOCKS:\n" + b"\n".join(lines) + b"\n"


def unknown(_client: Connection, _arguments: Arguments) -> bytes:
    return err(b"unknown_command", b"Unknown server command")


def lock(client: Connection, arguments: Arguments) -> bytes:
    """Parks until the lock is the caller's, its time is up, or the client goes."""
    name = arguments.get(b"lock")
    if not name:
        return EMPTY
    try:
        timeout, ttl = seconds(arguments, b"timeout"), seconds(arguments, b"ttl", least=0.001)
    except ValueError as error:
        return err(b"bad_argument", str(error).encode())
    if name in client.held:
        return TAKEN
    lease, turn = Lease(ttl), client.locks.join(name)
    try:
        if client.locks.take_in_turn(client, name, lease, turn) or wait_in_queue(client, name, lease, turn, timeout):
            return ok(token=lease.token)
        return err(b"timeout", b"The lock was not free in time")
    finally:
        client.locks.leave(name, turn)


def wait_in_queue(client: Connection, name: bytes, lease: Lease, turn: Event, timeout: float | None) -> bool:
    """Parks until it has the lock. False when the time is up."""
    with move_on_after(timeout):
        while True:
            with move_on_after(client.locks.patience(name, turn)):
                wait_for(client, turn)
            if client.locks.take_in_turn(client, name, lease, turn):
                return True
    return False


def wait_for(client: Connection, turn: Event) -> None:
    """Parks until it is worth trying. Meanwhile it reads ahead, so as to notice when the client has gone."""
    client.waits = True
    try:
        while select(turn, client) is client:
            data = client.read_some()
            if not data:
                raise EOFError
            client.rest += data
            if len(client.rest) > client.line_limit:
                raise LimitError("Too much was sent while it waited for a lock", client.line_limit)
    finally:
        client.waits = False


COMMANDS: dict[bytes, Callable[[Connection, Arguments], bytes]] = {
    b"trylock": trylock,
    b"releaselock": releaselock,
    b"noop": noop,
    b"status": status,
    b"load": load,
    b"locks": list_locks,
    b"lock": lock,
    b"holder": holder,
    b"waiters": waiters,
}
DIALOGUES = frozenset({b"lock", b"locks"})  # those that may park: the first waits, the second has a long answer
ASK_THE_STORE = frozenset({b"trylock", b"releaselock", b"holder"})  # those that park as well where there is a store
