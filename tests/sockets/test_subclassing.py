"""What is said to who writes a subclass: names that clash, hooks that never run, slots that are missing."""

import abc
import dataclasses
import functools
import re
import socket
import sys
import warnings
import weakref

import pytest

import dangagreen as d
from dangagreen import Socket
from dangagreen.sockets.settings import Setting
from dangagreen.sockets.subclassing import _differ_little
from tests.helpers import async_generator, coroutine_function, generator_function

OURS = sorted(
    {
        name
        for owner in Socket.__mro__[:-1]
        for name in vars(owner)
        if name.startswith("_") and not (name.startswith("__") and name.endswith("__"))
    }
)
SLOTS = sorted({slot for owner in Socket.__mro__[:-1] for slot in vars(owner).get("__slots__", ()) if slot[:2] != "__"})


def subclass(bases=(Socket,), **names):
    names.setdefault("__slots__", ())
    return type("Mine", bases, names)


# -- names that are ours


def test_there_are_such_names():
    assert {"_buffer", "_timer", "_queue", "_flush", "_update_registration"} <= set(OURS)
    assert {"sock", "fd", "loop", "closed", "unsent", "_buffer"} <= set(SLOTS)


@pytest.mark.parametrize("name", sorted({*OURS, *SLOTS}))
def test_an_internal_name_is_refused_as_slot_attribute_and_method(name):
    for names in ({"__slots__": (name,)}, {name: 5}, {name: lambda self: None}, {name: property(lambda self: None)}):
        with pytest.raises(TypeError, match=rf"Mine has a '{name}' .*\.{name}, that Socket needs"):
            subclass(**names)
    with pytest.raises(TypeError, match=name):
        subclass((type("Mixin", (), {name: 5}), Socket))
    with pytest.raises(TypeError, match=name):
        subclass((subclass(),), **{name: 5})


def test_other_private_names_are_the_subclasses_own(loop, wires):
    class Mine(Socket):
        __slots__ = ("__hidden", "_mine", "name")

        def __init__(self, sock):
            super().__init__(sock)
            self.__hidden, self._mine, self.name = 1, 2, 3

        def _queued(self):
            return self.__hidden

    sock = Mine(wires()[0])
    assert (sock._queued(), sock._mine, sock.name) == (1, 2, 3)
    sock.close()


def test_public_methods_may_be_overridden_and_properties_too(loop, wires):
    class Mine(Socket):
        __slots__ = ()

        def close(self, reason=None):
            super().close(reason)

        @property
        def idle(self):
            return False

        on_high_water = functools.partialmethod(Socket.on_high_water)

    Mine(wires()[0]).close()


@pytest.mark.parametrize("name", ["read", "write_all", "busy", "buffered"])
def test_a_slot_that_takes_the_place_of_a_method_is_refused(name):
    with pytest.raises(TypeError, match=rf"Mine has a '{name}' of its own"):
        subclass(__slots__=(name,))


@pytest.mark.parametrize(
    ("name", "value"), [("idle", lambda self: True), ("buffered", lambda self: 1), ("buffered", 5)]
)
def test_a_property_that_is_none_any_more_is_refused(name, value):
    """A method `idle` would be true for ever."""
    with pytest.raises(TypeError, match=rf"Mine\.{name} is to be a property, and is"):
        subclass(**{name: value})
    subclass(**{name: property(lambda self: 1)})


def test_hooks_and_idle_may_be_slots(loop, wires):
    end, peer = wires()
    sock = subclass(__slots__=("event_read", "idle", "on_message"))(end)
    got = []
    sock.event_read = lambda: got.append(sock.read(100))
    sock.idle = True
    sock.watch_read(True)
    peer.send(b"x")
    loop.run(lambda: got)
    assert got == [b"x"]
    sock.close()


def test_a_decorator_may_make_the_class_anew(loop, wires):
    """As `dataclass(slots=True)` and attrs do: what is noted in a class comes with it."""

    @dataclasses.dataclass(slots=True, eq=False, repr=False)
    class Session(Socket):
        conn: dataclasses.InitVar[object]
        name: str = "nobody"
        high_water = 70000

        def __post_init__(self, conn):
            Socket.__init__(self, conn)

    sock = Session(wires()[0], "me")
    assert (sock.name, sock.high_water, Session.high_water) == ("me", 70000, 70000)
    sock.high_water = 80000
    assert (sock.high_water, Session.high_water) == (80000, 70000)
    sock.close()


