"""Settings of sockets and classes: which may be assigned, when they are checked, who has their own."""

import math
import sys
from itertools import islice

import pytest

from dangagreen import Socket, compiled, connect, serve, sleep, spawn, wait
from dangagreen.errors import LimitError
from dangagreen.sockets.settings import adopt_settings
from tests.inside import own_settings

DEFAULTS = {
    "idle_timeout": None,
    "lifetime": None,
    "linger_seconds": 5.0,
    "linger_bytes": 16 * 1024 * 1024,
    "line_limit": 65536,
    "high_water": 65536,
    "low_water": 16384,
    "max_unsent": None,
}
GOOD = {
    "idle_timeout": 7.5,
    "lifetime": 70,
    "linger_seconds": 0,
    "linger_bytes": 5,
    "line_limit": 5,
    "high_water": 70000,
    "low_water": 5,
    "max_unsent": 100_000,
}
BAD = [
    *((name, "5", TypeError) for name in DEFAULTS),
    *((name, -1, ValueError) for name in DEFAULTS),
    *((name, math.nan, ValueError) for name in DEFAULTS),
    *((name, None, TypeError) for name in ("linger_seconds", "linger_bytes", "line_limit", "high_water", "low_water")),
    ("high_water", 100, ValueError),  # below low_water
    ("low_water", 70000, ValueError),
    ("max_unsent", 100, ValueError),
    ("line_limit", 1.5, TypeError),
    ("idle_timeout", 10**400, OverflowError),
]


class Slotted(Socket):
    __slots__ = ("closings",)

    def __init__(self, sock, loop=None):
        super().__init__(sock, loop)
        self.closings = []

    def event_read(self):
        if self.read(65536) is None:
            self.close("the end")


class Free(Socket):  # it has a __dict__
    def event_read(self):
        self.read(65536)


KINDS = pytest.mark.parametrize("kind", [Socket, Slotted, Free])


@pytest.fixture
def made(wires):
    def made(kind=Slotted, *args):
        end, peer = wires(*args)
        return kind(end), peer

    return made


@KINDS
def test_a_setting_of_one_object_is_its_own(loop, made, kind):
    one, other = made(kind)[0], made(kind)[0]
    for name, value in GOOD.items():
        setattr(one, name, value)
        assert getattr(one, name) == value
    assert {name: getattr(other, name) for name in DEFAULTS} == DEFAULTS
    assert {name: getattr(kind, name) for name in DEFAULTS} == DEFAULTS
    assert own_settings(loop).keys() == {id(one)}
    one.close()
    assert own_settings(loop) == {}
    other.close()


def test_settings_cost_no_memory_until_one_is_set(loop, made):
    """Two slots of a socket hold what is read time and again, as before; all the rest lies in the loop."""
    sock = made(Socket)[0]
    size = sys.getsizeof(sock)
    slots = {name for owner in Socket.__mro__ for name in vars(owner).get("__slots__", ())}
    assert not slots & DEFAULTS.keys()
    bare = sys.getsizeof(type("Bare", (), {"__slots__": sorted(slots)})())
    assert size < bare if compiled else size == bare  # a bool takes less where its type is declared
    assert not hasattr(sock, "__dict__")
    sock.idle_timeout = 5
    assert sys.getsizeof(sock) == size
    sock.close()


@pytest.mark.parametrize(("name", "value", "error"), BAD)
def test_a_value_that_makes_no_sense_is_refused_for_objects_and_for_classes(loop, made, name, value, error):
    sock = made()[0]
    with pytest.raises(error, match=name):
        setattr(sock, name, value)
    assert getattr(sock, name) == DEFAULTS[name]
    assert own_settings(loop) == {}
    assert len(loop.timers) == 0
    with pytest.raises(error, match=name):
        type("Mine", (Slotted,), {name: value, "__slots__": ()})
    sock.close()


