"""Kinds of parameters: how a value is read from a command, and shown.

A function of each kind makes a row of the table in `parameters`. What is no value raises ValueError, with the error
text of the command, in which `{key}`, `{value}` and `{of.name}` are filled in. What does not belong here: the
parameters.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from dangagreen import Address
from perlbal.language import CommandError

T = TypeVar("T")

DEFAULT_FILES = {"certs/server-key.pem", "certs/server-cert.pem"}

TRUE, FALSE = {"1", "true", "on", "yes"}, {"0", "false", "off", "no"}
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


class Parameter(Generic[T]):
    """A row of the table. `parse(service, text)` answers the value, or raises CommandError."""

    def __init__(
        self,
        role: str,
        default: str | None,
        help: str,
        parse: Callable[[Any, str], T],
        *,
        kind: str = "text",
        show: Callable[[T], str] = str,
        ours: bool = False,
        dumped: bool = True,
    ) -> None:
        self.name = ""
        self.role, self.default, self.help, self.kind, self.ours = role, default, help, kind, ours
        self.read, self.show, self.dumped = parse, show, dumped

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


# -- kinds


def boolean(role: str, default: str, help: str, ours: bool = False) -> Parameter[bool]:
    return Parameter(role, default, help, _boolean, kind="boolean", show=lambda on: "on" if on else "off", ours=ours)


def integer(role: str, default: str, help: str, ours: bool = False) -> Parameter[int]:
    return Parameter(role, default, help, _integer, kind="integer", ours=ours)


def size(role: str, default: str, help: str, ours: bool = False) -> Parameter[int]:
    return Parameter(role, default, help, _size, kind="size", ours=ours)


def seconds(role: str, default: str, help: str) -> Parameter[float]:
    return Parameter(role, default, help, _seconds, kind="seconds", show="{:g}".format, ours=True)


def text(role: str, default: str, help: str, ours: bool = False) -> Parameter[str]:
    return Parameter(role, default, help, _text, kind="text", ours=ours)


def optional(role: str, default: None, help: str, ours: bool = False) -> Parameter[str | None]:
    """A text, or None unless it is set."""
    return Parameter[str | None](role, default, help, _text, show=str, ours=ours)


def choice(role: str, values: str, help: str, problem: str = "", ours: bool = False) -> Parameter[str]:
    """One of several words, of which the first is the default."""
    words = values.split()
    problem = problem or f"Value of '{{key}}' must be one of: {', '.join(words)}"

    def parse(of: Any, value: str) -> str:
        if value not in words:
            raise ValueError(problem)
        return value

    return Parameter(role, words[0], help, parse, kind=" or ".join(words), ours=ours)


def _boolean(of: Any, value: str) -> bool:
    if value.lower() in TRUE:
        return True
    if value.lower() in FALSE:
        return False
    raise ValueError("Expecting boolean value for parameter '{key}'")


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 18


def _integer(of: Any, value: str) -> int:
    if not _is_number(value):
        raise ValueError("Expecting integer value for parameter '{key}'")
    return int(value)


def _size(of: Any, value: str) -> int:
    digits = value.rstrip("bBkKmM")
    unit = SIZES.get(value[len(digits) :].lower())
    if unit is None or not _is_number(digits):
        raise ValueError("Expecting size unit value for parameter '{key}' in bytes, or suffixed with 'K' or 'M'")
    return int(digits) * unit


def _seconds(of: Any, value: str) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d*)?|\.\d+", value, re.ASCII):
        raise ValueError("Expecting a number of seconds for parameter '{key}'")
    return float(value)


def _text(of: Any, value: str) -> str:
    return value


def _percentage(of: Any, value: str) -> int:
    if not _is_number(value) or int(value) > 100:
        raise ValueError("Expecting integer value between 0 and 100, inclusive.")
    return int(value)


def _listen(of: Any, value: str) -> str:
    if re.fullmatch(r"(\d+\.\d+\.\d+\.\d+:)?\d{1,5}", value, re.ASCII) or re.fullmatch(
        r"\[[0-9A-Fa-f:.]+\]:\d{1,5}|unix:/.+", value, re.ASCII
    ):
        return value
    raise ValueError("Listen argument must be ip:port or port. e.g. 192.168.0.1:80 or 81")


def _directory(problem: str) -> Callable[[Any, str], str]:
    def parse(of: Any, value: str) -> str:
        if not os.path.isdir(value):
            raise ValueError(problem)
        return value.removesuffix("/") if value != "/" else value

    return parse


def _file_or_default(of: Any, value: str) -> str:
    if not os.path.isfile(value) and value not in DEFAULT_FILES:
        raise ValueError("File '{value}' not found for '{key}'")
    return value


def _networks(of: Any, value: str) -> Networks:
    try:
        return Networks(value)
    except ValueError as error:
        raise CommandError(f"Error defining trusted upstream proxies: {error}") from None  # a text with braces, perhaps


def _endpoints(of: Any, value: str) -> list[tuple[str, int]]:
    found = []
    for part in filter(None, re.split(r"\s*,\s*", value)):
        host, _, port = part.partition(":")
        if not re.fullmatch(r"\d+\.\d+\.\d+\.\d+:\d+", part, re.ASCII):
            raise CommandError(f'Invalid UDP endpoint: "{part}".  Must be of form a.b.c.d:port')
        found.append((host, int(port)))
    return found


def _executable(of: Any, value: str) -> str:
    if not os.access(value, os.X_OK):
        raise ValueError("Server process ({value}) not executable.")
    return value


def _schedule(of: Any, value: str) -> list[float]:
    return [_seconds(of, part.strip()) for part in value.split(",")]


# -- kinds of which there is one


def role(role: str, default: None, help: str) -> Parameter[Any]:
    return Parameter(
        role, default, help, lambda of, name: of.world.make_role(of, name), kind="role", show=lambda value: value.name
    )


def pool(role: str, default: None, help: str) -> Parameter[Any]:
    return Parameter(
        role, default, help, lambda of, name: of.world.find_pool(name), kind="pool", show=lambda value: value.name
    )


def service(role: str, default: None, help: str) -> Parameter[Any]:
    return Parameter(
        role, default, help, lambda of, name: of.world.find_service(name), kind="service", show=lambda value: value.name
    )


def listen(role: str, default: None, help: str) -> Parameter[str | None]:
    return Parameter[str | None](role, default, help, _listen, kind="address", show=str)


def percentage(role: str, default: str, help: str) -> Parameter[int]:
    return Parameter(role, default, help, _percentage, kind="percentage")


def both_timeouts(role: str, default: None, help: str) -> Parameter[int | None]:
    return Parameter[int | None](role, default, help, _integer, kind="integer", dumped=False)


def networks(role: str, default: None, help: str) -> Parameter[Networks | None]:
    return Parameter[Networks | None](role, default, help, _networks, kind="networks")


def file(role: str, default: str, help: str) -> Parameter[str]:
    """A file; the default need not be there."""
    return Parameter(role, default, help, _file_or_default, kind="file")


def executable(role: str, default: None, help: str) -> Parameter[str | None]:
    return Parameter[str | None](role, default, help, _executable, kind="file", show=str)


def directory(role: str, problem: str, help: str) -> Parameter[str | None]:
    return Parameter[str | None](role, None, help, _directory(problem), kind="directory", show=str)


def schedule(role: str, default: str, help: str) -> Parameter[list[float]]:
    return Parameter(
        role,
        default,
        help,
        _schedule,
        kind="seconds, at commas",
        show=lambda delays: ",".join(f"{delay:g}" for delay in delays),
    )


def endpoints(role: str, default: str, help: str) -> Parameter[list[tuple[str, int]]]:
    return Parameter(
        role,
        default,
        help,
        _endpoints,
        kind="addresses",
        show=lambda ends: ",".join(f"{host}:{port}" for host, port in ends),
    )


def names(role: str, default: str, help: str, dumped: bool = True) -> Parameter[list[str]]:
    """Names, at commas or blanks."""
    return Parameter(role, default, help, _names, kind="names", show=", ".join, dumped=dumped)


def _names(of: Any, value: str) -> list[str]:
    return [name for name in re.split(r"[\s,]+", value) if name]


def existing_file(role: str, default: None, help: str) -> Parameter[str | None]:
    return Parameter[str | None](role, default, help, _file_or_default, kind="file", show=str)


def parse_listen(text: str) -> Address:
    """The address of a `listen` parameter, which was checked."""
    if text.startswith("unix:"):
        return text[5:]
    host, _, port = text.rpartition(":")
    return host.strip("[]") or "0.0.0.0", int(port)
