"""PUT and DELETE: a body that goes to a file, and a file that goes.

PUT is in sequential style: a task reads from the client, which was in callback style until then, has a thread write
what it has read, and hands the client back. A file with a Content-MD5 is written under a temporary name; any other one
in place. What does not belong here: finding and sending files.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
from contextlib import suppress
from functools import partial

from dangagreen import spawn
from perlbal.bodies import read_body
from perlbal.clients import Client, Exchange
from perlbal.disk import after_disk, on_disk
from perlbal.heads import Refused, RequestHead
from perlbal.services import Service

_PATH = re.compile(r"((?:/[\w.-]+)*)/([\w.-]+)", re.ASCII)


class Upload:
    """A file that is being written. All of its methods touch the disk: a thread may call them."""

    def __init__(self, directory: str, name: str, md5: str) -> None:
        self.directory, self.path = directory, f"{directory}/{name}"
        self.md5 = md5.rstrip("=")
        self.written = f"{self.path}.{os.getpid()}.{random.getrandbits(32)}.tmp" if md5 else self.path
        self.hash = hashlib.md5(usedforsecurity=False) if md5 else None
        self.fd = -1

    def open(self) -> None:
        """Raises Refused."""
        flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | (os.O_EXCL if self.md5 else os.O_TRUNC)
        try:
            self.fd = os.open(self.written, flags, 0o644)
        except FileNotFoundError:
            try:
                os.makedirs(self.directory, 0o755, exist_ok=True)
            except OSError:
                raise Refused(500, "Unable to create directory") from None
            self.fd = os.open(self.written, flags, 0o644)

    def write(self, data: bytes) -> None:
        if self.hash is not None:
            self.hash.update(data)
        with memoryview(data) as rest:
            done = 0
            while done < len(rest):
                done += os.write(self.fd, rest[done:])

    def conclude(self) -> int:
        """The body is complete: returns the status code. Raises Refused where it is not what its MD5 says."""
        self.close()
        if self.hash is None:
            return 200
        actual = base64.b64encode(self.hash.digest()).decode().rstrip("=")
        if actual != self.md5:
            raise Refused(400, f"Content-MD5 mismatch, expected: {self.md5} actual: {actual}")
        os.rename(self.written, self.path)
        self.written = self.path
        return 201

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def abandon(self) -> None:
        """Nothing stays under a temporary name."""
        self.close()
        if self.written != self.path:
            with suppress(OSError):
                os.unlink(self.written)


class Uploading(Exchange):
    """A task reads the body."""

    state = "buffering_upload"


def begin_put(client: Client, service: Service, head: RequestHead) -> None:
    """Answer a PUT. Raises Refused."""
    if not service.enable_put:
        raise Refused(403)
    length = head.content_length or 0
    if service.max_put_size and length > service.max_put_size:
        raise Refused(400, f"Content-length of {length} is invalid.")
    if service.run_hooks("handle_put", client):
        return
    path = _PATH.fullmatch(head.uri)
    if path is None or ".." in head.uri:
        raise Refused(400, "Invalid filename")
    if service.docroot is None:
        raise Refused(500, "Docroot unconfigured")
    levels = path[1].split("/")[1:]
    if len(levels) < service.min_put_directory:
        raise Refused(400, "Does not meet minimum directory requirement")
    base = "/".join([service.docroot, *levels[: service.min_put_directory]]) if service.min_put_directory else None
    md5 = head.get("content-md5") if service.enable_md5 else ""
    client.pause()
    client.exchange = exchange = Uploading()
    spawn(_put, client, exchange, service, Upload(service.docroot + path[1], path[2], md5), base)


def _put(client: Client, exchange: Uploading, service: Service, upload: Upload, base: str | None) -> None:
    """A task: the upload of one client, from the first byte of the body to the answer."""
    world, code, text = service.world, 0, ""
    try:
        if base is not None and not on_disk(world, os.path.isdir, base):
            raise Refused(404, "Base directory does not exist")
        on_disk(world, upload.open)
        client.send_continue()
        for data in read_body(client, service.max_chunked_request_size):
            if not service.run_hooks("put_writeout", client, data):
                on_disk(world, upload.write, data)
        code = on_disk(world, upload.conclude)
    except Refused as refused:
        code, text = refused.code, refused.text
    except ConnectionError as error:
        client.close(error)
    except OSError:
        code, text = 500, "Internal error"
    except Exception as error:
        client.close(error)
        raise
    finally:
        upload.abandon()
    if client.exchange is exchange:
        client.exchange = None
        client.error(code, text)


def begin_delete(client: Client, service: Service, head: RequestHead) -> None:
    """Answer a DELETE. Raises Refused."""
    if not service.enable_delete:
        raise Refused(403)
    if _PATH.fullmatch(head.uri) is None or ".." in head.uri:
        raise Refused(400, "Invalid filename")
    if service.docroot is None:
        raise Refused(500, "Docroot unconfigured")
    after_disk(client, partial(_delete, service.docroot + head.uri), lambda outcome: client.error(*outcome))


def _delete(path: str) -> tuple[int, str]:
    """Remove a file: the status code, and the text of the answer."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return 404, ""
    except OSError as error:
        return 400, error.strerror or ""
    return 204, ""
