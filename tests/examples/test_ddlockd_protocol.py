"""Lines and replies of ddlockd, as bytes."""

from __future__ import annotations

import pytest

from ddlockd.protocol import Arguments, decode, encode, err, ok, parse, seconds


@pytest.mark.parametrize(
    ("line", "command", "arguments"),
    [
        (b"trylock lock=x", b"trylock", {b"lock": b"x"}),
        (b"trylock lock=x\r", b"trylock", {b"lock": b"x"}),
        (b"TryLock \tlock=x\r", b"trylock", {b"lock": b"x"}),
        (b"lock lock=a%20b+c&ttl=5", b"lock", {b"lock": b"a b c", b"ttl": b"5"}),
        (b"noop", b"noop", {b"": b""}),
        (b"trylock.x", b"trylock", {b".x": b""}),
        (b"", b"", {}),
        (b" noop", b"", {}),
        (b"\xff", b"", {}),
    ],
)
def test_a_line_is_a_command_and_its_arguments(line: bytes, command: bytes, arguments: Arguments) -> None:
    assert parse(line) == (command, arguments)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (b"a=1&b=2", {b"a": b"1", b"b": b"2"}),
        (b"a=1=2", {b"a": b"1"}),
        (b"a=1&a=2", {b"a": b"1\x002"}),
        (b"a=0&a=2", {b"a": b"02"}),
        (b"a=&a=2", {b"a": b"2"}),
        (b"a=%zz%41", {b"a": b"%zzA"}),
    ],
)
def test_arguments_as_the_original_joins_and_decodes_them(text: bytes, arguments: Arguments) -> None:
    assert decode(text) == arguments


def test_replies() -> None:
    assert (ok(), err(b"taken")) == (b"OK \r\n", b"ERR taken \r\n")
    assert ok(token=7, holder="a b&c") == b"OK token=7&holder=a+b%26c\r\n"
    assert err(b"code", b"two words: \xff") == b"ERR code two+words:+%FF\r\n"
    assert encode(b"azAZ09_,-./\\: ") == b"azAZ09_,-./\\:+"


@pytest.mark.parametrize(("text", "value"), [(b"5", 5.0), (b"2.5", 2.5), (b".5", 0.5), (b"5.", 5.0)])
def test_seconds(text: bytes, value: float) -> None:
    assert seconds({b"ttl": text}, b"ttl") == value
    assert seconds({}, b"ttl") is None


@pytest.mark.parametrize("text", [b"", b"soon", b"-1", b"nan", b"1e3", b"1234567890", b".", b"0"])
def test_what_is_no_number_of_seconds_or_too_few(text: bytes) -> None:
    with pytest.raises(ValueError, match="The ttl is no number of seconds"):
        seconds({b"ttl": text}, b"ttl", least=0.001)
