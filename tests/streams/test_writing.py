"""Writing that looks blocking: write_all, drain, the block that closes, many writers of one socket."""

from __future__ import annotations

from random import Random

import pytest

import dangagreen as d
from dangagreen.green import waiters
from dangagreen.testing import BLOCK
from tests.connections import Small, any_write, blocked, take
from tests.helpers import first_quick, result_of
from tests.inside import incoming

# -- writing


def test_write_all_takes_anything_bytes_like_as_it_is_at_the_call(loop, pair):
    sock, far = pair()
    buffer = bytearray(b"one")
    sock.write_all(buffer)
    buffer[:] = b"XXX"
    sock.write_all(memoryview(b"two"))
    sock.write_all(b"")
    sock.drain()
    assert take(far) == b"onetwo"
    with pytest.raises(TypeError):
        sock.write_all("three")


def test_several_write_alls_leave_in_one_system_call(loop, pair):
    sock, _ = pair()
    sent = []

    def writer(data):
        sent.append(bytes(data))
        return len(data)

    def work():
        for number in range(5):
            sock.write_all(b"%d" % number)
        assert sent == []
        d.sleep(1)

    sock.set_writer_func(writer)
    result_of(work)
    assert sent == [b"01234"]


def test_what_a_task_wrote_leaves_when_it_ends(loop, pair):
    sock, far = pair()
    result_of(sock.write_all, b"last words")
    d.sleep(0)
    assert take(far) == b"last words"


def test_what_top_level_code_wrote_leaves_at_its_next_wait(loop, pair):
    sock, far = pair()
    sock.write_all(b"a line\n")
    d.sleep(0)
    assert take(far) == b"a line\n"


def test_write_and_write_all_keep_their_order(loop, pair):
    sock, far = pair(capacity=4)
    called = []

    def work():
        sock.write(b"aaaaaa")
        sock.write_all(b"bb")
        sock.write(b"cc")
        sock.write(lambda: called.append(sock.unsent))
        sock.write_all(b"dd")
        sock.drain()

    task = d.spawn(work)
    got = b""
    for _ in range(20):
        d.sleep(1)
        got += take(far)
    assert got == b"aaaaaabbccdd"
    assert task.done
    assert len(called) == 1


def test_a_slow_reader_holds_the_writer_back(loop, pair):
    sock, far = pair(Small, capacity=50)
    queued = []

    def work():
        for number in range(100):
            sock.write_all(b"%-10d" % number)
            queued.append(sock.unsent)

    task = d.spawn(work)
    d.sleep(100)
    assert not task.done
    assert len(queued) < 20
    got = b""
    for _ in range(300):
        got += take(far, 7)
        d.sleep(1)
    assert task.done
    assert got == b"".join(b"%-10d" % number for number in range(100))
    assert max(queued) <= Small.high_water + 10


def test_write_all_goes_on_below_the_low_water_mark(loop, pair):
    sock, far = blocked(pair)
    task = d.spawn(sock.write_all, b"more")
    d.sleep(1)
    far.capacity = 10
    left = []
    while not task.done and len(left) < 50:
        left.append(sock.unsent)
        take(far)
        d.sleep(1)
    assert task.done
    assert left[-1] - 10 <= Small.low_water < left[-2]


def test_a_parked_write_all_that_is_cancelled_queues_none_of_it(loop, pair):
    sock, far = blocked(pair)
    task = d.spawn(sock.write_all, b"never sent")
    d.sleep(1)
    assert not task.done
    task.cancel()
    far.capacity = 1000
    sock.drain()
    assert take(far) == b"x" * 101


def test_several_writers_may_wait_and_none_is_forgotten(loop, pair):
    sock, far = blocked(pair)
    tasks = [d.spawn(sock.write_all, b"%d;" % number * 40) for number in range(5)] + [d.spawn(sock.drain)]
    d.sleep(1)
    assert not any(task.done for task in tasks)
    far.capacity = 30
    got = b""
    for _ in range(100):
        got += take(far)
        d.sleep(1)
    assert all(task.done for task in tasks)
    assert got[:101] == b"x" * 101
    assert sorted(got[101:].split(b";")) == sorted([b"%d" % n for n in range(5)] * 40 + [b""])


class Bounded(Small):
    __slots__ = ("low_calls", "high_calls")
    max_unsent = 150

    def on_high_water(self):
        self.high_calls = getattr(self, "high_calls", 0) + 1


