"""The role `web_server`: files below a document root, by GET and HEAD, PUT and DELETE.

A storage daemon is meant to be a configuration of it: the methods that it answers are a table.
"""

from __future__ import annotations

from functools import partial

from perlbal.clients import Client, HttpRole
from perlbal.concatenation import begin_concatenation
from perlbal.disk import after_disk
from perlbal.files import File, answer, decoded, look
from perlbal.heads import Refused, RequestHead
from perlbal.put import begin_delete, begin_put
from perlbal.services import Service


class WebRole(HttpRole):
    name = "web_server"

    def begin(self, client: Client, head: RequestHead) -> None:
        service = self.service
        if service.hooks and (
            service.run_hooks("start_web_request", client) or service.run_hooks("start_http_request", client)
        ):
            return None
        method = METHODS.get(head.method)
        if method is None:
            return client.error(400)
        try:
            return method(client, service, head)
        except Refused as refused:
            return client.error(refused.code, refused.text)

    def describe(self) -> list[str]:
        return ["  pend clients: 0", "  pend backend: 0", f"        docroot: {self.service.docroot}"]


def begin_get(client: Client, service: Service, head: RequestHead) -> None:
    """Answer a GET or HEAD. Raises Refused."""
    if service.hooks and service.run_hooks("start_serve_request", client):
        return None
    uri = decoded(head.uri)
    root: str | None = service.docroot
    if root is None:
        raise Refused(500, "Docroot unconfigured")
    if "??" in uri:
        return begin_concatenation(client, service, head, uri, root)
    work = partial(look, root, uri.partition("?")[0], service.index_files, service.dirindexing)
    return after_disk(client, work, partial(answer, client, service, head), _close)


def _close(found: object) -> None:
    if isinstance(found, File):
        found.close()


METHODS = {"GET": begin_get, "HEAD": begin_get, "PUT": begin_put, "DELETE": begin_delete}
