"""EchoService: the role that sends lines back."""

from __future__ import annotations

import dangagreen as d
from perlbal_worlds import serving


def test_a_role_of_a_plugin():
    text = "LOAD echoservice\nCREATE SERVICE e\nSET role = echo\nSET listen = 127.0.0.1:0\nENABLE e"
    with serving(text) as world, d.connect(world.services["e"].listener.address) as sock:
        sock.write_all(b"one\ntwo\n")
        assert (sock.read_line(), sock.read_line()) == (b"one\n", b"two\n")
