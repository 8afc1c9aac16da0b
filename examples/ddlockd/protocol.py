"""The protocol of ddlockd: a request is a line, a command and its arguments; a reply is a line, or several.

All of it is bytes to values and back. Arguments and replies are encoded as the original does it, to the letter.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

Arguments = dict[bytes, bytes]
Request = tuple[bytes, Arguments]

PLAIN = re.compile(rb"(trylock|releaselock) lock=([^%+&=\r]+)\r?")  # what nearly all lines look like
LINE = re.compile(rb"(\w+)\s*(.*)", re.DOTALL)
NOT_PLAIN = re.compile(rb"[^a-zA-Z0-9_,\-./\\: ]")
SECONDS = re.compile(rb"\d{1,9}(\.\d{0,9})?|\.\d{1,9}")


def encode(text: bytes) -> bytes:
    """As the original encodes what it tells."""
    return NOT_PLAIN.sub(lambda found: b"%%%02X" % ord(found[0]), text).replace(b" ", b"+")


def ok(**told: object) -> bytes:
    return b"OK " + b"&".join(b"%s=%s" % (key.encode(), encode(str(told[key]).encode())) for key in told) + b"\r\n"


def err(code: bytes, text: bytes = b"") -> bytes:
    return b"ERR %s %s\r\n" % (code, encode(text))


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