def test_one_write_all_over_the_hard_limit_raises_before_anything_is_queued(loop, pair):
    sock, far = pair(Bounded)
    with pytest.raises(d.LimitError, match="150") as caught:
        sock.write_all(b"y" * 151)
    assert caught.value.limit == 150
    assert sock.unsent == 0
    sock.write_all(b"z" * 150)
    sock.drain()
    assert take(far) == b"z" * 150
    assert not sock.closed


def test_write_all_parks_rather_than_reach_the_hard_limit(loop, pair):
    sock, far = pair(Bounded, capacity=0)
    sock.write_all(b"a" * 90)
    task = d.spawn(sock.write_all, b"b" * 90)
    d.sleep(1)
    assert not task.done
    assert not sock.closed
    assert sock.unsent == 90
    far.capacity = 1000
    d.sleep(1)
    assert task.result() is None
    sock.drain()
    assert take(far) == b"a" * 90 + b"b" * 90


def test_write_all_over_the_high_water_mark_calls_the_hook_once(loop, pair):
    sock, far = pair(Bounded, capacity=0)
    sock.write_all(b"a" * 101)
    assert sock.high_calls == 1
    far.capacity = 1000
    sock.drain()
    sock.write_all(b"a" * 101)
    assert sock.high_calls == 2


def test_drain_waits_until_the_kernel_took_everything(loop, pair):
    sock, far = pair(capacity=10)
    sock.write_all(b"x" * 35)
    task = d.spawn(sock.drain)
    for _ in range(3):
        d.sleep(1)
        assert not task.done
        assert take(far) == b"x" * 10
    d.sleep(1)
    assert task.done
    assert sock.unsent == 0


def test_drain_of_nothing_returns_at_once(loop, pair):
    sock, _ = pair()
    before = loop.clock()
    sock.drain()
    assert loop.clock() == before


@any_write
@pytest.mark.parametrize("go", ["reset", "close", "hang_up"])
def test_a_peer_that_goes_while_a_writer_is_parked_wakes_it(loop, pair, write, go):
    sock, far = blocked(pair)
    task = d.spawn(write, sock)
    d.sleep(1)
    incoming(far).extend(b"what it has not read when it goes")
    getattr(far, go)()
    task.join(10)
    with pytest.raises(ConnectionError):
        task.result()
    with pytest.raises(ConnectionError):
        sock.write_all(b"again")


def test_what_the_peer_sent_can_still_be_read_after_a_write_failed(loop, pair):
    sock, far = pair()
    far.send(b"its last line\n")
    sock.sock.writes.append(BrokenPipeError(32, "Broken pipe"))

    def work():
        sock.write_all(b"request\n")
        return sock.read_line()

    assert result_of(work) == b"its last line\n"
    with pytest.raises(BrokenPipeError):
        sock.write_all(b"more")


def test_what_the_peer_sent_can_still_be_read_when_the_write_failed_before_the_read(loop, pair):
    sock, far = pair()
    far.send(b"its last line\n")
    sock.sock.writes.append(BrokenPipeError(32, "Broken pipe"))

    def work():
        sock.write_all(b"request\n")
        d.sleep(1)
        return sock.read_line()

    assert result_of(work) == b"its last line\n"


# -- pushing back, and the block


def test_leaving_the_block_normally_drains_and_closes(loop, pair):
    sock, far = pair(capacity=10)

    def work():
        with sock as same:
            assert same is sock
            sock.write_all(b"x" * 25)

    task = d.spawn(work)
    got = b""
    for _ in range(5):
        d.sleep(1)
        got += take(far)
    assert got == b"x" * 25
    assert task.result() is None
    assert sock.closed


def test_leaving_the_block_by_an_exception_closes_at_once(loop, pair):
    sock, _ = pair(capacity=10)
    error = KeyError("mine")

    def work():
        with sock:
            sock.write_all(b"x" * 25)
            raise error

    task = d.spawn(work)
    task.join()
    assert loop.clock() == 1000
    with pytest.raises(KeyError):
        task.result()
    assert sock.closed
    assert repr(sock.close_reason) == repr(error)
    assert sock.unsent == 0


def test_a_cancel_in_the_block_closes_at_once(loop, pair):
    sock, _ = pair(capacity=0)

    def work():
        with sock:
            sock.write_all(b"x")
            d.sleep(100)

    task = d.spawn(work)
    d.sleep(1)
    task.cancel()
    task.join()
    assert sock.closed
    assert loop.clock() == 1001


def test_a_cancel_while_the_block_drains_closes_too(loop, pair):
    sock, _ = pair(capacity=0)

    def work():
        with sock:
            sock.write_all(b"x")

    task = d.spawn(work)
    d.sleep(1)
    assert not sock.closed
    task.cancel()
    task.join()
    assert sock.closed