def test_settings_of_classes_are_inherited_overridden_and_mixed_in(loop, made):
    class Patient:
        idle_timeout = 100

    class One(Patient, Slotted):
        __slots__ = ()
        line_limit = 10

    class Two(One):
        __slots__ = ()
        line_limit = 20

    class Three(One):
        __slots__ = ()
        idle_timeout = None

    assert (Three.idle_timeout, Three.line_limit) == (None, 10)
    assert (One.idle_timeout, One.line_limit, Two.idle_timeout, Two.line_limit) == (100, 10, 100, 20)
    sock = made(Two)[0]
    assert (sock.idle_timeout, sock.line_limit) == (100, 20)
    sock.idle_timeout = 5
    assert (sock.idle_timeout, Two.idle_timeout) == (5, 100)
    sock.close()
    with pytest.raises(TypeError, match=r"Four\.idle_timeout"):
        type("Four", (type("Mixin", (), {"idle_timeout": "x"}), Slotted), {"__slots__": ()})


def test_a_class_may_be_given_a_setting_later(real_loop, tmp_path):
    class Late(Slotted):
        __slots__ = ()

    Late.line_limit = 3  # from the command line, perhaps
    assert Late.line_limit == 3

    def handler(sock):
        with pytest.raises(LimitError, match="limit of 3 bytes"):
            sock.read_line()
        sock.line_limit = 10
        sock.write_all(sock.read_line())

    with serve(tmp_path / "socket", handler, socket_class=Late) as listener, connect(listener.address, 5) as client:
        client.write_all(b"hello\n")
        assert client.read_to_end() == b"hello\n"
    Late.line_limit = "x"
    with pytest.raises(TypeError, match="line_limit"):
        serve(("127.0.0.1", 0), handler, socket_class=Late)


# -- each of them acts


def test_a_shorter_idle_timeout_counts_from_when_the_peer_was_heard(loop, made, advance):
    sock, peer = made()
    sock.idle_timeout = 100
    sock.watch_read(True)
    advance(3)
    sock.idle_timeout = 5
    advance(1.9)
    assert not sock.closed
    advance(0.2)
    assert sock.closed
    assert sock.close_reason == "the peer was idle for 5 s"
    peer.close()


def test_a_longer_idle_timeout_gives_more_time(loop, made, advance):
    sock, _ = made()
    sock.idle_timeout = 5
    sock.watch_read(True)
    advance(4)
    sock.idle_timeout = 20
    advance(15)
    assert not sock.closed
    advance(1.5)
    assert sock.closed


def test_an_idle_timeout_may_begin_and_end_at_any_time(loop, made, advance):
    sock, _ = made()
    sock.watch_read(True)
    advance(1000)
    sock.idle_timeout = 10  # it begins now, and not a thousand seconds ago
    advance(9)
    assert not sock.closed
    sock.idle_timeout = None
    assert len(loop.timers) == 0
    advance(1000)
    sock.idle_timeout = 10
    advance(11)
    assert sock.closed
    assert len(loop.timers) == 0


def test_an_idle_timeout_that_has_passed_closes_in_the_next_turn_and_not_within_the_assignment(loop, made, advance):
    sock, _ = made()
    sock.idle_timeout = 100
    sock.watch_read(True)
    advance(50)
    sock.idle_timeout = 10
    assert not sock.closed
    advance(0.1)
    assert sock.closed


def test_a_login_phase_has_a_shorter_timeout_than_what_follows(loop, wires):
    def session(sock):
        sock.idle_timeout = 5
        name = sock.read_line()
        sock.idle_timeout = 300
        return name, sock.read_line()

    quick, slow = wires(), wires()
    tasks = [spawn(session, Socket(end)) for end, _ in (quick, slow)]
    began = loop.time()
    loop.add_timer(4, lambda: quick[1].send(b"name\n"))
    loop.add_timer(200, lambda: quick[1].send(b"more\n"))
    wait(tasks)
    assert tasks[0].result() == (b"name\n", b"more\n")
    assert loop.time() - began == 200
    with pytest.raises(ConnectionError, match="idle for 5 s"):
        tasks[1].result()
    for handler in list(loop.handlers.values()):
        if isinstance(handler, Socket):
            handler.close()


