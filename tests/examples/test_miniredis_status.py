"""What miniredis tells about itself. The page: test_miniredis_server.py."""

from __future__ import annotations

import gc

import dangagreen as d
from dangagreen.testing import virtual_loop
from miniredis.protocol import Text
from miniredis.status import Status, status


def test_info_by_section() -> None:
    with virtual_loop():
        for sections in (), (b"server",), (b"ALL",), (b"foo", b"Default"):
            text = status.info(None, *sections)
            assert isinstance(text, Text)
            assert text.text.startswith(b"# Server\r\nredis_version:7.0.0\r\n")
            assert b"\r\nloading:0\r\n" in text.text
            assert b"\r\nconnected_clients:0\r\n" in text.text
        other = status.info(None, b"foo")
        assert isinstance(other, Text)
        assert other.text == b""


def test_every_second_is_counted_and_cycles_are_collected() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    with virtual_loop():
        gc.disable()
        try:
            counted = Status()
            Cycle()
            counted.tick()
            assert [thing for thing in gc.get_objects() if type(thing) is Cycle] == []
        finally:
            gc.enable()
        for commands, per_second in (0, 0), (10, 10), (15, 5), (15, 0):
            counted.commands = commands
            d.sleep(1)
            assert counted.per_second == per_second
