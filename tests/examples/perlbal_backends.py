"""Real web servers as backends, each started on a free port with a configuration written for it."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from perlbal_peers import program
from tests.programs import free_port

APPLICATION = '''
import sys


def wsgi(environ, start_response):
    """Echoes a body; otherwise as many bytes as the path says."""
    if environ["REQUEST_METHOD"] in ("POST", "PUT"):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    else:
        name = environ["PATH_INFO"].strip("/").partition(".")[0]
        body = b"0123456789" * (int(name) // 10) if name.isdigit() else b""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    """The same; without a length, so that it is chunked where that is spoken."""
    if scope["type"] != "http":
        raise NotImplementedError
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["method"] not in ("POST", "PUT"):
        name = scope["path"].strip("/").partition(".")[0]
        body = b"0123456789" * (int(name) // 10) if name.isdigit() else b""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for at in range(0, len(body), 50_000):
        await send({"type": "http.response.body", "body": body[at : at + 50_000], "more_body": True})
    await send({"type": "http.response.body", "body": b""})
'''
FILES = (10, 1000, 1_000_000)  # sizes, and names
NGINX = """daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/log;
events {{ worker_connections 500; }}
http {{ access_log off; default_type text/plain; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; root {folder}/files; }} }}
"""
LIGHTTPD = """server.document-root = "{folder}/files"
server.port = {port}
server.bind = "127.0.0.1"
mimetype.assign = ( ".txt" => "text/plain" )
"""
APACHE = """ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/apache.pid
ErrorLog {folder}/log
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
DocumentRoot {folder}/files
"""
MODULES = Path("/usr/lib/apache2/modules")


def _python(module: str, *options: str) -> Callable[[Path, int], list[str] | None]:
    def command(folder: Path, port: int) -> list[str] | None:
        if importlib.util.find_spec(module) is None:
            return None
        (folder / "application.py").write_text(APPLICATION)
        return [sys.executable, "-m", module, *(option.format(folder=folder, port=port) for option in options)]

    return command


def _server(name: str, text: str, *options: str) -> Callable[[Path, int], list[str] | None]:
    def command(folder: Path, port: int) -> list[str] | None:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        if path is None:
            return None
        file = folder / f"{name}.conf"
        file.write_text(text.format(folder=folder, port=port, modules=MODULES))
        return [path, *(option.format(file=file) for option in options)]

    return command


DYNAMIC = {
    "gunicorn": _python(
        "gunicorn",
        "--chdir={folder}",
        "--bind=127.0.0.1:{port}",
        "--threads=4",
        "--log-level=error",
        "application:wsgi",
    ),
    "uvicorn": _python("uvicorn", "--app-dir={folder}", "--port={port}", "--log-level=error", "application:asgi"),
    "waitress": _python("waitress", "--listen=127.0.0.1:{port}", "application:wsgi"),
}
STATIC = {
    "nginx": _server("nginx", NGINX, "-c", "{file}"),
    "lighttpd": _server("lighttpd", LIGHTTPD, "-D", "-f", "{file}"),
    "apache": _server("apache2", APACHE, "-X", "-f", "{file}"),
}
ALL = DYNAMIC | STATIC


@contextlib.contextmanager
def backend(name: str, folder: Path) -> Iterator[int | None]:
    """The port of a running server; None if it is not installed."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for size in FILES:
        (files / f"{size}.txt").write_bytes(b"0123456789" * (size // 10))
    port = free_port()
    command = ALL[name](folder, port)
    if command is None:
        yield None
        return
    with program(command, port, cwd=folder):
        yield port


def curl(*options: str) -> bytes:
    """What curl prints. It fails the test if the exchange does."""
    done = subprocess.run(["curl", "-sS", "--max-time", "20", *options], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