def test_a_task_that_is_at_work_is_not_idle_after_a_change(loop, made, advance):
    sock, _ = made(Socket)

    def work():
        sock.idle_timeout = 5
        sleep(50)
        sock.idle_timeout = 3
        sleep(50)
        return sock.closed

    task = spawn(work)
    task.join()
    assert task.result() is False
    sock.close()


def test_a_lifetime_of_one_object(loop, made, advance):
    sock, peer = made()
    sock.lifetime = 10
    sock.watch_read(True)
    for _ in range(9):
        peer.send(b"x")
        advance(1)
    assert not sock.closed
    sock.lifetime = 15  # in all
    advance(5)
    assert not sock.closed
    advance(1.1)
    assert sock.closed
    assert sock.close_reason == "its lifetime of 15 s is over"


def test_a_class_with_a_lifetime_can_do_without_for_one_object(loop, made, advance):
    class Short(Slotted):
        __slots__ = ()
        lifetime = 5
        idle_timeout = 50

    sock = made(Short)[0]
    sock.lifetime = None
    sock.watch_read(True)
    advance(49)
    assert not sock.closed
    advance(2)
    assert sock.close_reason == "the peer was idle for 50 s"


def test_lingering_of_one_object(loop, made, advance):
    sock, peer = made()
    sock.linger_seconds = 1
    sock.finish()
    advance(1.1)
    assert sock.closed
    assert "1 s after finish" in sock.close_reason
    sock, peer = made()
    sock.linger_bytes = 5
    sock.finish()
    peer.send(b"12345")
    advance(0.1)
    assert not sock.closed
    peer.send(b"6")
    advance(0.1)
    assert "more than 5 bytes" in sock.close_reason


def test_a_lifetime_that_is_set_while_it_lingers_does_not_end_it_at_once(loop, made, advance):
    sock = made()[0]
    sock.finish()
    sock.lifetime = 100
    sock.idle_timeout = 1
    advance(4.9)
    assert not sock.closed
    advance(0.2)
    assert sock.closed


def test_water_marks_and_the_limit_of_one_object(loop, made):
    class Telling(Slotted):
        __slots__ = ("told",)

        def __init__(self, sock):
            super().__init__(sock)
            self.told = []

        def on_high_water(self):
            self.told.append(("high", self.unsent))

        def on_low_water(self):
            self.told.append(("low", self.unsent))

    sock, peer = made(Telling, 10)
    sock.low_water, sock.high_water, sock.max_unsent = 5, 20, 30
    sock.write(b"x" * 30)
    assert (sock.told, sock.unsent) == ([], 20)
    sock.write(b"x")
    assert sock.told == [("high", 21)]
    while sock.unsent:
        peer.recv(10)
        loop.run(lambda: True)
    assert sock.told == [("high", 21), ("low", 1)]
    sock.write(b"x" * 41)
    assert sock.closed
    assert "max_unsent is 30" in sock.close_reason


def test_write_all_parks_at_the_mark_of_its_object(loop, made):
    sock, peer = made(Socket, 10)
    sock.low_water, sock.high_water = 0, 10
    seen = []

    def work():
        for _ in range(5):
            sock.write_all(b"x" * 10)
            seen.append(sock.unsent)

    task = spawn(work)
    got = 0
    while got < 50:
        loop.run(lambda: True)
        try:
            got += len(peer.recv(10))
        except BlockingIOError:
            continue
    task.join()
    assert max(seen) == 20  # what was there when it parked no more, and one piece
    sock.close()


