"""Files that are sent: finding them, what is said of them, ranges, directories; GET and HEAD of the web server.

What waits for a disk is in `look` and what it calls: these are functions that a thread may run, and touch nothing but
the disk. The rest is in callback style: a small file leaves in one write with its head, a large one by sendfile, in the
order of writes. What does not belong here: who may ask for a file, and whether threads do the disk work (disk).
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import FileIO
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from perlbal.clients import Client, Exchange
from perlbal.heads import Refused, RequestHead, ResponseHead
from perlbal.pages import REASONS, SERVER, http_date
from perlbal.services import Service

SMALL = 32_768  # bytes of a file that is read, and leaves with its head in one send(2), which is cheaper than sendfile
DIGITS = 18  # of a number in a request that are looked at: no file has as many bytes
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO without a writer must not hold up anybody
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_LENGTH = re.compile(r"; length=(\d{1,18})", re.ASCII)
_EXTENSION = re.compile(r"\.(\w+)\Z", re.ASCII)
_UP = re.compile(r"/\.\.(/|\Z)")


@dataclass(slots=True)
class File:
    """A regular file that was opened. `data` is all of it, if it is small; otherwise `fd` is its descriptor."""

    name: str
    fd: int
    size: int
    mtime: int
    data: bytes | None = None

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Listing(NamedTuple):
    """A directory without an index file: its entries, and whether each is a directory; None if it is not listed."""

    entries: list[tuple[str, bool]] | None
    mtime: int


# -- what a thread may do


def look(root: str, path: str, index_files: Sequence[str], listed: bool) -> File | Listing | None:
    """What there is at a path below `root`; None: nothing. Raises OSError."""
    try:
        return open_file(root + path, path) or _look_into(root + path, index_files, listed)
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise


def open_file(path: str | bytes, name: str) -> File | None:
    """Open a regular file, and read it if it is small. Returns None for anything else. Raises OSError."""
    fd = os.open(path, _FLAGS)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            return None
        file = File(name, fd, found.st_size, int(found.st_mtime))
        if file.size <= SMALL:
            file.data = os.read(fd, file.size) if file.size else b""
            file.size = len(file.data)
            file.close()
    except BaseException:
        os.close(fd)
        raise
    return file


def _look_into(path: str, index_files: Sequence[str], listed: bool) -> File | Listing | None:
    found = os.stat(path)
    if not stat.S_ISDIR(found.st_mode):
        return None
    for name in index_files:
        try:
            if (file := open_file(f"{path}/{name}", name)) is not None:
                return file
        except OSError as error:
            if error.errno not in ABSENT:
                raise
    if not listed:
        return Listing(None, int(found.st_mtime))
    with os.scandir(path) as entries:
        names = [(entry.name, entry.is_dir()) for entry in entries]
    return Listing(sorted([(".", True), ("..", True), *names]), int(found.st_mtime))


# -- requests


def decoded(uri: str) -> str:
    """A URI with its %XX decoded, as the file system takes it. Raises Refused for what leads out of the root."""
    if "%" in uri or not uri.isascii():
        uri = os.fsdecode(unquote_to_bytes(uri.encode("latin-1")))
    if uri[:1] != "/" or "\0" in uri or (".." in uri and _UP.search(uri.partition("?")[0])):
        raise Refused(403, "Bogus URL")
    return uri


def is_unchanged(head: RequestHead, modified: str, size: int) -> bool:
    """Whether If-Modified-Since is, as a string, what Last-Modified would say; a length that it has must be right."""
    since = head.get("if-modified-since")
    if not since:
        return False
    if (length := _LENGTH.search(since)) is not None:
        return since.replace(length[0], "", 1) == modified and int(length[1]) == size
    return since == modified


def wanted_range(text: str, size: int) -> tuple[int, int] | None:
    """The range that a Range field asks for: (offset, count); None: it is to be ignored. Raises Refused: 416."""
    match = _RANGE.fullmatch(text)
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if not first:
        count = min(_number(last), size)
        if not count:
            raise Refused(416)
        return size - count, count
    begin = _number(first)
    end = _number(last) if last else size
    if begin >= size or end < begin:
        raise Refused(416)
    return begin, min(end, size - 1) - begin + 1


def _number(text: str) -> int:
    """The number, or one that is larger than any file."""
    return int(text.lstrip("0")[:DIGITS] or 0)


def mime_type(mime: dict[str, str], name: str) -> str | None:
    extension = _EXTENSION.search(name)
    return mime.get(extension[1]) if extension else None


def fields_of(service: Service, modified: str) -> dict[str, str]:
    """The fields that each response about files begins with, as a head keeps them."""
    fields = {"date": f"Date: {http_date(int(time.time()))}"}
    if service.server_tokens:
        fields["server"] = f"Server: {SERVER}"
    fields["last-modified"] = f"Last-Modified: {modified}"
    return fields


def answer(client: Client, service: Service, head: RequestHead, found: File | Listing | None) -> None:
    """Answer a GET or HEAD by what was found."""
    if isinstance(found, File):
        return answer_file(client, service, head, found)
    if found is None:
        if not service.run_hooks("static_get_poststat_file_missing", client):
            client.error(404)
    elif found.entries is None:
        client.error(200, "Directory listing disabled")
    else:
        body = listing(head.uri.partition("?")[0], found.entries)
        fields = fields_of(service, http_date(found.mtime))
        fields["content-type"] = "Content-Type: text/html"
        fields["content-length"] = f"Content-Length: {len(body)}"
        send(client, ResponseHead(200, REASONS[200], 10, fields), body, len(body))
    return None


def listing(uri: str, entries: list[tuple[str, bool]]) -> bytes:
    uri = escape(uri.rstrip("/"), quote=True)
    lines = []
    for name, is_directory in entries:
        slash = "/" if is_directory else ""
        link = f"<a href='{uri}/{escape(quote(os.fsencode(name)))}{slash}'>{escape(name)}</a>"
        lines.append(f"<b>{link}</b><br />\n" if is_directory else f"{link}<br />\n")
    return f"<html><body>{''.join(lines)}</body></html>".encode("utf-8", "surrogateescape")


def answer_file(client: Client, service: Service, head: RequestHead, file: File) -> None:
    """Answer by a file, or a range of it, or that it was not modified."""
    modified = http_date(file.mtime)
    code, start, count = 200, 0, file.size
    fields = fields_of(service, modified)
    asks = head.fields
    try:
        if "if-modified-since" in asks and is_unchanged(head, modified, file.size):
            code = 304
        elif "range" in asks and (part := wanted_range(head.get("range"), file.size)) is not None:
            code = 206
            start, count = part
        elif service.hooks and service.run_hooks("static_get_poststat_pre_send", client, file.mtime):
            return file.close()
    except Refused as refused:
        code = refused.code
        first = {"content-range": f"Content-Range: bytes */{file.size}", "content-length": "Content-Length: 0"}
        fields = first | fields
    fields["accept-ranges"] = "Accept-Ranges: bytes"
    if code in (200, 206):
        fields["content-type"] = f"Content-Type: {mime_type(service.world.mime, file.name) or 'text/plain'}"
        if code == 206:
            fields["content-range"] = f"Content-Range: bytes {start}-{start + count - 1}/{file.size}"
        fields["content-length"] = f"Content-Length: {count}"
    else:
        count = 0
    response = ResponseHead(code, REASONS[code], 10, fields)
    if service.hooks and (
        service.run_hooks("modify_response_headers", client, response)
        or (count and service.run_hooks("start_send_file", client))
    ):
        return file.close()
    if file.data is None:
        return send_file(client, response, file, start, count)
    if not count or head.method == "HEAD":
        return send(client, response, b"", 0)
    client.send_head(response, file.data[start : start + count] if code == 206 else file.data)
    return client.file_sent()


def send(client: Client, response: ResponseHead, body: bytes, count: int) -> None:
    """Send a response whose body is in memory, of so many bytes."""
    head = client.head
    client.send_head(response, body if count and head is not None and head.method != "HEAD" else b"")
    client.response_done()


class SendingFile(Exchange):
    """A file is being sent. A client that takes some of it from one look to the next is not idle."""

    state = "xfer_disk"
    seen = 0  # bytes that it had taken at the last look

    def overdue(self, client: Client) -> None:
        if client.sent_of_file == self.seen:
            super().overdue(client)
        self.seen = client.sent_of_file


def send_file(client: Client, response: ResponseHead, file: File, start: int, count: int) -> None:
    """Send a part of a file by sendfile, after a head."""
    head = client.head
    if not count or head is None or head.method == "HEAD":
        file.close()
        return send(client, response, b"", 0)
    client.exchange = SendingFile()
    client.send_head(response)
    send_files(client, [(file, start, count)])
    return None


def send_files(client: Client, parts: list[tuple[File, int, int]]) -> None:
    """Send parts of files, one after the other, and end the exchange. A file that has become shorter closes the client:
    its length was told already."""
    for file, start, count in parts:
        client.sent += count
        if file.data is not None:
            client.write(file.data[start : start + count])
            continue
        with FileIO(file.fd) as opened:
            file.fd = -1
            try:
                client.write_file(opened, start, count)
            except EOFError as error:
                client.close(error)
    client.write(client.file_sent)
