"""Kinds of parameters: how a value is read from a command, and shown.

A kind, called with a role, a default and a help, makes a row of the table in `parameters`. What is no value raises
ValueError, with the error text of the command, in which `{key}`, `{value}` and `{of.name}` are filled in. What does not
belong here: the parameters.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from dangagreen import Address
from perlbal.language import CommandError

T = TypeVar("T")

DEFAULT_FILES = {"certs/server-key.pem", "certs/server-cert.pem"}
FALSE = {"0", "false", "off", "no"}
SIZES = {"": 1, "b": 1, "k": 1024, "m": 1024 * 1024}


class Networks:
    """IP addresses and networks, at commas."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.networks = [network(part) for part in re.split(r"\s*,\s*", text)]

    def __contains__(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip.version == one.version and ip in one for one in self.networks)

    def __str__(self) -> str:
        return self.text


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A network as people write it: `10.0.0.0/8`, `10.0.0.0:255.0.0.0`, `10.1`, or one address. Raises ValueError."""
    if ":" in text and "." in text and "::" not in text:
        text = text.replace(":", "/")
    address, slash, mask = text.partition("/")
    if (labels := address.split("."))[-1].isdigit() and len(labels) < 4:
        mask = mask if slash else str(8 * len(labels))
        address = ".".join(labels + ["0"] * (4 - len(labels)))
        slash = "/"
    return ipaddress.ip_network(address + slash + mask, strict=False)


@dataclass(eq=False)
class Parameter(Generic[T]):
    """A row of the table. `ours`: the original does not have it. `dumped`: `dumpconfig` tells of it."""

    role: str
    default: str | None
    help: str
    kind: str
    read: Callable[[Any, str], T]
    show: Callable[[T], str]
    ours: bool
    dumped: bool
    name: str = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:  # objects have the values as attributes of their own

        @overload
        def __get__(self, of: None, owner: type) -> Parameter[T]: ...
        @overload
        def __get__(self, of: object, owner: type) -> T: ...
        def __get__(self, of: object, owner: type) -> Any: ...
        def __set__(self, of: object, value: T) -> None: ...

    def parse(self, of: Any, text: str) -> T:
        """The value that a text stands for. `of` is the service or pool. Raises CommandError."""
        try:
            return self.read(of, text)
        except ValueError as error:
            raise CommandError(str(error).format(key=self.name, value=text, of=of)) from None

    def initial(self, of: Any) -> Any:
        """The value of a default, or what stands for none."""
        return None if self.default is None else self.read(of, self.default)


@dataclass(frozen=True)
class Kind(Generic[T]):
    """`read(of, text)` answers the value for a service or pool."""

    name: str
    read: Callable[[Any, str], T]
    show: Callable[[Any], str] = str

    def __call__(
        self, role: str, default: str | None, help: str, *, ours: bool = False, dumped: bool = True
    ) -> Parameter[T]:
        return Parameter(role, default, help, self.name, self.read, self.show, ours, dumped)


# -- how values are read


def _matching(pattern: str, problem: str, value: Callable[[re.Match[str]], T]) -> Callable[[Any, str], T]:
    """Reads what a pattern matches."""
    compiled = re.compile(pattern, re.ASCII | re.IGNORECASE)

    def read(of: Any, text: str) -> T:
        found = compiled.fullmatch(text)
        if found is None:
            raise ValueError(problem)
        return value(found)

    return read


def _passing(test: Callable[[str], bool], problem: str) -> Callable[[Any, str], str]:
    """Reads a text that passes a test."""

    def read(of: Any, text: str) -> str:
        if not test(text):
            raise ValueError(problem)
        return text

    return read


def _found(where: str, problem: str) -> Callable[[Any, str], Any]:
    """Reads the name of something that is in a dict of the world."""
    these = attrgetter(where)

    def read(of: Any, name: str) -> Any:
        if name not in these(of.world):
            raise ValueError(problem)
        return these(of.world)[name]

    return read


def _text(of: Any, text: str) -> str:
    return text


def _is_file(path: str) -> bool:
    return os.path.isfile(path) or path in DEFAULT_FILES  # a default need not be there


def _networks(of: Any, text: str) -> Networks:
    try:
        return Networks(text)
    except ValueError as error:
        raise CommandError(f"Error defining trusted upstream proxies: {error}") from None  # a text with braces, perhaps


def _endpoints(of: Any, text: str) -> list[tuple[str, int]]:
    found = []
    for part in filter(None, re.split(r"\s*,\s*", text)):
        if not re.fullmatch(r"\d+\.\d+\.\d+\.\d+:\d+", part, re.ASCII):
            raise CommandError(f'Invalid UDP endpoint: "{part}".  Must be of form a.b.c.d:port')
        host, _, port = part.partition(":")
        found.append((host, int(port)))
    return found


_seconds = _matching(
    r"\d{1,9}(\.\d*)?|\.\d+", "Expecting a number of seconds for parameter '{key}'", lambda found: float(found[0])
)

# -- the kinds

boolean = Kind(
    "boolean",
    _matching(
        "(1|true|on|yes)|0|false|off|no",
        "Expecting boolean value for parameter '{key}'",
        lambda found: found[1] is not None,
    ),
    lambda on: "on" if on else "off",
)
_integer = _matching(r"\d{1,18}", "Expecting integer value for parameter '{key}'", lambda found: int(found[0]))
integer = Kind("integer", _integer)
both_timeouts: Kind[int | None] = Kind("integer", _integer)
percentage = Kind(
    "percentage",
    _matching(r"0*(\d{1,2}|100)", "Expecting integer value between 0 and 100, inclusive.", lambda found: int(found[1])),
)
size = Kind(
    "size",
    _matching(
        r"(\d{1,18})([bkm]?)",
        "Expecting size unit value for parameter '{key}' in bytes, or suffixed with 'K' or 'M'",
        lambda found: int(found[1]) * SIZES[found[2].lower()],
    ),
)
seconds = Kind("seconds", _seconds, "{:g}".format)
schedule = Kind(
    "seconds, at commas",
    lambda of, text: [_seconds(of, part.strip()) for part in text.split(",")],
    lambda delays: ",".join(f"{delay:g}" for delay in delays),
)
text = Kind("text", _text)
optional: Kind[str | None] = Kind("text", _text)  # None unless it is set
names = Kind("names", lambda of, text: [name for name in re.split(r"[\s,]+", text) if name], ", ".join)
networks: Kind[Networks | None] = Kind("networks", _networks)
endpoints = Kind("addresses", _endpoints, lambda ends: ",".join(f"{host}:{port}" for host, port in ends))
listen: Kind[str | None] = Kind(
    "address",
    _matching(
        r"(\d+\.\d+\.\d+\.\d+:)?\d{1,5}|\[[0-9A-F:.]+\]:\d{1,5}|unix:/.+",
        "Listen argument must be ip:port or port. e.g. 192.168.0.1:80 or 81",
        lambda found: found[0],
    ),
)
_file = _passing(_is_file, "File '{value}' not found for '{key}'")
file = Kind("file", _file)
existing_file: Kind[str | None] = Kind("file", _file)
executable: Kind[str | None] = Kind(
    "file", _passing(lambda path: os.access(path, os.X_OK), "Server process ({value}) not executable.")
)
_role = _found("roles", "Role not valid for service {of.name}")
role = Kind("role", lambda of, name: _role(of, name)(of), attrgetter("name"))
pool = Kind("pool", _found("pools", "Pool '{value}' not found"), attrgetter("name"))
service = Kind("service", _found("services", "Service '{value}' not found"), attrgetter("name"))


def choice(role: str, values: str, help: str, problem: str = "", ours: bool = False) -> Parameter[str]:
    """One of several words, of which the first is the default."""
    words = values.split()
    read = _passing(lambda word: word in words, problem or f"Value of '{{key}}' must be one of: {', '.join(words)}")
    return Kind(" or ".join(words), read)(role, words[0], help, ours=ours)


def directory(role: str, problem: str, help: str) -> Parameter[str | None]:
    """A directory that is there, without a slash at the end."""
    exists = _passing(os.path.isdir, problem)
    kind: Kind[str | None] = Kind("directory", lambda of, path: exists(of, path)[:1] + path[1:].removesuffix("/"))
    return kind(role, None, help)


def parse_listen(text: str) -> Address:
    """The address of a `listen` parameter, which was checked."""
    if text.startswith("unix:"):
        return text[5:]
    host, _, port = text.rpartition(":")
    return host.strip("[]") or "0.0.0.0", int(port)
