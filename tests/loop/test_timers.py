"""Timers: order, cancelling, what is let go of, and the heap."""

import contextvars
import math
import sys
import time
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dangagreen import Socket, Timer
from dangagreen.loop.timers import Timers

# -- on the loop


def test_timers_fire_in_the_order_of_their_deadlines(loop, advance):
    fired = []
    for seconds in (3, 1, 2):
        loop.add_timer(seconds, lambda seconds=seconds: fired.append((seconds, loop.time())))
    start = loop.time()
    advance(5)
    assert fired == [(1, start + 1), (2, start + 2), (3, start + 3)]


def test_equal_deadlines_keep_the_order_of_adding(loop, advance):
    fired = []
    for number in range(100):
        loop.add_timer(1, lambda number=number: fired.append(number))
    advance(2)
    assert fired == list(range(100))


def test_negative_seconds_count_as_none(loop, advance, run_turns):
    fired = []
    loop.add_timer(0, lambda: fired.append("zero"))
    loop.add_timer(-5, lambda: fired.append("negative"))
    run_turns(1)
    assert fired == ["zero", "negative"]


def test_a_timer_needs_no_socket_in_the_loop(loop):
    assert Socket.watched_sockets() == 0
    fired = []
    timer = Socket.add_timer(5, lambda: fired.append(1) or loop.stop())
    assert isinstance(timer, Timer)
    Socket.event_loop()
    assert fired == [1]
    assert not timer.active


def test_only_what_was_called_has_fired(loop, advance):
    seen = []
    timer, cancelled = loop.add_timer(1, lambda: seen.append((timer.fired, timer.active))), loop.add_timer(1, int)
    cancelled.cancel()
    assert not timer.fired
    advance(2)
    timer.cancel()
    assert seen == [(True, False)]
    assert timer.fired
    assert not cancelled.fired
    cleared = loop.add_timer(1, int)
    loop.reset()
    assert not cleared.active
    assert not cleared.fired


def test_a_timer_cancelled_before_does_not_fire(loop, advance):
    fired = []
    timers = [loop.add_timer(1, lambda number=number: fired.append(number)) for number in range(3)]
    assert timers[1].active
    timers[1].cancel()
    assert not timers[1].active
    timers[1].cancel()
    advance(2)
    assert fired == [0, 2]
    assert len(loop.timers) == 0


def test_a_timer_cancelled_while_it_fires_and_afterwards_is_harmless(loop, advance):
    fired = []

    def fire():
        fired.append(timer.active)
        timer.cancel()

    timer = loop.add_timer(1, fire)
    later = loop.add_timer(2, lambda: fired.append("later"))
    advance(1.5)
    timer.cancel()
    assert len(loop.timers) == 1
    assert later.active
    advance(1.5)
    assert fired == [False, "later"]
    assert len(loop.timers) == 0


def test_a_timer_cancels_another_that_is_due_in_the_same_turn(loop, advance):
    fired = []
    loop.add_timer(1, lambda: fired.append("first") or second.cancel())
    second = loop.add_timer(1, lambda: fired.append("second"))
    loop.add_timer(1, lambda: fired.append("third"))
    advance(2)
    assert fired == ["first", "third"]


def test_a_timer_added_by_a_timer_fires_when_it_is_due(loop, advance):
    fired = []
    start = loop.time()
    loop.add_timer(1, lambda: loop.add_timer(2, lambda: fired.append(loop.time() - start)))
    advance(5)
    assert fired == [3]


def test_a_timer_that_adds_itself_at_once_for_ever_does_not_starve_others(loop, wires, run_turns):
    class Reader(Socket):
        __slots__ = ("data",)

        def event_read(self):
            self.data = self.read(10)

    fired = []

    def again():
        fired.append(loop.poller.waits)
        again.timer = loop.add_timer(0, again)

    sock, peer = wires()
    one = Reader(sock)
    one.data = b""
    one.watch_read(True)
    peer.send(b"x")
    again()
    run_turns(5)
    again.timer.cancel()
    assert one.data == b"x"
    assert len(fired) == len(set(fired)) == 6


def test_a_timer_added_by_a_timer_does_not_delay_those_that_are_due_already(loop, advance):
    fired = []
    loop.add_timer(1, lambda: loop.add_timer(0, lambda: fired.append("added")))
    loop.add_timer(2, lambda: fired.append("due"))
    loop.clock.jump(10)
    advance(1)
    assert fired == ["due", "added"]


