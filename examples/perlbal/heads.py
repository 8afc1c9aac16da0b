"""Request and response heads: from bytes to an object whose lines are handed on as they came, and back.

A head keeps its fields as a dict from the name in lower case to the whole line, `Name: value`: so order and letter case
of the first occurrence survive, and writing a head is a join. Repeated fields are joined by a comma, but for
Set-Cookie. What is refused, and by which status code, is in the table REFUSALS; nobody else decides that. Text is
latin-1, so each byte is a character. What does not belong here: what a role makes of a head, and bodies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

HEAD_LIMIT = 102_400  # bytes; a head that has no end by then is refused
VERSIONS = {"HTTP/1.0": 10, "HTTP/1.1": 11, "HTTP/2.0": 11} | {f"HTTP/1.{minor}": 11 for minor in range(2, 10)}
CODES = {str(code): code for code in range(100, 1000)}
BLANKS = " \t"
SHOWN = {10: "HTTP/1.0", 11: "HTTP/1.1"}

REFUSALS = {
    "first line": (400, "Not a request line: METHOD SP URI SP HTTP/1.x is wanted"),
    "status line": (502, "Not a status line"),
    "version": (505, "HTTP/1.0 and HTTP/1.1 are spoken here"),
    "header line": (400, "Not a header line: Name: value is wanted"),
    "control": (400, "A head has no NUL, and no CR without an LF"),
    "host": (400, "HTTP/1.1 wants a Host header"),
    "length": (400, "Content-Length is a number, given once"),
    "negative": (400, "Invalid request: Content-Length < 0"),
    "length and coding": (400, "Content-Length beside Transfer-Encoding"),
    "coding": (501, "The transfer coding known here is chunked"),
    "long line": (414, "The request line is too long"),
    "long head": (431, "The header is too large"),
}

_METHOD = re.compile(r"[A-Za-z0-9_]+")
_URI = re.compile(r"[^\x00-\x20\x7f]+")
_ABSOLUTE = re.compile(r"http://(\[[^\]/]*\]|[^/:\[\]]+)(?::\d+)?(/.*)?")
_VERSION = re.compile(r"HTTP/\d+\.\d+")
_STATUS = re.compile(r"HTTP/(\d{1,3})\.(\d{1,3})[ \t]+([1-9]\d{2})[ \t]+(.*)", re.ASCII)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_KEEP_ALIVE = re.compile(r"\bkeep-alive\b", re.ASCII)
_CLOSE = re.compile(r"\bclose\b", re.ASCII)


class Refused(Exception):
    """A request that is answered by a page: `code` is the status that says so, `text` what was wrong."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code, self.text = code, text


class BadHead(Refused):
    """A head that breaks one of the rules of REFUSALS."""

    def __init__(self, rule: str) -> None:
        super().__init__(*REFUSALS[rule])
        self.rule = rule


class Head:
    """What both kinds have in common. Names of fields are given in lower case, but to `set` and `add`."""

    __slots__ = ("chunked", "content_length", "fields", "version")

    fields: dict[str, str]
    version: int  # 10 or 11

    def get(self, name: str, default: str = "") -> str:
        """The value of a field. Several Set-Cookie come as one, with line ends: for those ask `items`."""
        line = self.fields.get(name)
        return default if line is None else line[len(name) + 2 :]

    def set(self, name: str, value: str) -> None:
        """Put a field in the place that it has already, in the letter case that it has, or at the end."""
        key = name.lower()
        line = self.fields.get(key)
        self.fields[key] = f"{name if line is None else line[: len(key)]}: {value}"

    def add(self, name: str, value: str) -> None:
        """As if it had come in the head once more."""
        _add(self.fields, name.lower(), f"{name}: {value}")

    def remove(self, name: str) -> None:
        self.fields.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def items(self) -> Iterator[tuple[str, str]]:
        """The lines in order, as (name, value)."""
        for lines in self.fields.values():
            for line in lines.split("\r\n"):
                name, _, value = line.partition(": ")
                yield name, value

    @property
    def wants_keep_alive(self) -> bool:
        """Whether its sender wants the connection to stay."""
        line = self.fields.get("connection")
        if line is None:
            return self.version >= 11
        value = line[12:].lower()
        return (self.version >= 11 or bool(_KEEP_ALIVE.search(value))) and not _CLOSE.search(value)

    def first_line(self) -> str:
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """The head as it is sent, with the empty line at its end."""
        return "\r\n".join((self.first_line(), *self.fields.values(), "", "")).encode("latin-1")


