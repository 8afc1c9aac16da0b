"""Several files by one request: `/dir/??a.css,b.css`, sent one after the other.

What does not belong here: single files (files).
"""

from __future__ import annotations

import os
from errno import ENOENT
from functools import partial

from perlbal.clients import Client
from perlbal.disk import after_disk
from perlbal.files import ABSENT, File, SendingFile, fields_of, is_unchanged, mime_type, open_file, send, send_files
from perlbal.heads import Refused, RequestHead, ResponseHead
from perlbal.pages import REASONS, http_date
from perlbal.services import Service

MOST = 100  # files of one request


def begin_concatenation(client: Client, service: Service, head: RequestHead, uri: str, root: str) -> None:
    """Answer a GET or HEAD of a URI with `??` in it, which was decoded. Raises Refused."""
    base, _, listed = uri.rpartition("??")
    names = [name for name in listed.partition("?")[0].split(",") if name]
    if not base.endswith("/"):
        raise Refused(500, "Base directory (before ??) must end in slash.")
    if not service.enable_concatenate_get:
        raise Refused(403, "Multiple file serving isn't enabled")
    if len(names) > MOST:
        raise Refused(403, "Too many files requested")
    if any(".." in name.split("/") for name in names):
        raise Refused(403, "Bogus filenames")
    if not names:
        raise Refused(404, "One or more file does not exist")
    after_disk(client, partial(open_all, root + base, names), partial(_answer, client, service, head), close_all)


def open_all(base: str, names: list[str]) -> list[File] | None:
    """All the files; None if one of them is none; an empty list if there is no directory. Raises OSError for
    those that are there and cannot be opened."""
    if not os.path.isdir(base):
        return []
    files: list[File] = []
    try:
        for name in names:
            if (file := open_file(base + name, name)) is None:
                raise FileNotFoundError(ENOENT, "no file", name)
            files.append(file)
    except OSError as error:
        close_all(files)
        if error.errno not in ABSENT:
            raise
        return None
    return files


def close_all(files: list[File] | None) -> None:
    for file in files or ():
        file.close()


def _answer(client: Client, service: Service, head: RequestHead, files: list[File] | None) -> None:
    if files is None:
        if not service.run_hooks("concat_get_poststat_file_missing", client):
            client.error(404, "One or more file does not exist")
        return None
    if not files:
        return client.error(404, "Base directory not a directory")
    newest, size = max(file.mtime for file in files), sum(file.size for file in files)
    modified = http_date(newest)
    code = 304 if is_unchanged(head, modified, size) else 200
    fields = {}
    if code == 200:
        if service.run_hooks("concat_get_poststat_pre_send", client, newest):
            return close_all(files)
        fields["content-length"] = f"Content-Length: {size}"
    types = (mime_type(service.world.mime, file.name) for file in files)
    fields |= fields_of(service, modified)
    fields["content-type"] = f"Content-Type: {next(filter(None, types), 'text/plain')}"
    response = ResponseHead(code, REASONS[code], 10, fields)
    if service.run_hooks("modify_response_headers", client, response):
        return close_all(files)
    if code == 304 or head.method == "HEAD":
        close_all(files)
        return send(client, response, b"", 0)
    client.exchange = SendingFile()
    client.send_head(response)
    return send_files(client, [(file, 0, file.size) for file in files if file.size])
