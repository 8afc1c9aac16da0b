"""A chat server for netcat: its members are tasks while they log in, and callbacks afterwards.

    python examples/chat.py --port 7788
    nc 127.0.0.1 7788      and the same in a second window; /help lists the commands

Which style is where, and why:

- Logging in is a dialogue: a question, an answer, perhaps the question again. `log_in` is sequential and says just
  that, in a task of its own, with one timeout around all of it.
- After that, anything may come at any time from anybody, and nothing is waited for: `Member.event_read` is in callback
  style. A member who listens is one small object and holds no greenlet.
- It is one and the same socket object. `log_in` passes it on by `watch_read(True)` and returns; what was typed ahead of
  the last answer is in the buffer, and comes to `event_read`.
- A line costs as much as there are members, so that of many lines only so many are heard in one turn; the rest is put
  back (`push_back_read`), and comes again in the next.
- What bounds a member is said by class attributes: how long a line may be, how long it may be silent, and how many
  bytes it may be behind before it is dropped. So nobody has to wait for a slow reader.
- Ctrl-C and SIGTERM drain the server (`serve_forever`): every member is sent a farewell, and what was said before it.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections import deque
from collections.abc import Callable

from dangagreen import LimitError, Socket, SocketLike, serve, serve_forever, timeout
from output import tell

LOGIN_SECONDS = 60.0
TOLD_AT_ONCE = 8  # times that somebody is told something, before others have their turn
TRIES = 5
NAME = re.compile(rb"[A-Za-z0-9_-]{1,20}")
CONTROLS = bytes(range(32)) + b"\x7f"  # what could play tricks on the terminals of others


class Room:
    """Who is here. Everybody is told the same things in the same order."""

    def __init__(self) -> None:
        self.members: dict[bytes, Member] = {}  # by name, in lower case
        self.most = 1000
        self.said: deque[bytes] = deque()

    def objection(self, name: bytes, to: Member | None = None) -> bytes | None:
        """Why this cannot be the name of `to`."""
        if not NAME.fullmatch(name):
            return b"A name is up to 20 letters, digits, - and _."
        if self.members.get(name.lower(), to) is not to:
            return b"That name is taken."
        return None

    def say(self, words: bytes) -> None:
        """Tell everybody. Who is dropped because of it leaves, and is talked about after this, not in the middle."""
        self.said.append(words + b"\n")
        if len(self.said) > 1:
            return
        while self.said:
            for member in list(self.members.values()):
                member.write_soon(self.said[0])
            self.said.popleft()

    def join(self, member: Member, name: bytes) -> None:
        self.members[name.lower()] = member
        member.name = name
        self.say(b"* %s has come." % name)

    def leave(self, member: Member, why: object) -> None:
        """Harmless for one who is not here."""
        if member.name and self.members.get(member.name.lower()) is member:
            del self.members[member.name.lower()]
            self.say(b"* %s has left%s." % (member.name, b"" if why is None else b": " + clean(str(why).encode())))


room = Room()


class Member(Socket):
    """One connection, from its login to its end."""

    __slots__ = ("name", "rest")
    line_limit = 1000
    idle_timeout = 3600.0
    max_unsent = 256 * 1024

    def __init__(self, sock: SocketLike) -> None:
        super().__init__(sock)
        self.name = b""  # of a member
        self.rest = b""  # of a line that has not come to its end

    def event_read(self) -> None:
        data = self.read(4096)
        if data is None:
            return self.finish()
        most = max(1, TOLD_AT_ONCE // (1 + len(room.members)))
        *lines, self.rest = (self.rest + data).split(b"\n", most)
        if len(lines) == most and self.rest:  # there may be others, which are for the next turn
            self.push_back_read(self.rest)
            self.rest = b""
        if max(map(len, (*lines, self.rest))) > self.line_limit:
            self.tell(b"A line has at most %d bytes." % self.line_limit)
            return self.finish()
        for line in lines:
            if self.name and not self.closed:  # until it quits
                self.hear(clean(line))
        return None

    def hear(self, line: bytes) -> None:
        """One line that was typed."""
        if line.startswith(b"/"):
            command, _, words = line.partition(b" ")
            COMMANDS.get(command, Member.help)(self, words.strip())
        elif line:
            room.say(b"<%s> %s" % (self.name, line))

    def tell(self, words: bytes) -> None:
        self.write_soon(b"* " + words + b"\n")

    def finish(self) -> None:
        self.leave(None)
        self.tell(b"Goodbye.")
        super().finish()

    def close(self, reason: object = None) -> None:
        if not self.closed:
            self.leave(reason)
        super().close(reason)

    def leave(self, why: object) -> None:
        room.leave(self, why)
        self.name = b""

    # -- commands

    def act(self, words: bytes) -> None:
        room.say(b"* %s %s" % (self.name, words))

    def who(self, _words: bytes) -> None:
        self.tell(b"Here: " + b", ".join(sorted(member.name for member in room.members.values())))

    def rename(self, name: bytes) -> None:
        if objection := room.objection(name, self):
            return self.tell(objection)
        before = self.name
        del room.members[before.lower()]
        room.members[name.lower()] = self
        self.name = name
        return room.say(b"* %s is now called %s." % (before, name))

    def whisper(self, words: bytes) -> None:
        name, _, message = words.partition(b" ")
        other = room.members.get(name.lower())
        if other is None or not message:
            return self.tell(b"Nobody of that name is here." if message else b"/msg NAME WORDS")
        other.write_soon(b"[%s] %s\n" % (self.name, message))
        return self.tell(b"Told %s." % other.name)

    def quit(self, _words: bytes) -> None:
        self.finish()

    def help(self, _words: bytes) -> None:
        self.tell(b"Commands: " + b" ".join(COMMANDS))


COMMANDS: dict[bytes, Callable[[Member, bytes], None]] = {
    b"/me": Member.act,
    b"/who": Member.who,
    b"/nick": Member.rename,
    b"/msg": Member.whisper,
    b"/quit": Member.quit,
    b"/help": Member.help,
}


# -- logging in


def log_in(member: Member) -> None:
    """Sequential style, up to the moment at which the member is one. To return without that finishes the connection."""
    try:
        with timeout(LOGIN_SECONDS):
            name = ask_name(member)
    except TimeoutError:
        return member.tell(b"That took too long.")
    except LimitError:
        return member.tell(b"That is no name.")
    if name is None:
        return None
    room.join(member, name)  # it was free when `ask_name` returned, and nothing has waited since
    member.watch_read(True)  # from here on `event_read` is called
    return None


def ask_name(member: Member) -> bytes | None:
    """Parks until the member has given a name that it can have. None: it has gone, or will not learn."""
    for _ in range(TRIES):
        member.tell(b"What is your name?")
        line = member.read_line()
        if not line:
            return None
        if len(room.members) >= room.most:
            member.tell(b"The room is full.")
            return None
        name = clean(line)
        objection = room.objection(name)
        if objection is None:
            return name
        member.tell(objection)
    return None


def clean(line: bytes) -> bytes:
    return line.translate(None, CONTROLS).strip()


def main() -> None:
    global LOGIN_SECONDS
    parser = ArgumentParser(description="A chat server.", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--port", type=int, default=7788, help="0 picks one")
    parser.add_argument("--most", type=int, default=room.most, help="members at once")
    parser.add_argument("--login-seconds", type=float, default=LOGIN_SECONDS, help="time to log in")
    parser.add_argument("--idle-seconds", type=float, default=Member.idle_timeout, help="how long one may be silent")
    options = parser.parse_args()
    room.most, LOGIN_SECONDS, Member.idle_timeout = options.most, options.login_seconds, options.idle_seconds
    try:
        listener = serve(("127.0.0.1", options.port), log_in, socket_class=Member)
    except (OSError, ValueError) as problem:
        sys.exit(f"chat: {problem}")
    tell("chat listens on {}:{}".format(*listener.address))
    serve_forever(listener, grace=5)  # until Ctrl-C or SIGTERM
    tell("bye")


if __name__ == "__main__":
    main()
