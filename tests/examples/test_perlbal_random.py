"""Random input for perlbal's heads, its command language and its management port: nothing is raised but what is meant,
nothing is left wrong, and what was accepted is what it says."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

import dangagreen as d
from perlbal.commands import COMMANDS, Context, execute
from perlbal.heads import HEAD_LIMIT, BadHead, head_end, parse_request, parse_response
from perlbal.language import CommandError, parse_line
from perlbal_worlds import ask, configured, serving

TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcXYZ", min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=255, blacklist_characters="\x7f"), max_size=20)
FRAMING = {"content-length", "transfer-encoding", "host", "set-cookie"}

NAMES = ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "Set-Cookie", "X-A", "x-a", "Bad Name", ""]
VALUES = ["a", "5", "-5", "5, 5", "chunked", "identity", "keep-alive", "close", "", " ", "\t x ", "\xe9", "b\0", "x\ry"]
FIRST = [
    "GET / HTTP/1.0",
    "get /x HTTP/1.1",
    "FOO * HTTP/1.1",
    "GET http://H:1/p HTTP/1.1",
    "GET / HTTP/2.0",
    "GET / HTTP/9.9",
]
LINES = st.builds(
    lambda name, colon, value: name + colon + value,
    st.sampled_from(NAMES),
    st.sampled_from([":", ": ", " :", ""]),
    st.sampled_from(VALUES),
)
HEADS = st.builds(
    lambda first, lines, ends: "".join(line + end for line, end in zip([first, *lines, ""], ends, strict=False)),
    st.sampled_from(FIRST) | st.just("HTTP/1.1 200 OK") | st.text(max_size=30),
    st.lists(LINES | st.sampled_from([" more", "\tmore"]), max_size=6),
    st.lists(st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r"]), min_size=8, max_size=8),
)
BYTES = st.binary(max_size=200) | HEADS.map(lambda text: text.encode("latin-1", "replace"))


@given(BYTES)
@example(b"GET / HTTP/1.0\r\nX-A:\r\nX-A:\r\n")
@example(b"GET / HTTP/1.0\r\nX-A:\r\n more\r\n")
@settings(max_examples=400)
def test_a_head_is_refused_or_comes_out_as_the_same_head(data):
    """What is sent on is read again as what was understood: a backend cannot see another request than we did."""
    data += b"\r\n\r\n"
    data = data[: head_end(data)]
    for parse in parse_request, parse_response:
        try:
            head = parse(data)
        except BadHead:
            continue
        written = head.to_bytes()
        assert head_end(written) == len(written)
        again = parse(written)
        assert list(again.items()) == list(head.items())
        assert again.first_line() == head.first_line()  # a response is sent as HTTP/1.0
        assert (again.content_length, again.chunked) == (head.content_length, head.chunked)
        assert not re.search(rb"[\0\r](?!\n)|(?<!\r)\n", written)


@given(TOKEN.filter(lambda name: re.fullmatch(r"\w+", name)), st.lists(st.tuples(TOKEN, VALUE), max_size=10))
def test_a_proper_head_is_handed_on_as_it_came(method, fields):
    fields = [(name, value.strip(" ")) for name, value in fields if name.lower() not in FRAMING]
    fields = list({name.lower(): (name, value) for name, value in fields}.values())
    lines = [f"{method} /\xe9?% HTTP/1.1", "Host: h", *(f"{name}: {value}" for name, value in fields), "", ""]
    data = "\r\n".join(lines).encode("latin-1")
    assert parse_request(data).to_bytes() == data


@given(st.binary(max_size=60), st.sampled_from([b"\r\n\r\n", b"\n\n"]), st.binary(max_size=20), st.data())
def test_where_a_head_ends_does_not_depend_on_how_it_comes(before, end, after, data):
    whole = before + end + after
    found = head_end(whole)
    assert 0 <= found <= len(before) + len(end)
    cut = data.draw(st.integers(0, len(whole)))
    assert head_end(whole[:cut]) in (-1, found)
    assert (head_end(whole[:cut]) == found) == (cut >= found)


@given(st.integers(HEAD_LIMIT - 3, HEAD_LIMIT + 3), st.sampled_from([b"\r\n\r\n", b""]))
@settings(max_examples=20)
def test_the_limit_of_a_head(size, end):
    data = b"GET / HTTP/1.0\r\n".ljust(size - len(end), b"a") + end
    try:
        assert head_end(data) == (size if end else -1)
        assert size <= HEAD_LIMIT - (not end)
    except BadHead:
        assert size > HEAD_LIMIT - (not end)


WORDS = st.sampled_from(
    [*COMMANDS, "vhost", "access", "throttle", "a", "rp", "sel", "ws", "service", "pool", "add", "insert", "="]
    + ["role", "listen", "127.0.0.1", "selector", "nope", "1", "on", "x:y", "*.com", "#", "$HOME", "${ip:lo}"]
    + [f"set rp.{key} = " for key in ("pool", "role", "plugins", "idle_timeout", "buffer_size", "extra.x", "a.b")]
)
HARMFUL = re.compile(r"\s*(shutdown|server|prof|include|set\b.*(nodefile|access_log))", re.IGNORECASE)
ANY_LINES = st.lists(WORDS, max_size=7).map(" ".join) | st.text(max_size=40)
COMMAND_LINES = ANY_LINES.filter(lambda line: not HARMFUL.match(line))

WORLD = """
LOAD vhosts
LOAD accesscontrol
CREATE POOL a
POOL a ADD 127.0.0.1:1
CREATE SERVICE rp
SET role = reverse_proxy
SET pool = a
CREATE SERVICE ws
SET role = web_server
CREATE SERVICE sel
SET role = selector
"""


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_a_line_of_the_language_is_a_command_or_refused(text):
    try:
        line = parse_line(text)
    except CommandError:
        return
    assert line is None or (line.word and line.text.startswith(line.word))


@given(st.lists(COMMAND_LINES, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_commands_answer_in_the_form_that_scripts_read(lines):
    """Whatever they are, there is an answer to each, no traceback, and what is left can be listed."""
    d.Socket.reset()
    world = configured(WORLD)
    context = Context(verbose=True)
    logged = []
    world.log = lambda priority, text: logged.append(text)
    for line in lines:
        answers: list[str] = []
        good = execute(world, context, line, answers.append)
        assert good == (not any(answer.startswith("ERROR: ") for answer in answers))
        assert all("Traceback" not in answer for answer in answers)
    assert logged == []
    context = Context(verbose=True)
    for word in "show service", "show pool", "queues", "states", "socks", "plugins", "nodes", "proc", "pending", "help":
        assert ask(world, word, context=context)[-1] == "."
    assert ask(world, "dumpconfig", context=context)[-1] == "OK"
    for service in world.services.values():
        if service.listener is not None:
            service.listener.close()
    d.Socket.reset()


@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b"\n", b"\r\n", b"GET ", b"quit", b"show service\n"]), max_size=8
    )
)
@settings(max_examples=40, deadline=None)
def test_any_bytes_on_the_management_port(pieces):
    """It answers, or ends this connection, and goes on serving others."""
    text = "CREATE SERVICE mgmt\nSET role = management\nSET listen = 127.0.0.1:0\nENABLE mgmt"
    data = [piece for piece in pieces if b"shutdown" not in piece.lower()]
    with serving(text) as world:
        place = world.services["mgmt"].listener.address
        with d.connect(place) as sock, d.timeout(10):
            try:
                for piece in data:
                    sock.write_all(piece)
                sock.write_eof()
                sock.read_to_end(1 << 20)
            except ConnectionError:
                pass  # it has ended, with something unread
        with d.connect(place) as sock, d.timeout(10):
            sock.write_all(b"use mgmt\n")
            assert sock.read_line() == b"OK\r\n"
