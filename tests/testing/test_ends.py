"""Open descriptors in words: what each is, where it was opened, which two are one connection."""

from __future__ import annotations

import os
import re
import socket
import sys
import tracemalloc

import dangagreen as d
from dangagreen.loop.births import Birth
from dangagreen.testing import no_leaks, wire
from dangagreen.testing.ends import End, end_of_fd, end_of_handler, in_pairs


def line_here():
    return sys._getframe(1).f_lineno


def test_two_ends_of_one_connection_are_one_line_and_others_one_each():
    lines = in_pairs(
        [
            End("socket: a", "x:1", "y:2"),
            End("socket: b", "y:2", "z:9"),
            End("pipe"),
            End("socket: c", "y:2", "x:1"),
            End("pipe, too"),
            End("nameless", "", ""),
            End("nameless, too", "", ""),
        ]
    )
    assert lines == ["socket: a; its other end: c", "socket: b", "pipe", "pipe, too", "nameless", "nameless, too"]


def test_a_handler_with_its_place_and_one_that_was_accepted(loop):
    near, far = wire()
    ours, theirs = d.Socket(near), d.Socket(far)
    opened = end_of_handler(ours, Birth(1.0, "app.py:7", "main"))
    assert opened == (
        f"socket: {ours!r}, fd {ours.fd}, opened at app.py:7 by task 'main'",
        ours.local_addr_string(),
        theirs.local_addr_string(),
    )
    assert end_of_handler(ours, Birth(1.0, "app.py:7", None)).what.endswith(", opened at app.py:7")
    assert end_of_handler(theirs, Birth(1.0, None, None)).what.endswith(f", accepted at {theirs.local_addr_string()}")
    assert end_of_handler(theirs, None).what == f"socket: {theirs!r}, fd {theirs.fd}"
    ours.close()
    theirs.close()


def test_a_descriptor_of_another_library_is_told_with_its_addresses():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        ends = [end_of_fd(sock.fileno(), "socket:[1]") for sock in (server, client, accepted)]
        accepted.close()
        port, other = server.getsockname()[1], client.getsockname()[1]
        assert ends[0].what.endswith(f": socket:[1], 127.0.0.1:{port}")
        assert ends[1].what.endswith(f": socket:[1], 127.0.0.1:{other} to 127.0.0.1:{port}")
        assert len(in_pairs(ends)) == 2
        client.sendall(b"x")  # its descriptor is as it was
    fd = os.open(os.devnull, os.O_RDONLY)
    assert end_of_fd(fd, "/dev/null") == (f"fd {fd}: /dev/null", None, None)
    os.close(fd)


def test_the_two_ends_of_a_pipe_are_one_line():
    reading, writing = os.pipe()
    what = os.readlink(f"/proc/self/fd/{reading}") if os.path.exists("/proc/self/fd") else "pipe:[7]"
    lines = in_pairs([end_of_fd(fd, what) for fd in (reading, writing)])
    assert lines == [f"fd {reading}: {what} to read; its other end: fd {writing}: {what} to write"]
    os.close(reading)
    os.close(writing)


def test_where_a_file_and_a_socket_were_made_is_told_while_tracemalloc_notes_that():
    with open(os.devnull) as file, socket.socket() as sock:  # before it does
        tracemalloc.start(10)
        try:
            with open(os.devnull) as traced, socket.create_server(("127.0.0.1", 0)) as server:
                here = f"{__file__}:{line_here() - 1}"
                assert end_of_fd(traced.fileno(), "x").what == f"fd {traced.fileno()}: x, made at {here}"
                assert end_of_fd(server.fileno(), "x").what.endswith(f", made at {here}")
            assert end_of_fd(file.fileno(), "x").what == f"fd {file.fileno()}: x"
            assert "made at" not in end_of_fd(sock.fileno(), "x").what
        finally:
            tracemalloc.stop()


def test_no_leaks_names_both_ends_in_one_line_whoever_has_them(real_loop):
    kept = []

    def main():
        def keep(sock):
            kept.append(sock)
            sock.watch_read(True)

        listener = d.serve(("127.0.0.1", 0), keep)
        kept.append(socket.create_connection(listener.address))
        with d.timeout(30):
            while len(kept) < 2:
                d.sleep(0.001)
        listener.close()

    try:
        with no_leaks(real_loop):
            d.spawn(main).join()
    except AssertionError as error:
        (_, line) = str(error).splitlines()
    raw, sock = kept
    assert re.fullmatch(r"socket: Socket\(R\): open to \S+, fd \d+, accepted at \S+; its other end: fd \d+: .*", line)
    assert f"; its other end: fd {raw.fileno()}: " in line
    raw.close()
    sock.close()
