"""Channel and Future: from hand to hand or by way of a buffer, closing, one value for many."""

from __future__ import annotations

import math
import queue
import traceback

import pytest

import dangagreen as d
from tests.helpers import results, spawn_all
from tests.inside import waiting_for


def receivers(channel, n):
    return spawn_all(lambda _: channel.receive(), range(n))


# -- sending and receiving


def test_without_capacity_a_sender_waits_for_its_receiver(loop):
    channel = d.Channel()
    (sender,) = spawn_all(channel.send, ["item"])
    d.sleep(5)
    assert not sender.done
    assert channel.buffered == 0
    assert channel.receive() == "item"
    assert results([sender]) == [None]


def test_without_capacity_a_receiver_that_waits_is_served_at_once(loop):
    channel = d.Channel()
    (receiver,) = receivers(channel, 1)
    channel.send("item")
    assert results([receiver]) == ["item"]
    assert loop.clock() == 1000


def test_without_capacity_nothing_is_sent_or_received_without_waiting(loop):
    channel = d.Channel()
    with pytest.raises(queue.Full):
        channel.send_nowait("item")
    with pytest.raises(queue.Empty):
        channel.receive_nowait()
    receiving = receivers(channel, 1)
    channel.send_nowait("first")
    with pytest.raises(queue.Full):
        channel.send_nowait("second")
    sending = spawn_all(channel.send, ["third"])
    assert channel.receive_nowait() == "third"
    assert results(receiving + sending) == ["first", None]


def test_a_capacity_is_what_may_be_sent_ahead(loop):
    channel = d.Channel(2)
    channel.send(1)
    channel.send_nowait(2)
    with pytest.raises(queue.Full):
        channel.send_nowait(3)
    assert (channel.buffered, channel.capacity) == (2, 2)
    (sender,) = spawn_all(channel.send, [3])
    assert channel.receive() == 1
    assert results([sender]) == [None]
    assert [channel.receive_nowait(), channel.receive()] == [2, 3]
    with pytest.raises(queue.Empty):
        channel.receive_nowait()


def test_the_capacity_may_be_infinite_but_not_negative(loop):
    channel = d.Channel(math.inf)
    for number in range(1000):
        channel.send_nowait(number)
    assert channel.buffered == 1000
    for bad in (-1, math.nan):
        with pytest.raises(ValueError, match="capacity"):
            d.Channel(bad)


