"""EchoService: the role that sends lines back."""

from __future__ import annotations

import pytest

import dangagreen as d
from perlbal_worlds import ask, configured, serving


def test_a_role_of_a_plugin():
    text = "LOAD echoservice\nCREATE SERVICE e\nSET role = echo\nSET listen = 127.0.0.1:0\nENABLE e"
    with serving(text) as world, d.connect(world.services["e"].listener.address) as sock:
        sock.write_all(b"one\ntwo\n")
        assert (sock.read_line(), sock.read_line()) == (b"one\n", b"two\n")


@pytest.fixture
def service():
    return configured("LOAD echoservice\nCREATE SERVICE e\nSET role = echo").services["e"]


def test_a_line_comes_back_after_the_delay(loop, wires, advance, service):
    configured("SET e.echo_delay = 2", service.world)
    near, far = wires()
    far.setblocking(False)
    d.spawn(service.role.converse, d.Socket(near))
    far.send(b"one\ntwo\n")
    advance(1.9)
    with pytest.raises(BlockingIOError):
        far.recv(100)
    advance(0.2)
    assert far.recv(100) == b"one\n"
    advance(2)
    assert far.recv(100) == b"two\n"
    far.close()
    advance(1)


def test_a_line_without_its_end_is_not_a_line_until_its_sender_has_left(loop, wires, advance, service):
    near, far = wires()
    far.setblocking(False)
    task = d.spawn(service.role.converse, d.Socket(near))
    far.send(b"on")
    advance(1)
    with pytest.raises(BlockingIOError):
        far.recv(100)
    far.send(b"e\n")
    advance(1)
    assert far.recv(100) == b"one\n"
    far.close()
    advance(1)
    assert task.done


def test_the_delay_is_of_this_role_and_goes_with_the_plugin(service):
    world = service.world
    configured("CREATE SERVICE w\nSET role = web_server", world)
    assert ask(world, "SET w.echo_delay = 1") == ["ERROR: The 'echo_delay' option can only be set on a 'echo' service"]
    assert ask(world, "SET e.echo_delay = .5") == ["ERROR: Expecting integer value for parameter 'echo_delay'"]
    configured("SET e.echo_delay = 3", world)
    assert "  SET echo_delay = 3" in ask(world, "dumpconfig")
    configured("UNLOAD echoservice", world)
    assert ask(world, "SET w.role = echo") == ["ERROR: Role not valid for service w"]
