"""AutoRemoveLeadingDir: a URI may begin with the last name of the document root, which is dropped."""

from __future__ import annotations

import os.path
from functools import partial

from perlbal.clients import Client
from perlbal.hooks import Plugin
from perlbal.services import Service


class AutoRemoveLeadingDir(Plugin[None]):
    def register(self, service: Service) -> None:
        service.register_hook(self.name, "start_serve_request", partial(self.edit, service))

    def edit(self, service: Service, client: Client) -> None:
        name = f"/{os.path.basename(service.docroot or '')}/"
        if client.head is not None and client.head.uri.startswith(name):
            client.head.uri = client.head.uri[len(name) - 1 :]


PLUGIN = AutoRemoveLeadingDir
