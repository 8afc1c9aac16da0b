"""What responses of our own say: reasons of status codes, the page that tells of an error, dates, types of files.

The reasons are those of the original where it has one, otherwise those of the RFCs. What does not belong here: who is
told what, and whether the connection stays.
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from time import gmtime

from perlbal.heads import ResponseHead

SERVER = "Perlbal"
REASONS = {status.value: status.phrase for status in HTTPStatus} | {
    301: "Permanent Redirect",
    400: "Bad request",
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Request range not satisfiable",
}

MIME = {
    "css": "text/css",
    "doc": "application/msword",
    "gif": "image/gif",
    "htm": "text/html",
    "html": "text/html",
    "jpg": "image/jpeg",
    "js": "application/x-javascript",
    "mp3": "audio/mpeg",
    "mpg": "video/mpeg",
    "pdf": "application/pdf",
    "png": "image/png",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "torrent": "application/x-bittorrent",
    "txt": "text/plain",
    "zip": "application/zip",
}

_DAYS = "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"
_MONTHS = "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
_WITHOUT_PAGE = 204, 304


@lru_cache(maxsize=1024)
def http_date(seconds: int) -> str:
    """A time since the epoch as RFC 9110 writes it."""
    year, month, day, hour, minute, second, weekday = gmtime(seconds)[:7]
    return f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{second:02} GMT"


def response_head(code: int, fields: dict[str, str]) -> ResponseHead:
    """The head of a response, of fields in their order."""
    return ResponseHead(code, REASONS.get(code, ""), 10, {name.lower(): f"{name}: {fields[name]}" for name in fields})


def page(code: int, text: str, tokens: bool) -> tuple[ResponseHead, bytes]:
    """The head and the body that tell of a status code. `tokens`: whether it says which server this is."""
    server = {"Server": SERVER} if tokens else {}
    if code in _WITHOUT_PAGE:
        return response_head(code, server), b""
    body = f"<h1>{code} - {REASONS.get(code, '')}</h1>\n{text}".encode("latin-1", "replace")
    return response_head(code, {"Content-Type": "text/html", "Content-Length": str(len(body))} | server), body