def test_arguments_of_a_class_reach_the_classes_that_are_mixed_in():
    class Registered:
        def __init_subclass__(cls, /, tag=None, **kwargs):
            super().__init_subclass__(**kwargs)
            cls.tag = tag

    class Mine(Socket, Registered, tag="mine"):
        __slots__ = ()

    assert Mine.tag == "mine"
    with pytest.raises(TypeError, match="__init_subclass__"):
        type("Other", (Socket,), {}, tag="other")


# -- functions that would never run


@pytest.mark.parametrize("function", [coroutine_function, generator_function, async_generator])
@pytest.mark.parametrize(
    "name", ["event_read", "event_write", "event_err", "event_hup", "on_high_water", "on_low_water", "close", "finish"]
)
def test_a_hook_that_would_never_run_is_refused(name, function):
    for given in (function, staticmethod(function), functools.partial(function), functools.partialmethod(function)):
        with pytest.raises(TypeError, match=rf"Mine\.{name} is .*, which would never run"):
            subclass(**{name: given})
    with pytest.raises(TypeError, match=name):
        subclass((type("Mixin", (), {name: function}), Socket))


def test_a_hook_that_is_no_method_is_refused():
    with pytest.raises(TypeError, match=r"Mine\.event_read is to be a method, and is 5"):
        subclass(event_read=5)


# -- misspelt


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("event_hub", "event_hup"),
        ("event_raed", "event_read"),
        ("event_close", None),
        ("event_connected", None),
        ("on_highwater", "on_high_water"),
        ("on_low_watter", "on_low_water"),
        ("idle_timout", "idle_timeout"),
        ("lifetme", "lifetime"),
        ("linelimit", "line_limit"),
        ("max_unsend", "max_unsent"),
        ("linger_second", "linger_seconds"),
    ],
)
def test_what_looks_misspelt_is_told_of(name, meant):
    words = f"Mine.{name} is no hook and no setting of Socket" + (f": was {meant} meant" if meant else "")
    for names in ({name: lambda self: None}, {name: 5}, {"__slots__": (name,)}):
        with pytest.warns(UserWarning, match=re.escape(words)) as caught:
            made = subclass(**names)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            subclass((made,))  # once is enough