class RequestHead(Head):
    __slots__ = ("method", "uri")

    def __init__(self, method: str, uri: str, version: int, fields: dict[str, str] | None = None) -> None:
        self.fields = {} if fields is None else fields
        self.method, self.uri, self.version = method, uri, version
        self.content_length: int | None = None
        self.chunked = False

    @property
    def host(self) -> str:
        return self.get("host")

    def first_line(self) -> str:
        return f"{self.method} {self.uri} {SHOWN[self.version]}"

    def copy(self) -> RequestHead:
        copied = RequestHead(self.method, self.uri, self.version, self.fields.copy())
        copied.content_length, copied.chunked = self.content_length, self.chunked
        return copied


class ResponseHead(Head):
    """`version` is what the backend spoke; `to_bytes` says HTTP/1.0, unless `sent_version` is set to 11."""

    __slots__ = ("code", "reason", "sent_version")

    def __init__(self, code: int, reason: str, version: int = 10, fields: dict[str, str] | None = None) -> None:
        self.fields = {} if fields is None else fields
        self.code, self.reason, self.version, self.sent_version = code, reason, version, 10
        self.content_length: int | None = None
        self.chunked = False

    def first_line(self) -> str:
        return f"{SHOWN[self.sent_version]} {self.code} {self.reason}"


def head_end(buffer: bytes | bytearray) -> int:
    """Where the head ends, which is after its empty line; -1 if that has not come yet.

    Raises BadHead for one that is longer than HEAD_LIMIT, also before its end.
    """
    end = buffer.find(b"\r\n\r\n")
    short = buffer.find(b"\n\n") if end < 0 else buffer.find(b"\n\n", 0, end)  # not all of a body that came with it
    if short >= 0:
        end = short + 2
    elif end >= 0:
        end += 4
    if 0 <= end <= HEAD_LIMIT:
        return end
    if len(buffer) >= HEAD_LIMIT:
        raise BadHead("long head" if b"\n" in buffer[:HEAD_LIMIT] else "long line")
    return -1


def parse_request(data: bytes) -> RequestHead:
    """The head of a request, with its empty line. Raises BadHead."""
    lines = _lines(data)
    method, _, rest = lines[0].partition(" ")
    uri, _, spoken = rest.partition(" ")
    version = VERSIONS.get(spoken)
    plain = method.isalnum() and uri and method.isascii() and uri.isascii() and uri.isprintable()
    if version is None or not (plain or (_METHOD.fullmatch(method) and _URI.fullmatch(uri))):
        right = _METHOD.fullmatch(method) and _URI.fullmatch(uri) and _VERSION.fullmatch(spoken)
        raise BadHead("version" if right else "first line")
    head = RequestHead(method, uri, version, _fields(lines))
    if uri[0] != "/" and (absolute := _ABSOLUTE.fullmatch(uri)):
        head.uri = absolute[2] or "/"
        head.set("Host", absolute[1].lower())
    fields = head.fields
    if version >= 11 and len(fields.get("host", "")) < 7:
        raise BadHead("host")
    if "transfer-encoding" in fields:
        if "content-length" in fields:
            raise BadHead("length and coding")
        head.chunked = _is_chunked(fields["transfer-encoding"])
    elif (line := fields.get("content-length")) is not None:
        head.content_length = _length(line[16:])
    return head