def test_a_block_may_close_its_socket_itself(loop, pair):
    sock, _ = pair()
    with sock:
        sock.close("early")
    assert sock.close_reason == "early"


def test_finish_never_waits_and_nothing_of_the_reply_is_lost(loop, pair):
    sock, far = pair(capacity=10)

    def work():
        sock.write_all(b"x" * 25)
        before = loop.clock()
        sock.finish()
        assert loop.clock() == before
        with pytest.raises(d.ClosedError):
            sock.write_all(b"late")
        with pytest.raises(d.ClosedError):
            sock.read_line()

    far.send(b"unread input")
    result_of(work)
    got = b""
    for _ in range(5):
        d.sleep(0.1)
        got += take(far)
    assert got == b"x" * 25
    far.close()
    d.sleep(0.1)
    assert sock.closed


def test_a_write_callback_that_closes_ends_the_connection_after_the_data(loop, pair):
    sock, far = pair(capacity=4)
    sock.write(b"123456789")
    sock.write(sock.close)
    got = b""
    for _ in range(5):
        d.sleep(1)
        got += take(far)
    assert got == b"123456789"
    assert sock.closed


def test_room_that_comes_while_the_task_parks_for_it_wakes_the_task(loop, pair):
    sock, far = pair(capacity=1 << 20)
    sock.sock.writes.append(BLOCK)

    def work():
        sock.write_all(b"x" * 100_000)
        sock.write_all(b"y")  # the first attempt to make room is refused, the one when the task parks is not

    task = d.spawn(work)
    task.join(10)
    task.result()
    d.sleep(1)
    assert len(far.recv(200_000)) == 100_001


def test_a_queued_callable_that_raises_while_its_task_parks_costs_the_socket_and_not_the_wait(loop, pair, take_errors):
    sock, _far = pair()

    def work():
        sock.sock.writes.append(BLOCK)
        sock.write_all(b"before")
        sock.write(lambda: 1 / 0)
        d.sleep(1)
        return "slept"

    task = d.spawn(work)
    task.join(10)
    assert task.result() == "slept"
    assert sock.closed
    assert [type(context.exception) for context in take_errors()] == [ZeroDivisionError]


def test_a_closed_socket_is_left_like_any_other_call_that_may_park(loop, pair):
    def leave():
        sock, _ = pair()
        with d.no_parking(), pytest.raises(d.CannotParkError), sock:
            sock.close()

    task = d.spawn(leave)
    task.join()
    task.result()


# -- many writers


class Roomy(d.Socket):
    __slots__ = ()
    high_water = 1000
    low_water = 200


class RoomyBounded(Roomy):
    __slots__ = ()
    max_unsent = 1500


@pytest.fixture
def full(wires):
    """A socket above its high-water mark, and the peer's end."""
    sock, peer = wires(100)
    one = Roomy(sock)
    one.write(bytes(1101))
    return one, peer


def pump(peer, run_turns, size=100):
    """The peer reads so much, and the socket sends more."""
    data = peer.recv(size)
    run_turns(2)
    return data


@pytest.mark.in_order
def test_as_many_are_woken_as_there_is_room_for(loop, full, run_turns, monkeypatch):
    one, peer = full
    woken = []
    original = waiters.wake
    monkeypatch.setattr(waiters, "wake", lambda task, *error: woken.append(task) or original(task, *error))
    tasks = [d.spawn(one.write_all, b"%03d" % number + bytes(97)) for number in range(200)]
    run_turns(5)
    received = b""
    while not all(task.done for task in tasks) or one.unsent:
        received += pump(peer, run_turns)
    received += peer.recv(100)
    assert [int(received[at : at + 3]) for at in range(1101, len(received), 100)] == list(range(200))
    assert len(woken) <= 2 * 200  # rather than 200 times each time there is room
    assert one._drain_waiters is None


class Flushing(Small):
    """Flushes once more after each event."""

    __slots__ = ()

    def event_write(self):
        super().event_write()
        self.write(lambda: None)


@pytest.mark.in_order
def test_woken_writers_keep_their_order_when_there_is_a_flush_before_they_run(loop, pair, run_turns):
    """It finds an empty queue, and may not wake more of them than there is room for."""
    sock, far = pair(Flushing, capacity=50)
    sent = [letter * 200 for letter in (b"a", b"b", b"c", b"d", b"e")]
    tasks = [d.spawn(sock.write_all, piece) for piece in sent]
    received = b""
    for _ in range(200):
        run_turns(1)
        received += take(far, 40)
    assert all(task.done for task in tasks)
    assert received == b"".join(sent)


