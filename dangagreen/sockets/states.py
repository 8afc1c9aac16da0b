"""How a connection comes to its end: the states of an object and of its two directions, and what leads from one to the
next, as data.

Rules: a value that more than one module knows stands here, and nowhere else by number; a state is read off the slots,
and has none of its own; the reading side only goes forward; whatever is not in these tables does not happen, which
random programs assert (`tests/soak/ends.py`), and all that is in them does. Nothing here is looked at while a program
runs, but for the constants. What does not belong here: code that acts on states.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from dangagreen.loop.pollers import ERR, HUP

# `_write_closed`: 0, or one of MUTE, OBSERVED and OBSERVED | OWES
MUTE = 1  # what is written goes nowhere: it was closed or finished, has sent its FIN, or its peer takes no more
OBSERVED = 2  # a drain is on, and wants to know who has answered
OWES = 4  # it has received something since, and not answered yet

# `_eof`: 0, or
EOF_MET = 1  # the peer's stream has ended, in order or, where `_read_error` says so, by a reset; nobody was told
EOF_TOLD = 2  # and read() has answered None

# `_sending`: who sends the queue
IDLE = 0  # nobody: there is none, or it is sent when the task parks or the turn ends
BLOCKED = 1  # the kernel took no more, and a WRITE event will tell when it does
FLUSHING = 2  # it is being sent right now, further up the stack
HELD = 3  # nobody, until a TLS handshake is over, or a thread has read the next piece of a file

# `_hangup_state`: bits, of what was told to whom
ERR_TOLD = ERR  # event_err was called
HUP_TOLD = HUP  # event_hup was called, before read() had answered None
HUP_TOLD_AT_END = 32  # event_hup was called after that
BY_PEER = 64  # it was closed because the peer had ended: who reads later finds that end


class State(NamedTuple):
    """`where` says how it is read off the slots of a socket `s`: one of a machine's expressions is true."""

    where: str
    meaning: str


# A socket is in one state of each of these.
MACHINES: Final[dict[str, dict[str, State]]] = {
    "life": {
        "open": State("not s.closed and not s._finishing", "in use"),
        "finishing": State(
            "not s.closed and s._finishing",
            "lingering close: the queue leaves, then the FIN; input is discarded until the peer's end, or a bound",
        ),
        "closed": State(
            "s.closed and s in s.loop.to_close and not isinstance(s.sock, _Stolen)",
            "each parked task was woken; the OS socket keeps its number until the turn ends",
        ),
        "gone": State(
            "s.closed and s not in s.loop.to_close and not isinstance(s.sock, _Stolen)", "the OS socket is closed"
        ),
        "stolen": State("s.closed and isinstance(s.sock, _Stolen)", "the OS socket was handed over, and is open"),
    },
    "read": {
        "open": State("not s._eof and s._read_error is None", "there may be more input"),
        "cut off": State(
            "not s._eof and s._read_error is not None",
            "a send, a peek or SO_ERROR has met a reset, which the OS tells but once; what has come is readable still",
        ),
        "EOF": State("s._eof == EOF_MET and s._read_error is None", "the peer's FIN was met; read() has not said so"),
        "EOF told": State("s._eof == EOF_TOLD and s._read_error is None", "and read() has answered None"),
        "reset": State("s._eof == EOF_MET and s._read_error is not None", "the end was met, and is that error"),
        "reset told": State("s._eof == EOF_TOLD and s._read_error is not None", "and read() has answered None"),
    },
    "write": {
        "open": State("not s._write_closed & MUTE and s._sending != BLOCKED", "the kernel takes what is written"),
        "blocked": State("not s._write_closed & MUTE and s._sending == BLOCKED", "it has no room: a WRITE event tells"),
        "shutting": State(
            "s._write_closed & MUTE and s._write_error is None and s._queue is not None",
            "the FIN is queued behind what is to leave; what is written now goes nowhere",
        ),
        "shut": State(
            "s._write_closed & MUTE and s._write_error is None and s._queue is None",
            "the FIN was sent (or is tried again soon, where the kernel has no memory), or the object closed",
        ),
        "broken": State(
            "s._write_closed & MUTE and s._write_error is not None", "the kernel takes no more; the queue was dropped"
        ),
    },
}


class Legal(NamedTuple):
    """Every combination of one state from each column is legal."""

    life: tuple[str, ...]
    read: tuple[str, ...]
    write: tuple[str, ...]


_ANY_READ = tuple(MACHINES["read"])
LEGAL: Final = [
    Legal(("open",), _ANY_READ, tuple(MACHINES["write"])),
    Legal(("finishing",), _ANY_READ, ("shutting",)),
    Legal(("finishing",), ("open", "cut off"), ("shut",)),  # with the peer's end it closes
    Legal(("closed", "gone"), _ANY_READ, ("shut", "broken")),
    Legal(("stolen",), ("open", "EOF", "EOF told"), ("shut", "broken")),  # an error that was met is raised instead
]