@pytest.mark.in_order
@pytest.mark.parametrize("capacity", [0, 1, 3])
def test_senders_and_receivers_are_served_in_the_order_in_which_they_came(loop, capacity):
    channel = d.Channel(capacity)
    senders = [d.spawn(channel.send, number) for number in range(6)]
    d.sleep(0)
    assert [task.done for task in senders] == [True] * capacity + [False] * (6 - capacity)
    assert [channel.receive() for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    results(senders)
    waiting = receivers(channel, 6)
    for number in range(6):
        channel.send(number)
    assert results(waiting) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("capacity", [0, 1, 3])
def test_many_senders_and_receivers(loop, capacity):
    channel = d.Channel(capacity)
    senders = [d.spawn(lambda n=n: [channel.send((n, item)) for item in range(50)]) for n in range(5)]
    takers = [d.spawn(list, channel) for _ in range(3)]
    for task in senders:
        task.join()
    channel.close()
    got = [item for items in results(takers) for item in items]
    assert sorted(got) == [(n, item) for n in range(5) for item in range(50)]


def test_an_item_that_was_given_away_cannot_be_overtaken(loop):
    channel = d.Channel(1)
    (receiver,) = receivers(channel, 1)
    channel.send_nowait("for the receiver")
    with pytest.raises(queue.Empty):
        channel.receive_nowait()
    channel.send_nowait("next")
    assert channel.receive() == "next"
    assert results([receiver]) == ["for the receiver"]


# -- cancellation


@pytest.mark.parametrize("capacity", [0, 1])
def test_a_cancelled_receive_takes_nothing(loop, capacity):
    channel = d.Channel(capacity)
    first, second = receivers(channel, 2)
    first.cancel()
    channel.send("item")
    assert results([second]) == ["item"]
    with pytest.raises(d.TaskCancelledError):
        first.result()


def test_a_receive_that_was_given_its_item_returns_it(loop):
    channel = d.Channel()
    (task,) = receivers(channel, 1)
    channel.send_nowait("item")
    task.cancel()
    assert results([task]) == ["item"]


def test_a_cancelled_send_has_sent_nothing(loop):
    channel = d.Channel()
    first, second = spawn_all(channel.send, ["first", "second"])
    first.cancel()
    assert channel.receive() == "second"
    assert results([second]) == [None]
    with pytest.raises(d.TaskCancelledError):
        first.result()


def test_a_send_whose_item_was_taken_returns(loop):
    channel = d.Channel()
    (task,) = spawn_all(channel.send, ["item"])
    assert channel.receive_nowait() == "item"
    task.cancel()
    assert results([task]) == [None]


def test_what_interrupted_top_level_code_was_given_is_not_lost(loop):
    channel = d.Channel()

    def interrupt():
        channel.send_nowait("item")
        raise KeyboardInterrupt

    loop.call_soon(interrupt)
    with pytest.raises(KeyboardInterrupt):
        channel.receive()
    assert channel.buffered == 1
    assert channel.receive() == "item"


# -- the end


def test_after_closing_nothing_is_sent_and_what_was_sent_is_received(loop):
    channel = d.Channel(2)
    channel.send(1)
    channel.send(2)
    assert not channel.closed
    channel.close()
    channel.close()
    assert channel.closed
    for send in (channel.send, channel.send_nowait):
        with pytest.raises(d.ClosedChannelError, match="nothing can be sent"):
            send(3)
    assert [channel.receive(), channel.receive_nowait()] == [1, 2]
    for receive in (channel.receive, channel.receive_nowait):
        with pytest.raises(d.ChannelEnd, match="has been received"):
            receive()
    assert issubclass(d.ChannelEnd, EOFError)


def test_closing_ends_the_wait_of_receivers(loop):
    channel = d.Channel()
    waiting = receivers(channel, 3)
    channel.close()
    assert list(map(type, results(waiting))) == [d.ChannelEnd] * 3


@pytest.mark.parametrize("capacity", [0, 1])
def test_closing_ends_the_wait_of_senders_who_have_sent_nothing(loop, capacity):
    channel = d.Channel(capacity)
    for _ in range(capacity):
        channel.send("sent")
    waiting = spawn_all(channel.send, range(3))
    channel.close()
    assert list(map(type, results(waiting))) == [d.ClosedChannelError] * 3
    assert list(channel) == ["sent"] * capacity


@pytest.mark.in_order
def test_what_was_given_before_closing_arrives(loop):
    channel = d.Channel()
    waiting = receivers(channel, 2)
    channel.send_nowait("item")
    channel.close()
    item, end = results(waiting)
    assert item == "item"
    assert isinstance(end, d.ChannelEnd)


def test_iteration_ends_when_it_is_closed_and_empty(loop):
    channel = d.Channel(2)

    def produce():
        for number in range(5):
            channel.send(number)
        channel.close()

    d.spawn(produce)
    assert list(channel) == [0, 1, 2, 3, 4]
    assert list(channel) == []


def test_the_end_of_another_channel_is_not_mistaken_for_its_own(loop):
    channel, other = d.Channel(1), d.Channel()
    channel.send(1)
    other.close()

    def forward():
        for _ in channel:
            other.receive()

    with pytest.raises(d.ChannelEnd):
        forward()


def test_a_handler_that_lets_the_end_of_a_channel_out_has_failed(loop, take_errors):
    channel = d.Channel()
    channel.close()
    listener = d.serve(("127.0.0.1", 0), lambda sock: channel.receive())
    with d.connect(listener.address) as sock:
        assert sock.read_to_end() == b""
    listener.close()
    (context,) = take_errors()
    assert isinstance(context.exception, d.ChannelEnd)  # an EOFError, but not that of the handler's connection


# -- where it may be used


def test_a_channel_works_in_callbacks_where_it_need_not_wait(loop):
    channel = d.Channel(1)
    seen = []

    def callback():
        channel.send_nowait(1)
        seen.append(channel.receive_nowait())
        for call in (channel.receive, lambda: channel.send(2)):
            with pytest.raises(d.CannotParkError, match="callback"):
                call()
        channel.close()
        seen.append(channel.closed)

    loop.call_soon(callback)
    d.sleep(0)
    assert seen == [1, True]


def test_a_callback_serves_those_who_wait(loop):
    channel = d.Channel()
    receiving = receivers(channel, 1)
    loop.call_soon(channel.send_nowait, "item")
    assert results(receiving) == ["item"]
    sending = spawn_all(channel.send, ["back"])
    seen = []
    loop.call_soon(lambda: seen.append(channel.receive_nowait()))
    assert results(sending) == [None]
    assert seen == ["back"]


def test_plain_top_level_code_sends_and_receives(loop):
    numbers, squares = d.Channel(), d.Channel()
    d.spawn(lambda: [squares.send(number * number) for number in numbers])
    got = []
    for number in range(3):
        numbers.send(number)
        got.append(squares.receive())
    assert got == [0, 1, 4]
    numbers.close()
    d.sleep(0)


@pytest.mark.parametrize("call", ["send", "send_nowait", "receive", "receive_nowait", "close", "__iter__"])
def test_another_thread_is_refused(loop, in_thread, call):
    channel = d.Channel(2)
    channel.send(0)

    def use():
        answer = getattr(channel, call)(*[1] if "send" in call else [])
        if call == "__iter__":
            next(answer)

    with pytest.raises(d.ForeignThreadError, match="the other one"):
        in_thread(use)
    assert channel.buffered == 1
    assert not channel.closed


def test_a_channel_in_words(loop):
    channel, other = d.Channel(), d.Channel(2)
    assert repr(channel) == "<Channel, without capacity>"
    other.send(1)
    assert repr(other) == "<Channel, 1 of 2 items>"
    sender, receiver = spawn_all(lambda call: call(), [lambda: channel.send(1), d.Channel(2).receive])
    assert sender.waits_for == "send of <Channel, without capacity>"
    assert receiver.waits_for == "receive of <Channel, 0 of 2 items>"
    channel.close()
    assert repr(channel) == "<Channel, without capacity, closed>"
    receiver.cancel()
    d.sleep(0)


def test_it_belongs_to_the_loop_that_it_was_given(loop):
    with d.Loop() as other:
        pass
    for make in (d.Channel, d.Future):
        assert make().loop is loop
        assert make(loop=other).loop is other


# -- Future


def test_many_wait_for_one_result(loop):
    result = d.Future()
    waiting = spawn_all(lambda _: result.wait(), range(5))
    assert not result.done
    result.set_result("value")
    assert result.done
    assert results(waiting) == ["value"] * 5
    assert result.wait() == "value"
    assert result.result() == "value"


@pytest.mark.parametrize("value", [None, False, KeyError("a value")])
def test_any_object_is_a_value(loop, value):
    result = d.Future()
    result.set_result(value)
    assert result.wait() is value


def test_many_get_one_exception(loop):
    result, error = d.Future(), KeyError("mine")
    waiting = spawn_all(lambda _: result.wait(), range(3))
    result.set_exception(error)
    assert results(waiting) == [error] * 3
    for call in (result.wait, result.result):
        with pytest.raises(KeyError) as caught:
            call()
        assert caught.value is error


def test_the_traceback_of_an_exception_does_not_grow(loop):
    result = d.Future()

    def where_it_comes_from():
        raise KeyError("mine")

    try:
        where_it_comes_from()
    except KeyError as error:
        result.set_exception(error)
    sizes = []
    for _ in range(3):
        with pytest.raises(KeyError) as caught:
            result.wait()
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert frames[-1].name == "where_it_comes_from"
        sizes.append(len(frames))
    assert len(set(sizes)) == 1


def test_a_result_is_set_once(loop):
    result = d.Future()
    result.set_result(1)
    with pytest.raises(RuntimeError, match="only once"):
        result.set_result(2)
    with pytest.raises(RuntimeError, match="only once"):
        result.set_exception(KeyError())
    assert result.result() == 1
    failed = d.Future()
    failed.set_exception(KeyError())
    with pytest.raises(RuntimeError, match="only once"):
        failed.set_result(2)


def test_an_exception_is_an_exception(loop):
    result = d.Future()
    for what in (KeyError, "KeyError"):
        with pytest.raises(TypeError, match="exception"):
            result.set_exception(what)
    assert not result.done


def test_the_cancellation_of_who_should_have_set_it_is_not_that_of_who_waits(loop):
    result = d.Future()

    def work():
        try:
            d.sleep(10)
        except BaseException as error:
            result.set_exception(error)
            raise

    (task,) = spawn_all(lambda _: work(), [0])
    task.cancel("enough")
    with pytest.raises(d.TaskCancelledError) as caught:
        result.wait()
    assert caught.value.reason == "enough"


def test_result_before_it_is_set_raises_at_once(loop):
    with pytest.raises(RuntimeError, match="wait"):
        d.Future().result()


def test_wait_times_out(loop):
    result = d.Future()
    with pytest.raises(TimeoutError, match="wait"):
        result.wait(2)
    assert loop.clock() == 1002
    assert waiting_for(result) == 0
    loop.add_timer(1, lambda: result.set_result("late"))
    assert result.wait(timeout=2) == "late"
    assert len(loop.timers) == 0


def test_who_is_cancelled_waits_no_more_and_the_others_do(loop):
    result = d.Future()
    first, second = spawn_all(lambda _: result.wait(), range(2))
    first.cancel()
    result.set_result("value")
    assert results([second]) == ["value"]
    with pytest.raises(d.TaskCancelledError):
        first.result()


def test_who_was_woken_gets_the_value_although_cancelled_meanwhile(loop):
    result = d.Future()
    (task,) = spawn_all(lambda _: result.wait(), [0])
    result.set_result("value")
    task.cancel()
    assert results([task]) == ["value"]


def test_a_cancelled_task_gets_no_value_even_if_it_is_set(loop):
    result = d.Future()
    result.set_result("value")

    def myself():
        d.current_task().cancel()
        return result.wait()

    task = d.spawn(myself)
    task.join()
    with pytest.raises(d.TaskCancelledError):
        task.result()


def test_a_callback_sets_a_result_but_does_not_wait_for_it(loop):
    result, seen = d.Future(), []

    def callback():
        with pytest.raises(d.CannotParkError, match="wait"):
            result.wait()
        result.set_result(1)
        seen.append(result.result())

    loop.call_soon(callback)
    assert result.wait() == 1
    assert seen == [1]


@pytest.mark.parametrize("call", ["set_result", "set_exception", "wait"])
def test_a_result_refuses_another_thread(loop, in_thread, call):
    result = d.Future()
    with pytest.raises(d.ForeignThreadError, match="the other one"):
        in_thread(getattr(result, call), *[KeyError()] if call != "wait" else [])
    assert not result.done


def test_another_thread_sets_a_result_by_way_of_the_loop(real_loop, in_thread):
    result = d.Future()
    in_thread(real_loop.call_soon_threadsafe, result.set_result, "from afar")
    assert result.wait(5) == "from afar"


def test_a_result_in_words(loop):
    result = d.Future()
    assert repr(result) == "<Future, not set>"
    (task,) = spawn_all(lambda _: result.wait(), [0])
    assert task.waits_for == "wait of <Future, not set>"
    result.set_result("x")
    assert repr(result) == "<Future: 'x'>"
    failed = d.Future()
    failed.set_exception(KeyError("y"))
    assert repr(failed) == "<Future: KeyError('y')>"
    results([task])
