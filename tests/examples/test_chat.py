"""examples/chat.py, from the outside: plain connections that type and read lines."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from programs import Program, connected


class Terminal:
    """Somebody who types lines, and what is shown."""

    def __init__(self, sock: socket.socket, replies: Any) -> None:
        self.sock, self.replies = sock, replies

    def type(self, *lines: str) -> None:
        self.sock.sendall("".join(f"{line}\n" for line in lines).encode())

    def line(self) -> str:
        return self.replies.readline().decode()

    def sees(self, *lines: str) -> None:
        assert [self.line() for _ in lines] == [f"{line}\n" for line in lines]


@contextlib.contextmanager
def terminal(port: int) -> Iterator[Terminal]:
    with connected(port) as ends:
        yield Terminal(*ends)


@contextlib.contextmanager
def member(port: int, name: str) -> Iterator[Terminal]:
    with terminal(port) as user:
        user.sees("* What is your name?")
        user.type(name)
        user.sees(f"* {name} has come.")
        yield user


@pytest.fixture
def port(start: Any) -> int:
    return start("chat", "--port", "0")[0]


def test_members_talk(port: int) -> None:
    with member(port, "ann") as ann, member(port, "bob") as bob:
        ann.sees("* bob has come.")
        ann.type("hello")
        ann.sees("<ann> hello")
        bob.type("/me waves", "/who")
        bob.sees("<ann> hello", "* bob waves", "* Here: ann, bob")
        ann.sees("* bob waves")
        ann.type("/msg BOB psst", "/msg carl psst", "/msg bob")
        ann.sees("* Told bob.", "* Nobody of that name is here.", "* /msg NAME WORDS")
        bob.sees("[ann] psst")
        ann.type("/nick Ann", "/nick bob", "/nick two words", "/dance", "  ", "so long")
        ann.sees("* ann is now called Ann.", "* That name is taken.")
        assert ann.line().startswith("* A name is")
        assert ann.line().startswith("* Commands: /me /who")
        bob.sees("* ann is now called Ann.", "<Ann> so long")
        ann.sees("<Ann> so long")
        ann.type("/quit", "not heard any more")
        ann.sees(
            "* Goodbye.",
        )
        assert ann.line() == ""
        bob.sees("* Ann has left.")


def test_what_is_typed_ahead_of_the_question_is_not_lost(port: int) -> None:
    with terminal(port) as ann:
        ann.type("two words", "ann", "hello", "/who")
        ann.sock.sendall(b"a line in two pi")
        ann.sees("* What is your name?", "* A name is up to 20 letters, digits, - and _.", "* What is your name?")
        ann.sees("* ann has come.", "<ann> hello", "* Here: ann")
        ann.type("eces\r")
        ann.sees("<ann> a line in two pieces")


def test_a_name_is_had_once(port: int) -> None:
    with member(port, "ann") as ann:
        with terminal(port) as other:
            other.type("ANN", "b" * 21, "", "Ann", "aNN", "bob")
            heard = [other.line() for _ in range(11)]
            assert heard.count("* What is your name?\n") == 5
            assert heard.count("* That name is taken.\n") == 3
            assert heard[-1] == "* Goodbye.\n"
            assert other.line() == ""
        with member(port, "bob"):
            ann.sees("* bob has come.")
        ann.sees("* bob has left.")
        with member(port, "bob"):  # the name is free again
            ann.sees("* bob has come.")


def test_one_who_does_not_log_in_is_sent_away(start: Any) -> None:
    (port,) = start("chat", "--port", "0", "--login-seconds", "0.2")
    with terminal(port) as user:
        user.sock.sendall(b"an")
        user.sees("* What is your name?", "* That took too long.", "* Goodbye.")
        assert user.line() == ""
    with member(port, "ann") as ann:  # the time was that of the login alone
        ann.type("/who")
        ann.sees("* Here: ann")


def test_a_full_room(start: Any) -> None:
    (port,) = start("chat", "--port", "0", "--most", "1")
    with member(port, "ann"), terminal(port) as bob:
        bob.type("bob")
        bob.sees("* What is your name?", "* The room is full.", "* Goodbye.")
        assert bob.line() == ""


def test_a_silent_member_is_closed(start: Any) -> None:
    (port,) = start("chat", "--port", "0", "--idle-seconds", "0.3")
    with member(port, "ann") as ann:
        assert ann.replies.read() == b""


def test_lines_that_are_too_long(port: int) -> None:
    with terminal(port) as user:
        user.sees("* What is your name?")
        user.type("x" * 2000)
        user.sees("* That is no name.", "* Goodbye.")
    with member(port, "ann") as ann, member(port, "bob") as bob:
        ann.sees("* bob has come.")
        bob.sock.sendall(b"x" * 2000)
        bob.sees("* A line has at most 1000 bytes.", "* Goodbye.")
        ann.sees("* bob has left.")


def test_control_characters_reach_nobody(port: int) -> None:
    with member(port, "ann") as ann:
        ann.sock.sendall(b"\x1b[2J\x07gr\xc3\xbcezi\r\n")
        ann.sees("<ann> [2Jgrüezi")


def test_one_who_is_cut_off_has_left(port: int) -> None:
    with member(port, "ann") as ann:
        with member(port, "bob") as bob:
            bob.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ann.sees("* bob has come.")
        assert ann.line().startswith("* bob has left")
        ann.type("alone")
        ann.sees("<ann> alone")


def test_one_who_does_not_read_is_dropped_and_delays_nobody(port: int) -> None:
    with member(port, "ann") as ann, member(port, "slow"):
        ann.sees("* slow has come.")
        words = "x" * 900
        for _ in range(20_000):  # 18 MB, far beyond what the kernel keeps for it
            ann.type(words)
            heard = ann.line()
            if heard.startswith("* slow has left: "):
                break
            assert heard == f"<ann> {words}\n"
        else:
            raise AssertionError("nobody was dropped")
        assert "bytes" in heard  # the reason
        ann.type("/who")
        ann.sees(f"<ann> {words}", "* Here: ann")  # it was dropped at the line before


def test_everybody_hears_the_end(tmp_path: Path) -> None:
    program = Program("chat", ("--port", "0"), 1, tmp_path / "errors")
    try:
        (port,) = program.ports
        with member(port, "ann") as ann, terminal(port) as unnamed:
            unnamed.sees("* What is your name?")
            ann.type("last words")
            program.end()
            ann.sees("<ann> last words", "* Goodbye.")
            assert (ann.line(), unnamed.line(), unnamed.line()) == ("", "* Goodbye.\n", "")
    finally:
        program.process.kill()
        program.process.communicate()
