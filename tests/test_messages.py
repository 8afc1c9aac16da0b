"""What errors and reprs say, judged as somebody who reads them in a log: whose fault, which connection, what to do."""

from __future__ import annotations

import socket
import threading

import pytest

import dangagreen as d


@pytest.fixture
def connected(loop):
    """A connection over TCP: (socket, the peer's plain socket, its address in words)."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5) as peer:
        sock = d.Socket(server.accept()[0])
        yield sock, peer, "{}:{}".format(*peer.getsockname())
        sock.close()


def message_of(kind, function, *args):
    with pytest.raises(kind) as caught:
        function(*args)
    return str(caught.value)


def test_a_closed_connection_is_named_by_its_peer_and_tells_why(connected):
    sock, _, peer = connected
    assert sock.peer_addr_string() == peer  # who has never asked cannot know it after the end
    sock.close("it talked too much")
    expected = f"the connection with {peer} was closed on this side: it talked too much"
    assert message_of(d.ClosedError, sock.read_line) == expected
    assert message_of(d.ClosedError, sock.write_all, b"x") == expected


def test_closed_without_a_reason_and_by_an_exception(connected):
    sock, _, peer = connected
    assert str(d.ClosedError(sock)) == f"the connection with {peer} was closed by this program"
    assert str(d.ClosedError(sock, KeyError("x"))).endswith("was closed on this side: KeyError: 'x'")


def test_of_a_peer_without_an_address(loop, unix_pair):
    sock = d.Socket(unix_pair()[0])
    sock.close()
    assert message_of(d.ClosedError, sock.read_line) == "the connection was closed by this program"


def test_a_second_reader_is_told_who_reads(connected):
    sock, peer_end, peer = connected
    task = d.spawn(sock.read_line)
    d.sleep(0)
    expected = f"'top-level code' cannot read from the connection with {peer}: 'Socket.read_line' is reading from it"
    assert message_of(d.BusyError, sock.read_line) == expected
    assert message_of(d.BusyError, sock.steal_socket).endswith(f"a task is reading from the connection with {peer}")
    peer_end.send(b"\n")
    task.join()


def test_a_task_of_a_method_is_named_by_the_class_that_its_user_knows(loop):
    class Mine(d.Lock):
        pass

    assert d.spawn(d.Lock().acquire).name == "Lock.acquire"
    with d.TaskGroup() as group:
        assert group.spawn(Mine().acquire).name == f"{Mine.__qualname__}.acquire"
        assert group.spawn(d.Event().set).name == "Event.set"
    assert d.spawn(dict.fromkeys, "x").name == "dict.fromkeys"
    d.sleep(0)


def test_a_callback_that_raises_is_told_with_its_class_and_its_peer(connected, loop, take_errors):
    class Careless(d.Socket):
        def event_read(self):
            raise KeyError("x")

    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5) as end:
        Careless(server.accept()[0]).watch_read(True)
        end.send(b"x")
        loop.run(lambda: not loop.descriptor_map() or len(loop.descriptor_map()) == 1)
        address = "{}:{}".format(*end.getsockname())
    (context,) = take_errors()
    assert context.message == f"a callback of Careless, the connection with {address}, raised"


def test_limits_name_the_peer(connected):
    sock, peer_end, peer = connected
    peer_end.send(b"long line\n")
    for call, what in [
        (lambda: sock.read_line(3), "a line"),
        (lambda: sock.read_until(b"\n", 3), "a line"),
        (lambda: sock.read_until(b"--", 3), "the data up to b'--'"),
        (lambda: sock.read_to_end(3), "the stream"),
    ]:
        assert message_of(d.LimitError, call) == f"{what} from {peer} is longer than the limit of 3 bytes"


@pytest.mark.parametrize(
    ("call", "args", "what"),
    [
        ("read_line", (), "a line"),
        ("read_until", (b"--",), "the data up to b'--'"),
        ("read_exactly", (9,), "the 9 that"),
    ],
    ids=["line", "until", "exactly"],
)
def test_an_end_amid_something_names_the_peer(connected, call, args, what):
    sock, peer_end, peer = connected
    peer_end.send(b"abc")
    peer_end.shutdown(socket.SHUT_WR)
    told = message_of(d.IncompleteReadError, getattr(sock, call), *args)
    assert told.startswith(f"{peer} ended its stream after 3 bytes of {what}")


@pytest.mark.parametrize("call", ["write", "write_soon", "write_all", "push_back_read"])
def test_a_str_in_the_place_of_bytes(connected, call):
    sock = connected[0]
    assert message_of(TypeError, getattr(sock, call), "x") == "bytes are needed here, not str: give it text.encode()"
    assert message_of(TypeError, getattr(sock, call), 3.5) in (
        "bytes are needed here, not float",
        "float is not callable",
    )


def test_from_another_thread_the_very_call_to_use_is_named(connected, loop):
    sock, peer_end, _ = connected
    listener, queue, task = d.serve(("127.0.0.1", 0), print), d.Queue(), d.spawn(d.sleep, 1)
    channel = d.Channel(1)
    calls = {
        "sock.write_soon, data": lambda: sock.write_soon(b"x"),
        "sock.close": sock.close,
        "spawn, sock.read_line": sock.read_line,
        "spawn, sock.read_until, separator": lambda: sock.read_until(b"x"),
        "listener.close": listener.close,
        "channel.send_nowait, item": lambda: channel.send_nowait(1),
        "spawn, channel.receive": channel.receive,
        "task.cancel": task.cancel,
        "spawn, task.join": task.join,
        "timer.cancel": loop.add_timer(9, print).cancel,
        "spawn, wait, tasks": lambda: d.wait([task]),
        "spawn, sock.close": lambda: sock.__exit__(None, None, None),
        "Socket, sock": lambda: d.Socket(peer_end, loop),
        "setattr, sock, 'idle_timeout', value": lambda: setattr(sock, "idle_timeout", 5),
        "setattr, queue, 'maxsize', value": lambda: setattr(queue, "maxsize", 5),
    }
    told = {}

    def other():
        with d.Loop():
            for name, call in calls.items():
                try:
                    call()
                except d.ForeignThreadError as error:
                    told[name] = str(error)

    thread = threading.Thread(target=other, name="the other one")
    thread.start()
    thread.join()
    if d.compiled:  # no frame of a method tells whose it is, and what it is given
        assert told.keys() == calls.keys()
        assert all("use loop.call_soon_threadsafe(" in words for words in told.values())
    else:
        assert [name for name in calls if not told[name].endswith(f"use loop.call_soon_threadsafe({name})")] == []
    listener.close()
    loop.timers.clear()
    task.cancel()
    d.sleep(0)
