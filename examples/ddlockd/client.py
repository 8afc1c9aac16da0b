"""How a client of ddlockd is answered, in either style.

- Commands that never park are answered in callback style (`Client.event_read`): all lines that came together in one
  write, and nothing comes between asking whether a lock is free and taking it.
- A command that may park is a dialogue, in sequential style (`Client.converse`). Lines that come meanwhile stay where
  they are, and are answered afterwards.
"""

from __future__ import annotations

from dangagreen import LimitError, sleep, spawn
from ddlockd.commands import COMMANDS, DIALOGUES, unknown
from ddlockd.connection import Connection
from ddlockd.protocol import Request, err, parse
from ddlockd.stores import StoreError

LINES_AT_ONCE = 2  # of one client that are answered before others have their turn


class Client(Connection):
    """A connection whose lines are answered."""

    __slots__ = ()
    dialogues = DIALOGUES

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
        dialogues, dialogue, replies = self.dialogues, None, []
        for number, line in enumerate(lines, 1):
            if len(line) > self.line_limit:
                self.rest = line
                break
            command, arguments = parse(line)
            if command in dialogues:
                dialogue = command, arguments
                self.rest = b"\n".join([*lines[number:], self.rest])
                break
            replies.append(COMMANDS.get(command, unknown)(self, arguments))
        if replies:
            self.write(b"".join(replies))
        if dialogue is None and len(self.rest) > self.line_limit:
            self.refuse(b"line_too_long", b"A line has at most %d bytes" % self.line_limit)
        return dialogue

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
