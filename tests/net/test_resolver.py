"""Name look-ups: in threads and in tasks, how many at a time, who shares one, what a given-up one occupies."""

from __future__ import annotations

import os
import signal
import socket
import sys
import textwrap
import threading
import types

import pytest

import dangagreen as d
from dangagreen.net.resolver import look_ups
from dangagreen.sockets.addresses import HostAndPort
from tests.helpers import exit_code_of
from tests.net.networks import Names, entry
from tests.programs import run_python


class Gated:
    """A resolver that answers a name when the test opens its gate."""

    def __init__(self, loop, address=("127.0.0.1", 1)):
        self.loop = loop
        self.address = address
        self.asked = []
        self.gates = {}

    def getaddrinfo(self, host, port, family, kind):
        self.asked.append(host)
        gate = self.gates.setdefault(host, threading.Event())
        self.loop.call_soon_threadsafe(int)  # the test may wait for this
        assert gate.wait(30)
        return [entry(*self.address)]

    def open(self, *hosts):
        for host in hosts:
            self.gates.setdefault(host, threading.Event()).set()


@pytest.fixture
def gated(real_loop, pool):
    resolver = real_loop.resolver = Gated(real_loop)
    yield resolver
    resolver.open(*resolver.gates)


@pytest.fixture
def look_up(active_loop):
    """`look_up(host)` asks for the look-up; answers a list into which its outcome is put, and how to give it up."""

    def look_up(host, port=80, family=socket.AF_UNSPEC):
        outcome = []

        def then(answer, error):
            outcome.append(answer if error is None else error)

        asked = look_ups(active_loop).ask(HostAndPort(host, port, family=family), then)
        return outcome, lambda: look_ups(active_loop).give_up(asked, then)

    return look_up


def test_an_answer_comes_to_all_who_ask_for_the_same(gated, look_up, wait_for):
    outcomes = [look_up("a.host")[0] for _ in range(5)]
    wait_for(lambda: gated.asked)
    outcomes.append(look_up("a.host")[0])
    gated.open("a.host")
    wait_for(lambda: all(outcomes))
    assert outcomes == [[[entry("127.0.0.1", 1)]]] * 6
    assert gated.asked == ["a.host"]


def test_nothing_is_kept_of_an_answer(gated, look_up, wait_for):
    gated.open("a.host")
    for _ in range(3):
        outcome, _ = look_up("a.host")
        wait_for(lambda outcome=outcome: outcome)
    assert gated.asked == ["a.host"] * 3


def test_another_port_or_family_is_another_look_up(gated, look_up, wait_for):
    for port, family in ((80, socket.AF_UNSPEC), (81, socket.AF_UNSPEC), (80, socket.AF_INET6)):
        look_up("a.host", port, family)
    wait_for(lambda: len(gated.asked) == 3)


@pytest.mark.parametrize("threads", [None, 2])
def test_so_many_are_made_at_a_time_and_the_others_in_order(gated, look_up, wait_for, run_turns, threads):
    if threads is not None:
        gated.threads = threads
    most = threads or 8
    hosts = [f"host{number}" for number in range(most + 3)]
    outcomes = {host: look_up(host)[0] for host in hosts}
    wait_for(lambda: len(gated.asked) == most)
    run_turns(5)
    assert sorted(gated.asked) == sorted(hosts[:most])
    for number in range(3):
        gated.open(hosts[number])
        wait_for(lambda number=number: len(gated.asked) == most + number + 1)
        assert gated.asked[-1] == hosts[most + number]
        assert outcomes[hosts[number]]
    gated.open(*hosts)
    wait_for(lambda: all(outcomes.values()))


def test_a_given_up_look_up_keeps_its_place_until_it_ends(gated, look_up, wait_for, run_turns):
    gated.threads = 1
    outcome, give_up = look_up("a.host")
    wait_for(lambda: gated.asked)
    give_up()
    waiting, _ = look_up("b.host")
    run_turns(5)
    assert gated.asked == ["a.host"]
    gated.open("a.host", "b.host")
    wait_for(lambda: waiting)
    assert gated.asked == ["a.host", "b.host"]
    assert outcome == []