def test_a_line_limit_of_one_object(loop, made):
    sock, peer = made(Socket)
    peer.send(b"0123456789\n" * 3)
    assert sock.read_line() == b"0123456789\n"
    sock.line_limit = 5
    with pytest.raises(LimitError, match="limit of 5 bytes"):
        sock.read_line()
    with pytest.raises(LimitError):
        sock.read_until(b"\n")
    sock.line_limit = 11
    assert list(islice(sock, 2)) == [b"0123456789\n"] * 2
    sock.close()


def test_a_setting_of_a_closed_object_is_ignored(loop, made):
    sock, _ = made()
    sock.close()
    sock.idle_timeout = 5
    assert (own_settings(loop), len(loop.timers)) == ({}, 0)


def test_assigning_a_setting_in_init_before_the_socket_is_made_says_what_to_do(loop, wires):
    class Hasty(Socket):
        __slots__ = ()

        def __init__(self, sock):
            self.idle_timeout = 5
            super().__init__(sock)

    with pytest.raises(AttributeError, match=r"super\(\).__init__"):
        Hasty(wires()[0])


def test_an_object_made_by_hand_sees_what_its_class_was_given_since(loop, made, advance):
    class Late(Slotted):
        __slots__ = ()

    Late.idle_timeout, Late.line_limit, Late.high_water = 5, 6, 70000
    sock = made(Late)[0]
    assert (sock.line_limit, sock.high_water) == (6, 70000)
    sock.watch_read(True)
    advance(6)
    assert sock.close_reason == "the peer was idle for 5 s"


def test_objects_made_by_hand_have_settings_of_their_own_also_of_a_class_that_was_given_some_since(loop, made):
    class Late(Free):
        pass

    Late.idle_timeout = 5
    sock = made(Late)[0]
    sock.idle_timeout = 7
    assert (sock.idle_timeout, Late.idle_timeout) == (7, 5)
    assert "idle_timeout" not in vars(sock)
    sock.close()


def test_what_a_class_is_given_since_is_its_subclasses_own_for_no_longer_than_it_has_it(loop, made, monkeypatch):
    class Parent(Slotted):
        __slots__ = ()

    class Child(Parent):
        __slots__ = ()

    with monkeypatch.context() as patch:
        patch.setattr(Parent, "linger_seconds", 1)
        with serve(("127.0.0.1", 0), Child):
            assert Child.linger_seconds == 1
        sock = made(Child)[0]
        sock.linger_seconds = 2
        sock.close()
    assert (Parent.linger_seconds, Child.linger_seconds) == (5.0, 5.0)


def test_a_class_that_was_given_a_wrong_setting_leaves_no_object_behind(loop, made):
    class Wrong(Slotted):
        __slots__ = ()

    Wrong.idle_timeout = "5"
    before = loop.descriptor_map()
    with pytest.raises(TypeError, match=r"Wrong\.idle_timeout"):
        made(Wrong)
    assert loop.descriptor_map() == before


def test_a_limit_that_a_class_loses_while_it_is_served_harms_no_connection(loop, made, advance, run_turns):
    class Limited(Slotted):
        __slots__ = ()
        idle_timeout = 5

    with serve(("127.0.0.1", 0), Limited):
        before = made(Limited)[0]
        before.watch_read(True)
        Limited.idle_timeout = None
        since = made(Limited)[0]
        since.watch_read(True)
        advance(20)
    assert not before.closed
    assert not since.closed
    before.close()
    since.close()


def test_a_class_is_looked_through_once_however_many_connections_it_is_given_to():
    class Mine(Slotted):
        __slots__ = ()

    calls = []
    for _ in range(2):
        calls.append(0)
        sys.setprofile(lambda frame, event, argument: calls.append(calls.pop() + 1))
        try:
            adopt_settings(Mine, fixed=True)
        finally:
            sys.setprofile(None)
    assert calls[1] < 60 < calls[0]
    Mine.line_limit = 7
    adopt_settings(Mine, fixed=True)
    assert Mine._usual_line_limit == 7