def test_no_timer_fires_early_and_no_turn_is_spent_before_it_is_due(real_loop):
    late = []
    for seconds in (0.0101, 0.0137, 0.0201, 0.0299):
        due = time.monotonic() + seconds
        real_loop.add_timer(seconds, lambda due=due: late.append(time.monotonic() - due))
    turns = 0

    def until():
        nonlocal turns
        turns += 1
        assert turns < 100
        return len(late) == 4

    real_loop.run(until)
    assert all(lateness >= 0 for lateness in late)
    assert turns <= 4


def test_the_loop_sleeps_until_the_next_deadline_and_not_for_a_cancelled_one(loop, advance):
    loop.add_timer(1, lambda: None).cancel()
    loop.add_timer(100, lambda: None).cancel()
    waits = loop.poller.waits
    advance(50)
    assert loop.poller.waits - waits == 1


def test_a_timer_runs_in_a_copy_of_the_context_it_was_made_in(loop, advance):
    variable = contextvars.ContextVar("variable", default="outside")
    seen = []

    def fire():
        seen.append(variable.get())
        variable.set("set by the timer")

    token = variable.set("inside")
    loop.add_timer(1, fire)
    loop.add_timer(2, fire)
    variable.reset(token)
    advance(3)
    assert seen == ["inside", "inside"]
    assert variable.get() == "outside"


class Payload:
    """Something that can be referred to weakly."""


def test_cancelling_and_firing_let_go_of_the_callback_at_once(loop, advance):
    alive = [Payload(), Payload()]
    references = [weakref.ref(payload) for payload in alive]
    cancelled, fired = (loop.add_timer(1, lambda payload=payload: payload) for payload in alive)
    alive.clear()
    assert all(reference() for reference in references)
    cancelled.cancel()
    assert references[0]() is None
    advance(2)
    assert references[1]() is None
    assert not fired.active


@pytest.mark.slow
def test_a_million_timers_added_and_cancelled_leave_no_memory_behind(loop):
    keep = loop.add_timer(1e6, lambda: None)
    for _ in range(1000):
        loop.timers.add(loop.clock() + 60, print).cancel()
    before = sys.getallocatedblocks()
    for _ in range(1000):
        batch = [loop.timers.add(loop.clock() + 60 + number, print) for number in range(1000)]
        for timer in batch:
            timer.cancel()
    del batch, timer
    assert sys.getallocatedblocks() - before < 5000
    assert len(loop.timers) == 1
    keep.cancel()
    assert len(loop.timers) == 0


def test_many_timers_cancelled_under_one_that_stays_leave_no_memory_behind(loop):
    keep = [loop.timers.add(float(number), print) for number in range(10)]  # the first ones in the heap
    before = sys.getallocatedblocks()
    for _ in range(100_000):
        loop.timers.add(1e9, print).cancel()
    assert sys.getallocatedblocks() - before < 5000
    assert len(loop.timers) == 10
    assert all(timer.active for timer in keep)
    loop.timers.clear()
    assert not any(timer.active for timer in keep)


def test_a_timers_words_tell_what_it_does_and_whether_it_is_done(loop):
    timer = loop.add_timer(1, print)
    assert "print" in repr(timer)
    timer.cancel()
    assert "done" in repr(timer)


# -- the heap alone


def drained(timers, now):
    """The deadlines of all that are due, in the order in which they come out."""
    mark, due = timers.mark(), []
    while (timer := timers.pop_due(now, mark)) is not None:
        due.append(timer.deadline)
        timer.fire()
    return due


@pytest.fixture(params=[math.inf, 0.0], ids=["soon", "later"])
def timers(request):
    """Empty ones, which take all timers for near ones, or those of the next second only."""
    return Timers(None, request.param)


def test_only_what_is_due_comes_out_and_what_is_added_behind_the_mark_stays(timers):
    for deadline in (5, 1, 3):
        timers.add(deadline, lambda: None)
    mark = timers.mark()
    timers.add(0, lambda: None)
    assert timers.pop_due(0, mark) is None
    assert timers.next_deadline() == 0
    assert drained(timers, 3) == [0, 1, 3]
    assert len(timers) == 1
    assert timers.next_deadline() == 5
    timers.clear()
    assert timers.next_deadline() is None
    assert len(timers) == 0


def test_those_that_are_first_fire_before_others_of_their_deadline(timers):
    fired = []
    for number in range(6):
        add = timers.add_first if number % 2 else timers.add
        add(5, lambda number=number: fired.append(number))
    timers.add_first(6, lambda: fired.append("later"))
    timers.add(4, lambda: fired.append("sooner"))
    drained(timers, 10)
    assert fired == ["sooner", 1, 3, 5, 0, 2, 4, "later"]


@pytest.mark.parametrize("order", [1, -1])
def test_cancelling_nearly_all_keeps_the_order_of_the_others(order, timers):
    fired = []
    made = [timers.add(number, lambda number=number: fired.append(number)) for number in range(1000)][::order]
    for timer in made:
        if timer.deadline % 100:
            timer.cancel()
    assert len(timers) == 10
    assert drained(timers, 1000) == fired == list(range(0, 1000, 100))
    assert len(timers) == 0


