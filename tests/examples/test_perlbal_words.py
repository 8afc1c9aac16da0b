"""The words of the management port beside those of the Perl original: the same, but for a table of what differs."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs import SECONDS, command, expect
from tests.programs import free_port, missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CONFIGURATION = """
LOAD vhosts
CREATE POOL a
  POOL a ADD 127.0.0.1:{nobody}
CREATE SERVICE rp
  SET role = reverse_proxy
  SET pool = a
ENABLE rp
CREATE SERVICE ws
  SET role = web_server
  SET docroot = /tmp
ENABLE ws
CREATE SERVICE sel
  SET role = selector
  SET plugins = vhosts
  VHOST *.example.com = ws
ENABLE sel
CREATE SERVICE mgmt
  SET role = management
  SET listen = 127.0.0.1:{manage}
ENABLE mgmt
"""

SAME = """\
show service
show service rp
show service ws
show service sel
show service mgmt
show service xx
show
show pool
show pool a
show pool b
states
states rp
states zz
queues
pending
backends
noverify
nodes
nodes 1.2.3.4
socks foo
socks summary
plugins
uptime
uptime 1
version
proc
reproxy_state
mime
mime list
mime set foo text/x-foo
mime remove zzz
mime remove foo
mime set foo
mime blah
mime a b c d
verbose
verbose on
verbose off; use rp
create
create service
create service rp
create pool rp
create service a
create pool a
create service b_{n}; set role = blah
create service; nonsense
use nope
use
use RP
set foo = bar
set rp.foo = bar
set rp.a.b = c
set rp.docroot = /tmp
set rp persist_client = maybe
set rp persist_client = YES; set rp.persist_client = 0
set rp.idle_timeout = -1
set rp.buffer_size = 1g
set rp.buffer_size = 12K
set rp.listen = foo
set rp.pool = nope
set rp.role = nope
set rp.queue_relief_chance = 101
set rp.buffer_uploads_path = /nope
set ws.docroot = /nope
set rp.ssl_key_file = /nope
set rp.ssl_ca_path = /nope
set rp.extra.foo = bar
set nope.x = 1
set a.nodefile = /nope
set a.balance_method = foo
set
enable rp
enable nope
disable mgmt
enable
enable rp sel
create service c_{n}; set role = web_server; enable c_{n}; enable c_{n}; disable c_{n}; disable c_{n}
pool
pool a add
pool nope add 1.2.3.4
pool a foo 1.2.3.4
pool add a 1.2.3.4:80; show pool a; pool a remove 1.2.3.4; pool a remove 9.9.9.9; show pool a
header
header rp insert X-Foo
header rp remove x-foo
header rp insert X-Foo: bar
header nope insert a: b
header rp foo a: b
load
reload nope
server
server nice_level = x
server aio_mode = foo
server aio_mode = linux
server pidfile = /tmp/x
server track_obj = 2
server crash_backtrace = 2
server max_reproxy_connections = x
server max_reproxy_connections(1.2.3.4:80) = 5
default
default foo = bar
foo
# comment
!foo
vhost sel foo
vhost rp foo.com = ws
vhost sel f@oo = ws
vhost foo.com = ws
vhost sel foo.com = ws
set rp.plugins = vhosts
prof
prof on; prof off
shutdown foo
xs enable headers
xs foo
use rp; set buffer_size = 256k
"""

DIFFERENT = {  # what ours answers otherwise, and why
    "server foo = bar": "the original names the value in place of the key",
    "set sel.default_service = nope": "the original names nobody",
    "set sel.plugins = foo, vhosts": "the original answers ERROR and OK both",
    "set a.foo = foo": "the original answers nothing",
    "set a.balance_method = round_robin": "is a method here",
    "load nope": "the original tells where Perl has looked",
    "unload nope": "the original answers OK",
    "reload vhosts": "works for all plugins here",
    "xs": "there is no other parser here",
    "dumpconfig": "the order, and index_files, which is the default",
    "help": "commands about the Perl process, and words of plugins",
    "aio": "is about the Perl process",
    "track": "is about the Perl process",
    "state changes": "is about the Perl process",
    "leaks": "is about the Perl process",
}


class Asked:
    """A program with that configuration; what it answers."""

    def __init__(self, words: list[str], file: Path, port: int) -> None:
        self.port = port
        self.process = subprocess.Popen([*words, "-c", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        expect(self.listens)

    def listens(self) -> bool:
        assert self.process.poll() is None
        try:
            return bool(self.answer("uptime"))
        except ConnectionRefusedError:
            return False

    def answer(self, lines: str) -> list[str]:
        """Lines at semicolons; what is a time, a number of the process, or a port, is left out."""
        with socket.create_connection(("127.0.0.1", self.port), SECONDS) as sock:
            sock.sendall("".join(f"{line}\n" for line in [*re.split("; ?", lines), "quit"]).encode())
            text = b"".join(iter(lambda: sock.recv(65536), b"")).decode("latin-1")
        text = text.replace(str(self.port), "PORT")
        text = re.sub(r"(?m)^(time|pid|utime|stime|starttime|uptime)(:?) .*$", r"\1\2 N", text)
        lines_ = text.split("\r\n")
        return sorted(lines_) if lines == "queues" else lines_


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Asked, Asked]]:
    original = shutil.which("perlbal")
    if original is None:
        missing("perlbal")
    folder, nobody = tmp_path_factory.mktemp("words"), free_port()
    asked = []
    for name, words in ("original", [str(original)]), ("ours", command("perlbal")):
        port = free_port()
        file = folder / name
        file.write_text(CONFIGURATION.format(manage=port, nobody=nobody))
        asked.append(Asked(words, file, port))
    yield asked[0], asked[1]
    for one in asked:
        one.process.kill()
        one.process.wait()


def test_the_same_words(both: tuple[Asked, Asked]) -> None:
    different = {}
    for number, lines in enumerate(SAME.splitlines()):
        lines = lines.format(n=number)
        original, ours = (one.answer(lines) for one in both)
        if original != ours:
            different[lines] = original, ours
    assert different == {}


@pytest.mark.parametrize("lines", DIFFERENT)
def test_what_differs(both: tuple[Asked, Asked], lines: str) -> None:
    """The table is no longer than it has to be."""
    original, ours = (one.answer(lines) for one in both)
    assert original != ours
    assert ours != [""]