def test_a_given_up_look_up_that_is_under_way_answers_who_asks_for_it_later(gated, look_up, wait_for):
    outcome, give_up = look_up("a.host")
    wait_for(lambda: gated.asked)
    give_up()
    later, _ = look_up("a.host")
    gated.open("a.host")
    wait_for(lambda: later)
    assert gated.asked == ["a.host"]
    assert outcome == []


def test_a_look_up_that_is_given_up_before_its_turn_is_never_made(gated, look_up, wait_for):
    gated.threads = 1
    look_up("a.host")
    give_up = look_up("b.host")[1]
    last, _ = look_up("c.host")
    give_up()
    give_up()
    gated.open("a.host", "b.host", "c.host")
    wait_for(lambda: last)
    assert gated.asked == ["a.host", "c.host"]


def test_one_of_two_may_give_up(gated, look_up, wait_for):
    gated.threads = 1
    look_up("a.host")
    one, give_up = look_up("b.host")
    other, _ = look_up("b.host")
    give_up()
    gated.open("a.host", "b.host")
    wait_for(lambda: other)
    assert one == []


def test_after_the_answer_there_is_nothing_to_give_up(gated, look_up, wait_for):
    gated.open("a.host")
    outcome, give_up = look_up("a.host")
    wait_for(lambda: outcome)
    give_up()
    assert len(outcome) == 1


def test_a_reset_of_the_loop_frees_the_places(gated, look_up, wait_for, real_loop, pool):
    gated.threads = 1
    lost, give_up = look_up("a.host")
    wait_for(lambda: gated.asked)
    gated.open("a.host")
    while not pool.idle:  # the answer is on its way
        gated.gates["never"] = threading.Event()
        gated.gates["never"].wait(0.001)
    real_loop.reset()
    give_up()
    found, _ = look_up("a.host")
    wait_for(lambda: found)
    assert lost == []


def test_numeric_hosts_are_not_looked_up(gated, free_address):
    for host in ("127.0.0.1", "::1", "127.1", "fe80::1%lo"):
        with pytest.raises(OSError, match="cannot connect"):
            d.connect((host, free_address[1]), 30)
    assert gated.asked == []


def test_what_the_resolver_raises_comes_with_the_address(real_loop, pool):
    class Failing:
        def getaddrinfo(self, host, port, family, kind):
            raise {"os": socket.gaierror(socket.EAI_AGAIN, "try again"), "unicode": UnicodeError("label")}.get(
                host, OSError("resolver down") if host == "down" else KeyError(host)
            )

    real_loop.resolver = Failing()
    with pytest.raises(socket.gaierror, match=r"cannot look up \('os', 1\): try again") as caught:
        d.connect(("os", 1))
    assert caught.value.errno == socket.EAI_AGAIN
    with pytest.raises(socket.gaierror, match=r"cannot look up \('unicode', 1\): label"):
        d.connect(("unicode", 1))
    with pytest.raises(OSError, match=r"^cannot look up \('down', 1\): resolver down$"):
        d.connect(("down", 1))
    with pytest.raises(KeyError, match="other"):
        d.connect(("other", 1))


@pytest.mark.parametrize("answer", [[("127.0.0.1", 80)], ["127.0.0.1"], [None], None])
def test_an_answer_of_another_shape_is_refused(loop, answer):
    loop.resolver = Names({})
    loop.resolver.getaddrinfo = lambda *_: answer
    with pytest.raises(TypeError, match="not what getaddrinfo answers"):
        d.connect(("a.host", 80))


@pytest.mark.parametrize(
    "addresses", [[["127.0.0.1", 80]] * 2, [("127.0.0.1",)], [("127.0.0.1", "80")], [7, 8], [("127.0.0.1", 1), ("x",)]]
)
def test_an_address_of_another_shape_ends_it_as_well(real_loop, addresses):
    """At once, or when its turn comes: a task is told, and an object too."""
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", one) for one in addresses]
    real_loop.resolver = types.SimpleNamespace(parks=True, getaddrinfo=lambda *_: answer)
    with pytest.raises((TypeError, OSError)):
        d.connect(("a.host", 80), 30)
    failed = []

    class Client(d.Socket):
        __slots__ = ()

        def event_connect_failed(self, error):
            failed.append(error)

    sock = Client.connect_to(("a.host", 80))
    real_loop.run(lambda: sock.closed)
    assert len(failed) == 1