@pytest.mark.parametrize("how", ["cancelled", "hook"])
def test_room_that_a_woken_task_does_not_use_is_for_the_next(loop, wires, run_turns, how, take_errors):
    class Hooked(Roomy):
        __slots__ = ()
        low_water = 900

        def on_high_water(self):
            if d.current_task() is not None and d.current_task().name == "bad":
                raise KeyError("hook")

    sock, peer = wires(100)
    one = Hooked(sock)
    one.write(bytes(1101))
    bad = d.spawn(one.write_all, bytes(950))
    bad.name = "bad"
    good = d.spawn(one.write_all, b"good")
    run_turns(2)
    assert good.wait is bad.wait is not None
    if how == "cancelled":
        bad.cancel()
        run_turns(2)
    while one.unsent or not (good.done and bad.done):
        pump(peer, run_turns)
    assert good.done
    assert bad.done
    if how == "hook":
        (context,) = take_errors()
        assert repr(context.exception) == "KeyError('hook')"


@pytest.mark.parametrize("end", ["close", "finish", "write_eof", "reset", "error"])
def test_none_waits_for_ever_for_a_socket_that_ends(loop, full, run_turns, end, advance):
    one, peer = full
    errors = []

    def write():
        try:
            one.write_all(bytes(500))
        except OSError as error:
            errors.append(error)

    def drain():
        try:
            one.drain()
        except OSError as error:
            errors.append(error)

    tasks = [d.spawn(work) for _ in range(30) for work in (write, drain)]
    run_turns(3)
    if end == "reset":
        peer.reset()
    elif end == "error":
        one.sock.writes.append(OSError(32, "Broken pipe"))
        peer.recv(100)
    else:
        getattr(one, end)()
    for _ in range(40):
        try:
            peer.recv(100)
        except OSError:
            pass
        run_turns(2)
    assert all(task.done for task in tasks)
    assert len(errors) >= 30
    one.close()


@pytest.mark.parametrize("seed", first_quick(range(30), 10))
def test_whatever_comes_in_between_everybody_goes_on(loop, wires, run_turns, seed):
    random = Random(seed)
    sock, peer = wires(random.choice([50, 1000]))
    one = random.choice([Roomy, RoomyBounded])(sock)
    written = []
    tasks = []

    def write(number):
        data = b"%04d" % number + bytes(random.choice([1, 100, 600, 1400]))
        one.write_all(data)
        written.append(data)

    received = b""
    for number in range(150):
        step = random.random()
        if step < 0.6:
            tasks.append(d.spawn(write, number))
        elif step < 0.7:
            tasks.append(d.spawn(one.drain))
        elif step < 0.8 and tasks:
            random.choice(tasks).cancel()
        else:
            try:
                received += peer.recv(random.randrange(1, 2000))
            except BlockingIOError:
                pass
            run_turns(random.randrange(3))
    for _ in range(10_000):
        if all(task.done for task in tasks) and not one.unsent:
            break
        try:
            received += peer.recv(10_000)
        except BlockingIOError:
            pass
        run_turns(1)
    assert all(task.done for task in tasks)
    try:
        received += peer.recv(10_000)
    except BlockingIOError:
        pass
    assert received == b"".join(written)
    one.close()


@pytest.mark.in_order
def test_a_newcomer_waits_behind_those_who_wait(loop, pair, run_turns):
    """Between the marks there is room for it, and none yet for them: it would overtake them, time and again."""
    sock, far = pair(Small, capacity=50)
    first = [d.spawn(sock.write_all, letter * 150) for letter in (b"a", b"b")]
    run_turns(2)
    received = b""
    while sock.unsent > 60:
        received += take(far, 20)
        run_turns(1)
    assert not first[1].done
    newcomer = d.spawn(sock.write_all, b"n")
    for _ in range(100):
        run_turns(1)
        received += take(far, 20)
    assert received == b"a" * 150 + b"b" * 150 + b"n"
    assert all(task.done for task in (*first, newcomer))


def test_a_writer_that_fills_the_kernel_again_tells_the_poller_nothing(loop, pair, monkeypatch):
    class Small(d.Socket):
        __slots__ = ()
        high_water, low_water = 5, 2

    def work():
        sock.write_all(b"a" * 20)
        sock.write_all(b"b" * 20)

    sock, far = pair(Small, capacity=10)
    writer = d.spawn(work)
    d.sleep(0)
    assert sock.unsent == 10  # of the first one: the second one waits
    told = []
    monkeypatch.setattr(loop.poller, "modify", lambda *interest: told.append(interest))
    assert far.recv(10) == b"a" * 10
    writer.join(5)
    d.sleep(0)
    assert sock.unsent == 20
    assert told == []
