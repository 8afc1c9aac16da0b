"""The command language: from a line to a command and what stands behind it, and the errors that a command may answer.

The same lines come from configuration files and from management connections. What does not belong here: what the
commands do (commands, console), and who sends the lines.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
from typing import NamedTuple

_WORD = re.compile(r"[A-Za-z0-9_]+", re.ASCII)
_BLANKS = re.compile(r"[ \t\n\r\f\v]+")
_VARIABLE = re.compile(r"\$\{(.+?)\}")
_ENVIRONMENT = re.compile(r"\$(\w+)", re.ASCII)
_GET_ADDRESS = 0x8915  # SIOCGIFADDR


class CommandError(Exception):
    """What a command answers behind `ERROR: `."""


class Line(NamedTuple):
    """One command: its first word, the whole line, and that before its letter case and its variables were changed."""

    word: str
    text: str
    original: str


def parse_line(line: str) -> Line | None:
    """A command, or None for an empty line. Raises CommandError."""
    original = _BLANKS.sub(" ", line.partition("#")[0]).strip(" ")
    text = _VARIABLE.sub(lambda found: _variable(found[1]), original)
    text = _ENVIRONMENT.sub(lambda found: os.environ.get(found[1], ""), text)
    left, equals, right = text.partition("=")
    text = left.lower() + equals + right
    if not text or text[0] == " ":
        return None
    word = _WORD.match(text)
    if word is None:
        raise CommandError("invalid command")
    return Line(word[0], text, original)


def match(line: Line, pattern: re.Pattern[str], usage: str = "") -> tuple[str | None, ...]:
    """What the groups of a pattern find in a line. Raises CommandError, with the usage text, where it does not fit."""
    found = pattern.fullmatch(line.text)
    if found is None:
        raise CommandError(usage or f"Invalid syntax to '{line.word}' command")
    return found.groups()


def without_arguments(line: Line) -> None:
    """Raises CommandError for a line that has more than its word."""
    if line.text != line.word:
        raise CommandError(f"The '{line.word}' command takes no arguments")


def _variable(name: str) -> str:
    kind, colon, value = name.partition(":")
    if not colon or not value or not _WORD.fullmatch(kind):
        raise CommandError(f"Unknown config variable: {name}")
    if kind != "ip":
        raise CommandError(f"Unknown config variable type: {kind}")
    if not _WORD.fullmatch(value):
        raise CommandError("Bogus-looking iface name")
    return _address_of(value)


def _address_of(interface: str) -> str:
    """The IPv4 address of a network interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock.fileno(), _GET_ADDRESS, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            raise CommandError(f"Can't find IP of interface '{interface}'") from None
    return socket.inet_ntoa(answer[20:24])