@pytest.mark.parametrize(
    "name", ["on_message", "on_close", "on_data", "timeout", "line", "limit", "events", "_event_hub"]
)
def test_names_of_the_subclasses_own_pass_in_silence(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        subclass(**{name: lambda self: None})


def test_every_hook_and_setting_and_public_name_passes_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in dir(Socket):
            value = vars(next(owner for owner in Socket.__mro__ if name in vars(owner)))[name]
            if not name.startswith("_") and name not in SLOTS and not isinstance(value, Setting):
                subclass(**{name: value})


@pytest.mark.parametrize(
    ("one", "other", "little"),
    [
        ("abcd", "abcd", True),
        ("abcd", "badc", False),
        ("abcd", "bacd", True),
        ("abcd", "ab", True),
        ("abcd", "a", False),
    ],
)
def test_two_letters(one, other, little):
    assert _differ_little(one, other) is _differ_little(other, one) is bool(little)


def test_to_make_a_class_of_many_names_takes_little():
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += 1

    names = {f"method_{number}_of_mine": lambda self: None for number in range(60)}
    subclass(**names)
    sys.setprofile(count)
    try:
        subclass(**names)
    finally:
        sys.setprofile(None)
    assert calls < 220 * len(names)


# -- equal, and abstract


def test_a_class_that_takes_two_connections_for_equal_is_refused(loop):
    """A drain of its connections used to wait for ever: they are kept in dicts."""
    for names in ({"__eq__": lambda self, other: True}, {"__hash__": lambda self: 1}):
        for bases, more in (((Socket,), names), ((Socket, type("Mixin", (), names)), {})):
            with pytest.raises(TypeError, match="Mine has an __eq__ or a __hash__ of its own"):
                subclass(bases, **more)

    @dataclasses.dataclass
    class Session(Socket):
        name: str

    with pytest.raises(TypeError, match=r"Session has .* @dataclass\(eq=False\)"):
        d.serve(("127.0.0.1", 0), Session)
    with pytest.raises(TypeError, match="Session has"):
        d.serve(("127.0.0.1", 0), print, socket_class=functools.partial(Session, name="x"))


@pytest.mark.parametrize("style", ["callbacks", "tasks"])
def test_an_abstract_class_is_refused_when_it_is_given(loop, style):
    class Protocol(abc.ABC):
        @abc.abstractmethod
        def message(self): ...

    class Abstract(Protocol, Socket):
        def event_read(self):
            self.message()

    class Concrete(Abstract):
        def message(self):
            self.close()

    def serve(kind):
        if style == "callbacks":
            return d.serve(("127.0.0.1", 0), kind)
        return d.serve(("127.0.0.1", 0), print, socket_class=functools.partial(kind))

    with pytest.raises(TypeError, match=r"abstract.*Abstract.*lacks message"):
        serve(Abstract)
    serve(Concrete).close()


# -- a forgotten super().__init__()


class Forgetful(Socket):
    __slots__ = ("name",)

    def __init__(self, sock, loop=None):
        self.name = "x"


class Absent(Socket):
    __slots__ = ()

    def __init__(self, sock, loop=None):
        if sock is None:
            super().__init__(sock, loop)


@pytest.mark.parametrize("kind", [Forgetful, subclass((Forgetful,))])
def test_a_forgotten_init_says_so_by_name(loop, wires, kind):
    with pytest.raises(TypeError, match=r"Forgetful.__init__ does not call super\(\).__init__"):
        kind(wires()[0])


@pytest.mark.parametrize("kind", [Forgetful, Absent])
def test_a_forgotten_init_of_a_servers_connections_says_so_by_name(loop, run_turns, take_errors, kind):
    with d.serve(("127.0.0.1", 0), kind) as listener, socket.create_connection(listener.address, 30) as client:
        run_turns(2)
        (context,) = take_errors()
        assert isinstance(context.exception, TypeError)
        assert f"{kind.__name__}.__init__ does not call super().__init__" in str(context.exception)
        assert client.recv(1) == b""
        with pytest.raises(TypeError, match="does not call"):
            d.connect(listener.address, 30, socket_class=kind)
        run_turns(2)
        take_errors()


def test_a_forgotten_init_of_a_class_that_is_mixed_in_says_so_by_name(loop, wires):
    class Named:
        def __init__(self, *_args):
            self.name = "x"

    class Between(Named):
        def __init__(self, sock):
            super().__init__(sock)
            Socket.__init__(self, sock)

    Mine = type("Mine", (Named, Socket), {})
    with pytest.raises(TypeError, match=r"Named.__init__ does not call super\(\).__init__"):
        Mine(wires()[0])
    sock = type("Right", (Mine, Between), {})(wires()[0])  # the order of the classes counts, not that of their making
    assert sock.name == "x"
    sock.close()


def test_an_init_that_calls_it_by_a_helper_is_right(loop, wires):
    class Helped(Socket):
        __slots__ = ("name",)

        def __init__(self, sock, name="x"):
            "The signature stays."
            self.make(sock)
            self.name = name

        def make(self, sock):
            super().__init__(sock)

    sock = Helped(wires()[0], name="y")
    assert sock.name == "y"
    assert Helped.__init__.__doc__ == "The signature stays."
    sock.close()


@pytest.mark.parametrize("first", [True, False], ids=["mixed in first", "mixed in last"])
def test_a_class_without_slots_may_be_mixed_in(loop, wires, first):
    class Counting:
        def count(self):
            self.number = getattr(self, "number", 0) + 1
            return self.number

    class Slotted:
        __slots__ = ()

    bases = (Counting, Slotted, Socket) if first else (Socket, Counting, Slotted)
    sock = type("Mine", bases, {"__slots__": ("own",)})(wires()[0])
    sock.own = 1
    assert [sock.count(), sock.count()] == [1, 2]
    assert weakref.ref(sock)() is sock
    sock.close()


def test_a_subclass_of_a_subclass_is_checked_as_well():
    class Mine(Socket):
        __slots__ = ()

    with pytest.raises(TypeError, match="has a 'sock' of its own"):
        type("Theirs", (Mine,), {"__slots__": ("sock",)})


def test_the_classes_that_a_socket_is_put_together_of_are_not_checked():
    class Inner(Socket.__bases__[0]):
        __slots__ = ("event_mine",)

    assert "event_mine" in vars(Inner)