def parse_response(data: bytes) -> ResponseHead:
    """The head of a response, with its empty line. Raises BadHead, whose code is of no meaning to a client."""
    lines = _lines(data)
    spoken, _, rest = lines[0].partition(" ")
    code, space, reason = rest.partition(" ")
    if spoken in VERSIONS and code in CODES and space and reason.strip() == reason:
        head = ResponseHead(CODES[code], reason, VERSIONS[spoken], _fields(lines))
    else:
        head = _unusual_response(lines)
    fields = head.fields
    if (coding := fields.get("transfer-encoding")) is not None and coding[19:].lower() != "identity":
        head.chunked = coding[19:].lower().endswith("chunked")
        fields.pop("content-length", None)  # whatever the coding is, it does not tell where the body ends
    elif (line := fields.get("content-length")) is not None:
        head.content_length = _length(line[16:])
    return head


def _unusual_response(lines: list[str]) -> ResponseHead:
    """A response whose first line has more blanks than one, or another version."""
    status = _STATUS.fullmatch(lines[0])
    if status is None:
        raise BadHead("status line")
    version = 11 if (int(status[1]), int(status[2])) >= (1, 1) else 10
    return ResponseHead(int(status[3]), status[4].rstrip(" \t"), version, _fields(lines))


def _lines(data: bytes) -> list[str]:
    """The lines of a head, without those that end it. An LF alone ends a line too."""
    text = data.decode("latin-1")
    lines = text.split("\r\n")
    if len(data) - len(data.translate(None, b"\r\n\0")) != 2 * len(lines) - 2:  # there are others than CR LF
        text = text.replace("\r\n", "\n")
        if "\r" in text or "\0" in text:
            raise BadHead("control")
        lines = text.split("\n")
    del lines[-2:]
    return lines


def _fields(lines: list[str]) -> dict[str, str]:
    """The lines after the first one, by name in lower case."""
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(": ")
        if not value or value.strip() != value:
            return _unusual_fields(lines)
        fields[_key(name)] = line
    if "" in fields or len(fields) != len(lines) - 1:
        return _unusual_fields(lines)
    return fields


def _unusual_fields(lines: list[str]) -> dict[str, str]:
    """Lines of which some are repeated, continued, wrong, or have other blanks than one after the colon."""
    unfolded: list[tuple[str, str]] = []
    for line in lines[1:]:
        if line[:1] in (" ", "\t", "\f", "\v"):
            if unfolded:
                name, value = unfolded.pop()
                unfolded.append((name, (value + line.rstrip(BLANKS)).lstrip(BLANKS)))
            continue
        name, colon, value = line.partition(":")
        if not colon or not _key(name):
            raise BadHead("header line")
        unfolded.append((name, value.strip(BLANKS)))
    fields: dict[str, str] = {}
    for name, value in unfolded:
        _add(fields, _key(name), f"{name}: {value}")
    return fields


def _add(fields: dict[str, str], key: str, line: str) -> None:
    before = fields.get(key)
    if before is None:
        fields[key] = line
    elif key == "set-cookie":
        fields[key] = f"{before}\r\nSet-Cookie: {line[12:]}"
    else:
        fields[key] = f"{before}, {line[len(key) + 2 :]}".rstrip(" ")  # of an empty value


@lru_cache(maxsize=1024)
def _key(name: str) -> str:
    """A field's name in lower case; empty if it is none."""
    return name.lower() if _NAME.fullmatch(name) else ""


def _length(value: str) -> int:
    if value.isdigit() and value.isascii():
        if len(value) > 18:
            raise BadHead("length")
        return int(value)
    raise BadHead("negative" if re.fullmatch("-[0-9]+", value) else "length")


def _is_chunked(line: str) -> bool:
    coding = line[19:].lower()
    if coding not in ("chunked", "identity"):
        raise BadHead("coding")
    return coding == "chunked"
