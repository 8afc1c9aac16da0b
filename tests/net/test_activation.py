"""Socket activation, by a launcher that does as systemd does, and by systemd's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import dangagreen as d
from tests.connections import ask
from tests.programs import PROGRAM_SECONDS, PYTHONPATH, free_port, missing
from tests.test_docs import blocks

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "listeners.md"

LAUNCHER = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 100) for fd in os.environ.pop("FDS").split()]
for number, fd in enumerate(fds):
    os.dup2(fd, 3 + number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-W", "error", "-c", *sys.argv[1:]])
"""

NAMES = """
import os, socket, subprocess, sys
import dangagreen as d

found = d.listen_fds()
print({name: [sock.getsockname() for sock in socks] for name, socks in found.items()})
print([sock.fileno() for socks in found.values() for sock in socks])
print([os.get_inheritable(sock.fileno()) for socks in found.values() for sock in socks])
print(sorted(name for name in os.environ if name.startswith("LISTEN_")), d.listen_fds())
for socks in found.values():
    for sock in socks:
        sock.close()
"""

ECHO = """
import dangagreen as d

def echo(sock):
    for line in sock:
        sock.write_all(line)

d.run(lambda: d.serve_forever(d.serve(d.listen_fds()["echo"], echo)))
"""


def command(program, socks, names=None, **environment):
    """What starts it with these sockets from descriptor 3 on: the arguments of Popen."""
    fds = [sock.fileno() for sock in socks]
    variables = {"FDS": " ".join(map(str, fds)), "LISTEN_FDS": str(len(fds)), **environment}
    if names is not None:
        variables["LISTEN_FDNAMES"] = names
    return {
        "args": [sys.executable, "-c", LAUNCHER, program],
        "env": os.environ | PYTHONPATH | variables,
        "pass_fds": fds,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def says(program, socks, names=None, **environment):
    """What it writes, line by line; it has to succeed."""
    done = subprocess.run(**command(program, socks, names, **environment), timeout=PROGRAM_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture
def sockets(peers, tmp_path):
    """Two that listen on TCP, one on a path."""
    made = [socket.create_server(("127.0.0.1", 0)), socket.create_server(("::1", 0), family=socket.AF_INET6)]
    made.append(socket.socket(socket.AF_UNIX))
    peers.extend(made)
    made[2].bind(str(tmp_path / "socket"))
    made[2].listen()
    return made


def test_sockets_are_found_by_name_once_and_are_not_inherited(loop, sockets):
    names = [sock.getsockname() for sock in sockets]
    assert says(NAMES, sockets, "web:web:admin", LISTEN_PIDFDID="1") == [
        str({"web": names[:2], "admin": names[2:]}),
        "[3, 4, 5]",
        "[False, False, False]",
        "[] {}",
    ]


@pytest.mark.parametrize("names", [None, ""])
def test_without_names_they_are_called_unknown(loop, sockets, names):
    assert says(NAMES, sockets[:1], names)[0] == str({"unknown": [sockets[0].getsockname()]})


def test_no_sockets_are_none(loop):
    assert says(NAMES, [], "") == ["{}", "[]", "[]", "[] {}"]


def test_a_socket_for_datagrams_is_found_as_what_it_is(loop):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        program = (
            "import dangagreen as d; (one,) = d.listen_fds()['udp']; print(one.type.name, one.family.name); one.close()"
        )
        assert says(program, [sock], "udp") == ["SOCK_DGRAM AF_INET"]


@pytest.mark.slow
def test_all_of_a_name_are_served_as_one_and_their_files_are_left(real_loop, sockets, client):
    """The server is ended by SIGTERM while a client is connected, and its successor has the same sockets."""
    path = Path(sockets[2].getsockname())
    for _ in range(2):
        with subprocess.Popen(**command(ECHO, sockets, "echo:echo:echo")) as process:
            for sock in sockets:
                with d.connect(sock.getsockname(), 30) as client:
                    assert ask(client, b"hello\n") == b"hello\n"
            process.terminate()
            assert process.communicate(timeout=PROGRAM_SECONDS) == ("", "")
        assert process.returncode == 0
        assert path.exists()


# -- in this process, where no descriptor may be taken


@pytest.fixture
def variables(monkeypatch):
    """`variables(pid, number, names)` sets them; when the test is over they have to be gone."""

    def variables(pid, number, names=None):
        monkeypatch.setenv("LISTEN_PID", pid)
        monkeypatch.setenv("LISTEN_FDS", number)
        if names is not None:
            monkeypatch.setenv("LISTEN_FDNAMES", names)

    yield variables
    assert [name for name in os.environ if name.startswith("LISTEN_")] == []


@pytest.mark.parametrize("number", ["1", "nonsense"])
def test_what_is_for_another_process_is_not_taken(variables, number):
    variables(str(os.getppid()), number, "a:b:c")
    assert d.listen_fds() == {}


@pytest.mark.parametrize("left", ["LISTEN_PID", "LISTEN_FDS"])
def test_half_of_the_variables_mean_nothing(variables, left, monkeypatch):
    variables(str(os.getpid()), "1")
    monkeypatch.delenv(left)
    assert d.listen_fds() == {}


@pytest.mark.parametrize(
    ("pid", "number", "what"),
    [
        ("", "1", "LISTEN_PID is no count: ''"),
        ("12x", "1", "LISTEN_PID is no count: '12x'"),
        (None, "", "LISTEN_FDS is no count: ''"),
        (None, "-1", "LISTEN_FDS is no count: '-1'"),
        (None, " 1", "LISTEN_FDS is no count: ' 1'"),
        (None, "\u0661", "LISTEN_FDS is no count: '\u0661'"),
        (None, "9" * 5000, "LISTEN_FDS is no count: '9999"),
    ],
)
def test_variables_that_make_no_sense_are_refused(variables, pid, number, what):
    variables(str(os.getpid()) if pid is None else pid, number)
    with pytest.raises(ValueError, match=what):
        d.listen_fds()


def test_a_descriptor_that_is_not_open_or_no_socket_is_an_error_and_none_is_taken(variables):
    variables(str(os.getpid()), "999999999")
    with pytest.raises(OSError, match=r"descriptor \d+ of LISTEN_FDS"):
        d.listen_fds()


def test_the_number_of_names_has_to_be_that_of_the_descriptors(sockets):
    program = "import dangagreen as d\ntry:\n    d.listen_fds()\nexcept ValueError as error:\n    print(error)"
    assert says(program, sockets, "a:b") == ["LISTEN_FDNAMES has 2 names for 3 descriptors: 'a:b'"]


# -- systemd


@pytest.mark.slow
def test_the_program_of_the_guide_under_systemds_own_launcher(real_loop, tmp_path, wait_for):
    if shutil.which("systemd-socket-activate") is None:
        missing("systemd-socket-activate")
    page = blocks(str(PAGE), PAGE.read_text())
    program = tmp_path / "hello.py"
    (served,) = [block.source for block in page if "listen_fds" in block.source]
    program.write_text(page[0].source.split("def main")[0] + served)
    port, path = free_port(), tmp_path / "socket"
    launcher = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-l", str(path), "--fdname=hello:hello"]
    path_of_modules = f"--setenv=PYTHONPATH={PYTHONPATH['PYTHONPATH']}"
    with subprocess.Popen(
        [*launcher, path_of_modules, sys.executable, str(program)], stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(path.exists)
        for address in (("127.0.0.1", port), path, ("127.0.0.1", port)):
            with d.connect(address, 30) as sock:
                assert sock.read_line() == b"hello\n"
        process.terminate()
        _, err = process.communicate(timeout=PROGRAM_SECONDS)
    assert process.returncode == 0, err
    assert path.exists()