# What leads from one state to another. Calls of the program, its hooks, what the OS answers, and what time brings.
CAUSES: Final = {
    "close()": "the program calls it",
    "finish()": "the program calls it, or the library: a handler has returned, a drain ends an idle connection",
    "write_eof()": "the program calls it",
    "steal_socket()": "the program calls it",
    "the end of a block": "`with sock:` ends",
    "event_read": "that of serve_requests: at the end of the stream nobody is started",
    "event_hup": "the default one, when all input was read",
    "event_err": "the default one, when all input was read",
    "it raised": "a hook, a queued callable or a handler of the connection",
    "a task reads": "it finds the end of a connection that was closed because of its peer (BY_PEER)",
    "recv: the end": "recv answers no bytes",
    "recv: an error": "recv fails, other than for want of input or memory",
    "peek: an error": "so does a recv that only looks whether there is input",
    "SO_ERROR": "the socket's pending error, asked for by event_err, or where shutdown says ENOTCONN",
    "a send": "the queue is tried again: by a WRITE event, write(None), steal_socket() or before a timeout closes",
    "send: no room": "send takes less than it was given, or has no memory",
    "send: an error": "send fails otherwise",
    "the queue has left": "and the peer had ended before",
    "shutdown: done": "the FIN was sent",
    "shutdown: no memory": "it will be sent in 20 ms",
    "shutdown: an error": "it fails otherwise",
    "the poller refuses": "what is to be waited for cannot be watched",
    "idle_timeout": "is over",
    "lifetime": "is over",
    "linger_seconds": "are over",
    "linger_bytes": "have come late, and more",
    "max_unsent": "is passed; in a lingering close, where on_high_water has begun it",
    "a drain": "its time is up, or that of the peers that it has told the end",
    "it closes": "the object does, for whatever cause",
    "the turn ends": "where OS sockets are closed",
}
TRANSITIONS: Final[dict[str, dict[tuple[str, str], tuple[str, ...]]]] = {
    "life": {
        ("open", "finishing"): ("finish()",),
        ("open", "closed"): (
            *("close()", "finish()", "the end of a block", "event_hup", "event_err", "it raised", "a drain"),
            *("idle_timeout", "lifetime", "max_unsent", "the poller refuses", "send: an error", "shutdown: an error"),
        ),
        ("finishing", "closed"): (
            *("recv: the end", "recv: an error", "send: an error", "shutdown: an error", "the queue has left"),
            *("linger_seconds", "linger_bytes", "lifetime", "max_unsent", "a drain", "the poller refuses"),
            *("close()", "it raised"),
        ),
        ("open", "stolen"): ("steal_socket()",),
        ("finishing", "stolen"): ("steal_socket()",),
        ("closed", "gone"): ("the turn ends",),
    },
    "read": {
        ("open", "EOF"): ("recv: the end", "a task reads"),
        ("open", "EOF told"): ("recv: the end",),
        ("open", "cut off"): ("send: an error", "shutdown: an error", "peek: an error", "SO_ERROR"),
        ("open", "reset"): ("recv: an error", "peek: an error"),
        ("open", "reset told"): ("recv: an error",),
        ("cut off", "reset"): ("recv: the end", "recv: an error", "peek: an error", "a task reads"),
        ("cut off", "reset told"): ("recv: the end", "recv: an error"),
        ("EOF", "EOF told"): ("recv: the end", "event_read"),
        ("EOF", "reset"): ("peek: an error", "SO_ERROR"),
        ("EOF", "reset told"): ("recv: an error",),
        ("EOF told", "reset told"): ("recv: an error", "peek: an error", "SO_ERROR"),
        ("reset", "reset told"): ("recv: the end", "recv: an error", "event_read"),
    },
    "write": {
        ("open", "blocked"): ("send: no room",),
        ("open", "shutting"): ("write_eof()", "finish()"),
        ("open", "shut"): ("it closes",),
        ("open", "broken"): ("send: an error",),
        ("blocked", "open"): ("a send",),
        ("blocked", "shutting"): ("write_eof()", "finish()"),
        ("blocked", "shut"): ("it closes",),
        ("shutting", "shut"): ("shutdown: done", "shutdown: no memory", "it closes"),
        ("shutting", "broken"): ("send: an error", "shutdown: an error"),
        ("shut", "broken"): ("shutdown: an error",),
    },
}

# What holds in every state, of the other slots that take part.
RULES: Final = [
    "s._write_closed in (0, MUTE, OBSERVED, OBSERVED | OWES)",
    "s._queue is not None or not (s.unsent or s._queued_callables or s._sending)",
    "s._queue is None or s.unsent == sum(len(piece) for piece in s._queue if not callable(piece))",
    "s._queue is None or s._queued_callables == sum(map(callable, s._queue))",
    "s._sending != BLOCKED or s._registered_mask & (WRITE | UNREGISTERED)",
    "not s.closed or (s._registered_mask == UNREGISTERED and s._timer is None and s._writer is None)",
    "not s.closed or (s._reader is None and s._drain_waiters is None)",
    "not (s.closed or s._finishing) or not (s._watch_read or s._watch_write or s._reader or s._buffer)",
    "s.closed or not s._hangup_state & BY_PEER",
    "s.close_reason != 'the peer hung up' or s._hangup_state & BY_PEER",
    "s._write_error is None or s._write_error.errno not in CUT_OFF or s._eof or s._read_error is not None",
    "s._eof == EOF_TOLD or not s._hangup_state & HUP_TOLD_AT_END",
]

# What holds at the end of a turn as well: nobody waits for what nothing brings.
AT_REST: Final = [
    "s._queue is None or s._sending in (BLOCKED, HELD) or s in s.loop.to_flush",
    "s._queue is not None or all(most < 0 for line in s._drain_waiters or () for most, _ in line.values())",  # woken
    "s._reader is None or not s._eof or s in s.loop.pending_reads",
    "s.closed or not s._finishing or s._timer.active",
    "s._registered_mask & UNREGISTERED or not s._interest() & ~s._registered_mask",
    "s._registered_mask != UNREGISTERED or s._reader is None and s._sending != BLOCKED or s in s.loop.interest_changed",
]