@given(
    st.sampled_from([math.inf, 0.0, -100.0]),
    st.lists(
        st.tuples(st.sampled_from(["add", "cancel", "pop"]), st.integers(min_value=-20, max_value=50)), max_size=400
    ),
)
def test_the_heap_behaves_as_a_sorted_list_does(now, steps):
    timers, model = Timers(None, now), []
    for number, (step, value) in enumerate(steps):
        if step == "add":
            model.append((value / 4, number, timers.add(value / 4, lambda: None)))
        elif step == "cancel" and model:
            model.pop(value % len(model))[2].cancel()
        elif step == "pop":
            due = sorted(entry[:2] for entry in model if entry[0] <= value / 4)
            model = [entry for entry in model if entry[0] > value / 4]
            assert drained(timers, value / 4) == [deadline for deadline, _ in due]
        assert len(timers) == len(model)
        assert timers.pending() == [entry[2] for entry in model]
        if value % 2:
            assert timers.next_deadline() == min((entry[0] for entry in model), default=None)


def test_a_far_timer_that_is_cancelled_has_left_nothing_in_the_heap():
    timers = Timers(None, 0.0)
    near, far = timers.add(0.5, int), timers.add(100.5, int)
    for number in range(1000):
        timers.add(100 + number / 1000, int).cancel()
    assert len(timers.heap) == 2
    far.cancel()
    assert timers.next_deadline() == 0.5
    near.cancel()
    assert timers.next_deadline() is None
    assert (timers.heap, timers.later) == ([], {})


def test_timers_of_any_number_of_seconds_leave_no_memory_behind_when_they_are_cancelled():
    timers = Timers(None, 0.0)
    kept = [timers.add(number + 0.5, int) for number in range(5, 100, 10)]
    for number in range(10_000):
        timers.add(number * 7 + 2.0, int).cancel()
        assert len(timers.heap) < 250
        assert len(timers.later) < 250
    assert drained(timers, 100.0) == [timer.deadline for timer in kept]


@pytest.mark.parametrize("never", [math.inf, math.nan])
def test_a_time_that_is_in_no_second_harms_no_others(never):
    timers = Timers(None, 0.0)
    odd = timers.add(never, int)
    timers.add(100.5, int)
    odd.cancel()
    assert drained(timers, 1000.0) == [100.5]


def test_all_that_are_to_fire_in_the_order_of_their_adding():
    timers = Timers(None, 0.0)
    made = [timers.add(deadline, int) for deadline in (200.5, 0.5, 100.5, 200.25)]
    made.append(timers.add_first(150.0, int))
    made.append(timers.add(0.25, int))
    made.pop(2).cancel()
    assert timers.pending() == made
    assert drained(timers, 1.0) == [0.25, 0.5]
    made = [timer for timer in made if timer.active]
    assert timers.pending() == made
    assert timers.next_deadline() == 150.0
    timers.clear()
    assert (timers.pending(), len(timers), timers.next_deadline(), timers.heap) == ([], 0, None, [])
    assert not any(timer.active for timer in made)


def test_what_is_soon_moves_with_the_clock(loop, advance):
    far = [loop.add_timer(seconds, int) for seconds in (0.5, 5.0, 50.0)]
    assert len(loop.timers.heap) == 3  # the first, and the seconds of the others
    assert len(loop.timers.later) == 2
    advance(20)
    assert [timer.active for timer in far] == [False, False, True]
    loop.add_timer(0.5, int)
    loop.add_timer(30.0, int)
    assert (len(loop.timers.later), len(loop.timers)) == (1, 3)  # that of 50 seconds was next, and was looked at
    loop.timers.clear()


def test_a_weak_reference_to_a_timer(loop, advance):
    fired = []
    timer = loop.add_timer(1, lambda: fired.append(1))
    reference = weakref.ref(timer)
    del timer
    assert reference() is not None  # the loop holds what is to fire
    advance(2)
    assert fired == [1]
    assert reference() is None


def test_timers_that_share_take_the_place_of_others(loop):
    one, other, fired = Timers(), Timers(), []
    early = one.add(1.0, lambda: fired.append("early"))
    late = one.add(2.0, lambda: fired.append("late"))
    other.share(one)
    other.add(1.5, lambda: fired.append("between"))
    late.cancel()
    assert early.active
    assert other.next_deadline() == 1.0
    while (timer := other.pop_due(5.0, other.mark())) is not None:
        timer.fire()
    assert fired == ["early", "between"]
    assert len(one) == 0