@pytest.mark.parametrize(("resolver", "error"), [(None, TypeError), (object(), TypeError)], ids=["None", "object"])
def test_what_is_no_resolver_is_refused(loop, resolver, error):
    with pytest.raises(error, match="getaddrinfo"):
        loop.resolver = resolver
    assert loop.resolver is socket


def test_a_resolver_that_is_an_async_def_is_refused(loop):
    class Coroutines:
        async def getaddrinfo(self, *_):
            return []

    with pytest.raises(TypeError, match=r"loop\.resolver was given .*an async def"):
        loop.resolver = Coroutines()


def test_a_resolver_has_one_thread_at_least(loop):
    resolver = Gated(loop)
    resolver.threads = 0
    with pytest.raises(ValueError, match="threads"):
        loop.resolver = resolver


def test_no_thread_can_be_started(real_loop, pool, monkeypatch):
    def start(_thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(socket.gaierror, match="can't start new thread") as caught:
            d.connect(("a.host", 80))
    assert caught.value.errno == socket.EAI_AGAIN
    real_loop.resolver = Gated(real_loop)
    real_loop.resolver.open("a.host")
    with pytest.raises(OSError, match="cannot connect"):
        d.connect(("a.host", 80))


def test_a_wait_for_a_look_up_is_no_deadlock(gated, real_loop, caplog):
    real_loop.deadlock_seconds = 0.01
    with pytest.raises(TimeoutError):
        d.connect(("a.host", 80), 0.03)
    task = d.spawn(d.connect, ("a.host", 80))
    threading.Timer(0.03, gated.open, ("a.host",)).start()
    task.join()
    with pytest.raises(OSError, match="cannot connect"):
        task.result()
    assert caplog.records == []


@pytest.mark.parametrize("given_up", [False, True])
def test_nor_is_one_for_what_a_hook_of_connect_to_does(gated, real_loop, caplog, given_up):
    """Unless the look-up was given up: then its thread is like any other."""
    real_loop.deadlock_seconds = 0.01
    done = d.Event()

    class Client(d.Socket):
        __slots__ = ()

        def event_connect_failed(self, error):
            done.set()

    sock = Client.connect_to(("a.host", 80))
    real_loop.run(lambda: bool(gated.asked))
    if given_up:
        sock.close()

    def wait_for_warning():
        for _ in range(3000 if given_up else 5):
            if threading.Event().wait(0.01) or caplog.records:
                break
        real_loop.call_soon_threadsafe(done.set if given_up else lambda: gated.open("a.host"))

    threading.Thread(target=wait_for_warning).start()
    done.wait()
    assert bool(caplog.records) is given_up
    sock.close()


def test_a_forked_child_asks_anew(gated, real_loop, look_up, wait_for):
    outcome, _ = look_up("a.host")
    given_up, give_up = look_up("b.host")
    wait_for(lambda: len(gated.asked) == 2)
    give_up()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        code = 1
        try:
            gated.asked.clear()
            gated.open("a.host", "b.host")
            wait_for(lambda: outcome)
            code = 0 if gated.asked == ["a.host"] and not given_up else 2
        finally:
            os._exit(code)
    assert exit_code_of(child) == 0
    assert outcome == []
    gated.open("a.host")
    wait_for(lambda: outcome)


def test_a_program_ends_while_a_look_up_is_under_way():
    program = """
    import threading
    import dangagreen as d

    class Stuck:
        def getaddrinfo(self, *_):
            threading.Event().wait()

    d.current_loop().resolver = Stuck()
    try:
        d.connect(("a.host", 80), 0.05)
    except TimeoutError as error:
        print(error)
    """
    words = "connecting to ('a.host', 80) took longer than 0.05 s, to look the name up alone\n"
    assert run_python("-c", textwrap.dedent(program)) == (0, words, "")


# -- a resolver that parks


def test_a_resolver_that_parks_is_called_in_a_task(loop, look_up, advance):
    names = loop.resolver = Names({"a.host": ["10.0.0.1"]}, seconds=2)
    outcomes = [look_up("a.host")[0] for _ in range(3)]
    advance(1)
    assert "look up a.host" in d.task_table()
    outcomes.append(look_up("a.host")[0])
    assert outcomes == [[]] * 4
    advance(1.5)
    assert outcomes == [[[entry("10.0.0.1", 80)]]] * 4
    assert names.asked == ["a.host"]


def test_it_is_cancelled_when_all_have_given_up(loop, look_up, advance):
    names = loop.resolver = Names({"a.host": ["10.0.0.1"]}, seconds=2)
    (one, give_up_one), (other, give_up_other) = look_up("a.host"), look_up("a.host")
    advance(1)
    give_up_one()
    advance(0.1)
    assert "look up" in d.task_table()
    give_up_other()
    anew, _ = look_up("a.host")
    advance(0.1)
    assert d.task_table().count("look up") == 1
    advance(3)
    assert (one, other, anew) == ([], [], [[entry("10.0.0.1", 80)]])
    assert names.asked == ["a.host"] * 2


def test_it_is_not_bound_to_the_task_that_was_the_first_to_ask(loop):
    names = loop.resolver = Names({"a.host": []}, seconds=2)
    tasks = [d.spawn(d.connect, ("a.host", 80)) for _ in range(2)]
    d.sleep(1)
    tasks[0].cancel()
    tasks[1].join()
    with pytest.raises(OSError, match="no address"):
        tasks[1].result()
    assert loop.clock() == 1002
    assert names.asked == ["a.host"]


def test_what_it_raises_comes_to_all(loop, look_up, advance):
    loop.resolver = Names({"a.host": socket.EAI_NONAME}, seconds=1)
    outcomes = [look_up("a.host")[0] for _ in range(2)]
    advance(2)
    assert [[type(error) for error in outcome] for outcome in outcomes] == [[socket.gaierror]] * 2


def test_the_end_of_a_program_ends_it(loop, look_up):
    loop.resolver = Names({"a.host": []}, seconds=1000)

    def main():
        outcome, _ = look_up("a.host")
        d.sleep(1)
        return outcome

    (error,) = d.run(main)
    assert "cancelled" in str(error)


# -- internationalized names


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.Example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),  # IDNA 2003 made "strasse" of it, which is another's
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
    ],
)
def test_a_name_is_asked_for_in_ascii(loop, host, asked):
    names = loop.resolver = Names({asked: []})
    with pytest.raises(OSError, match="no address"):
        d.connect((host, 80))
    assert names.asked == [asked]


@pytest.mark.parametrize("host", ["a\u200db.example", "ü..example", "ü" * 70, "xn--ü.example", "\udc80"])
def test_what_is_no_such_name_is_an_error_of_the_look_up(loop, host):
    names = loop.resolver = Names({})
    with pytest.raises(socket.gaierror, match="cannot look up"):
        d.connect((host, 80))
    assert names.asked == []


def test_digits_of_another_script_are_a_number_after_all(loop, free_address):
    names = loop.resolver = Names({})
    with pytest.raises(ConnectionRefusedError):
        d.connect(("\uff11\uff12\uff17\uff0e0.0.1", free_address[1]))
    assert names.asked == []


def test_without_the_package_the_cure_is_told(loop, monkeypatch):
    monkeypatch.setitem(sys.modules, "idna", None)
    with pytest.raises(socket.gaierror, match=r"install dangagreen\[idna\]"):
        d.connect(("bücher.example", 80))


def test_names_in_ascii_need_no_package(loop, monkeypatch):
    monkeypatch.setitem(sys.modules, "idna", None)
    names = loop.resolver = Names({"a.host": [], "xn--bcher-kva.example": []})
    for host in names.table:
        with pytest.raises(OSError, match="no address"):
            d.connect((host, 80))
